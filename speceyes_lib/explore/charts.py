"""Charts of the gate explorer as plain data: drawn by `chart.js` in the browser and by `figure` on paper.

A chart holds axes with ticks, and bars, lines and dots in data units. Each has a colour; bars and dots also have a
tooltip (`title`) and what a click on them means (`id`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit, logit

from ..gating.gate import rejecting_threshold
from ..replay.replay_data import ReplayData
from ..report.plots.style import INK, METHOD_COLORS, MUTED, RIGHT, STYLE, WRONG, confidence_bins
from .state import GateView

SIZE = {"width": 520, "height": 270}  # px in the browser
DOTS = 24
TOP = 1 - 1e-6  # surer drafts are drawn here: log-odds have no end
TICKS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
BINS = 28


def log_odds(confidence: np.ndarray | float) -> np.ndarray:
    """Where a confidence is drawn: its log-odds, kept off the infinite ends."""
    return logit(np.clip(confidence, 1 - TOP, TOP))


def confidence_at(place: float) -> float:
    """The confidence drawn at a place; the ends of the axis accept and reject everything."""
    return float(expit(place))


@dataclass(frozen=True)
class Scale:
    """Where thresholds are drawn: by log-odds where all scores lie within 0 and 1, otherwise as they are.

    `lowest` accepts every draft, and `highest` none.
    """

    lowest: float = 0.0
    highest: float = 1.0
    shares: bool = True

    @classmethod
    def of(cls, score: np.ndarray) -> Self:
        """The scale of scores [n]; NaN: no score."""
        known = score[np.isfinite(score)]
        if not len(known) or (known.min() >= 0 and known.max() <= 1):
            return cls()
        return cls(float(known.min()) - 1.0, float(rejecting_threshold(known.max())), shares=False)

    def place(self, score: np.ndarray | float) -> np.ndarray:
        """Where scores are drawn."""
        return log_odds(score) if self.shares else np.asarray(score, dtype=float)

    def back(self, place: float) -> float:
        """The score drawn at a place."""
        return confidence_at(place) if self.shares else float(place)

    def edges(self, score: np.ndarray) -> np.ndarray:
        """Edges of the bins of a histogram, evenly far apart as they are drawn."""
        if self.shares:
            return confidence_bins(pd.Series(score), BINS)
        low = self.lowest + 1.0
        return np.linspace(low, self.highest if self.highest > low else low + 1.0, BINS + 1)

    def axis(self, score: str, low: float, high: float) -> dict:
        """The axis of a chart over this scale."""
        if not self.shares:
            return _axis([low, high], score) | {"low": low, "high": high}
        ticks = [
            {"at": float(log_odds(t)), "label": f"{t:g}"[1:]} for t in TICKS if low <= log_odds(t) <= high
        ]
        return {"low": low, "high": high, "label": f"confidence ({score}), log-odds scale", "ticks": ticks}


def distribution(part: ReplayData, view: GateView) -> dict:
    """Chart: the drafts that reach the gate, right ones upwards, wrong ones downwards, over log-odds of confidence.

    Each direction is a share of its own n; otherwise the few wrong ones would not be visible. Tooltips show counts.
    """
    score = part.score(view.score, view.k, view.slope)
    known = gated_mask(part, view.router) & np.isfinite(score)
    scale = Scale.of(score)
    edges = scale.edges(score[known])
    bounds = [scale.lowest, *map(float, edges[1:-1]), scale.highest]  # the outer bins hold what lies beyond
    places = scale.place(edges).tolist()
    bars, legend, highest = [], [], 0.0
    for name, is_right, color, sign in (("right", True, RIGHT, 1), ("wrong", False, WRONG, -1)):
        values = score[known & (part.draft_right == is_right)]
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        n = len(values)
        for i in np.flatnonzero(counts):
            share = 100.0 * counts[i] / n
            highest = max(highest, share)
            place = {"x0": places[i], "x1": places[i + 1], "y0": 0.0, "y1": sign * share, "color": color}
            ends = f"confidence {edges[i]:.4f} to {edges[i + 1]:.4f}"
            id_ = {"bar": name, "low": bounds[i], "high": bounds[i + 1]}
            bars.append(place | {"title": f"{counts[i]} of {n} {name} drafts, {ends}", "id": id_})
        legend.append({"label": f"{name}, n={n}", "color": color})
    low, high = places[0], places[-1]
    step = _nice_step(highest)
    y = np.arange(-math.ceil(highest / step), math.ceil(highest / step) + 1) * step
    y_ticks = [{"at": float(t), "label": f"{abs(t):g}"} for t in y]
    ghost = {}
    if view.pin and view.pin.score == view.score:  # another score has another axis
        at = min(max(float(scale.place(view.pin.threshold)), low), high)
        ghost = {"ghost": {"at": at, "label": f"pinned {view.pin.threshold:.4f}"}}
    y_axis = {"low": float(y[0]), "high": float(y[-1]), "label": "% of wrong | % of right", "ticks": y_ticks}
    return SIZE | {
        "title": f"Drafts that reach the gate (n={int(known.sum())})",
        "x": scale.axis(view.score, low, high),
        "y": y_axis,
        "bars": bars,
        "legend": legend,
        **ghost,
    }


def gated_mask(part: ReplayData, router: str) -> np.ndarray:
    """Samples whose draft reaches the gate: readable, and not routed to the agent."""
    if router == "none":
        return np.asarray(part.readable)
    return np.asarray(part.readable) & (part.routed[router] == 0)


def stepped(part: ReplayData, view: GateView, steps: int) -> float:
    """The threshold `steps` decisions further up (or down): each step rejects one more confidence, or one fewer."""
    score = part.score(view.score, view.k, view.slope)
    known = np.unique(score[gated_mask(part, view.router) & np.isfinite(score)])
    stops = rejecting_threshold(known)
    if steps > 0:
        above = stops[stops > view.threshold]
        return float(above[min(steps, len(above)) - 1]) if len(above) else view.threshold
    below = np.append(Scale.of(score).lowest, stops[stops < view.threshold])
    return float(below[max(len(below) + steps, 0)])


def trade_off(
    curve: pd.DataFrame, pinned: pd.DataFrame | None = None, ring: Sequence[float] | None = None
) -> dict:
    """Chart: accuracy over speedup (over coverage, where the run has no times) as the threshold moves.

    Where the agent's answers are not recorded, so that no accuracy is known: the selective risk over coverage.

    `pinned` is the curve of a pinned setting, where it is another one, and `ring` the point of that setting.
    """

    def points(curve: pd.DataFrame) -> np.ndarray:
        along = curve["speedup"] if timed else 100.0 * curve["coverage"]
        level = 100.0 * curve["selective_risk"] if drafts_alone else curve["accuracy_pct"]
        return np.column_stack([along, level])[level.notna()]

    drafts_alone, timed = of_drafts(curve), is_timed(curve)
    n, agent = int(curve["n"].iloc[0]), float(curve["baseline_accuracy_pct"].iloc[0])
    curve = curve[curve["selective_risk"].notna()].reset_index(drop=True) if drafts_alone else curve
    if pinned is not None and (drafts_alone, timed) != (of_drafts(pinned), is_timed(pinned)):
        pinned = ring = None  # the other run's axes are others
    along, accuracy = points(curve).T
    what = "wrong among the accepted" if drafts_alone else "accuracy"
    color = METHOD_COLORS["speceyes_min"]
    dots = [
        {
            "x": float(along[i]),
            "y": float(accuracy[i]),
            "color": color,
            "title": f"threshold {curve['threshold'][i]:.4f}: {what} {accuracy[i]:.1f} %, "
            + (f"{along[i]:.2f}x" if timed else f"{along[i]:.0f} % accepted"),
            "id": {"threshold": float(curve["threshold"][i])},
        }
        for i in range(0, len(curve), max(1, len(curve) // DOTS))
    ]
    ghost = np.empty((0, 2)) if pinned is None else points(pinned)
    others = ghost if ring is None else np.vstack([ghost, ring])
    levels = [*accuracy, *others[:, 1], *([] if math.isnan(agent) else [agent])]
    label = "predicted speedup over the agent alone" if timed else "accepted, %"
    levels = levels or [0.0]  # no draft reaches the gate
    x = _axis([*along, *others[:, 0], 1.0 if timed else 0.0], label, "x" if timed else "")
    lines = [{"points": points(curve).tolist(), "color": color}]
    legend = [{"label": "by threshold", "color": color}]
    if len(ghost):
        lines.insert(0, {"points": ghost.tolist(), "color": MUTED, "dash": "2 3"})
        legend.append({"label": "pinned", "color": MUTED})
    if not math.isnan(agent):
        alone, level = METHOD_COLORS["baseline"], [[x["low"], agent], [x["high"], agent]]
        lines.insert(0, {"points": level, "color": alone, "dash": "5 4", "width": 1})
        legend.append({"label": "agent alone", "color": alone})
    return SIZE | {
        "title": f"{what.capitalize()} over {'speedup' if timed else 'coverage'} (n={n})",
        "x": x,
        "y": _axis(levels, f"{what}, %"),
        "lines": lines,
        "dots": dots,
        "legend": legend,
        **({} if ring is None else {"ring": list(ring)}),
    }


def of_drafts(curve: pd.DataFrame) -> bool:
    """Whether a curve of `Gating.curve_of` has no accuracies to draw a line of."""
    return int(curve["accuracy_pct"].notna().sum()) < 2


def is_timed(curve: pd.DataFrame) -> bool:
    """Whether a curve has predicted speedups."""
    return bool(curve["speedup"].notna().all())


def _axis(values: Sequence[float], label: str, unit: str = "") -> dict:
    """An axis a little wider than its values, with ticks at round numbers inside."""
    low, high = float(min(values)), float(max(values))
    wide = max(high - low, 1e-3 * max(1.0, abs(high)), 0.2)
    low, high = low - 0.06 * wide, high + 0.08 * wide
    step = _nice_step(high - low)
    places = np.round(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step, 6)
    ticks = [{"at": float(at), "label": f"{at:g}{unit}"} for at in places]
    return {"low": low, "high": high, "label": label, "ticks": ticks}


def _nice_step(length: float) -> float:
    """A round step that cuts a length into about four."""
    if not length > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length / 4))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= length / 4)


# ------------------------------------------------------------------ on paper


def figure(
    charts: Sequence[dict], markers: Sequence[float | None], dots: Sequence[Sequence[float] | None]
) -> Figure:
    """The charts side by side as the browser shows them, each with its marked threshold and its current point."""
    with mpl.rc_context(), plt.style.context(STYLE):
        page, axes = plt.subplots(1, len(charts), figsize=(3.6 * len(charts), 2.5), squeeze=False)
        for ax, chart, marker, dot in zip(axes.flat, charts, markers, dots, strict=True):
            for bar in chart.get("bars", ()):
                width, color = bar["x1"] - bar["x0"], bar["color"]
                ax.bar(bar["x0"], bar["y1"], width, align="edge", color=color, lw=0.3, ec="white")
            for line in chart.get("lines", ()):
                style = {"ls": "--" if line.get("dash") else "-", "lw": line.get("width", 1.4)}
                ax.plot(*zip(*line["points"], strict=True), color=line["color"], **style)
            for point in chart.get("dots", ()):
                ax.plot(point["x"], point["y"], "o", ms=2.5, color=point["color"])
            if marker is not None:
                ax.axvline(np.clip(marker, chart["x"]["low"], chart["x"]["high"]), color=INK, lw=1.2)
            if ghost := chart.get("ghost"):
                ax.axvline(ghost["at"], color=MUTED, lw=1.2, ls=":")
            if ring := chart.get("ring"):
                ax.plot(*ring, "o", ms=7, mfc="none", mec=MUTED, mew=1.4)
            if dot is not None:
                ax.plot(*dot, "o", ms=7, mfc="none", mec=INK, mew=1.4)
            for name in ("x", "y"):
                axis, ticks = chart[name], chart[name]["ticks"]
                ax.set(**{f"{name}lim": (axis["low"], axis["high"]), f"{name}label": axis["label"]})
                getattr(ax, f"set_{name}ticks")([t["at"] for t in ticks], [t["label"] for t in ticks])
            ax.set_title(chart["title"])
            ax.legend(handles=[mpl.patches.Patch(**entry) for entry in chart["legend"]], handlelength=1)
        page.draw_without_rendering()
    plt.close(page)
    return page
