"""One tidy frame per run: a row per sample, joined from what stages 02 and 03 stored. `samples` lists its columns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import StageError
from ..gating.scores import score_answers
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES, flatten_answers
from ..runs.arms import DRAFT_STAGE
from ..runs.recorded_run import RecordedRun
from ..runs.records import PHASES, AgentRecord, JudgedRecord, VerdictValue
from ..tasks.registry import place_of, task_of
from .clock import drift

ARM_PARTS = ("decision", "answer", "verdict", "right", "wall_s", *PHASES)


def assemble(
    arms: Mapping[str, Mapping[str, AgentRecord]], judged: Mapping[str, Mapping[str, JudgedRecord]]
) -> pd.DataFrame:
    """Join the records of the arms with their verdicts, both arm -> id -> record; columns: see `samples`."""
    facts = {id_: record for records in judged.values() for id_, record in records.items()}
    ids = sorted(facts, key=lambda id_: (place_of(task_of(id_)), id_))
    index = {id_: i for i, id_ in enumerate(ids)}
    frame = pd.DataFrame({"id": ids})
    parts = frame["id"].str.split("/", n=2, expand=True).reindex(columns=range(3))
    frame["task"] = parts[0] + "/" + parts[1]
    frame["benchmark"], frame["split"] = parts[0], parts[1]
    for column in ("group", "question", "kind", "options"):
        frame[column] = [getattr(facts[i], column) for i in ids]
    frame["target_fraction"] = pd.Series([facts[i].target_fraction for i in ids], dtype="float64")
    columns = [frame]
    if "collect" in arms:
        columns.append(_aligned(_instrumented(arms["collect"], judged["collect"]), index))
    for arm, records in arms.items():
        columns.append(_aligned(_outcomes(records, judged[arm]), index).add_prefix(f"{arm}_"))
    frame = pd.concat(columns, axis=1)
    return _with_computed_arms(frame) if "collect" in arms else frame


def _aligned(part: pd.DataFrame, index: Mapping[str, int]) -> pd.DataFrame:
    return part.set_axis(part["id"].map(index)).drop(columns="id").reindex(range(len(index)))


def _verdict(judged: JudgedRecord, source: str) -> VerdictValue | None:
    return next((v.verdict for v in judged.verdicts if v.source == source), None)


def _right(verdicts: pd.Series) -> pd.Series:
    """Nullable truth: missing where nothing was judged. Unparsed, undecided and failed are not right."""
    return (verdicts == "right").astype("boolean").mask(verdicts.isna())


def phase_seconds(record: AgentRecord) -> dict[str, float] | None:
    """Phase -> seconds that a sample is charged (a draft of stage 01 is not charged again); None: nothing was timed."""
    if not record.timed:
        return None
    return {
        "decode_s": record.decode_s,
        "router_s": record.router.router_s if record.router else 0.0,
        "draft_s": record.draft.draft_s if record.draft and record.run_mode == "gated" else 0.0,
        "agent_s": record.trajectory.agent_s if record.trajectory else 0.0,
        "tool_s": record.tool_s,
    }


def _outcomes(records: Mapping[str, AgentRecord], judged: Mapping[str, JudgedRecord]) -> pd.DataFrame:
    """One arm: what was decided, whether it is right, what it cost."""
    rows = [
        {
            "id": id_,
            "decision": record.decision,
            "answer": record.answer,
            "verdict": _verdict(judged[id_], "final"),
            "wall_s": record.wall_s,
            **(phase_seconds(record) or dict.fromkeys(PHASES, np.nan)),
        }
        for id_, record in records.items()
    ]
    frame = pd.DataFrame(rows, columns=["id", *(p for p in ARM_PARTS if p != "right")])
    frame["right"] = _right(frame["verdict"])
    return frame


def _instrumented(records: Mapping[str, AgentRecord], judged: Mapping[str, JudgedRecord]) -> pd.DataFrame:
    rows = []
    for id_, record in records.items():
        draft, path, router = record.draft, record.trajectory, record.router
        timed = draft is not None and draft.timed
        scores = (draft.scores if draft else None) or {}
        rows.append(
            {
                "id": id_,
                "draft_answer": draft.answer if draft else None,
                "draft_verdict": _verdict(judged[id_], "draft"),
                "draft_s": draft.draft_s if timed else np.nan,
                "draft_decode_s": draft.decode_s if timed else np.nan,
                **{f"score_{name}": scores.get(name, np.nan) for name in PAPER_SCORES},
                "router_verdict": router.verdict if router else None,
                "router_yes_logprob": router.yes_logprob if router else None,
                "router_no_logprob": router.no_logprob if router else None,
                "agent_answer": path.answer if path else None,
                "agent_verdict": _verdict(judged[id_], "agent"),
                "n_turns": len(path.turns) if path else 0,
                "zoomed": any(turn.crop_px is not None for turn in path.turns) if path else False,
                "first_look_verdict": _verdict(judged[id_], "first_look"),
            }
        )
    frame = pd.DataFrame(rows).astype(dict.fromkeys(("router_yes_logprob", "router_no_logprob"), "float64"))
    for who in ("draft", "agent", "first_look"):
        frame[f"{who}_right"] = _right(frame[f"{who}_verdict"])
    return frame


def _with_computed_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the arms that the instrumented pass answers without running anything again.

    `draft_only`: stage 01 as it ran. `router_only`: Phase I decides alone, every draft it lets through is taken. Where
    `gated` ran, it is that arm with another gate (`with_gate`). Otherwise it is charged decode + router + (draft or
    agent with its tools), as measured in `collect` and stage 01; the agent as measured in `baseline` where that ran.
    `baseline_batched`, unless it was run as an arm of its own: the agents of `collect`, which advance together
    on every sample, without its router.
    """
    agent = "baseline" if "baseline_decision" in frame else "collect"
    ran = frame["collect_decision"].notna()
    to_draft = ~routed(frame)
    nothing = dict.fromkeys(PHASES, 0.0)
    computed = {
        "draft_only": nothing
        | {
            "decision": "accepted",
            "answer": frame["draft_answer"],
            "verdict": frame["draft_verdict"],
            "decode_s": frame["draft_decode_s"],
            "draft_s": frame["draft_s"],
        },
        "router_only": {
            "decision": np.where(to_draft, "accepted", "routed"),
            "answer": frame["draft_answer"].where(to_draft, frame["agent_answer"]),
            "verdict": frame["draft_verdict"].where(
                to_draft, frame["collect_verdict"]
            ),  # a failed sample too
            "decode_s": frame["collect_decode_s"],
            "router_s": frame["collect_router_s"],
            "draft_s": frame["draft_s"].where(to_draft, 0.0),
            "agent_s": frame[f"{agent}_agent_s"].mask(to_draft, 0.0),
            "tool_s": frame[f"{agent}_tool_s"].mask(to_draft, 0.0),
        },
        "baseline_batched": nothing
        | {
            "decision": "baseline",
            "answer": frame["agent_answer"],
            "verdict": frame["collect_verdict"],
            "decode_s": frame["collect_decode_s"],
            "agent_s": frame["collect_agent_s"],
            "tool_s": frame["collect_tool_s"],
        },
    }
    if frame["router_verdict"].isna().all() or "gated_decision" in frame:
        del computed["router_only"]
    if frame["collect_wall_s"].isna().all():  # imported: how many agents ran together is unknown
        del computed["baseline_batched"]
    for arm, parts in computed.items():
        if f"{arm}_decision" not in frame:
            part = pd.DataFrame(parts, index=frame.index).where(ran)
            part["right"] = _right(part["verdict"])
            part["wall_s"] = part[list(PHASES)].sum(axis=1, min_count=len(PHASES))
            frame = pd.concat([frame, part[list(ARM_PARTS)].add_prefix(f"{arm}_")], axis=1)
    if "gated_decision" in frame and frame["router_verdict"].notna().any():
        frame = with_gate(frame, "router_only", to_draft)
    return frame


