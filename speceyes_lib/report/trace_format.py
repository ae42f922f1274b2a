"""The timeline of a task in the trace-event format, which Perfetto and chrome://tracing show."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import printable

MICROSECONDS = 1e6
EMPTY_KINDS = ("wait", "join")  # of the actor: spans that hold nothing are left out


def trace_events(timelines: Iterable[tuple[str, pd.DataFrame]]) -> dict[str, Any]:
    """Timelines of tasks as one trace, a process per task and a thread per lane.

    A guess that served is joined to the call that it served by an arrow.

    Args:
        timelines: name of a task, and its `analysis.tool_timeline.timeline`.
    """
    events: list[dict[str, Any]] = []
    flows = 0
    for pid, (task, frame) in enumerate(timelines, 1):
        events.append({"name": "process_name", "ph": "M", "pid": pid, "args": {"name": printable(task)}})
        threads = {lane: tid for tid, lane in enumerate(dict.fromkeys(frame["lane"]), 1)}
        for lane, tid in threads.items():
            events.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": lane}})
        spans = frame[(frame["end_s"] > frame["begin_s"]) | ~frame["kind"].isin(EMPTY_KINDS)]
        for row in spans.itertuples():
            name = printable(row.label) or row.kind
            span = {"name": name, "cat": row.kind, "ph": "X", "pid": pid, "tid": threads[row.lane]}
            times = {"ts": row.begin_s * MICROSECONDS, "dur": (row.end_s - row.begin_s) * MICROSECONDS}
            events.append(span | times | {"args": {"kind": row.kind, "step": int(row.step)}})
        for pair, rows in frame[frame["pair"] > 0].groupby("pair"):
            executed = rows[rows["lane"] == "guessed tools"]
            for wait in rows[rows["kind"] == "wait"].itertuples():
                if not len(executed):
                    continue
                flows += 1
                flow = {"name": f"served {pair}", "cat": "served", "id": flows, "pid": pid}
                begin, end = executed.iloc[0]["begin_s"] * MICROSECONDS, wait.begin_s * MICROSECONDS
                events.append(flow | {"ph": "s", "ts": begin, "tid": threads["guessed tools"]})
                events.append(flow | {"ph": "f", "bp": "e", "ts": end, "tid": threads["actor"]})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(path: Path, timelines: Iterable[tuple[str, pd.DataFrame]]) -> Path:
    """Write `trace_events` to a JSON file; returns its path."""
    path.write_text(json.dumps(trace_events(timelines), allow_nan=False, ensure_ascii=False) + "\n", "utf-8")
    return path
