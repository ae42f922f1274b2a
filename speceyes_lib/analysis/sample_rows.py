"""A few samples with what the models answered, before anything is judged: a row per sample."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..gating.separability import PAPER_SCORES
from ..runs.records import AgentRecord, DraftRecord
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
