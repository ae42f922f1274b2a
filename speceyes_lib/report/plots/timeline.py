"""Figures of tool speculation: a task over time, speedup over the tool share, saving against waste."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...errors import printable
from .style import COLUMN_IN, INK, MUTED, PAGE_IN, SERIES, SPAN_COLORS, drawn, nothing

LANES = ("actor", "speculator", "guessed tools", "tools")
LABELLED = ("guessed tools", "tools")
LONGEST_LABEL = 30
LETTER_SHARE = 0.0088  # width of a letter as share of the axis
# kind of a span -> hatch, label
KINDS = {
    "think": ("", "actor thinks"),
    "wait": ("////", "actor waits for a result"),
    "join": ("xxxx", "actor waits for a guess"),
    "guess": ("", "speculator guesses"),
    "executed": ("", "tool, for the actor"),
    "used": ("", "guess: used"),
    "awaited": ("", "guess: awaited"),
    "cached": ("", "guess: used later"),
    "unused": ("", "guess: not needed"),
    "cancelled": ("\\\\\\\\", "guess: cancelled"),
    "failed": ("....", "guess: failed"),
}
HEIGHT = 0.55


@drawn
def task_timeline(spans: pd.DataFrame, title: str = "") -> Figure:
    """One task: actor, speculator and tools over time (`analysis.tool_timeline.timeline`).

    A line joins the execution of a guess with the call that it served.
    """
    if not len(spans):
        return nothing("The task has no step.")
    whole = spans["end_s"].max()
    rows = _rows(spans, LANES, whole)
    figure, ax = plt.subplots(figsize=(PAGE_IN, 1.1 + 0.3 * (max(rows) + 1)))
    for row, span in zip(rows, spans.itertuples(), strict=True):
        color, hatch = SPAN_COLORS[span.kind], KINDS[span.kind][0]
        width = max(span.end_s - span.begin_s, 0.0)
        if width == 0 and span.kind in ("wait", "join"):
            continue
        look = {"facecolor": color, "hatch": hatch, "edgecolor": INK if hatch else color, "linewidth": 0.4}
        ax.barh(row, max(width, 0.002 * whole), left=span.begin_s, height=HEIGHT, **look)
        if span.lane in LABELLED:
            x, _ = _label_place(span.begin_s, span.label, whole)
            ax.text(x, row - HEIGHT / 2 - 0.04, _short(span.label), fontsize=7, va="bottom")
    _join(ax, spans, rows)
    for step in sorted(set(spans["step"]))[1:]:
        begin = spans.loc[(spans["step"] == step) & (spans["kind"] == "think"), "begin_s"].min()
        ax.axvline(begin, color=MUTED, lw=0.5, ls=":")
    first = {lane: [r for r, s in zip(rows, spans["lane"], strict=True) if s == lane] for lane in LANES}
    ax.set_yticks(
        [np.mean(first[lane]) for lane in LANES if first[lane]], [lane for lane in LANES if first[lane]]
    )
    ax.set(xlim=(0, 1.01 * whole), xlabel="seconds", title=printable(title)[:90])
    ax.set_ylim(max(rows) + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    used = [kind for kind in KINDS if kind in set(spans["kind"])]
    handles = []
    for kind in used:
        color, (hatch, label) = SPAN_COLORS[kind], KINDS[kind]
        handles.append(Patch(facecolor=color, hatch=hatch, edgecolor=INK if hatch else color, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.0)
    return figure


def _rows(spans: pd.DataFrame, lanes: Sequence[str], whole: float) -> list[int]:
    """The row of each span: lanes below each other, and spans or labels of a lane that overlap below each other too."""
    place: dict[int, int] = {}
    first = 0
    for lane in lanes:
        free: list[float] = []  # per row of the lane, when it is free again
        for span in spans[spans["lane"] == lane].sort_values("begin_s", kind="stable").itertuples():
            begin, end = span.begin_s, span.end_s
            if lane in LABELLED:
                begin, width = _label_place(span.begin_s, span.label, whole)
                begin, end = min(begin, span.begin_s), max(end, begin + width)
            row = next((r for r, busy in enumerate(free) if busy <= begin + 1e-9), len(free))
            free[row : row + 1] = [end]
            place[span.Index] = first + row
        first += len(free)
    return [place[index] for index in spans.index]


def _short(label: str) -> str:
    text = " ".join(printable(label).split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _label_place(begin: float, label: str, whole: float) -> tuple[float, float]:
    """Where a label begins, and its width: at its bar, but inside the figure."""
    width = LETTER_SHARE * len(_short(label)) * whole
    return max(0.0, min(begin, 1.01 * whole - width)), width


def _join(ax: Axes, spans: pd.DataFrame, rows: list[int]) -> None:
    """A line from the execution of each guess that served to the calls that it served."""
    row_of = dict(zip(spans.index, rows, strict=True))
    for _, part in spans[spans["pair"] > 0].groupby("pair"):
        executed = part[part["lane"] == "guessed tools"]
        for call in part[part["kind"] == "wait"].itertuples():
            for guess in executed.itertuples():
                x, y = (guess.end_s, call.end_s), (row_of[guess.Index], row_of[call.Index])
                ax.plot(x, y, "-", color=SPAN_COLORS["used"], lw=1.0, marker="o", ms=2.5, zorder=3)


@drawn
def speedup_by_tool_share(table: pd.DataFrame) -> Figure:
    """Speedup of each setting over the share of the tools, below the ceiling (`replay.over_tool_share`)."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.25, 2.8))
    ceiling = table.drop_duplicates("tool_share_pct").sort_values("tool_share_pct")
    ax.plot(ceiling["tool_share_pct"], ceiling["ceiling"], "--", color=MUTED, label="ceiling, one step")
    for (name, part), (color, marker) in zip(
        table.groupby("setting", sort=False), _looks(table), strict=True
    ):
        part = part.sort_values("tool_share_pct")
        ax.plot(
            part["tool_share_pct"], part["speedup"], marker=marker, color=color, label=printable(str(name))
        )
        ax.fill_between(part["tool_share_pct"], part["low"], part["high"], color=color, alpha=0.15, lw=0)
    ax.axhline(1, color=INK, lw=0.7)
    ax.set(xlabel="share of the tools in the time without speculation, %", ylabel="speedup, ×")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@drawn
