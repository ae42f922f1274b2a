"""Trajectories of an arm as a list to sift: by turns, tool errors, time, verdict and words; and side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..report.sample_page import VERDICT_COLORS, VERDICT_SIGNS, recorded_sample, short_id
from ..runs.recorded_run import RecordedRun
from ..runs.records import AgentRecord, JudgedRecord, VerdictValue
from .state import ALL, TraceView, in_task

COLUMNS = ("id", "task", "question", "answer", "verdict", "turns", "tool_errors", "ms", "decision")
NOT_JUDGED = "not judged"
NO_TRACES = pd.DataFrame(columns=[*COLUMNS, "text"])
ROWS_SHOWN = 300
LIST_COLUMNS = (
    {"title": "sample"},
    {"title": "verdict", "align": "middle"},
    {"title": "turns", "align": "right"},
    {"title": "tool errors", "align": "right"},
    {"title": "ms", "align": "right"},
    {"title": "answer"},
)
ORDERS = {
    "id": ([], []),
    "slowest": (["ms"], [False]),
    "most turns": (["turns", "ms"], [False, False]),
}


def trace_table(run: RecordedRun, arm: str) -> pd.DataFrame:
    """A row per record of an arm (`COLUMNS` and `text`, what is searched), in the order of the run.

    `verdict` is None where nothing was judged yet; `ms` is NaN where nothing was timed.
    """
    judged = run.judged(arm)
    rows = []
    for id_, record in run.records(arm).items():
        said = judged.get(id_)
        turns = record.trajectory.turns if record.trajectory else ()
        rows.append(
            {
                "id": id_,
                "task": id_.rsplit("/", 1)[0],
                "question": said.question if said else "",
                "answer": record.answer,
                "verdict": final_verdict(said),
                "turns": len(turns),
                "tool_errors": sum(t.error is not None or t.action == "malformed" for t in turns),
                "ms": 1000 * record.wall_s,
                "decision": record.decision,
                "text": "\n".join(_texts(record, said)).casefold(),
            }
        )
    return pd.DataFrame(rows, columns=[*COLUMNS, "text"]).astype({"ms": "float64"})


def final_verdict(judged: JudgedRecord | None) -> VerdictValue | None:
    verdicts = judged.verdicts if judged else ()
    return next((v.verdict for v in verdicts if v.source == "final"), None)


def _texts(record: AgentRecord, judged: JudgedRecord | None) -> Iterator[str]:
    """Everything about a record that a person may look for."""
    yield record.id
    yield judged.question if judged else ""
    yield record.answer or ""
    if record.error:
        yield f"{record.error.type} {record.error.message}"
    for turn in record.trajectory.turns if record.trajectory else ():
        yield turn.text
        yield json.dumps(turn.tool_call, ensure_ascii=False) if turn.tool_call else ""
        yield turn.tool_output or ""
        yield f"{turn.error.type} {turn.error.message}" if turn.error else ""


def sift(table: pd.DataFrame, view: TraceView) -> pd.DataFrame:
    """The rows that the view asks for, in its order."""
    keep = table["turns"].between(*view.turns) & ~(table["ms"] < view.least_ms)
    if view.task != ALL:
        keep &= table["task"].map(lambda task: in_task(task, view.task)).astype(bool)
    if view.verdict != ALL:
        keep &= table["verdict"].fillna(NOT_JUDGED) == view.verdict
    if view.tool_errors:
        keep &= table["tool_errors"] > 0
    if view.text:
        keep &= table["text"].str.contains(view.text.casefold(), regex=False).astype(bool)
    by, ascending = ORDERS[view.order]
    found = table[keep]
    return found.sort_values(by, ascending=ascending, kind="stable") if by else found


def shape_of(found: pd.DataFrame, among: pd.DataFrame) -> str:
    """One line on what was found: how many of how many, how right, how long."""
    told = f"{len(found)} of {len(among)} trajectories"
    if not len(found):
        return told
    judged = found["verdict"].notna().sum()
    right = (found["verdict"] == "right").sum()
    told += f" · {right} right of {judged} judged · {found['turns'].mean():.1f} turns on average"
    median = np.nanmedian(found["ms"]) if found["ms"].notna().any() else np.nan
    return told + (f" · {median:.0f} ms in the middle" if np.isfinite(median) else "")


def list_rows(found: pd.DataFrame) -> list[dict]:
    """The first rows of a list, for `samples.js`."""
    return [
        {
            "id": row.id,
            "cells": [
                short_id(row.id),
                VERDICT_SIGNS.get(row.verdict, "–"),
                str(row.turns),
                str(row.tool_errors or ""),
                f"{row.ms:.0f}" if np.isfinite(row.ms) else "–",
                "–" if pd.isna(row.answer) else row.answer,
            ],
            "colors": ["", VERDICT_COLORS.get(row.verdict, ""), "", "", "", ""],
        }
        for row in found.head(ROWS_SHOWN).itertuples()
    ]


def trace_html(run: RecordedRun, arm: str, id_: str, mark: str = "") -> str:
    """One trajectory under a heading with its run and arm, its answer and verdict, and its time."""
    return recorded_sample(run, arm, id_, mark=mark).part("trace", run.name, arm)


def difference_line(first: tuple[RecordedRun, str], second: tuple[RecordedRun, str], id_: str) -> str:
    """In a sentence: what differs between two runs on a sample."""
    (a, arm_a), (b, arm_b) = first, second
    mine, other = a.records(arm_a).get(id_), b.records(arm_b).get(id_)
    if mine is None or other is None:
        return "Only one of the two holds this sample."
    parts = ["same answer" if mine.answer == other.answer else "different answers"]
    turns = [len(r.trajectory.turns) if r.trajectory else 0 for r in (mine, other)]
    parts.append(f"{turns[0]} against {turns[1]} turns")
    if mine.timed and other.timed:
        parts.append(f"{1000 * mine.wall_s:.1f} against {1000 * other.wall_s:.1f} ms")
    said = [[t.text for t in r.trajectory.turns] if r.trajectory else [] for r in (mine, other)]
    if said[0] != said[1]:
        at = next(
            (i for i, pair in enumerate(zip(*said, strict=False)) if pair[0] != pair[1]), min(map(len, said))
        )
        parts.append(f"their words part at turn {at + 1}")
    elif said[0]:
        parts.append("word for word the same")
    return "; ".join(parts) + "."