def with_gate(frame: pd.DataFrame, name: str, accepted: ArrayLike) -> pd.DataFrame:
    """The frame with one more arm: the funnel of the arm `gated`, if its gate accepted other drafts.

    No second is predicted. A sample that `gated` decided in the same way has its answer, verdict and seconds, so that
    equal decisions have equal times. A draft accepted only here saves its agent. One accepted only there has the answer
    of `collect` and pays the agent as `baseline` measured it (missing where that did not run).

    Args:
        frame: see `samples`, with the arms `collect` and `gated`.
        name: of the new arm.
        accepted: bool [samples], the drafts that the gate accepts.
    """
    taken = pd.Series(np.asarray(accepted, dtype=bool), index=frame.index)
    before, undrafted = frame["gated_decision"], frame["gated_decision"].eq("routed")
    was_taken = before.eq("accepted")
    part = frame[[f"gated_{p}" for p in ARM_PARTS]].rename(columns=lambda c: c.removeprefix("gated_"))
    newly, no_longer = taken & ~was_taken, was_taken & ~taken
    for phase in ("agent_s", "tool_s"):
        alone = frame.get(f"baseline_{phase}", np.nan)
        part[phase] = part[phase].mask(newly, 0.0).mask(no_longer, alone)
    part["draft_s"] = part["draft_s"].mask(newly & undrafted, frame["draft_s"])
    for column, draft, agent in (
        ("answer", "draft_answer", "agent_answer"),
        ("verdict", "draft_verdict", "collect_verdict"),
    ):
        part[column] = part[column].mask(newly, frame[draft]).mask(no_longer, frame[agent])
    part["decision"] = before.mask(newly, "accepted").mask(no_longer, "rejected")
    part["right"] = _right(part["verdict"])
    changed_s = part[list(PHASES)].sum(axis=1, min_count=len(PHASES))
    part["wall_s"] = part["wall_s"].mask(newly | no_longer, changed_s)
    return pd.concat([frame, part[list(ARM_PARTS)].where(before.notna()).add_prefix(f"{name}_")], axis=1)


