"""What the reported numbers say when they are held against each other: checks on Table 1 and the ablations.

Frames of `speceyes_lib.paper` in, tidy frames and the sentences that follow from them out. Nothing here knows
what will be found: change a reported number and the finding changes. The reported figures are rounded to two
decimals, so every comparison allows half a unit of the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..stats.intervals import wilson
from ..tasks.registry import AVERAGE, SIZES
from .reported import REPORTED_TASKS, TABLES

HALF_UNIT = 0.005 + 1e-9  # of a number with two decimals; the slack is for its float
SMALLEST_SHARE = 0.85  # denominators are searched from this share of the split's size upwards
PERCENTAGES = 10_001  # from 0.00 to 100.00
ALPHA = 0.05
Paper = Mapping[str, pd.DataFrame]  # table name -> frame, as `paper.reported` gives them


@dataclass(frozen=True)
class Finding:
    """One checked question: what was asked, the sentence that follows, and the table it follows from."""

    name: str
    question: str
    text: str
    table: pd.DataFrame


def audit(paper: Paper) -> list[Finding]:
    """Every check, in the order a reader would ask. `paper` holds the four tables of `paper.TABLES`."""
    return [
        _averages_found(averages(paper["table1"])),
        _operating_points_found(operating_points(paper)),
        _one_threshold_found(one_threshold(paper)),
        _repeated_found(repeated_points(paper)),
        _batch_size_found(batch_sizes(paper)),
        _denominators_found(denominators(paper)),
        _intervals_found(differences(paper["table1"])),
    ]


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


def _averages_found(table: pd.DataFrame) -> Finding:
    off = table[~table["agrees"]]
    worst = table[["accuracy_pct_difference", "speedup_difference"]].abs().max()
    text = (
        f"{len(table) - len(off)} of {len(table)} reported averages are the unweighted mean of their splits up to "
        f"rounding (largest differences: {worst['accuracy_pct_difference']:.3f} points of accuracy, "
        f"{worst['speedup_difference']:.3f} of speedup)."
    )
    if len(off):
        text += f" Not so: {'; '.join(_name(r) for r in off.itertuples())}."
    return Finding("averages", "Are the averages the means of their splits?", text, table)


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


def _operating_points_found(table: pd.DataFrame) -> Finding:
    blocks = table.drop_duplicates(["agent", "benchmark"])
    used: dict[float, list[str]] = {}
    for row in blocks.itertuples():
        if len(row.block) == 1:
            used.setdefault(row.block[0], []).append(f"{row.benchmark} of {row.agent}")
    text = "; ".join(
        f"threshold {t:g} for {_listed(names)}" for t, names in sorted(used.items(), reverse=True)
    )
    text = f"In the `min` rows of Table 1 the ablation has {text}." if text else "No block could be located."
    if len(used) > 1:
        text += (
            " The threshold differs between benchmarks and was read off the split it is reported on, so the rows are "
            "no promise for unseen data."
        )
    elif used:
        text += " One threshold serves every located block."
    lost = [f"{r.benchmark} of {r.agent}" for r in blocks.itertuples() if len(r.block) != 1]
    if lost:
        text += f" No single threshold of the ablation fits {_listed(lost)}."
    return Finding("operating_points", "Which threshold does each block of Table 1 use?", text, table)


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


def _one_threshold_found(table: pd.DataFrame) -> Finding:
    told = []
    for agent, part in table.dropna(subset=["accuracy_pct"]).groupby("agent", sort=False):
        best = part.loc[part["accuracy_pct"].idxmax()]
        told.append(
            f"{agent}: at best {best['accuracy_pct']:.2f} % at {best['speedup']:.2f}x (threshold "
            f"{best['threshold']:g}) against {best['accuracy_pct_reported']:.2f} % at {best['speedup_reported']:.2f}x "
            f"as reported; its agent alone has {best['accuracy_pct_baseline']:.2f} %"
        )
    text = "With one threshold for all seven splits, the reported ablation gives for " + "; ".join(told) + "."
    return Finding("one_threshold", "What would one threshold for everything give?", text, table)


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


def _repeated_found(table: pd.DataFrame) -> Finding:
    told = []
    for pair, part in table.groupby("pair", sort=False):
        accuracy = ~_same(part["accuracy_pct_a"], part["accuracy_pct_b"])
        clock = ~_same(part["speedup_a"], part["speedup_b"])
        sentence = f"{pair}: of {len(part)} points, {int(accuracy.sum())} differ in accuracy"
        if accuracy.any():
            sentence += f" (by up to {part['accuracy_pct_difference'].abs().max():.2f} points)"
        sentence += f" and {int(clock.sum())} in speedup"
        if clock.any():
            ratio = (part["speedup_b"] / part["speedup_a"] - 1).abs().max()
            sentence += f" (by up to {100 * ratio:.1f} %, a second timing of the same setting)"
        told.append(sentence)
    text = "; ".join(told) + "." if told else "No point is reported twice."
    return Finding("repeated_points", "Do points that appear twice agree?", text, table)


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


def _batch_size_found(table: pd.DataFrame) -> Finding:
    found = table[table["batch_sizes"].map(len) == 1]
    by_size: dict[int, list[str]] = {}
    for row in found.itertuples():
        by_size.setdefault(row.batch_sizes[0], []).append(row.split)
    told = [
        f"batch size {size} gives Table 1's speedup on {_listed(s)}" for size, s in sorted(by_size.items())
    ]
    rest = table[table["batch_sizes"].map(len) == 0]
    if len(rest):
        gaps = "; ".join(
            f"{r.split} {r.closest_speedup:.2f}x at {r.closest} against {r.speedup:.2f}x"
            for r in rest.itertuples()
        )
        told.append(
            f"on {len(rest)} of {len(table)} splits no batch size does (closest: {gaps}), so the sweep ran at another "
            "operating point or clock"
        )
    text = "; ".join(told)
    text = text[:1].upper() + text[1:] + "." if text else "The batch sweep shares no split with Table 1."
    return Finding("batch_sizes", "Which batch size is behind Table 1?", text, table)


# ------------------------------------------------------------------------------------------------ denominators
def possible_denominators(
    accuracy_pct: float, size: int, smallest_share: float = SMALLEST_SHARE
) -> list[int]:
    """The N from `smallest_share` of `size` up to it, ascending, of which some count rounds to this percentage."""
    n = np.arange(math.ceil(smallest_share * size), size + 1)
    count = np.rint(accuracy_pct * n / 100)
    return n[np.abs(100 * count / n - accuracy_pct) <= HALF_UNIT].tolist()


def denominators(paper: Paper) -> pd.DataFrame:
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
            fitting = possible_denominators(row["accuracy_pct"], size)
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


def _denominators_found(table: pd.DataFrame) -> Finding:
    short = table[table["dropped"] > 0]
    text = (
        f"{len(table) - len(short) - int(table['dropped'].isna().sum())} of {len(table)} reported accuracies are a "
        f"whole number of right answers out of the benchmark's full size; {len(short)} cannot be, so samples are "
        "missing from their denominators, as a protocol that drops failed samples would leave them"
    )
    if len(short):
        most = short.loc[(short["dropped"] / short["size"]).idxmax()]
        text += (
            f". At least {int(short['dropped'].min())} to {int(short['dropped'].max())} samples are missing there; "
            f"relatively the most in {most['method']} of {most['agent']} on {most['split']} "
            f"({int(most['dropped'])} of {int(most['size'])}: {most['accuracy_pct']:.2f} % is {int(most['right'])} of "
            f"{int(most['largest'])}, and {most['strict_pct']:.2f} % if the missing count as wrong)"
        )
    none = table[table["dropped"].isna()]
    if len(none):
        odd = _listed([f"{r.accuracy_pct:.2f} % of {_name(r)} on {r.split}" for r in none.itertuples()])
        text += f". No denominator down to {100 * SMALLEST_SHARE:g} % of the size gives {odd}"
    sizes = sorted(set(table["size"]))
    chance = ", ".join(f"{100 * min(1.0, (n + 1) / PERCENTAGES):.2g} % at n = {n}" for n in sizes)
    text += (
        ". What cannot be is certain at any size; what can be may be so by chance, since of all percentages with two "
        f"decimals so many are possible: {chance}."
    )
    question = "Which denominators can the accuracies have?"
    return Finding("denominators", question, text, table)


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


def _intervals_found(table: pd.DataFrame) -> Finding:
    chosen = table[(table["method"] == "speceyes") & (table["confidence"] == "min")]
    wide = (table["accuracy_high_pct"] - table["accuracy_low_pct"]).groupby(table["split"]).max() / 2
    sure = chosen[chosen["p_unpaired"] < ALPHA]
    never = chosen[chosen["p_paired_least"] >= ALPHA]
    text = (
        f"At these sizes a 95 % Wilson interval reaches up to {wide.max():.1f} points to each side (on "
        f"{wide.idxmax()}) and {wide.min():.1f} (on {wide.idxmin()}). Of the {len(chosen)} differences between the "
        f"`min` rows and their baselines, {len(sure)} exceed sampling error even if the two were run on different "
        f"samples{_where(sure)}; {len(never)} cannot reach p < {ALPHA:g} however the answers are paired"
        f"{_where(never)}; for the others it depends on the pairing, which is not published."
    )
    return Finding("differences", "Which differences exceed sampling error?", text, table)


# ------------------------------------------------------------------------------------------------ small
def _min_rows(table1: pd.DataFrame) -> pd.DataFrame:
    return table1[
        (table1["method"] == "speceyes") & (table1["confidence"] == "min") & (table1["split"] != AVERAGE)
    ]


def _same(a: pd.Series, b: pd.Series | float) -> pd.Series:
    return (a - b).abs() < HALF_UNIT


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _where(rows: pd.DataFrame) -> str:
    places = [f"{r.agent} on {r.split} ({r.difference_pp:+.2f})" for r in rows.itertuples()]
    return f": {_listed(places)}" if places else ""


def _name(row: tuple) -> str:
    return " ".join(part for part in (row.agent, row.method, row.confidence) if part)
