"""Trajectories of an arm as a list that is filtered by turns, tool errors, time, verdict and text; and side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..report.sample_page import VERDICT_COLORS, VERDICT_SIGNS, recorded_sample, short_id
from ..runs.recorded_run import RecordedRun
from ..runs.records import AgentRecord, JudgedRecord, Turn
from ..tasks.registry import task_of
from .state import ALL, TraceView, in_task

COLUMNS = ("id", "task", "question", "answer", "verdict", "turns", "tool_errors", "ms", "decision")
NOT_JUDGED = "not judged"
NO_TRACES = pd.DataFrame(columns=[*COLUMNS, "text"])
LIST_COLUMNS = (
    {"title": "sample"},
    {"title": "verdict", "align": "middle"},
    *({"title": title, "align": "right"} for title in ("turns", "tool errors", "ms")),
    {"title": "answer"},
)
ORDERS = {
    "id": [],
    "slowest": ["ms"],
    "most turns": ["turns", "ms"],
}  # columns, largest first; none: as in the run


def trace_table(run: RecordedRun, arm: str) -> pd.DataFrame:
    """A row per record of an arm, in the order of the run.

    Args:
        run: with records of the arm.
        arm: its name.

    Returns:
        `COLUMNS` and `text` (what is searched, casefolded). `verdict` is None where nothing was judged yet; `ms` is NaN
        where nothing was timed.
    """
    judged_by_id = run.judged(arm)
    rows = []
    for id_, record in run.records(arm).items():
        judged, turns = judged_by_id.get(id_), _turns(record)
        verdicts = {v.source: v.verdict for v in judged.verdicts} if judged else {}
        rows.append(
            {
                "id": id_,
                "task": task_of(id_),
                "question": judged.question if judged else "",
                "answer": record.answer,
                "verdict": verdicts.get("final"),
                "turns": len(turns),
                "tool_errors": sum(t.error is not None or t.action == "malformed" for t in turns),
                "ms": 1000 * record.wall_s,
                "decision": record.decision,
                "text": "\n".join(_texts(record, judged)).casefold(),
            }
        )
    return pd.DataFrame(rows, columns=[*COLUMNS, "text"]).astype({"ms": "float64"})


def _turns(record: AgentRecord) -> tuple[Turn, ...]:
    return record.trajectory.turns if record.trajectory else ()


def _texts(record: AgentRecord, judged: JudgedRecord | None) -> Iterator[str]:
    """Everything in a record that a person may search for."""
    yield from (record.id, judged.question if judged else "", record.answer or "")
    turns = _turns(record)
    for error in (record.error, *(turn.error for turn in turns)):
        yield f"{error.type} {error.message}" if error else ""
    for turn in turns:
        call = json.dumps(turn.tool_call, ensure_ascii=False) if turn.tool_call else ""
        yield from (turn.text, call, turn.tool_output or "")


def sift(table: pd.DataFrame, view: TraceView) -> pd.DataFrame:
    """The rows of `trace_table` that the view asks for, in its order."""
    keep = table["turns"].between(*view.turns) & ~(table["ms"] < view.least_ms)
    if view.task != ALL:
        keep &= table["task"].map(lambda task: in_task(task, view.task)).astype(bool)
    if view.verdict != ALL:
        keep &= table["verdict"].fillna(NOT_JUDGED) == view.verdict
    if view.tool_errors:
        keep &= table["tool_errors"] > 0
    if view.text:
        keep &= table["text"].str.contains(view.text.casefold(), regex=False).astype(bool)
    rows, by = table[keep], ORDERS[view.order]
    return rows.sort_values(by, ascending=False, kind="stable") if by else rows


def shape_of(rows: pd.DataFrame, among: pd.DataFrame) -> str:
    """The shape of a list in one line: how many of how many, how many are right, how long they took."""
    text = f"{len(rows)} of {len(among)} trajectories"
    if not len(rows):
        return text
    judged, right = rows["verdict"].notna().sum(), (rows["verdict"] == "right").sum()
    text += f" · {right} right of {judged} judged · {rows['turns'].mean():.1f} turns on average"
    median = rows["ms"].median()
    return text + (f" · {median:.0f} ms in the middle" if np.isfinite(median) else "")


def list_rows(rows: pd.DataFrame) -> list[dict]:
    """Rows of a list for `samples.js`."""
    entries = []
    for row in rows.itertuples():
        sign, color = VERDICT_SIGNS.get(row.verdict, "–"), VERDICT_COLORS.get(row.verdict, "")
        ms = f"{row.ms:.0f}" if np.isfinite(row.ms) else "–"
        answer = "–" if pd.isna(row.answer) else row.answer
        cells = [short_id(row.id), sign, str(row.turns), str(row.tool_errors or ""), ms, answer]
        entries.append({"id": row.id, "cells": cells, "colors": ["", color, "", "", "", ""]})
    return entries


def trace_html(run: RecordedRun, arm: str, id_: str, mark: str = "") -> str:
    """One trajectory under a heading with its run and arm, its answer and verdict, and its time."""
    return recorded_sample(run, arm, id_, mark=mark).part("trace", run.name, arm)


def difference_line(first: tuple[RecordedRun, str], second: tuple[RecordedRun, str], id_: str) -> str:
    """What differs between two runs and arms on a sample, in a sentence."""
    records = [run.records(arm).get(id_) for run, arm in (first, second)]
    if None in records:
        return "Only one of the two holds this sample."
    a, b = records
    texts = [[turn.text for turn in _turns(record)] for record in records]
    parts = ["same answer" if a.answer == b.answer else "different answers"]
    parts.append(f"{len(texts[0])} against {len(texts[1])} turns")
    if a.timed and b.timed:
        parts.append(f"{1000 * a.wall_s:.1f} against {1000 * b.wall_s:.1f} ms")
    if texts[0] != texts[1]:
        equal = [x == y for x, y in zip(*texts, strict=False)]
        parts.append(f"the texts differ from turn {[*equal, False].index(False) + 1} on")
    elif texts[0]:
        parts.append("word for word the same")
    return "; ".join(parts) + "."