def right_of(frame: pd.DataFrame, who: str) -> pd.Series:
    """Whether the answer of "draft", "agent" or "first_look" is right, bool; False where it is not judged."""
    return frame[f"{who}_right"].fillna(False).astype(bool)


def routed(frame: pd.DataFrame) -> pd.Series:
    """Which samples Phase I sends to the agent: all without the verdict "no"; none where no router ran."""
    verdict = frame["router_verdict"]
    return verdict.ne("no") if verdict.notna().any() else pd.Series(False, index=frame.index)


def arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms a frame holds, run or computed, in the order of its columns."""
    return [c.removesuffix("_decision") for c in frame.columns if c.endswith("_decision")]


def arm(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """One arm's rows: `id task group` and its parts under their plain names, only samples it ran; `right` is bool."""
    part = frame[["id", "task", "group", *(f"{name}_{p}" for p in ARM_PARTS)]]
    part = part[part[f"{name}_decision"].notna()].rename(columns=lambda c: c.removeprefix(f"{name}_"))
    return part.assign(right=part["right"].fillna(False).astype(bool))


def samples(
    recorded: RecordedRun,
    arms: Sequence[str] = (),
    *,
    human_checks: bool = True,
    scores: Sequence[str] = (),
) -> pd.DataFrame:
    """A row per sample of a run: the records of its arms joined with their verdicts.

    Args:
        recorded: the run.
        arms: the arms to read; empty: all that it has.
        human_checks: False: the verdicts as they were before people overruled some.
        scores: further scores of `GATE_SCORES`, computed from the drafts' evidence at K and slope of `collect`.

    Returns:
        Rows in the order of the paper's splits. Missing: the arm did not run the sample. Times are seconds. Columns:

        - id, task, benchmark, split, question, kind (category), group (the independent unit: HR-Bench question, POPE
          image), options (as shown), target_fraction (side of what the question is about / side of the image);
        - of the arm `collect`, where it ran: draft_answer, draft_verdict, draft_right, draft_s, draft_decode_s,
          score_<name> (NaN: none); router_verdict ("yes": to the agent, "no": to the draft), router_yes_logprob,
          router_no_logprob; agent_answer, agent_verdict, agent_right, n_turns, zoomed (a tool call gave a picture);
          first_look_verdict, first_look_right (the agent without its tool);
        - `<arm>_<part>` with the parts in `ARM_PARTS`, for every arm that ran and for those computed from `collect`:
          draft_only, router_only, baseline_batched.

        `attrs["protocol"]` is the protocol of the verdicts. `attrs["total_s"]` holds the seconds of whole tasks
        ("arm task" -> s) where records have no times of their own (imported). `attrs["aa"]` is the A/A line, see
        `clock.drift`, where the run has one.

    Raises:
        StageError: a stage is missing or unfinished (names the notebook to run); verdicts are not of the records they
            judge; arms were judged under different protocols; a score needs evidence that the run did not keep.
    """
    arms = arms or recorded.arms
    records = {name: recorded.records(name) for name in arms}
    judged = {name: recorded.judged(name) for name in arms}
    protocol = recorded.protocol_of(arms)
    if not human_checks:
        judged = {
            name: {id_: record.without_human() for id_, record in by_id.items()}
            for name, by_id in judged.items()
        }
    frame = assemble(records, judged)
    for name in scores if "collect" in arms else ():
        if name in recorded.own_scores:
            frame[f"score_{name}"] = frame["id"].map(recorded.own_scores[name]).astype("float64")
        elif name not in PAPER_SCORES:
            frame[f"score_{name}"] = _score_of_evidence(recorded, frame["id"], name)
    # a word and a few numbers only: pandas copies attrs deeply on every operation
    frame.attrs["protocol"] = protocol
    if total_s := _totals(recorded, arms):
        frame.attrs["total_s"] = total_s
    if "baseline" in arms and (aa := drift(recorded)):
        frame.attrs["aa"] = aa
    return frame


