"""Results in long form, one row per number: as measured by a run and as reported by the paper."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..tasks.registry import AVERAGE

COLUMNS = (
    *("source", "agent", "method", "split"),
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n"),
    *("speedup", "speedup_low", "speedup_high"),
)


def method_of(arm: str, score: str = "min") -> str:
    """The method that an arm of a run stands for: `gated` is SpecEyes with the run's confidence score."""
    return f"speceyes_{score}{arm.removeprefix('gated')}" if arm.startswith("gated") else arm


def score_of(summary: Mapping) -> str:
    """The confidence score the run was gated by."""
    return summary.get("gate", {}).get("score") or "min"


# ------------------------------------------------------------------ long forms


def measured_results(summary: Mapping) -> pd.DataFrame:
    """`summary.json` in long form, `AVERAGE` included; `agent` is the name of the run."""
    rows = []
    for arm, told in summary["arms"].items():
        entries = {**told["splits"], AVERAGE: told["average"]}
        for split, entry in entries.items():
            row = {c: entry.get(c) for c in COLUMNS[4:]}
            if arm.startswith("baseline"):  # each setting's agent alone is what the others are compared with
                row |= {"speedup": 1.0, "speedup_low": None, "speedup_high": None}
            names = ("measured", summary.get("run") or "run", method_of(arm, score_of(summary)), split)
            rows.append(dict(zip(COLUMNS[:4], names, strict=True)) | row)
    return _numeric(pd.DataFrame(rows, columns=list(COLUMNS)))


def reported_results(table1: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 (`read_reported("table1")`) in long form."""
    method = table1["method"].where(table1["confidence"] == "", table1["method"] + "_" + table1["confidence"])
    long = table1.assign(source="reported", method=method)
    return _numeric(long.reindex(columns=list(COLUMNS)))


def _numeric(long: pd.DataFrame) -> pd.DataFrame:
    numbers = list(COLUMNS[4:])
    return long.assign(**long[numbers].astype("float64"))
