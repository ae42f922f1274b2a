"""Numbers behind the figures: a frame per figure whose plotted numbers are not simply its argument.

`report/plots` only draws. What a figure needs that is not yet a column is computed here, so that the CSV file beside
a figure holds exactly what it shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..gating.scores import SCORES
from ..gating.threshold import OperatingPoint
from ..runs.records import PHASES
from ..stats import calibration, proportions, ranking
from ..stats.resampling import Bootstrap
from .results import method_of
from .sample_frame import arm, right_of
from .summary import groups_of


def operating_curve(point: OperatingPoint) -> pd.DataFrame:
    """The curve behind a choice of threshold: threshold, accepted_pct, accuracy_pct, agent_pct, n."""
    curve = point.curve
    columns = {name: getattr(curve, name) for name in ("threshold", "accepted_pct", "accuracy_pct")}
    return pd.DataFrame(columns).assign(agent_pct=point.baseline_accuracy.value, n=point.n)


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
        rank = np.arange(len(curve.score)) + curve.window / 2
        columns = {"score": name, "rank_pct": 100 * (rank / max(curve.n, 1))}
        columns |= {c: getattr(curve, c) for c in ("accuracy_pct", "low_pct", "high_pct", "window", "n")}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def risk_coverage_data(drafts: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`ranking.risk_coverage` of several scores: score, coverage_pct, risk_pct, aurc, n. `drafts` as above."""
    parts = []
    for name in names:
        curve = ranking.risk_coverage(drafts[name], drafts["right"], bootstrap=Bootstrap(draws=1))
        columns = {"score": name, "coverage_pct": curve.coverage_pct, "risk_pct": curve.risk_pct}
        parts.append(pd.DataFrame(columns).assign(aurc=curve.aurc.value, n=curve.n))
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
            edges |= {round(float(c), 2) for c in cuts[1:-1]}
            below = side.iloc[0] < hard_below
            edges.add(float(np.floor(cuts[0] * 100) / 100 if below else np.ceil(cuts[-1] * 100) / 100))
    bounds = sorted(edges)
    rows = []
    for low, high in itertools.pairwise(bounds):
        part = looked[(size >= low) & ((size < high) | (high == bounds[-1]) & (size <= high))]
        for who, answer in (("first_look", "first_look"), ("zoom", "agent")):
            share = proportions.accuracy(right_of(part, answer), groups_of(part))
            rows.append((who, low, high, share.value, share.low, share.high, share.n))
    columns = ["who", "low", "high", "accuracy_pct", "low_pct", "high_pct", "n"]
    table = pd.DataFrame(rows, columns=columns)
    return table[table["n"] > 0].reset_index(drop=True)


def phase_times_data(frame: pd.DataFrame, arms: Sequence[str], score: str = "min") -> pd.DataFrame:
    """Mean milliseconds per sample of every phase: columns method, phase, ms. Arms without times are left out."""
    parts = {method_of(name, score): arm(frame, name) for name in arms}
    rows = [
        (method, phase, 1000.0 * float(part[phase].mean()))
        for method, part in parts.items()
        if part["wall_s"].notna().any()
        for phase in PHASES
    ]
    return pd.DataFrame(rows, columns=["method", "phase", "ms"])