def _score_of_evidence(recorded: RecordedRun, ids: Sequence[str], score: str) -> NDArray[np.float64]:
    """A score of every draft from its evidence, at K and slope of `collect`; nan where a sample has none."""
    evidence = recorded.all_evidence()
    if not evidence:
        raise StageError(
            f"run {recorded.name} kept no evidence of its drafts, which the score {score!r} is computed from; "
            f"use one of {', '.join(PAPER_SCORES)}"
        )
    config = recorded.config("02_collect")
    width = min((one.k for one in evidence.values() if one.n_tokens), default=2)
    nothing = np.empty((0, width))
    answers = [evidence[id_].top_logprobs[:, :width] if id_ in evidence else nothing for id_ in ids]
    top, offsets = flatten_answers(answers)
    k, slope = config.get("k") or DEFAULT_K, config.get("slope") or DEFAULT_SLOPE
    return score_answers(top, offsets, k, slope, (score,))[score]


def _totals(recorded: RecordedRun, arms: Sequence[str]) -> dict[str, float]:
    """Seconds of whole tasks by "arm task", where single records have none; with `collect` those of the drafts."""
    total_s = {}
    for name, task in itertools.product(arms, recorded.tasks):
        if all(record.timed for record in recorded.stage(f"02_{name}", task).records.values()):
            continue
        stages = {name: f"02_{name}"} | ({"draft_only": DRAFT_STAGE} if name == "collect" else {})
        for arm, stage in stages.items():
            if task in recorded.finished(stage):
                total_s[f"{arm} {task}"] = recorded.manifest(stage, task).timing.get("wall_s")
    return {name: seconds for name, seconds in total_s.items() if seconds is not None}
