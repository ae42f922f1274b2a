"""Numbers behind the figures: a frame per figure whose plotted numbers are not simply its argument.

`report/plots` only draws. Whatever a figure needs that is not yet a column is computed here, so that the CSV file
beside a figure holds exactly what it shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..gating.gate import accepts
from ..gating.scores import SCORES
from ..gating.threshold import OperatingPoint
from ..runs.records import PHASES
from ..stats import calibration, proportions, ranking
from ..stats.resampling import Bootstrap
from .results import method_of
from .sample_frame import arm
from .summary import groups_of

# ------------------------------------------------------------------ gate


def operating_curve(point: OperatingPoint) -> pd.DataFrame:
    """The curve behind a choice of threshold: threshold, accepted_pct, accuracy_pct, agent_pct, n."""
    return pd.DataFrame(
        {
            "threshold": point.curve.threshold,
            "accepted_pct": point.curve.accepted_pct,
            "accuracy_pct": point.curve.accuracy_pct,
            "agent_pct": point.baseline_accuracy.value,
            "n": point.n,
        }
    )


def quadrants_data(frame: pd.DataFrame, threshold: float, mode: str = "min") -> pd.DataFrame:
    """Router and gate of every sample of the instrumented pass, and how often each answer is right.

    The funnel asks the gate only where the router says "no". Here the gate is applied to all samples.

    Args:
        frame: a row per sample, as `sample_frame.samples` returns it.
        threshold: drafts with a score above it are accepted.
        mode: score of the gate.

    Returns:
        Four rows: router ("yes", "no"), gate ("rejects", "accepts"), n, draft_pct and agent_pct (NaN where n is 0).
    """
    part = frame[frame["collect_verdict"].notna() & frame["router_verdict"].notna()]
    accepted = accepts(part[f"score_{mode}"], threshold)
    rows = []
    for router in ("yes", "no"):
        for gate, inside in (("rejects", ~accepted), ("accepts", accepted)):
            cell = part[(part["router_verdict"] == router) & inside]
            shares = {
                f"{who}_pct": 100.0 * cell[f"{who}_right"].fillna(False).astype(bool).mean()
                for who in ("draft", "agent")
            }
            rows.append({"router": router, "gate": gate, "n": len(cell), **shares})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------ scores


def rolling_by_rank_data(drafts: pd.DataFrame, names: Sequence[str], window: int = 50) -> pd.DataFrame:
    """`ranking.rolling_accuracy` of several scores, one below the other.

    Args:
        drafts: a column per score, and `right` (bool); a row per draft.
        names: scores to use.
        window: drafts per window.

    Returns:
        score, rank_pct (middle of the window), accuracy_pct, low_pct, high_pct, window, n.
    """
    parts = []
    for name in names:
        curve = ranking.rolling_accuracy(drafts[name], drafts["right"], window)
        columns = {
            "score": name,
            "rank_pct": 100 * ((np.arange(len(curve.score)) + curve.window / 2) / max(curve.n, 1)),
            "accuracy_pct": curve.accuracy_pct,
            "low_pct": curve.low_pct,
            "high_pct": curve.high_pct,
            "window": curve.window,
            "n": curve.n,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def risk_coverage_data(drafts: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`ranking.risk_coverage` of several scores: score, coverage_pct, risk_pct, aurc, n. `drafts` as above."""
    parts = []
    for name in names:
        curve = ranking.risk_coverage(drafts[name], drafts["right"], bootstrap=Bootstrap(draws=1))
        points = {c: getattr(curve, c) for c in ("coverage_pct", "risk_pct")}
        parts.append(pd.DataFrame({"score": name, **points, "aurc": curve.aurc.value, "n": curve.n}))
    return pd.concat(parts, ignore_index=True)


