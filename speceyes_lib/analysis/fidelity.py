"""Is replay true? The funnel really run at several settings, beside what replay predicts for them.

One instrumented pass is replayed. Every setting is then run for real, in runs of its own (`<run>_setting1`, …), and
so is the agent alone. Settings with several agents at once run as `gated_batched`. What that engine saves is calibrated
on one pass of `gated_batched` that accepts nothing, which is no setting of the study. Task by task they take turns, in
an order that changes from task to task, so that a machine that becomes slower or faster meanwhile does so for all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ..errors import build
from ..inference.stages import run_agent_stage, run_draft_stage
from ..judging.stage import run_judging
from ..params import AgentParams, DraftParams, FidelityParams, JudgingParams
from ..replay import outcomes, replay_data
from ..replay.settings import Setting
from ..runs import recorded_run
from ..runs.arms import BATCHED
from ..runs.stage import finish_stage
from . import sample_frame

STAGE = "study_replay_fidelity"
Progress = Callable[[int, int, str], None]


def settings_of(params: FidelityParams) -> list[Setting]:
    """The settings to run; raises UserError naming one that cannot be read."""
    return [Setting.parse(text) for text in params.settings]


def run_fidelity(params: FidelityParams, progress: Progress = lambda done, total, text: None) -> list[Path]:
    """Run and judge the instrumented pass, the agent alone and every setting; returns the finished stage folders.

    What an earlier session finished is kept, with its times. For times side by side, run everything in one session, on
    a machine with nothing else to do.
    """
    arms = _arms(params)
    folders = []
    for turn, task in enumerate(params.tasks):
        shared = set(DraftParams.model_fields) & set(FidelityParams.model_fields)
        drafting = DraftParams(**params.model_dump(include=shared) | {"tasks": [task]})
        folders += run_draft_stage(drafting, _named(progress, "draft"))
        first = turn % len(arms)
        for arm in arms[first:] + arms[:first]:
            folders += run_agent_stage(arm.model_copy(update={"tasks": [task]}), _named(progress, arm.run))
    for arm in arms:
        judging = JudgingParams(run=arm.run, tasks=params.tasks, arms=arm.arms, data_root=params.data_root)
        folders += run_judging(judging)
    return folders


def compare_with_replay(
    params: FidelityParams, data: replay_data.ReplayData
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replay beside what was measured: a row per setting, and the samples on which they disagree.

    Columns of the first: `setting`, `n`, the numbers of samples whose `decisions_differ`, `answers_differ` (text of
    the final answer) and `verdicts_differ`; `confidence_off`, the largest difference in confidence (drafts in other
    batches round differently); then `accuracy_pct`, `accepted`, `wall_s` and `speedup`, each `_predicted` and
    `_measured`, `off_pct` of the speedup, and `cost_note`. The speedup is over the agent alone with as many agents at
    once.
    """
    rows, differing = [], []
    instrumented = recorded_run.open(params.run, tasks=params.tasks)
    answers = sample_frame.samples(instrumented, ["collect"]).set_index("id")
    for at, setting in enumerate(settings_of(params), 1):
        replayed = outcomes.decisions(data, setting).set_index("id")
        replayed = replayed.join(answers[["draft_answer", "agent_answer"]])
        is_draft = replayed["used"] == "small"
        replayed["answer"] = replayed["draft_answer"].where(is_draft, replayed["agent_answer"])
        batched = BATCHED if setting.agent_batch_size > 1 else ""
        measured = _measured(_run_of(params, at), params.tasks, f"gated{batched}").loc[replayed.index]
        alone_run = _alone(params, setting.agent_batch_size)
        alone = _measured(alone_run, params.tasks, f"baseline{batched}")
        differs = pd.DataFrame(
            {
                "decisions": replayed["decision"] != measured["decision"],
                "answers": replayed["answer"].fillna("") != measured["answer"].fillna(""),
                "verdicts": replayed["right"].fillna(False).astype(bool) != measured["right"],
            }
        )
        columns = ["decision", "confidence", "answer", "right"]
        both = replayed[columns].add_suffix("_predicted").join(measured[columns].add_suffix("_measured"))
        both.insert(0, "task", replayed["task"])
        differing.append(both[differs.any(axis=1)].assign(setting=str(setting)))
        pooled = outcomes.replay(data, setting).set_index("task").loc[outcomes.POOLED]
        speedup = float(alone["wall_s"].sum() / measured["wall_s"].sum())
        rows.append(
            {
                "setting": str(setting),
                "n": len(replayed),
                **{f"{name}_differ": int(differs[name].sum()) for name in differs},
                "confidence_off": float((replayed["confidence"] - measured["confidence"]).abs().max()),
                "accuracy_pct_predicted": pooled["accuracy_pct"],
                "accuracy_pct_measured": 100.0 * float(measured["right"].mean()),
                "accepted_predicted": int(pooled["accepted"]),
                "accepted_measured": int((measured["decision"] == "accepted").sum()),
                "wall_s_predicted": pooled["wall_s"],
                "wall_s_measured": float(measured["wall_s"].sum()),
                "speedup_predicted": pooled["speedup"],
                "speedup_measured": speedup,
                "off_pct": 100.0 * (pooled["speedup"] / speedup - 1.0),
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


def _run_of(params: FidelityParams, number: int) -> str:
    return f"{params.run}_setting{number}"


def _alone(params: FidelityParams, agents: int) -> str:
    """The run with the agent alone; the instrumented run itself where agents run one at a time."""
    return params.run if agents == 1 else f"{params.run}_agents{agents}"


def _arms(params: FidelityParams) -> list[AgentParams]:
    """Everything that notebook 02 has to run: the instrumented pass, the agent alone, and every setting."""
    shared = set(AgentParams.model_fields) & set(FidelityParams.model_fields)
    calibrated = ["collect", "gated_batched"]
    instrumented = {"arms": calibrated, "first_look": False, "router_small": True, "threshold": 1.0}
    instrumented |= {"clock_share": 0.0}
    common = build(AgentParams, params.model_dump(include=shared) | instrumented, "this study's parameters")
    settings = settings_of(params)
    arms = [common]
    for agents in sorted({1} | {s.agent_batch_size for s in settings}):
        alone = {"run": _alone(params, agents), "arms": ["baseline"]}
        if agents > 1:
            alone |= {"arms": ["baseline_batched"], "agent_batch_size_batched": agents}
        arms.append(common.model_copy(update=alone))
    for at, setting in enumerate(settings, 1):
        gated = asdict(setting) | {"run": _run_of(params, at), "arms": ["gated"]}
        if (agents := gated.pop("agent_batch_size")) > 1:
            gated |= {"arms": ["gated_batched"], "agent_batch_size_batched": agents}
        arms.append(build(AgentParams, common.model_dump() | gated, f"settings: {params.settings[at - 1]!r}"))
    return arms


def _named(progress: Progress, run: str) -> Progress:
    """Progress whose text names the run."""
    return lambda done, total, text="": progress(done, total, f"{text} · {run}")


def _measured(run: str, tasks: Sequence[str], name: str) -> pd.DataFrame:
    """An arm as it ran, by sample id: decision, answer, right, wall_s and confidence."""
    recorded = recorded_run.open(run, tasks=tasks)
    confidence = {id_: record.confidence for id_, record in recorded.records(name).items()}
    part = sample_frame.arm(sample_frame.samples(recorded, [name]), name).set_index("id")
    return part.assign(confidence=pd.Series(confidence, dtype="float64"))
