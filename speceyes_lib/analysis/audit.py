"""Checks on the reported numbers: Table 1 and the ablations compared with each other.

Reported frames go in, tidy frames come out. The reported figures are rounded to two decimals, so every comparison
allows half a unit of the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..stats.intervals import wilson
from ..tasks.registry import AVERAGE, REPORTED_TASKS, SIZES
from .reported import TABLES

HALF_UNIT = 0.005 + 1e-9  # of a number with two decimals; the slack is for its float
SMALLEST_SHARE = 0.85  # denominators are searched from this share of the split's size upwards
METHOD = ["agent", "method", "confidence"]  # the columns that name a row of Table 1
NUMBERS = ["accuracy_pct", "speedup"]
Paper = Mapping[str, pd.DataFrame]  # the four tables of `TABLES` by name, as `read_reported` gives them


def audit_reported(paper: Paper, smallest_share: float = SMALLEST_SHARE) -> dict[str, pd.DataFrame]:
    """The table of every check by the name of its function below, in the order in which a reader would ask."""
    return {
        "averages": averages(paper["table1"]),
        "operating_points": operating_points(paper),
        "one_threshold": one_threshold(paper),
        "repeated_points": repeated_points(paper),
        "batch_sizes": batch_sizes(paper),
        "denominators": denominators(paper, smallest_share),
        "differences": differences(paper["table1"]),
    }


def averages(table1: pd.DataFrame) -> pd.DataFrame:
    """Row per method: the reported average and the unweighted mean of its splits, accuracy and speedup.

    Columns agent, method, confidence, n_splits, and for `accuracy_pct` and `speedup`: `_reported`, `_mean`,
    `_difference`; `agrees` where rounding of the splits and of the average explains both differences.
    """
    splits = table1[table1["split"] != AVERAGE].groupby(METHOD, sort=False)
    reported = table1[table1["split"] == AVERAGE].set_index(METHOD)
    table = splits.size().to_frame("n_splits").join(reported[[]], how="inner")
    for what in NUMBERS:
        table[f"{what}_reported"], table[f"{what}_mean"] = reported[what], splits[what].mean()
        table[f"{what}_difference"] = table[f"{what}_reported"] - table[f"{what}_mean"]
    off = table[[f"{what}_difference" for what in NUMBERS]].abs().max(axis=1)
    return table.assign(agrees=off <= 2 * HALF_UNIT).reset_index()


def operating_points(paper: Paper) -> pd.DataFrame:
    """Row per split of Table 1's `min` rows: the thresholds of the ablation that report the same two numbers.

    Columns agent, benchmark, split, accuracy_pct, speedup, `thresholds` (tuple, descending), and `block`, the
    thresholds that fit every split of that agent and benchmark.
    """
    table = _min_rows(paper["table1"])[["agent", "split", *NUMBERS]].reset_index(drop=True)
    table.insert(1, "benchmark", table["split"].str.split("/").str[0])
    both = table.merge(paper["ablation_threshold"], on=["agent", "split"], suffixes=("", "_swept"))
    same = both[
        ~both["is_baseline"] & _same(both, "accuracy_pct", "_swept") & _same(both, "speedup", "_swept")
    ]
    fitting = same.groupby(["agent", "split"])["threshold"].agg(set)
    sets = [fitting.get(key, set()) for key in zip(table["agent"], table["split"], strict=True)]
    blocks = pd.Series(sets).groupby([table["agent"], table["benchmark"]]).agg(lambda s: set.intersection(*s))
    shared = [blocks[key] for key in zip(table["agent"], table["benchmark"], strict=True)]
    for column, values in (("thresholds", sets), ("block", shared)):
        table[column] = [tuple(sorted(value, reverse=True)) for value in values]
    return table


def one_threshold(paper: Paper) -> pd.DataFrame:
    """Row per agent and threshold: the average that Table 1 would show with this one threshold everywhere.

    Columns agent, threshold, accuracy_pct, speedup (means over `n_splits`; nan unless all seven are reported),
    and `_reported`, `_baseline` of the accuracy and `speedup_reported`.
    """
    sweep = paper["ablation_threshold"]
    points = sweep[~sweep["is_baseline"]].groupby(["agent", "threshold"])
    table = points["split"].nunique().to_frame("n_splits").join(points[NUMBERS].mean())
    table[NUMBERS] = table[NUMBERS].where(table["n_splits"] == len(REPORTED_TASKS))
    rows = paper["table1"]
    average = rows[rows["split"] == AVERAGE].set_index(METHOD)[NUMBERS]
    reported = average.xs(("speceyes", "min"), level=METHOD[1:]).add_suffix("_reported")
    alone = average.xs(("baseline", ""), level=METHOD[1:])["accuracy_pct"].rename("accuracy_pct_baseline")
    table = table.join(reported, on="agent").join(alone, on="agent").reset_index()
    return table.sort_values(["agent", "threshold"], ascending=[True, False], ignore_index=True)


def repeated_points(paper: Paper) -> pd.DataFrame:
    """Row per point that two places report: Table 1 against the threshold sweep, the K sweep and the baselines.

    Columns pair, agent, split, and `_a`, `_b`, `_difference` (b - a) of accuracy_pct and speedup; a is Table 1.
    The K sweep is compared at K = 64, the default; the threshold sweep where `operating_points` found the block.
    """
    table1, sweep, topk = (paper[name] for name in ("table1", "ablation_threshold", "ablation_topk"))
    points = operating_points(paper)
    located = points[points["block"].map(len) == 1]
    located = located.assign(threshold=located["block"].str[0])
    alone = table1[(table1["method"] == "baseline") & (table1["split"] != AVERAGE)]
    pairs = {
        "table 1, threshold sweep": (located, sweep, ["threshold"]),
        "table 1, K sweep at 64": (points, topk[topk["top_k"] == 64], []),
        "table 1, baseline of the threshold sweep": (alone, sweep[sweep["is_baseline"]], []),
    }
    parts = [
        a.merge(b, on=["agent", "split", *keys], suffixes=("_a", "_b")).assign(pair=pair)
        for pair, (a, b, keys) in pairs.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    columns = ["pair", "agent", "split"]
    for what in NUMBERS:
        table[f"{what}_difference"] = table[f"{what}_b"] - table[f"{what}_a"]
        columns += [f"{what}_a", f"{what}_b", f"{what}_difference"]
    return table[columns]


def batch_sizes(paper: Paper) -> pd.DataFrame:
    """Row per split of the batch sweep: the batch sizes whose speedup is the one of Table 1's `min` row.

    Columns agent, split, speedup (Table 1), `batch_sizes` (tuple that agree), `closest` and its `closest_speedup`.
    """
    sweep = paper["ablation_batch_size"]
    chosen = _min_rows(paper["table1"])[["agent", "split", "speedup"]]
    both = sweep[sweep["batch_size"] > 0].merge(chosen, on=["agent", "split"], suffixes=("_swept", ""))
    both["batch_size"] = both["batch_size"].astype(int)
    both["off"] = (both["speedup_swept"] - both["speedup"]).abs()
    keys = ["agent", "split", "speedup"]
    near = both.loc[both.groupby(keys, sort=False)["off"].idxmin(), [*keys, "batch_size", "speedup_swept"]]
    equal = both[both["off"] < HALF_UNIT].groupby(["agent", "split"])["batch_size"].agg(tuple)
    near.insert(
        3, "batch_sizes", [equal.get(key, ()) for key in zip(near["agent"], near["split"], strict=True)]
    )
    names = {"batch_size": "closest", "speedup_swept": "closest_speedup"}
    return near.rename(columns=names).reset_index(drop=True)


def possible_denominators(
    accuracy_pct: float, size: int, smallest_share: float = SMALLEST_SHARE
) -> list[int]:
    """The N from `smallest_share` of `size` up to it, ascending, of which some count rounds to this percentage."""
    n = np.arange(math.ceil(smallest_share * size), size + 1)
    count = np.rint(accuracy_pct * n / 100)
    return n[np.abs(100 * count / n - accuracy_pct) <= HALF_UNIT].tolist()


def denominators(paper: Paper, smallest_share: float = SMALLEST_SHARE) -> pd.DataFrame:
    """Row per reported accuracy of a split: the sample counts it can come from.

    Columns table, agent, method, confidence, setting, split, accuracy_pct, size (of the benchmark), `possible`
    (how many N fit), `largest` (the largest N that fits; 0: none), `right` (its count), `dropped` (size - largest,
    so the fewest samples that are missing), `strict_pct` (right of all `size`: what it is if the missing are wrong).
    """
    names = [name for name, columns in TABLES.items() if "accuracy_pct" in columns]
    rows = pd.concat([paper[name].assign(table=name) for name in names])
    rows = rows[rows["split"].isin(SIZES)].reset_index(drop=True)
    alone = rows["is_baseline"].eq(True).map({True: "baseline", False: "speceyes"})
    rows["method"], rows["confidence"] = rows["method"].fillna(alone), rows["confidence"].fillna("")
    rows["setting"] = rows["threshold"].fillna(rows["top_k"])
    rows["size"] = rows["split"].map(SIZES)
    pairs = zip(rows["accuracy_pct"], rows["size"], strict=True)
    fitting = [possible_denominators(accuracy_pct, size, smallest_share) for accuracy_pct, size in pairs]
    rows["possible"] = [len(counts) for counts in fitting]
    rows["largest"] = [max(counts, default=0) for counts in fitting]
    rows["right"] = (rows["accuracy_pct"] * rows["largest"] / 100).round().astype(int)
    rows["dropped"] = (rows["size"] - rows["largest"]).where(rows["largest"] > 0)
    rows["strict_pct"] = (100.0 * rows["right"] / rows["size"]).where(rows["largest"] > 0)
    columns = ["table", *METHOD, "setting", "split", "accuracy_pct", "size"]
    return rows[[*columns, "possible", "largest", "right", "dropped", "strict_pct"]]


def differences(table1: pd.DataFrame) -> pd.DataFrame:
    """Row per agent's method and split: its accuracy against the same agent's baseline, and what chance explains.

    Columns agent, method, confidence, split, n (the benchmark's size), accuracy_pct with its Wilson interval
    (`accuracy_low_pct`, `accuracy_high_pct`), baseline_pct, `difference_pp`, `p_unpaired` (two proportions as if on
    different samples) and `p_paired_least` (exact McNemar if every sample on which the two differ went one way: the
    smallest p-value any pairing of these two accuracies can have).

    Both take HR-Bench's four option orders of one question as independent, which makes them too optimistic.
    """
    from scipy.stats import norm

    rows = table1[(table1["agent"] != "none") & table1["split"].isin(SIZES)]
    alone = rows[rows["method"] == "baseline"].rename(columns={"accuracy_pct": "baseline_pct"})
    others = rows.loc[rows["method"] != "baseline", [*METHOD, "split", "accuracy_pct"]]
    table = others.merge(alone[["agent", "split", "baseline_pct"]], on=["agent", "split"])
    n = table["split"].map(SIZES)
    a, b = ((table[name] * n / 100).round().astype(int) for name in ("accuracy_pct", "baseline_pct"))
    low, high = wilson(a, n)
    pooled = (a + b) / (2 * n)
    spread = np.sqrt(2 * pooled * (1 - pooled) / n)
    z = ((a - b).abs() / n / spread).where(spread > 0, 0.0)
    table.insert(4, "n", n)
    table.insert(6, "accuracy_low_pct", 100 * low)
    table.insert(7, "accuracy_high_pct", 100 * high)
    table["difference_pp"] = table["accuracy_pct"] - table["baseline_pct"]
    table["p_unpaired"] = 2 * norm.sf(z)
    table["p_paired_least"] = (2.0 * 0.5 ** (a - b).abs()).clip(upper=1.0)  # two-sided, all on one side
    return table


def _min_rows(table1: pd.DataFrame) -> pd.DataFrame:
    """The splits of SpecEyes gated by `min`."""
    is_min = (table1["method"] == "speceyes") & (table1["confidence"] == "min")
    return table1[is_min & (table1["split"] != AVERAGE)]


def _same(table: pd.DataFrame, column: str, suffix: str) -> pd.Series:
    """Where two columns report the same number."""
    return (table[column] - table[column + suffix]).abs() < HALF_UNIT
