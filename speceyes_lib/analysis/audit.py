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
from ..tasks.registry import AVERAGE, SIZES
from .reported import REPORTED_TASKS, TABLES

HALF_UNIT = 0.005 + 1e-9  # of a number with two decimals; the slack is for its float
SMALLEST_SHARE = 0.85  # denominators are searched from this share of the split's size upwards
Paper = Mapping[str, pd.DataFrame]  # table name -> frame, as `reported` gives them


def audit_reported(paper: Paper, smallest_share: float = SMALLEST_SHARE) -> dict[str, pd.DataFrame]:
    """The table of every check by name, in the order a reader would ask; each function below says what one holds.

    Args:
        paper: the four tables of `TABLES` by name, as `read_reported` gives them.
        smallest_share: see `possible_denominators`.
    """
    return {
        "averages": averages(paper["table1"]),
        "operating_points": operating_points(paper),
        "one_threshold": one_threshold(paper),
        "repeated_points": repeated_points(paper),
        "batch_sizes": batch_sizes(paper),
        "denominators": denominators(paper, smallest_share),
        "differences": differences(paper["table1"]),
    }


# ------------------------------------------------------------------------------------------------ averages
def averages(table1: pd.DataFrame) -> pd.DataFrame:
    """Row per method: the reported average and the unweighted mean of its splits, accuracy and speedup.

    Columns agent, method, confidence, n_splits, and for `accuracy_pct` and `speedup`: `_reported`, `_mean`,
    `_difference`; `agrees` where rounding of the splits and of the average explains both differences.
    """
    rows = []
    for (agent, method, confidence), part in table1.groupby(["agent", "method", "confidence"], sort=False):
        splits = part[part["split"] != AVERAGE]
        given = part[part["split"] == AVERAGE]
        if given.empty or splits.empty:
            continue
        row = {"agent": agent, "method": method, "confidence": confidence, "n_splits": len(splits)}
        for what in ("accuracy_pct", "speedup"):
            reported, mean = float(given[what].iloc[0]), float(splits[what].mean())
            row |= {f"{what}_reported": reported, f"{what}_mean": mean, f"{what}_difference": reported - mean}
        off = max(abs(row["accuracy_pct_difference"]), abs(row["speedup_difference"]))
        rows.append(row | {"agrees": off <= 2 * HALF_UNIT})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ operating points
def operating_points(paper: Paper) -> pd.DataFrame:
    """Row per split of Table 1's `min` rows: the thresholds of the ablation that report the same two numbers.

    Columns agent, benchmark, split, accuracy_pct, speedup, `thresholds` (tuple, descending), and `block`, the
    thresholds that fit every split of that agent and benchmark.
    """
    chosen = _min_rows(paper["table1"])
    sweep = paper["ablation_threshold"]
    sweep = sweep[~sweep["is_baseline"]]
    rows = []
    for row in chosen.itertuples():
        here = sweep[(sweep["agent"] == row.agent) & (sweep["split"] == row.split)]
        same = _same(here["accuracy_pct"], row.accuracy_pct) & _same(here["speedup"], row.speedup)
        rows.append(
            {
                "agent": row.agent,
                "benchmark": row.split.split("/")[0],
                "split": row.split,
                "accuracy_pct": row.accuracy_pct,
                "speedup": row.speedup,
                "thresholds": tuple(sorted(here.loc[same, "threshold"], reverse=True)),
            }
        )
    table = pd.DataFrame(rows)
    blocks = {
        key: tuple(sorted(set.intersection(*map(set, part["thresholds"])), reverse=True))
        for key, part in table.groupby(["agent", "benchmark"], sort=False)
    }
    table["block"] = [blocks[key] for key in zip(table["agent"], table["benchmark"], strict=True)]
    return table


def one_threshold(paper: Paper) -> pd.DataFrame:
    """Row per agent and threshold: the average that Table 1 would show with this one threshold everywhere.

    Columns agent, threshold, accuracy_pct, speedup (means over `n_splits`; nan unless all seven are reported),
    and `_reported`, `_baseline` of the accuracy and `speedup_reported`.
    """
    sweep = paper["ablation_threshold"]
    table1 = paper["table1"].set_index(["agent", "method", "confidence", "split"])
    rows = []
    for agent, part in sweep[~sweep["is_baseline"]].groupby("agent", sort=False):
        reported = table1.loc[(agent, "speceyes", "min", AVERAGE)]
        baseline = table1.loc[(agent, "baseline", "", AVERAGE)]
        for threshold, at in part.groupby("threshold"):
            whole = at["split"].nunique() == len(REPORTED_TASKS)
            rows.append(
                {
                    "agent": agent,
                    "threshold": threshold,
                    "n_splits": at["split"].nunique(),
                    "accuracy_pct": at["accuracy_pct"].mean() if whole else math.nan,
                    "speedup": at["speedup"].mean() if whole else math.nan,
                    "accuracy_pct_reported": reported["accuracy_pct"],
                    "speedup_reported": reported["speedup"],
                    "accuracy_pct_baseline": baseline["accuracy_pct"],
                }
            )
    return pd.DataFrame(rows).sort_values(["agent", "threshold"], ascending=[True, False], ignore_index=True)