def reliability_data(drafts: pd.DataFrame, names: Sequence[str], n_bins: int = 10) -> pd.DataFrame:
    """Equally filled bins of probabilities: score, promised_pct, accuracy_pct, low_pct, high_pct, n_bin.

    Scores that are no probability are left out.
    """
    columns = ("promised_pct", "accuracy_pct", "low_pct", "high_pct", "n_bin")
    parts = [pd.DataFrame(columns=["score", *columns])]
    for name in (name for name in names if SCORES[name].is_probability):
        bins = calibration.reliability(drafts[name], drafts["right"], n_bins)
        parts.append(pd.DataFrame({"score": name, **{c: getattr(bins, c) for c in columns}}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


# ------------------------------------------------------------------ cost


def first_look_by_size_data(frame: pd.DataFrame, hard_below: float, n_bins: int = 3) -> pd.DataFrame:
    """Accuracy of the agent with its tool and at its forced first look, by size of the target.

    Args:
        frame: a row per sample, as `sample_frame.samples` returns it.
        hard_below: always an edge; fraction of the image's side.
        n_bins: equally filled bins at each side of it, at most.

    Returns:
        who ("first_look", "zoom"), low and high (edges), accuracy_pct, low_pct, high_pct, n; no row where n is 0.
    """
    looked = frame[frame["first_look_verdict"].notna() & frame["target_fraction"].notna()]
    size = looked["target_fraction"]
    edges = {hard_below}
    for side in (size[size < hard_below], size[size >= hard_below]):
        if len(side):
            cuts = np.quantile(side, np.linspace(0, 1, n_bins + 1))
            edges |= {round(float(c), 2) for c in cuts[1:-1]} | {
                float(np.floor(cuts[0] * 100) / 100) if side.iloc[0] < hard_below else hard_below,
                hard_below if side.iloc[0] < hard_below else float(np.ceil(cuts[-1] * 100) / 100),
            }
    rows = []
    bounds = sorted(edges)
    for low, high in itertools.pairwise(bounds):
        last = high == bounds[-1]
        part = looked[(size >= low) & ((size <= high) if last else (size < high))]
        for who, column in (("first_look", "first_look_right"), ("zoom", "agent_right")):
            share = proportions.accuracy(part[column].fillna(False).astype(bool), groups_of(part))
            values = {"accuracy_pct": share.value, "low_pct": share.low, "high_pct": share.high}
            rows.append({"who": who, "low": low, "high": high, **values, "n": share.n})
    columns = ["who", "low", "high", "accuracy_pct", "low_pct", "high_pct", "n"]
    table = pd.DataFrame(rows, columns=columns)
    return table[table["n"] > 0].reset_index(drop=True)


def phase_times_data(frame: pd.DataFrame, arms: Sequence[str], score: str = "min") -> pd.DataFrame:
    """Mean milliseconds per sample of every phase: columns method, phase, ms. Arms without times are left out."""
    parts = {name: arm(frame, name) for name in arms}
    rows = [
        {"method": method_of(name, score), "phase": phase, "ms": 1000.0 * float(part[phase].mean())}
        for name, part in parts.items()
        if part["wall_s"].notna().any()
        for phase in PHASES
    ]
    return pd.DataFrame(rows, columns=["method", "phase", "ms"])


# ------------------------------------------------------------------ ablations


def batch_gains(sweep: pd.DataFrame) -> pd.DataFrame:
    """Speedup added per query added to the batch, between neighbouring batch sizes of one source and split.

    Args:
        sweep: source, split, batch_size, speedup, is_baseline; baseline rows are left out.

    Returns:
        source, split, batch_size (the larger of the two), gain_per_query.
    """
    points = sweep[~sweep["is_baseline"]].sort_values("batch_size")
    steps = points.groupby(["source", "split"], sort=False)[["batch_size", "speedup"]].diff()
    gains = points.assign(gain_per_query=steps["speedup"] / steps["batch_size"])
    columns = ["source", "split", "batch_size", "gain_per_query"]
    return gains.dropna(subset=["gain_per_query"])[columns].reset_index(drop=True)
