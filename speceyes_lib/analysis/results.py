"""Results as frames: of a run's summary by arm, comparison and split, and in long form with the reported ones."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..tasks.registry import AVERAGE

COLUMNS = (
    *("source", "agent", "method", "split"),
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n"),
    *("speedup", "speedup_low", "speedup_high"),
)
NUMBERS = dict.fromkeys(COLUMNS[4:], "float64")


def method_of(arm: str, score: str = "min") -> str:
    """The method that an arm of a run stands for: `gated` is SpecEyes with the run's confidence score."""
    return f"speceyes_{score}{arm.removeprefix('gated')}" if arm.startswith("gated") else arm


def score_of(summary: Mapping) -> str:
    """The confidence score the run was gated by."""
    return summary.get("gate", {}).get("score") or "min"


def measured_results(summary: Mapping) -> pd.DataFrame:
    """`summary.json` in long form, `AVERAGE` included; `agent` is the name of the run."""
    score, run = score_of(summary), summary.get("run") or "run"
    rows = []
    for arm, entries in summary["arms"].items():
        keys = {"source": "measured", "agent": run, "method": method_of(arm, score)}
        for split, entry in {**entries["splits"], AVERAGE: entries["average"]}.items():
            row = entry | keys | {"split": split}
            if arm.startswith("baseline"):  # each setting's agent alone is what the others are compared with
                row |= {"speedup": 1.0, "speedup_low": None, "speedup_high": None}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(NUMBERS)


def reported_results(table1: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 (`read_reported("table1")`) in long form."""
    method = table1["method"].where(table1["confidence"] == "", table1["method"] + "_" + table1["confidence"])
    long = table1.assign(source="reported", method=method)
    return long.reindex(columns=list(COLUMNS)).astype(NUMBERS)


ARM_COLUMNS = (
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n", "errors", "unparsed", "undecided"),
    *("wall_s", "speedup", "speedup_low", "speedup_high", "over", "beta", "alpha", "accepted_pct"),
)


def arm_results(summary: Mapping) -> pd.DataFrame:
    """A row per arm, by method: accuracy, counts, clock, speedup and shares, over all samples.

    Columns: `ARM_COLUMNS`. `over` is the method that a speedup is relative to; what an arm does not have is missing.
    """
    score, rows = score_of(summary), {}
    for arm, entries in summary["arms"].items():
        over = entries["pooled"].get("speedup_over")
        rows[method_of(arm, score)] = entries["pooled"] | {"over": over and method_of(over, score)}
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(ARM_COLUMNS))
    numbers = table.columns.drop("over")
    return table.assign(**table[numbers].astype("float64")).rename_axis("method")


def auroc_results(auroc: Mapping) -> pd.DataFrame:
    """`summary.auroc_by_score` as a frame: a row for all drafts, those after the router, and each split.

    Columns: n, and per score its AUROC, `<score>_low` and `<score>_high`.
    """
    rows: dict[str, dict[str, float]] = {}
    for score, entries in auroc.items():
        parts = {"all": entries["pooled"], "after router": entries["after_router"], **entries["splits"]}
        for split, entry in parts.items():
            row = rows.setdefault(split, {"n": entry["n"]})
            row |= {score: entry["value"], f"{score}_low": entry["low"], f"{score}_high": entry["high"]}
    return pd.DataFrame.from_dict(rows, orient="index", dtype="float64").rename_axis("drafts")
