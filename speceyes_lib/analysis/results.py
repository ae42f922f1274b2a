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
    return _numeric(pd.DataFrame(rows, columns=list(COLUMNS)))


def reported_results(table1: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 (`read_reported("table1")`) in long form."""
    method = table1["method"].where(table1["confidence"] == "", table1["method"] + "_" + table1["confidence"])
    long = table1.assign(source="reported", method=method)
    return _numeric(long.reindex(columns=list(COLUMNS)))


def _numeric(long: pd.DataFrame) -> pd.DataFrame:
    numbers = list(COLUMNS[4:])
    return long.assign(**long[numbers].astype("float64"))


ARM_COLUMNS = (
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n", "errors", "unparsed", "undecided"),
    *("wall_s", "speedup", "speedup_low", "speedup_high", "over", "beta", "alpha", "accepted_pct"),
)


def arm_results(summary: Mapping, split: str | None = None) -> pd.DataFrame:
    """A row per arm, by method: accuracy, counts, clock, speedup and shares, over all samples or one split.

    Columns: `ARM_COLUMNS`. `over` is the method that a speedup is relative to; what an arm does not have is missing.
    """
    score, rows = score_of(summary), {}
    for arm, entries in summary["arms"].items():
        entry = entries["pooled"] if split is None else entries["splits"][split]
        over = entry.get("speedup_over")
        rows[method_of(arm, score)] = entry | {"over": over and method_of(over, score)}
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(ARM_COLUMNS))
    numbers = table.columns.drop("over")
    return table.assign(**table[numbers].astype("float64")).rename_axis("method")


def comparison_results(summary: Mapping) -> pd.DataFrame:
    """Paired differences in accuracy: a row per comparison and split, "all" first.

    Index: first, second (methods), split. Columns: diff_pp with low_pp and high_pp, only_first and only_second
    (samples that only one of them got right), p_value (McNemar), n.
    """
    names = {"b": "only_first", "c": "only_second"}
    keys, rows = [], []
    for comparison, entries in summary["comparisons"].items():
        methods = [method_of(arm, score_of(summary)) for arm in comparison.split("_vs_")]
        for split, entry in {"all": entries["pooled"], **entries["splits"]}.items():
            keys.append((*methods, split))
            rows.append({names.get(key, key): value for key, value in entry.items()})
    index = pd.MultiIndex.from_tuples(keys, names=["first", "second", "split"]) if rows else None
    columns = ["diff_pp", "low_pp", "high_pp", "only_first", "only_second", "p_value", "n"]
    return pd.DataFrame(rows, index=index, columns=columns, dtype="float64")


def first_look_results(summary: Mapping) -> pd.DataFrame:
    """The agent with its tool against its forced first look: a row for hard, easy and all samples.

    Columns: n, first_look_pct and zoom_pct, each with its interval, diff_pp, low_pp, high_pp and p_value of the gain.
    """
    entries = {name: summary["first_look"][name] for name in ("hard", "easy", "all")}
    rows = {name: entry["gain"] | entry for name, entry in entries.items()}
    columns = [f"{who}{end}_pct" for who in ("first_look", "zoom") for end in ("", "_low", "_high")]
    columns = ["n", *columns, "diff_pp", "low_pp", "high_pp", "p_value"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    return table.astype("float64").rename_axis("samples")


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
