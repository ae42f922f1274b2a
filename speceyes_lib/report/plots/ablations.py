"""Figures of the ablations over threshold, K, score, batch size and router."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...analysis.ablations import SAME_COVERAGE, SAME_THRESHOLD
from ...tasks.registry import BENCHMARKS, TASKS
from ..labels import agent_label, split_label
from .confidence import short_label
from .style import INK, MUTED, PAGE_IN, SERIES, drawn, errors

SOURCES = {"reported": "reported", "measured": "this run"}
_LINES = {"reported": "-", "measured": "--", SAME_COVERAGE: ":"}
_HATCH = {"reported": "", "measured": "////", SAME_COVERAGE: "\\\\\\\\"}
_ALONE = {"reported": (0, (1, 1)), "measured": (0, (6, 1.5, 1, 1.5))}  # thin lines across: the agent alone


@drawn
def threshold_ablation(sweep: pd.DataFrame) -> Figure:
    """Accuracy and, below it, speedup over the gate's threshold: a panel per benchmark and agent.

    Thin horizontal lines are the agent alone. The axis runs from the strictest threshold to the loosest.
    """
    agents = list(dict.fromkeys(sweep["agent"]))
    names = [b for b in BENCHMARKS if sweep["split"].str.startswith(b + "/").any()]
    figure, axes = _panels(len(agents), len(names), (PAGE_IN, 0.9 + 2.3 * len(agents)))
    for i, agent in enumerate(agents):
        for j, benchmark in enumerate(names):
            part = sweep[(sweep["agent"] == agent) & sweep["split"].str.startswith(benchmark + "/")]
            ax, below = axes[i][j]
            _lines_over_bars(ax, below, part, "threshold", descending=True)
            ax.set_title(f"{BENCHMARKS[benchmark].title}, {agent_label(agent)}")
            if i == len(agents) - 1:
                below.set_xlabel("threshold of the gate")
            if j == 0:
                ax.set_ylabel("accuracy, %")
                below.set_ylabel("speedup")
    _legend(figure, sweep)
    return figure


@drawn
def topk_ablation(sweep: pd.DataFrame) -> Figure:
    """Accuracy and, below it, speedup over K, the number of alternatives compared: a panel per split."""
    return _by_split(sweep, "top_k", "K")


@drawn
def score_ablation(sweep: pd.DataFrame) -> Figure:
    """Accuracy and, below it, speedup with each score of the paper: a panel per split."""
    return _by_split(sweep, "score", "score")


def _by_split(sweep: pd.DataFrame, x: str, label: str) -> Figure:
    splits = [s for s in TASKS if s in set(sweep["split"])]
    columns = min(4, max(1, len(splits)))
    rows = -(-len(splits) // columns) or 1
    figure, axes = _panels(rows, columns, (PAGE_IN, 0.8 + 2.1 * rows))
    pairs = [pair for row in axes for pair in row]
    for pair in pairs[len(splits) :]:
        for ax in pair:
            ax.set_axis_off()
    for at, ((ax, below), split) in enumerate(zip(pairs, splits, strict=False)):
        _lines_over_bars(ax, below, sweep[sweep["split"] == split], x)
        ax.set_title(split_label(split))
        below.set_xlabel(label)
        if at % columns == 0:
            ax.set_ylabel("accuracy, %")
            below.set_ylabel("speedup")
    _legend(figure, sweep)
    return figure


def _panels(
    rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[list[tuple[Axes, Axes]]]]:
    """A figure of panels: in each the axes of accuracy, and below them those of speedup over the same x."""
    figure, axes = plt.subplots(2 * rows, columns, figsize=size, squeeze=False, height_ratios=(2, 1) * rows)
    for upper, lower in zip(axes[::2].flat, axes[1::2].flat, strict=True):
        lower.sharex(upper)
    return figure, [list(zip(axes[2 * i], axes[2 * i + 1], strict=True)) for i in range(rows)]


def _lines_over_bars(ax: Axes, below: Axes, part: pd.DataFrame, x: str, descending: bool = False) -> None:
    """One panel: lines of accuracy, with intervals of what was measured, and below them bars of speedup."""
    points = part[~part["is_baseline"]]
    named = pd.api.types.is_string_dtype(points[x])
    values = list(points[x].unique()) if named else sorted(points[x].unique(), reverse=descending)
    places = {value: at for at, value in enumerate(values)}
    lines = points.assign(at=points[x].map(places), kind=_kinds(points))
    lines = lines.sort_values("at", ascending=not descending).groupby(["source", "kind", "split"], sort=False)
    keys = list(dict.fromkeys(zip(points["source"], _kinds(points), points["split"], strict=True)))
    width = 0.8 / max(1, len(keys))
    for k, (source, kind, split) in enumerate(keys):
        line, filled = lines.get_group((source, kind, split)), source == "reported"
        color, shift = split_look(split)[0], width * (k - (len(keys) - 1) / 2)
        bar = {"color": color if filled else "none", "edgecolor": "none" if filled else color}
        bar |= {"hatch": _HATCH[kind], "linewidth": 0.5, "alpha": 0.6}
        below.bar(line["at"] + shift, line["speedup"], width, **bar)
        ax.plot(line["at"], line["accuracy_pct"], **_line_look(source, kind, split), lw=1.1, ms=3.5)
        if "accuracy_low_pct" in line:
            ends = line.dropna(subset=["accuracy_low_pct", "accuracy_high_pct"])
            # beside the point, so that the intervals of several splits stay apart
            at = ends["at"] + 0.5 * shift
            ax.vlines(at, ends["accuracy_low_pct"], ends["accuracy_high_pct"], color=color, lw=0.7, alpha=0.6)
    for row in part[part["is_baseline"]].itertuples():
        ax.axhline(row.accuracy_pct, color=split_look(row.split)[0], lw=0.7, ls=_ALONE[row.source])
    below.axhline(1.0, color=MUTED, lw=0.6)
    top = int(np.ceil(max(1.0, points["speedup"].max())))
    ticks = range(0, top + 1, -(-top // 4))  # at most five fit
    below.set_yticks(ticks, [f"{t}x" for t in ticks])
    below.set_ylim(0, 1.08 * max(1.0, points["speedup"].max()))
    low, high = part["accuracy_pct"].min(), part["accuracy_pct"].max()
    if "accuracy_low_pct" in part:
        low, high = min(low, part["accuracy_low_pct"].min()), max(high, part["accuracy_high_pct"].max())
    margin = 0.08 * max(2.0, high - low)
    ax.set_ylim(low - margin, high + margin)
    names = [short_label(v) if named else f"{v:.4g}".removeprefix("0") for v in values]
    is_crowded = named or sum(map(len, names)) > 26  # more than fits side by side in a panel
    below.set_xticks(range(len(values)), names, rotation=60 if is_crowded else 0)
    ax.tick_params(axis="x", labelbottom=False)


def _line_look(source: str, kind: str, split: str) -> dict[str, str]:
    color, marker = split_look(split)
    face = color if source == "reported" else "white"
    return {"color": color, "marker": marker, "markerfacecolor": face, "ls": _LINES[kind]}


def _kinds(sweep: pd.DataFrame) -> pd.Series:
    """How each row is drawn: as its source is, or as a second line of it at the same coverage."""
    fair = sweep["line"].eq(SAME_COVERAGE) if "line" in sweep else pd.Series(False, index=sweep.index)
    return sweep["source"].mask(fair, SAME_COVERAGE)


def split_look(split: str) -> tuple[str, str]:
    """Colour and marker of a split: its place among the splits of its benchmark."""
    splits = [s for s in TASKS if s.split("/")[0] == split.split("/")[0]]
    return SERIES[1 + splits.index(split)] if split in splits else SERIES[0]


def _legend(figure: Figure, sweep: pd.DataFrame) -> None:
    """Splits by colour in the first column, then a column per source or line: its lines, bars, and the agent alone."""
    kinds = list(dict.fromkeys(zip(sweep["source"], _kinds(sweep), strict=True)))
    lines = SAME_COVERAGE in (kind for _, kind in kinds)
    handles: list[object] = _split_handles(sweep)
    for source, kind in kinds:
        if len(kinds) > 1:  # fill the column before: each has three entries
            handles += [Line2D([], [], lw=0, label="") for _ in range(-len(handles) % 3)]
        name, filled = SOURCES[source], source == "reported"
        if lines and not filled:
            name = SAME_THRESHOLD if kind == source else SAME_COVERAGE
        look = {"facecolor": MUTED if filled else "none", "edgecolor": "none" if filled else MUTED}
        box = Patch(**look, hatch=_HATCH[kind], alpha=0.5, label=f"speedup, {name}")
        handles += [_source_handle(source, f"accuracy, {name}", _LINES[kind]), box]
        if kind == source and (sweep["is_baseline"] & sweep["source"].eq(source)).any():
            alone = f"agent alone, {SOURCES[source]}"
            handles.append(Line2D([], [], color=INK, lw=0.7, ls=_ALONE[source], label=alone))
    columns = 1 + len(kinds) if len(kinds) > 1 else 3
    spacing = {"columnspacing": 1.2} if columns > 3 else {}
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2, **spacing)


def _split_handles(sweep: pd.DataFrame) -> list[Line2D]:
    by_look: dict[tuple[str, str], list[str]] = {}
    for split in (s for s in TASKS if s in set(sweep["split"])):
        by_look.setdefault(split_look(split), []).append(split_label(split))
    return [
        Line2D([], [], color=color, marker=marker, ms=3.5, lw=1.1, label=", ".join(names))
        for (color, marker), names in by_look.items()
    ]


def _source_handle(source: str, label: str, style: str) -> Line2D:
    face = INK if source == "reported" else "white"
    return Line2D([], [], color=INK, ls=style, marker="o", ms=3.5, lw=1.1, markerfacecolor=face, label=label)


@drawn
def batch_size_ablation(sweep: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """Speedup over the batch size of router and draft, a panel per benchmark; the inset is the gain per added query.

    The line across is the serial agent alone (batch size 0 in the reported numbers).

    Args:
        sweep: rows of the sweep, as `PaperData.batch_sweep` returns them.
        gains: source, split, batch_size, gain_per_query: the slope from the next smaller batch size.
    """
    names = [b for b in BENCHMARKS if sweep["split"].str.startswith(b + "/").any()]
    figure, axes = plt.subplots(1, max(1, len(names)), figsize=(PAGE_IN, 2.5), squeeze=False)
    for j, (ax, benchmark) in enumerate(zip(axes.flat, names, strict=False)):
        part = sweep[sweep["split"].str.startswith(benchmark + "/") & ~sweep["is_baseline"]]
        inset = ax.inset_axes((0.58, 0.12, 0.41, 0.2))
        for (source, split), line in part.groupby(["source", "split"], sort=False):
            line = line.sort_values("batch_size")
            style = _line_look(source, source, split)
            ax.plot(line["batch_size"], line["speedup"], lw=1.1, ms=3.5, **style)
            gain = gains[(gains["source"] == source) & (gains["split"] == split)]
            inset.plot(gain["batch_size"], gain["gain_per_query"], lw=0.9, ms=2, **style)
        ax.axhline(1.0, color=INK, lw=0.7, ls=_ALONE["reported"])
        bottom, top = min(1.0, part["speedup"].min()), max(1.05, part["speedup"].max())
        low = bottom - 1.0 * (top - bottom)  # the lower half is the inset's
        ax.set_ylim(low, top + 0.08 * (top - low))
        ax.set_yticks([t for t in ax.get_yticks() if bottom <= t <= ax.get_ylim()[1]])
        ax.set_xlim(0, part["batch_size"].max() * 1.06)
        inset.set_title("gain per query", fontsize=7, fontweight="normal", pad=2)
        inset.tick_params(labelsize=7, pad=1, length=2)
        inset.set_facecolor("white")
        ax.set_title(BENCHMARKS[benchmark].title)
        ax.set_xlabel("batch size")
        if j == 0:
            ax.set_ylabel("speedup over the agent alone")
    sources = [s for s in SOURCES if s in set(sweep["source"])]
    handles = _split_handles(sweep) + [
        _source_handle(s, f"speedup, {SOURCES[s]}", _LINES[s]) for s in sources
    ]
    handles.append(Line2D([], [], color=INK, lw=0.7, ls=_ALONE["reported"], label="agent alone"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=2.2)
    return figure


@drawn
def router_ablation(replayed: pd.DataFrame) -> Figure:
    """Accuracy and speedup per split when the large model, the small one, or none answers Phase I.

    Rows of `replay.replay` that differ in `router` only. Refused routers are named instead of drawn.
    """
    routers = list(dict.fromkeys(replayed["router"]))
    labels = {"large": "large model", "small": "small model", "none": "none: all drafted"}
    ok = replayed[replayed["status"].eq("ok") & replayed["task"].isin((*TASKS, "pooled"))]
    tasks = [t for t in (*TASKS, "pooled") if t in set(ok["task"])]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6))
    for i, router in enumerate(routers):
        part = ok[ok["router"] == router].set_index("task").reindex(tasks)
        color, marker = SERIES[i % len(SERIES)]
        x = np.arange(len(tasks)) + 0.18 * (i - (len(routers) - 1) / 2)
        note = "" if part["accuracy_pct"].notna().any() else " (not in this run)"
        label = labels.get(router, router) + note
        reach = errors(part, "accuracy_low_pct", "accuracy_high_pct")
        look = {"fmt": marker, "color": color, "ms": 4, "elinewidth": 0.8, "label": label}
        left.errorbar(x, part["accuracy_pct"], reach, **look)
        right.plot(x, part["speedup"], marker, color=color, ms=4)
    alone = ok.drop_duplicates("task").set_index("task").reindex(tasks)["baseline_accuracy_pct"]
    left.plot(range(len(tasks)), alone, "_", color=INK, ms=14, label="agent alone")
    right.axhline(1.0, color=INK, lw=0.7, ls=(0, (1, 1)))
    names = ["All" if t == "pooled" else split_label(t) for t in tasks]
    for ax, title in ((left, "accuracy, %"), (right, "speedup over the agent alone")):
        ax.set_xticks(range(len(tasks)), names, rotation=35, ha="right")
        ax.set_ylabel(title)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
