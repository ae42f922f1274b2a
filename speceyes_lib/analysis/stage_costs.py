"""What stages 01 and 02 did and what it cost, before anything is judged: a few samples, and totals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pandas as pd

from ..gating.separability import PAPER_SCORES
from ..runs.reading import StageData
from ..runs.records import AgentRecord, Decision, DraftRecord
from ..tasks.sample import Sample


def draft_rows(samples: Sequence[Sample], drafts: Sequence[DraftRecord]) -> pd.DataFrame:
    """Several drafts: id, question, standard (the right answer), answer, tokens, a column per score, failure."""
    rows = [
        {
            **_question(sample),
            "answer": draft.answer,
            "tokens": draft.n_tokens,
            **{score: (draft.scores or {}).get(score) for score in PAPER_SCORES},
            "failure": draft.error.message if draft.error else None,
        }
        for sample, draft in zip(samples, drafts, strict=True)
    ]
    return pd.DataFrame(rows)


def agent_rows(samples: Sequence[Sample], records: Sequence[AgentRecord]) -> pd.DataFrame:
    """Several samples through one arm: id, question, standard, decision, used, answer, turns, wall_s, failure."""
    rows = [
        {
            **_question(sample),
            "decision": record.decision,
            "used": record.used,
            "answer": record.answer,
            "turns": len(record.trajectory.turns) if record.trajectory else 0,
            "wall_s": record.wall_s,
            "failure": record.error.message if record.error else None,
        }
        for sample, record in zip(samples, records, strict=True)
    ]
    return pd.DataFrame(rows)


def _question(sample: Sample) -> dict[str, str]:
    return {"id": sample.id, "question": sample.question, "standard": sample.standard}


def draft_overview(stages: Sequence[StageData[DraftRecord]]) -> pd.DataFrame:
    """Stage 01, a row per task: how many drafts, how sure of themselves, what each cost.

    Columns: samples, failed, cut_off (ended by the token limit), tokens (mean), min_p10, min_median, min_p90
    (quantiles of the confidence `min`), decode_ms and draft_ms (means per sample).
    """
    rows = {}
    for stage in stages:
        drafts = list(stage.records.values())
        score = pd.Series([d.scores["min"] for d in drafts if d.scores], dtype="float64")
        rows[stage.manifest.task] = {
            "samples": len(drafts),
            "failed": sum(d.status == "error" for d in drafts),
            "cut_off": sum(d.finish_reason == "length" for d in drafts),
            "tokens": _mean([d.n_tokens for d in drafts if d.status == "ok"]),
            "min_p10": score.quantile(0.1),
            "min_median": score.median(),
            "min_p90": score.quantile(0.9),
            "decode_ms": 1000 * _mean([d.decode_s for d in drafts]),
            "draft_ms": 1000 * _mean([d.draft_s for d in drafts]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def decision_overview(stages: Sequence[StageData[AgentRecord]]) -> pd.DataFrame:
    """Stage 02, a row per arm over all its tasks: how many samples, what decided them, how many failed.

    Columns: samples, one per `Decision` that occurs, failed, zoomed (samples with at least one crop), turns
    (mean of the samples the agent worked on).
    """
    rows = {}
    for arm, records in _by_arm(stages).items():
        paths = [r.trajectory for r in records if r.trajectory]
        rows[arm] = {
            "samples": len(records),
            **{decision: sum(r.decision == decision for r in records) for decision in get_args(Decision)},
            "failed": sum(r.status == "error" for r in records),
            "zoomed": sum(any(t.crop_px for t in path.turns) for path in paths),
            "turns": _mean([len(path.turns) for path in paths]),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")
    return table.drop(columns=[d for d in get_args(Decision) if not table[d].any()])


def cost_overview(stages: Sequence[StageData[AgentRecord]]) -> pd.DataFrame:
    """Stage 02, a row per arm: seconds per phase, summed over samples.

    Columns: decode_s, router_s, draft_s, agent_s, tool_s, wall_s (their sum: `AgentRecord.wall_s`), ms_per_sample.
    The draft of `collect` was paid in stage 01, its first look is not counted.
    """
    rows = {}
    for arm, records in _by_arm(stages).items():
        wall_s = sum(r.wall_s for r in records)
        rows[arm] = {
            "decode_s": sum(r.decode_s for r in records),
            "router_s": sum(r.router.router_s for r in records if r.router),
            "draft_s": sum(r.draft.draft_s for r in records if r.draft and r.run_mode == "gated"),
            "agent_s": sum(r.trajectory.agent_s for r in records if r.trajectory),
            "tool_s": sum(r.tool_s for r in records),
            "wall_s": wall_s,
            "ms_per_sample": 1000 * wall_s / len(records) if records else float("nan"),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def _by_arm(stages: Sequence[StageData[AgentRecord]]) -> dict[str, list[AgentRecord]]:
    arms: dict[str, list[AgentRecord]] = {}
    for stage in stages:
        arms.setdefault(stage.manifest.stage.removeprefix("02_"), []).extend(stage.records.values())
    return arms


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
