"""Does replay tell the truth? The funnel really run at several settings, beside what replay says of them.

One instrumented pass is replayed; every setting is then run for real, in runs of its own (`<run>_setting1`, …), and
so is the agent alone. Task by task they take turns, in an order that changes from task to task, so that a machine
that gets slower or faster meanwhile does so for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ..inference.stages import run_agent_stage, run_draft_stage
from ..judging.stage import run_judging
from ..params import AgentParams, DraftParams, FidelityParams, JudgingParams
from ..replay import outcomes, replay_data
from ..replay.settings import Setting
from ..runs import recorded_run
from ..runs.stage import finish_stage
from . import sample_frame

STAGE = "study_replay_fidelity"
Progress = Callable[[int, int, str], None]


def settings_of(params: FidelityParams) -> list[Setting]:
    """The settings to run; raises UserError that names one which cannot be read."""
    return [Setting.parse(text) for text in params.settings]


def run_fidelity(params: FidelityParams, progress: Progress = lambda done, total, text: None) -> list[Path]:
    """Run and judge the instrumented pass, the agent alone and every setting; returns the finished stage folders.

    What an earlier session finished stays. Its times are then of another hour: for times side by side, run all at
    once, on a machine with nothing else to do.
    """
    arms = _arms(params)
    folders = []
    for turn, task in enumerate(params.tasks):
        folders += run_draft_stage(_drafting(params, task), _told(progress, "draft"))
        first = turn % len(arms)
        for arm in arms[first:] + arms[:first]:
            one = arm.model_copy(update={"tasks": [task]})
            folders += run_agent_stage(one, _told(progress, one.run))
    for arm in arms:
        judging = JudgingParams(run=arm.run, tasks=params.tasks, arms=arm.arms, data_root=params.data_root)
        folders += run_judging(judging)
    return folders


def compare_with_replay(
    params: FidelityParams, data: replay_data.ReplayData
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replay beside what was measured: one row per setting, and the samples on which they disagree.

    Columns of the first: `setting`, `n`, the numbers of samples whose `decisions_differ`, `answers_differ` (text of
    the final answer) and `verdicts_differ`; `confidence_off`, the largest difference in confidence (drafts in other
    batches round differently); then `accuracy_pct`, `accepted`, `wall_s` and `speedup`, each predicted and
    measured, `off_pct` of the speedup, and `cost_note`. The speedup is over the agent alone with as many agents at
    once.
    """
    rows, differing = [], []
    instrumented = recorded_run.open(params.run, tasks=params.tasks)
    answers = sample_frame.samples(instrumented, ["collect"]).set_index("id")[
        ["draft_answer", "agent_answer"]
    ]
    for at, setting in enumerate(settings_of(params), 1):
        told = outcomes.decisions(data, setting).set_index("id").join(answers)
        told["answer"] = told["draft_answer"].where(told["used"] == "small", told["agent_answer"])
        really = _measured(_run_of(params, at), params.tasks, "gated").loc[told.index]
        alone = _measured(_alone(params, setting.agent_batch_size), params.tasks, "baseline")
        same = pd.DataFrame(
            {
                "decision": told["decision"] == really["decision"],
                "answer": told["answer"].fillna("") == really["answer"].fillna(""),
                "verdict": told["right"].fillna(False).astype(bool) == really["right"],
            }
        )
        columns = ["decision", "confidence", "answer", "right"]
        both = told[columns].add_suffix("_predicted").join(really[columns].add_suffix("_measured"))
        both.insert(0, "task", told["task"])
        differing.append(both[~same.all(axis=1)].assign(setting=str(setting)))
        pooled = outcomes.replay(data, setting).set_index("task").loc[outcomes.POOLED]
        measured = float(alone["wall_s"].sum() / really["wall_s"].sum())
        off = (told["confidence"] - really["confidence"]).abs().max()
        rows.append(
            {
                "setting": str(setting),
                "n": len(told),
                "decisions_differ": int((~same["decision"]).sum()),
                "answers_differ": int((~same["answer"]).sum()),
                "verdicts_differ": int((~same["verdict"]).sum()),
                "confidence_off": float(off),
                "accuracy_pct_predicted": pooled["accuracy_pct"],
                "accuracy_pct_measured": 100.0 * float(really["right"].mean()),
                "accepted_predicted": int(pooled["accepted"]),
                "accepted_measured": int((really["decision"] == "accepted").sum()),
                "wall_s_predicted": pooled["wall_s"],
                "wall_s_measured": float(really["wall_s"].sum()),
                "speedup_predicted": pooled["speedup"],
                "speedup_measured": measured,
                "off_pct": 100.0 * (pooled["speedup"] / measured - 1.0),
                "cost_note": pooled["cost_note"],
            }
        )
    return pd.DataFrame(rows), pd.concat(differing).rename_axis("id").reset_index()