# ------------------------------------------------------------------------------------------------ the same point twice
def repeated_points(paper: Paper) -> pd.DataFrame:
    """Row per point that two places report: Table 1 against the threshold sweep, the K sweep and the baselines.

    Columns pair, agent, split, and `_a`, `_b`, `_difference` (b - a) of accuracy_pct and speedup; a is Table 1.
    The K sweep is met at K = 64, the default; the threshold sweep where `operating_points` found the block.
    """
    table1 = paper["table1"]
    points = operating_points(paper)
    sweep, topk = paper["ablation_threshold"], paper["ablation_topk"]
    pairs = []
    for row in points.itertuples():
        if len(row.block) == 1:
            at = sweep[_same(sweep["threshold"], row.block[0])]
            pairs.append(("table 1, threshold sweep", row, at))
        pairs.append(("table 1, K sweep at 64", row, topk[topk["top_k"] == 64]))
    alone = table1[(table1["method"] == "baseline") & (table1["split"] != AVERAGE)]
    there = sweep[sweep["is_baseline"]]
    pairs += [("table 1, baseline of the threshold sweep", row, there) for row in alone.itertuples()]
    rows = [
        {
            "pair": pair,
            "agent": a.agent,
            "split": a.split,
            "accuracy_pct_a": a.accuracy_pct,
            "accuracy_pct_b": b.accuracy_pct,
            "accuracy_pct_difference": b.accuracy_pct - a.accuracy_pct,
            "speedup_a": a.speedup,
            "speedup_b": b.speedup,
            "speedup_difference": b.speedup - a.speedup,
        }
        for pair, a, frame in pairs
        for b in frame[(frame["agent"] == a.agent) & (frame["split"] == a.split)].itertuples()
    ]
    return pd.DataFrame(rows)


def batch_sizes(paper: Paper) -> pd.DataFrame:
    """Row per split of the batch sweep: the batch sizes whose speedup is the one of Table 1's `min` row.

    Columns agent, split, speedup (Table 1), `batch_sizes` (tuple that agree), `closest` and its `closest_speedup`.
    """
    chosen = _min_rows(paper["table1"]).set_index(["agent", "split"])["speedup"]
    sweep = paper["ablation_batch_size"]
    rows = []
    for (agent, split), part in sweep[sweep["batch_size"] > 0].groupby(["agent", "split"], sort=False):
        target = float(chosen.get((agent, split), math.nan))
        if math.isnan(target):
            continue
        near = part.loc[(part["speedup"] - target).abs().idxmin()]
        rows.append(
            {
                "agent": agent,
                "split": split,
                "speedup": target,
                "batch_sizes": tuple(int(b) for b in part.loc[_same(part["speedup"], target), "batch_size"]),
                "closest": int(near["batch_size"]),
                "closest_speedup": float(near["speedup"]),
            }
        )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ denominators
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
    rows = []
    for name, columns in TABLES.items():
        if "accuracy_pct" not in columns:
            continue
        frame = paper[name]
        for row in frame[frame["split"].isin(SIZES)].to_dict("records"):
            size = SIZES[row["split"]]
            fitting = possible_denominators(row["accuracy_pct"], size, smallest_share)
            largest = max(fitting, default=0)
            right = round(row["accuracy_pct"] * largest / 100)
            rows.append(
                {
                    "table": name,
                    "agent": row["agent"],
                    "method": row.get("method", "baseline" if row.get("is_baseline") else "speceyes"),
                    "confidence": row.get("confidence", ""),
                    "setting": row.get("threshold", row.get("top_k", math.nan)),
                    "split": row["split"],
                    "accuracy_pct": row["accuracy_pct"],
                    "size": size,
                    "possible": len(fitting),
                    "largest": largest,
                    "right": right,
                    "dropped": size - largest if largest else math.nan,
                    "strict_pct": 100.0 * right / size if largest else math.nan,
                }
            )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ sampling error
def differences(table1: pd.DataFrame) -> pd.DataFrame:
    """Row per agent's method and split: its accuracy against the same agent's baseline, and what chance explains.

    Columns agent, method, confidence, split, n (the benchmark's size), accuracy_pct with its Wilson interval
    (`_low_pct`, `_high_pct`), baseline_pct, `difference_pp`, `p_unpaired` (two proportions as if on different
    samples) and `p_paired_least` (exact McNemar if every sample on which the two differ went one way: the
    smallest p-value any pairing of these two accuracies can have).

    Both take HR-Bench's four option orders of one question as independent, which makes them too optimistic.
    """
    from scipy.stats import binomtest, norm

    rows = []
    for agent, part in table1[table1["agent"] != "none"].groupby("agent", sort=False):
        base = part[part["method"] == "baseline"].set_index("split")["accuracy_pct"]
        for row in part[(part["method"] != "baseline") & part["split"].isin(SIZES)].itertuples():
            if row.split not in base:
                continue
            n = SIZES[row.split]
            a, b = round(row.accuracy_pct * n / 100), round(base[row.split] * n / 100)
            low, high = wilson(a, n)
            pooled = (a + b) / (2 * n)
            spread = math.sqrt(2 * pooled * (1 - pooled) / n)
            z = abs(a - b) / n / spread if spread else 0.0
            rows.append(
                {
                    "agent": agent,
                    "method": row.method,
                    "confidence": row.confidence,
                    "split": row.split,
                    "n": n,
                    "accuracy_pct": row.accuracy_pct,
                    "accuracy_low_pct": 100 * float(low),
                    "accuracy_high_pct": 100 * float(high),
                    "baseline_pct": float(base[row.split]),
                    "difference_pp": row.accuracy_pct - float(base[row.split]),
                    "p_unpaired": float(2 * norm.sf(z)),
                    "p_paired_least": float(binomtest(abs(a - b), abs(a - b), 0.5).pvalue) if a != b else 1.0,
                }
            )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ small
def _min_rows(table1: pd.DataFrame) -> pd.DataFrame:
    return table1[
        (table1["method"] == "speceyes") & (table1["confidence"] == "min") & (table1["split"] != AVERAGE)
    ]


def _same(a: pd.Series, b: pd.Series | float) -> pd.Series:
    return (a - b).abs() < HALF_UNIT
