"""Charts of the gate explorer as plain data: drawn by `chart.js` in the browser and by `figure` on paper.

A chart holds axes with their ticks, bars, lines and dots in data units, with colours, tooltips and what a click
on them means (`id`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit, logit

from ..gating.gate import rejecting_threshold
from ..replay.replay_data import ReplayData
from ..report.plots.style import INK, METHOD_COLORS, RIGHT, STYLE, WRONG, confidence_bins
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


def distribution(part: ReplayData, view: GateView) -> dict:
    """Chart: the drafts that reach the gate, right ones upwards, wrong ones downwards, over log-odds of confidence.

    Each direction is a share of its own n, or the few wrong ones would not be seen; counts are in the tooltips.
    """
    reaching = gated_mask(part, view.router)
    score = part.score(view.score, view.k, view.slope)
    known = reaching & np.isfinite(score)
    edges = confidence_bins(pd.Series(score[known]), BINS)
    n_right, n_wrong = (int((known & (part.draft_right == r)).sum()) for r in (True, False))
    bars, highest = [], 0.0
    for name, is_right, color, sign, n in (
        ("right", True, RIGHT, 1, n_right),
        ("wrong", False, WRONG, -1, n_wrong),
    ):
        values = score[known & (part.draft_right == is_right)]
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        for i, count in enumerate(counts):
            if not count:
                continue
            # the outer bins hold what lies beyond them
            low = 0.0 if i == 0 else float(edges[i])
            high = 1.0 if i == len(counts) - 1 else float(edges[i + 1])
            share = 100.0 * count / n
            highest = max(highest, share)
            bars.append(
                {
                    "x0": float(log_odds(edges[i])),
                    "x1": float(log_odds(edges[i + 1])),
                    "y0": 0.0,
                    "y1": sign * share,
                    "color": color,
                    "title": f"{count} of {n} {name} drafts, confidence {edges[i]:.4f} to {edges[i + 1]:.4f}",
                    "id": {"bar": name, "low": low, "high": high},
                }
            )
    low, high = float(log_odds(edges[0])), float(log_odds(edges[-1]))
    y = _nice_step(highest)
    ticks = np.arange(-math.ceil(highest / y), math.ceil(highest / y) + 1) * y
    return SIZE | {
        "title": f"Drafts that reach the gate (n={int(known.sum())})",
        "x": {
            "low": low,
            "high": high,
            "label": f"confidence ({view.score}), log-odds scale",
            "ticks": [
                {"at": float(log_odds(t)), "label": f"{t:g}"[1:]} for t in TICKS if low <= log_odds(t) <= high
            ],
        },
        "y": {
            "low": float(ticks[0]),
            "high": float(ticks[-1]),
            "label": "% of wrong | % of right",
            "ticks": [{"at": float(t), "label": f"{abs(t):g}"} for t in ticks],
        },
        "bars": bars,
        "legend": [
            {"label": f"right, n={n_right}", "color": RIGHT},
            {"label": f"wrong, n={n_wrong}", "color": WRONG},
        ],
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
    below = np.append(0.0, stops[stops < view.threshold])
    return float(below[max(len(below) + steps, 0)])


def trade_off(curve: pd.DataFrame) -> dict:
    """Chart: accuracy over speedup (over coverage, where the run has no times) as the threshold moves."""
    timed = curve["speedup"].notna().all()
    along = curve["speedup"] if timed else 100.0 * curve["coverage"]
    accuracy, agent = curve["accuracy_pct"], float(curve["baseline_accuracy_pct"].iloc[0])
    color = METHOD_COLORS["speceyes_min"]
    step = max(1, len(curve) // DOTS)
    dots = [
        {
            "x": float(along[i]),
            "y": float(accuracy[i]),
            "color": color,
            "title": f"threshold {curve['threshold'][i]:.4f}: accuracy {accuracy[i]:.1f} %, "
            + (f"{along[i]:.2f}x" if timed else f"{along[i]:.0f} % accepted"),
            "id": {"threshold": float(curve["threshold"][i])},
        }
        for i in range(0, len(curve), step)
    ]
    low = min(float(along.min()), 1.0 if timed else 0.0)
    levels = accuracy if math.isnan(agent) else [*accuracy, agent]
    x, y = _axis(low, float(along.max())), _axis(float(min(levels)), float(max(levels)))
    unit = "x" if timed else ""
    lines = [{"points": [[float(a), float(b)] for a, b in zip(along, accuracy, strict=True)], "color": color}]
    legend = [{"label": "by threshold", "color": color}]
    if not math.isnan(agent):
        alone = METHOD_COLORS["baseline"]
        level = [[x["low"], agent], [x["high"], agent]]
        lines.insert(0, {"points": level, "color": alone, "dash": "5 4", "width": 1})
        legend.append({"label": "agent alone", "color": alone})
    return SIZE | {
        "title": f"Accuracy over {'speedup' if timed else 'coverage'} (n={int(curve['n'].iloc[0])})",
        "x": x
        | {
            "label": "predicted speedup over the agent alone" if timed else "accepted, %",
            "ticks": [{"at": t, "label": f"{t:g}{unit}"} for t in x["at"]],
        },
        "y": y | {"label": "accuracy, %", "ticks": [{"at": t, "label": f"{t:g}"} for t in y["at"]]},
        "lines": lines,
        "dots": dots,
        "legend": legend,
    }


def _axis(low: float, high: float) -> dict:
    """An axis a little wider than its values, with ticks at round numbers inside."""
    wide = max(high - low, 1e-3 * max(1.0, abs(high)), 0.2)
    low, high = low - 0.06 * wide, high + 0.08 * wide
    step = _nice_step(high - low)
    ticks = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
    return {"low": low, "high": high, "at": [round(float(t), 6) for t in ticks]}


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
        made, axes = plt.subplots(1, len(charts), figsize=(3.6 * len(charts), 2.5), squeeze=False)
        for ax, chart, marker, dot in zip(axes.flat, charts, markers, dots, strict=True):
            for bar in chart.get("bars", ()):
                ax.bar(
                    bar["x0"],
                    bar["y1"],
                    bar["x1"] - bar["x0"],
                    align="edge",
                    color=bar["color"],
                    lw=0.3,
                    ec="white",
                )
            for line in chart.get("lines", ()):
                dashes = "--" if line.get("dash") else "-"
                ax.plot(
                    *zip(*line["points"], strict=True),
                    color=line["color"],
                    ls=dashes,
                    lw=line.get("width", 1.4),
                )
            for point in chart.get("dots", ()):
                ax.plot(point["x"], point["y"], "o", ms=2.5, color=point["color"])
            if marker is not None:
                ax.axvline(min(max(marker, chart["x"]["low"]), chart["x"]["high"]), color=INK, lw=1.2)
            if dot is not None:
                ax.plot(*dot, "o", ms=7, mfc="none", mec=INK, mew=1.4)
            for name in ("x", "y"):
                axis, ticks = chart[name], chart[name]["ticks"]
                ax.set(**{f"{name}lim": (axis["low"], axis["high"]), f"{name}label": axis["label"]})
                getattr(ax, f"set_{name}ticks")([t["at"] for t in ticks], [t["label"] for t in ticks])
            ax.set_title(chart["title"])
            handles = [
                mpl.patches.Patch(color=entry["color"], label=entry["label"]) for entry in chart["legend"]
            ]
            ax.legend(handles=handles, loc="best", handlelength=1)
        made.draw_without_rendering()
    plt.close(made)
    return made
