"""Results as frames: of a run's summary by arm, comparison and split, and in long form with the reported ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from ..errors import ContradictionError
from ..runs.arms import BATCHED
from ..tasks.registry import AVERAGE

_KEYS = ("source", "agent", "method", "split")
_MEASURES = (
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n"),
    *("speedup", "speedup_low", "speedup_high", "speedup_predicted"),
)
# decided: equal for equal decisions of a gate, "" without one; how: "run", "replayed" (decisions that no arm made) or
# "reported"
COLUMNS = (*_KEYS, *_MEASURES, "decided", "how")
NUMBERS = dict.fromkeys(_MEASURES, "float64")


def method_of(arm: str, score: str = "min") -> str:
    """The method that an arm of a run stands for: `gated` is SpecEyes with the run's confidence score."""
    return f"speceyes_{score}{arm.removeprefix('gated')}" if arm.startswith("gated") else arm


def score_of(summary: Mapping) -> str:
    """The confidence score the run was gated by."""
    return summary.get("gate", {}).get("score") or "min"


def measured_results(summary: Mapping, how: str = "run") -> pd.DataFrame:
    """`summary.json` in long form, `AVERAGE` included; `agent` is the name of the run; `how`: of all rows."""
    score, run = score_of(summary), summary.get("run") or "run"
    rows = []
    for arm, entries in summary["arms"].items():
        keys = {"source": "measured", "agent": run, "method": method_of(arm, score), "how": how}
        for split, entry in {**entries["splits"], AVERAGE: entries["average"]}.items():
            row = {"decided": ""} | entry | keys | {"split": split}
            if arm.startswith("baseline"):  # each setting's agent alone is what the others are compared with
                row |= {"speedup": 1.0, "speedup_low": None, "speedup_high": None}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(NUMBERS)


def reported_results(table1: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 (`read_reported("table1")`) in long form."""
    method = table1["method"].where(table1["confidence"] == "", table1["method"] + "_" + table1["confidence"])
    long = table1.assign(source="reported", method=method, decided="", how="reported")
    return long.reindex(columns=list(COLUMNS)).astype(NUMBERS)


def check_cells(long: pd.DataFrame, arms: pd.DataFrame | None = None) -> int:
    """Compare the measured cells of the results with each other; returns how many rows were compared.

    Args:
        long: results in long form, see `COLUMNS`.
        arms: `arm_results` of the same run, over all samples.

    Raises:
        ContradictionError: a method has two rows for a split; two methods with equal decisions have different numbers;
            an average is not the mean of its splits; a number over all samples lies outside those of its splits. The
            message names every such pair of cells.
    """
    measured = long[long["source"] != "reported"].reset_index(drop=True)
    faults = _repeated(measured) + _different_for_equal_decisions(measured)
    for (agent, method), part in measured.groupby(["agent", "method"], sort=False):
        cells = part.set_index("split")
        faults += _averages_off(f"{agent}, {method}", cells)
        is_of_arms = arms is not None and agent == measured["agent"].iloc[0] and method in arms.index
        if is_of_arms and not method.startswith("baseline"):  # these are what others are compared with
            faults += _pooled_off(f"{agent}, {method}", cells, arms.loc[method])
    if faults:
        raise ContradictionError("cells of the results contradict each other: " + "; ".join(faults))
    return len(measured)


def _repeated(measured: pd.DataFrame) -> list[str]:
    twice = measured[measured.duplicated(list(_KEYS))]
    return [f"{row.agent}, {row.method}, {row.split} has two rows" for row in twice.itertuples()]


def _different_for_equal_decisions(measured: pd.DataFrame) -> list[str]:
    decided = measured[measured["decided"] != ""]
    engine = decided["method"].str.endswith(BATCHED)  # many agents at a time have another clock
    faults = []
    for (_, split, *_), same in decided.groupby(["agent", "split", engine, "decided"], sort=False):
        first, *others = same.to_dict("records")
        for other in others:
            for name in _MEASURES:
                a, b = first[name], other[name]
                unpredicted = name == "speedup_predicted" and (math.isnan(a) or math.isnan(b))
                if not (unpredicted or _equal(a, b)):
                    methods = f"{first['method']} and {other['method']}"
                    faults.append(f"{methods} decide alike on {split}, but {name} is {a:.6g} and {b:.6g}")
    return faults


def _averages_off(where: str, cells: pd.DataFrame) -> list[str]:
    if AVERAGE not in cells.index:
        return []
    splits, faults = cells.drop(index=AVERAGE), []
    for name in ("accuracy_pct", "speedup", "speedup_predicted"):
        mean = splits[name].mean(skipna=False)
        if not _equal(shown := cells.loc[AVERAGE, name], mean):
            faults.append(
                f"{where}: {name} of the average is {shown:.6g}, its splits have the mean {mean:.6g}"
            )
    return faults


def _pooled_off(where: str, cells: pd.DataFrame, pooled: pd.Series) -> list[str]:
    splits, faults = cells.drop(index=AVERAGE, errors="ignore"), []
    if pooled["n"] != splits["n"].sum():
        faults.append(f"{where}: {pooled['n']:.0f} samples in total, {splits['n'].sum():.0f} in its splits")
    for name in ("accuracy_pct", "speedup"):
        low, high = splits[name].min(), splits[name].max()
        slack = 1e-9 * max(abs(high), 1.0)
        if pooled[name] < low - slack or pooled[name] > high + slack:  # nan is neither
            outside = f"the splits have {low:.6g} to {high:.6g}"
            faults.append(f"{where}: {name} over all samples is {pooled[name]:.6g}, {outside}")
    return faults


def _equal(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9)


ARM_COLUMNS = (
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n", "errors", "unparsed", "undecided"),
    *("wall_s", "speedup", "speedup_low", "speedup_high", "speedup_predicted", "over"),
    *("beta", "alpha", "accepted_pct"),
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