def write_fidelity(
    params: FidelityParams, table: pd.DataFrame, differing: pd.DataFrame, figures: Sequence[Path]
) -> Path:
    """Finish the stage folder: both tables as CSV, and a manifest that names every run they are from."""
    inputs = {
        f"{arm.run}/{stage}": digest
        for arm in _arms(params)
        for stage, digest in recorded_run.open(arm.run, tasks=params.tasks).inputs(arm.arms).items()
    }
    files = {"settings.csv": table, "differing.csv": differing}
    n = int(table["n"].sum())
    return finish_stage(params.run, STAGE, params.stage_config(), files, n, inputs, figures=figures)


# ------------------------------------------------------------------------------------------------- what is run
def _run_of(params: FidelityParams, number: int) -> str:
    return f"{params.run}_setting{number}"


def _alone(params: FidelityParams, agents: int) -> str:
    """The run that holds the agent alone; one at a time, it is part of the instrumented run."""
    return params.run if agents == 1 else f"{params.run}_agents{agents}"


def _drafting(params: FidelityParams, task: str) -> DraftParams:
    shared = set(DraftParams.model_fields) & set(FidelityParams.model_fields)
    return DraftParams(**params.model_dump(include=shared) | {"tasks": [task]})


def _arms(params: FidelityParams) -> list[AgentParams]:
    """Everything that notebook 02 would be asked to run, one arm each."""
    shared = set(AgentParams.model_fields) & set(FidelityParams.model_fields)
    common = AgentParams(
        **params.model_dump(include=shared),
        arms=["collect"],
        first_look=False,
        router_small=True,
        threshold=1.0,
    )
    settings = settings_of(params)
    arms = [common]
    for agents in sorted({1} | {s.agent_batch_size for s in settings}):
        alone = {"run": _alone(params, agents), "arms": ["baseline"], "agent_batch_size": agents}
        arms.append(common.model_copy(update=alone))
    for at, s in enumerate(settings, 1):
        gate = {"score": s.score, "k": s.k, "slope": s.slope, "threshold": s.threshold, "router": s.router}
        sizes = {"batch_size": s.batch_size, "agent_batch_size": s.agent_batch_size}
        run = {"run": _run_of(params, at), "arms": ["gated"]}
        arms.append(AgentParams(**common.model_dump() | gate | sizes | run))
    return arms


def _told(progress: Progress, run: str) -> Progress:
    """Progress whose legs are told apart by run as well."""
    return lambda done, total, text="": progress(done, total, f"{text} · {run}")


def _measured(run: str, tasks: Sequence[str], name: str) -> pd.DataFrame:
    """What an arm really did, by sample id: decision, answer, right, wall_s and confidence."""
    recorded = recorded_run.open(run, tasks=tasks)
    confidence = {id_: record.confidence for id_, record in recorded.records(name).items()}
    part = sample_frame.arm(sample_frame.samples(recorded, [name]), name).set_index("id")
    return part.assign(confidence=pd.Series(confidence, dtype="float64"))