def gate_saving_and_waste(front: pd.DataFrame, chosen: pd.DataFrame | None = None) -> Figure:
    """What is kept of the saving over what is left of the waste, for each score (`analysis.gate_front`).

    `chosen` marks thresholds: rows of a front with a column `label`.
    """
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 2.9))
    for (score, part), (color, marker) in zip(
        front.groupby("score", sort=False), _looks(front, "score"), strict=True
    ):
        part = part.sort_values("threshold")
        label = str(score).replace("_", " ")
        ax.plot(part["waste_pct"], part["saving_pct"], marker=marker, ms=3, color=color, label=label)
    if chosen is not None:
        for row in chosen.itertuples():
            ax.plot(row.waste_pct, row.saving_pct, "o", ms=9, mfc="none", mec=INK, mew=1.1)
            ax.annotate(
                row.label,
                (row.waste_pct, row.saving_pct),
                xytext=(-4, -12),
                textcoords="offset points",
                fontsize=7,
            )
    ax.plot([0, 100], [0, 100], ":", color=MUTED, lw=0.8, label="guesses at random")
    ax.set(xlabel="waste, % of always guessing", ylabel="saving, % of always guessing", xlim=(-3, 103))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _looks(table: pd.DataFrame, column: str = "setting") -> list[tuple[str, str]]:
    """Colour and marker of each name in a column, in its order."""
    return [SERIES[i % len(SERIES)] for i in range(table[column].nunique())]
