"""The look of all figures: colours, labels, the confidence axis and error bars.

A frame goes in, a matplotlib `Figure` comes out; no file is read and nothing is computed here. A method keeps its
colour in every figure (palette of Okabe and Ito, its yellow darkened for white paper), right and wrong keep theirs
(palette "muted" of Tol). Both can be distinguished with any colour vision, and line styles, markers and labels differ
as well. All colours of figures are in this file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import expit, logit

from ...runs.arms import BATCHED

STYLE = str(resources.files(__package__) / "speceyes.mplstyle")
COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of a column and of a page
NOT_TIMED = "The run was not timed: nothing is known about speed."
RIGHT, WRONG = "#117733", "#882255"
MUTED, INK = "#8c8c8c", "#222222"
# of methods and phases: colour and marker, colour and label
_METHODS = {
    "baseline": ("#4d4d4d", "s"),
    "draft_only": ("#E69F00", "D"),
    "specreason": ("#CC79A7", "X"),
    "speceyes_min": ("#0072B2", "o"),
    "speceyes_mean": ("#56B4E9", "^"),
    "speceyes_bottom20": ("#009E73", "v"),
    "speceyes_log": ("#B59F00", "P"),
    "router_only": ("#D55E00", "h"),
}
_PHASES = {
    "decode_s": ("#bdbdbd", "picture"),
    "router_s": (_METHODS["router_only"][0], "router"),
    "draft_s": (_METHODS["draft_only"][0], "draft"),
    "agent_s": (_METHODS["baseline"][0], "agent"),
    "tool_s": ("#7A6A3A", "tool"),
}
METHOD_COLORS, METHOD_MARKERS = ({name: look[at] for name, look in _METHODS.items()} for at in (0, 1))
PHASE_COLORS, PHASE_LABELS = ({name: look[at] for name, look in _PHASES.items()} for at in (0, 1))
# of what is neither a method nor a verdict (palette "muted" of Tol): colour and marker
SERIES = ((INK, "s"), ("#332288", "o"), ("#44AA99", "^"), ("#999933", "D"), ("#CC6677", "v"))
# of the parts of a reward
PART_COLORS = {"accuracy": SERIES[2][0], "format": SERIES[4][0], "tool": SERIES[1][0]}
# of spans in the timeline of a task with tools; the actor's waits are hatched
SPAN_COLORS = {
    "think": _METHODS["baseline"][0],
    "wait": "#ffffff",
    "join": "#ffffff",
    "guess": _METHODS["draft_only"][0],
    "executed": _PHASES["tool_s"][0],
    "used": RIGHT,
    "awaited": SERIES[2][0],
    "cached": SERIES[3][0],
    "unused": WRONG,
    "cancelled": SERIES[4][0],
    "failed": "#000000",
}
# of scores that no method of the paper is named after; the others have their method's colour
SCORE_COLORS = {
    "min_prob": "#B15928",
    "margin": "#F0A3A3",
    "entropy": "#66A61E",
    "tie_aware": "#6A3D9A",
    "sequence": "#DDCC77",
    "options": "#E7298A",
    "router": "#8DA0CB",
    "combination": "#005F73",
    "settling": "#1B9E77",
    "layer_agreement": "#A6761D",
    "layer_margin": "#7570B3",
    "probe": "#D95F02",
}


def method_color(method: str) -> str:
    """The colour of a method; batched variants share it (they are drawn hollow)."""
    name = method.removesuffix(BATCHED)
    return METHOD_COLORS.get(name) or SCORE_COLORS.get(name.removeprefix("speceyes_"), MUTED)


def score_color(score: str) -> str:
    """The colour of a score: that of SpecEyes gated by it."""
    return method_color(f"speceyes_{score}")


def drawn(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the suite's style, whatever the session's is, and leave no figure open behind."""

    @functools.wraps(function)
    def inside(*args, **kwargs) -> Figure:
        with mpl.rc_context(), plt.style.context(STYLE):
            figure = function(*args, **kwargs)
            # ticks are made when they are first laid out: now, while the style holds
            figure.get_layout_engine().execute(figure)
        plt.close(figure)
        return figure

    return inside


def errors(part: pd.DataFrame, low: str = "low_pct", high: str = "high_pct") -> np.ndarray:
    """Error bars around `accuracy_pct`, as `errorbar` takes them [2, rows]."""
    ends, value = part[[low, high]], part["accuracy_pct"].astype("float64")
    return ends.astype("float64").sub(value, axis=0).abs().to_numpy().T


def box(
    ax: Axes, place: tuple[float, float, float, float], text: str, look: Mapping, rounding: float, **font: Any
) -> None:
    """A rounded box at (left, bottom, width, height) with centred text; `look`: of the box, `font`: of the text."""
    left, bottom, width, height = place
    shape = f"round,pad=0,rounding_size={rounding}"
    ax.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=shape, **look))
    ax.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", **font)


def nothing(why: str) -> Figure:
    """In place of a figure whose numbers the run does not have."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 0.7))
    ax.text(0.5, 0.5, why, ha="center", va="center", color=MUTED)
    ax.set_axis_off()
    return figure


# Confidences are sigmoids and pile up below 1: on an axis of log-odds the thresholds that matter lie apart.
TOP = 1 - 1e-6  # higher confidences are drawn here
CONFIDENCE_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def clipped(confidence: pd.Series | np.ndarray) -> np.ndarray:
    """Confidences as drawn: kept off the ends, where log-odds are infinite."""
    return np.clip(np.asarray(confidence, dtype="float64"), 1 - TOP, TOP)


def confidence_axis(ax: Axes, low: float, high: float = TOP) -> None:
    """Make x an axis of log-odds from low to high."""
    ax.set_xscale("logit")
    ax.set_xlim(low, 1 - 0.7 * (1 - high))
    ax.xaxis.set_major_locator(FixedLocator(CONFIDENCE_TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("0.", ".")))


def left_end(confidence: pd.Series | np.ndarray) -> float:
    """Where the axis begins: at the odds 1:1, or further left if more than a hundredth of the scores lie there."""
    values = np.asarray(confidence, dtype="float64")
    values = values[np.isfinite(values)]
    return 0.5 if not len(values) else float(min(0.9, 0.9 * np.quantile(values, 0.005)))


def confidence_bins(score: pd.Series, n_bins: int = 30) -> np.ndarray:
    """Bin edges, even in log-odds; the few scores beyond the ends belong into the first and last bin."""
    high = float(clipped(1 - 0.8 * (1 - score.max()))) if len(score) else TOP
    return expit(np.linspace(logit(left_end(score)), logit(high), n_bins + 1))
