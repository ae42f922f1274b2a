"""The ablation figures of the paper, from the reported numbers, a run's replay, or both over each other.

Every figure takes one tidy frame, a *sweep*: columns `source` ("reported" or "measured"), `agent`, `split`, the swept
quantity, `accuracy_pct`, `speedup` and `is_baseline` (the agent alone: a line across, no point of the sweep).
Reported numbers are drawn solid and filled, measured ones dashed and hollow, and the legend says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from .figures import (
    COLUMN_IN,
    INK,
    METHOD_COLORS,
    METHOD_MARKERS,
    MUTED,
    PAGE_IN,
    PHASE_COLORS,
    SERIES,
    _drawn,
    method_color,
)
from .paper import SPLITS
from .tables import agent_label, method_label, split_label

BENCHMARKS = {"vstar": "V*", "hr": "HR-Bench", "pope": "POPE"}
SOURCES = {"reported": "reported", "measured": "this run"}
_LINES = {"reported": "-", "measured": "--"}
_HATCH = {"reported": "", "measured": "////"}
_ALONE = {"reported": (0, (1, 1)), "measured": (0, (6, 1.5, 1, 1.5))}  # thin lines across: the agent alone


# ------------------------------------------------------------------ sweeps from the two sources
def reported_sweep(table: pd.DataFrame, x: str) -> pd.DataFrame:
    """A reported ablation (`paper.reported`) as a sweep over its column `x`."""
    baseline = table["is_baseline"] if "is_baseline" in table else table[x].eq(0)
    sweep = table.assign(source="reported", is_baseline=baseline)
    columns = ["source", "agent", "split", x, "accuracy_pct", "speedup", "is_baseline"]
    return sweep.reindex(columns=columns)


def measured_sweep(replayed: pd.DataFrame, x: str, agent: str) -> pd.DataFrame:
    """Rows of `replay.replay` as a sweep over the setting `x`; refused settings and totals are left out.

    The agent alone becomes the baseline row of each split.
    """
    part = replayed[(replayed["status"] == "ok") & replayed["task"].isin(SPLITS)]
    points = pd.DataFrame(
        {
            "source": "measured",
            "agent": agent,
            "split": part["task"],
            x: part[x].astype("float64"),
            "accuracy_pct": part["accuracy_pct"],
            "speedup": part["speedup"],
            "is_baseline": False,
        }
    )
    alone = part.drop_duplicates("task")
    baseline = pd.DataFrame(
        {
            "source": "measured",
            "agent": agent,
            "split": alone["task"],
            x: np.nan,
            "accuracy_pct": alone["baseline_accuracy_pct"],
            "speedup": 1.0,
            "is_baseline": True,
        }
    )
    return pd.concat([baseline, points], ignore_index=True)


def joined(*sweeps: pd.DataFrame | None) -> pd.DataFrame:
    """Sweeps of several sources below each other; None and empty ones are passed over."""
    there = [sweep for sweep in sweeps if sweep is not None and len(sweep)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame()


# ------------------------------------------------------------------ threshold
@_drawn
def threshold_ablation(sweep: pd.DataFrame) -> Figure:
    """Accuracy (lines) and speedup (bars) over the gate's threshold: a panel per benchmark and agent.

    Thin horizontal lines are the agent alone. The axis runs from the strictest threshold to the loosest.
    """
    agents = list(dict.fromkeys(sweep["agent"]))
    names = [b for b in BENCHMARKS if sweep["split"].str.startswith(b + "/").any()]
    figure, axes = plt.subplots(
        len(agents), len(names), figsize=(PAGE_IN, 0.9 + 1.75 * len(agents)), squeeze=False
    )
    for i, agent in enumerate(agents):
        for j, benchmark in enumerate(names):
            part = sweep[(sweep["agent"] == agent) & sweep["split"].str.startswith(benchmark + "/")]
            ax = axes[i, j]
            _bars_and_lines(ax, part, "threshold", descending=True)
            ax.set_title(f"{BENCHMARKS[benchmark]}, {agent_label(agent)}")
            if i == len(agents) - 1:
                ax.set_xlabel("threshold of the gate")
            if j == 0:
                ax.set_ylabel("accuracy, %")
    _legend(figure, sweep)
    return figure


@_drawn
def topk_ablation(sweep: pd.DataFrame) -> Figure:
    """Accuracy (line) and speedup (bars) over K, the number of alternatives compared: a panel per split."""
    splits = [s for s in SPLITS if s in set(sweep["split"])]
    columns = min(4, max(1, len(splits)))
    rows = -(-len(splits) // columns) or 1
    figure, axes = plt.subplots(rows, columns, figsize=(PAGE_IN, 0.8 + 1.55 * rows), squeeze=False)
    for ax in axes.flat[len(splits) :]:
        ax.set_axis_off()
    for at, (ax, split) in enumerate(zip(axes.flat, splits, strict=False)):
        _bars_and_lines(ax, sweep[sweep["split"] == split], "top_k")
        ax.set_title(split_label(split))
        ax.set_xlabel("K")
        if at % columns == 0:
            ax.set_ylabel("accuracy, %")
    _legend(figure, sweep)
    return figure


def _bars_and_lines(ax: Axes, part: pd.DataFrame, x: str, descending: bool = False) -> None:
    """One panel: accuracy lines in front, speedup bars behind on an axis of their own."""
    points = part[~part["is_baseline"]]
    values = sorted(points[x].unique(), reverse=descending)
    places = {value: at for at, value in enumerate(values)}
    behind = ax.twinx()
    keys = list(dict.fromkeys(zip(points["source"], points["split"], strict=True)))
    width = 0.8 / max(1, len(keys))
    for k, (source, split) in enumerate(keys):
        line = points[(points["source"] == source) & (points["split"] == split)].sort_values(x)
        at = np.array([places[v] for v in line[x]])
        color, marker = _look(split)
        behind.bar(
            at + width * (k - (len(keys) - 1) / 2),
            line["speedup"],
            width,
            color=color if source == "reported" else "none",
            edgecolor="none" if source == "reported" else color,
            hatch=_HATCH[source],
            linewidth=0.5,
            alpha=0.25 if source == "reported" else 0.5,
        )
        ax.plot(
            at,
            line["accuracy_pct"],
            _LINES[source],
            color=color,
            marker=marker,
            markerfacecolor=color if source == "reported" else "white",
            lw=1.1,
            ms=3.5,
        )
    for row in part[part["is_baseline"]].itertuples():
        ax.axhline(row.accuracy_pct, color=_look(row.split)[0], lw=0.7, ls=_ALONE[row.source])
    behind.axhline(1.0, color=MUTED, lw=0.6)
    behind.set_ylim(0, 2.6 * max(1.0, points["speedup"].max()))  # bars stay in the lower part
    top = int(np.ceil(max(1.0, points["speedup"].max())))
    behind.set_yticks(range(top + 1), [f"{t}x" for t in range(top + 1)])
    behind.grid(False)
    behind.spines["right"].set_visible(False)
    behind.tick_params(axis="y", length=0, labelcolor=MUTED)
    low, high = part["accuracy_pct"].min(), part["accuracy_pct"].max()
    ax.set_ylim(low - 0.7 * max(2.0, high - low), high + 0.1 * max(2.0, high - low))
    names = [f"{v:.4g}".removeprefix("0") for v in values]
    if sum(map(len, names)) > 26:  # more than fits side by side in a panel
        ax.set_xticks(range(len(values)), names, rotation=60, fontsize=6)
    else:
        ax.set_xticks(range(len(values)), names)
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)


def _look(split: str) -> tuple[str, str]:
    """Colour and marker of a split: its place among the splits of its benchmark."""
    own = [s for s in SPLITS if s.split("/")[0] == split.split("/")[0]]
    return SERIES[1 + own.index(split)] if split in own else SERIES[0]


def _legend(figure: Figure, sweep: pd.DataFrame) -> None:
    """Splits by colour in the first column, then a column per source: its lines, bars, and the agent alone."""
    sources = [s for s in SOURCES if s in set(sweep["source"])]
    handles: list[object] = _split_handles(sweep)
    for source in sources:
        if len(sources) > 1:  # fill the column before: each has three entries
            handles += [Line2D([], [], lw=0, label="") for _ in range(-len(handles) % 3)]
        told, filled = SOURCES[source], source == "reported"
        box = Patch(
            facecolor=MUTED if filled else "none",
            edgecolor="none" if filled else MUTED,
            hatch=_HATCH[source],
            alpha=0.5,
            label=f"speedup, {told}",
        )
        handles += [_source_handle(source, "accuracy"), box]
        if (sweep["is_baseline"] & sweep["source"].eq(source)).any():
            handles.append(Line2D([], [], color=INK, lw=0.7, ls=_ALONE[source], label=f"agent alone, {told}"))
    columns = 1 + len(sources) if len(sources) > 1 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2)


def _split_handles(sweep: pd.DataFrame) -> list[Line2D]:
    by_look: dict[tuple[str, str], list[str]] = {}
    for split in [s for s in SPLITS if s in set(sweep["split"])]:
        by_look.setdefault(_look(split), []).append(split_label(split))
    return [
        Line2D([], [], color=color, marker=marker, ms=3.5, lw=1.1, label=", ".join(names))
        for (color, marker), names in by_look.items()
    ]


def _source_handle(source: str, what: str) -> Line2D:
    return Line2D(
        [],
        [],
        color=INK,
        ls=_LINES[source],
        marker="o",
        ms=3.5,
        lw=1.1,
        markerfacecolor=INK if source == "reported" else "white",
        label=f"{what}, {SOURCES[source]}",
    )


# ------------------------------------------------------------------ batch size
@_drawn
def batch_size_ablation(sweep: pd.DataFrame) -> Figure:
    """Speedup over the batch size of router and draft, a panel per benchmark; the inset is the gain per added query.

    The line across is the serial agent alone (batch size 0 in the reported numbers).
    """
    names = [b for b in BENCHMARKS if sweep["split"].str.startswith(b + "/").any()]
    figure, axes = plt.subplots(1, max(1, len(names)), figsize=(PAGE_IN, 2.5), squeeze=False)
    for j, (ax, benchmark) in enumerate(zip(axes.flat, names, strict=False)):
        part = sweep[sweep["split"].str.startswith(benchmark + "/") & ~sweep["is_baseline"]]
        inset = ax.inset_axes((0.6, 0.1, 0.39, 0.28))
        for (source, split), line in part.groupby(["source", "split"], sort=False):
            line = line.sort_values("batch_size")
            color, marker = _look(split)
            style = {
                "color": color,
                "ls": _LINES[source],
                "marker": marker,
                "markerfacecolor": color if source == "reported" else "white",
            }
            ax.plot(line["batch_size"], line["speedup"], lw=1.1, ms=3.5, **style)
            gain = marginal_gain(line)
            inset.plot(gain["batch_size"], gain["gain_per_query"], lw=0.9, ms=2, **style)
        ax.axhline(1.0, color=INK, lw=0.7, ls=_ALONE["reported"])
        bottom, top = min(1.0, part["speedup"].min()), max(1.05, part["speedup"].max())
        low = bottom - 1.0 * (top - bottom)  # the lower half is the inset's
        ax.set_ylim(low, top + 0.08 * (top - low))
        ax.set_yticks([t for t in ax.get_yticks() if bottom <= t <= ax.get_ylim()[1]])
        ax.set_xlim(0, part["batch_size"].max() * 1.06)
        inset.set_title("gain per query", fontsize=6, fontweight="normal", pad=2)
        inset.tick_params(labelsize=5.5, pad=1, length=2)
        inset.set_facecolor("white")
        ax.set_title(BENCHMARKS[benchmark])
        ax.set_xlabel("batch size")
        if j == 0:
            ax.set_ylabel("speedup over the agent alone")
    sources = [s for s in SOURCES if s in set(sweep["source"])]
    handles = _split_handles(sweep) + [_source_handle(source, "speedup") for source in sources]
    handles.append(Line2D([], [], color=INK, lw=0.7, ls=_ALONE["reported"], label="agent alone"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=2.2)
    return figure


def marginal_gain(line: pd.DataFrame) -> pd.DataFrame:
    """Speedup added per query added to the batch, between neighbouring batch sizes of one split and source."""
    ordered = line.sort_values("batch_size")
    steps = pairwise(ordered[["batch_size", "speedup"]].itertuples(index=False))
    rows = [
        {
            "batch_size": b.batch_size,
            "gain_per_query": (b.speedup - a.speedup) / (b.batch_size - a.batch_size),
        }
        for a, b in steps
    ]
    return pd.DataFrame(rows, columns=["batch_size", "gain_per_query"])


# ------------------------------------------------------------------ router, concurrency
@_drawn
def router_ablation(replayed: pd.DataFrame) -> Figure:
    """Who should answer Phase I? Accuracy and speedup per split with the large model, the small one, or nobody.

    Rows of `replay.replay` that differ in `router` only. Refused routers are named instead of drawn.
    """
    routers = list(dict.fromkeys(replayed["router"]))
    labels = {"large": "large model", "small": "small model", "none": "nobody: all drafted"}
    ok = replayed[
        (replayed["status"] == "ok") & (replayed["task"].isin(SPLITS) | replayed["task"].eq("pooled"))
    ]
    tasks = [t for t in (*SPLITS, "pooled") if t in set(ok["task"])]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6))
    for i, router in enumerate(routers):
        part = ok[ok["router"] == router].set_index("task").reindex(tasks)
        color, marker = SERIES[i % len(SERIES)]
        x = np.arange(len(tasks)) + 0.18 * (i - (len(routers) - 1) / 2)
        note = "" if part["accuracy_pct"].notna().any() else " (not in this run)"
        label = labels.get(router, router) + note
        spread = np.abs(
            np.array(
                [
                    part["accuracy_pct"] - part["accuracy_low_pct"],
                    part["accuracy_high_pct"] - part["accuracy_pct"],
                ]
            )
        )
        left.errorbar(
            x, part["accuracy_pct"], spread, fmt=marker, color=color, ms=4, elinewidth=0.8, label=label
        )
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


@_drawn
def throughput(table: pd.DataFrame) -> Figure:
    """Samples per second over the agents at work at once: lines as predicted, markers as measured.

    Columns method, in_flight, samples_per_s, how ("predicted" or "measured").
    """
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 2.4))
    for name, part in table.groupby("method", sort=False):
        line = part[part["how"] == "predicted"].sort_values("in_flight")
        points = part[part["how"] == "measured"]
        color, marker = method_color(name), METHOD_MARKERS.get(name, "o")
        ax.plot(line["in_flight"], line["samples_per_s"], "--", color=color, lw=1.0)
        ax.plot(points["in_flight"], points["samples_per_s"], marker, color=color, label=method_label(name))
    ax.plot([], [], "--", color=INK, lw=1.0, label="predicted from the pass")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.set(xlabel="agents at work at once", ylabel="samples per second", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# ------------------------------------------------------------------ the method, drawn
_STEP = {
    "agent": METHOD_COLORS["baseline"],
    "router": PHASE_COLORS["router_s"],
    "draft": PHASE_COLORS["draft_s"],
}


@_drawn
def method(shares: Mapping[str, float] | None = None) -> Figure:
    """The serial agent chain and the funnel, drawn to be read in a talk.

    shares: fractions `beta` (sent to the draft) and `alpha` (drafts accepted) of a run, written beside the arrows.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(PAGE_IN, 3.0), height_ratios=(0.7, 1.5))
    for ax in (top, bottom):
        ax.set_axis_off()
        ax.set_xlim(0, 100)
    top.set_ylim(0, 15)
    bottom.set_ylim(-1, 33)
    top.set_title("Agent alone: every question waits for the whole chain")
    chain = ["question", "look", "think", "tool", "look again", "think", "answer"]
    for at, name in enumerate(chain):
        plain = at in (0, len(chain) - 1)
        _box(top, 1 + 14.2 * at, 6, 11.5, 8, name, INK if plain else _STEP["agent"], filled=not plain)
        if at:
            _arrow(top, 1 + 14.2 * (at - 1) + 11.5, 10, 1 + 14.2 * at, 10)
    top.text(50, 1.5, "depth D, one sample after another", ha="center", va="center", fontsize=7, color=MUTED)

    beta, alpha = (shares or {}).get("beta"), (shares or {}).get("alpha")
    bottom.set_title("SpecEyes: answers the gate trusts leave early")
    _box(bottom, 1, 22, 11, 8, "questions\n(a batch)", INK, filled=False)
    _box(bottom, 19, 21, 17, 10, "I  router\nwould a tool help?", _STEP["router"])
    _box(bottom, 43, 21, 17, 10, "II  draft\nsmall model", _STEP["draft"])
    _box(bottom, 67, 21, 14, 10, "III  gate\nconfidence > t", METHOD_COLORS["speceyes_min"])
    _box(bottom, 88, 22, 11, 8, "answer", INK, filled=False)
    _box(bottom, 43, 0, 38, 9, "IV  the agent, with its tools: D steps", _STEP["agent"])
    for x0, x1 in ((12, 19), (36, 43), (60, 67), (81, 88)):
        _arrow(bottom, x0, 26, x1, 26)
    _arrow(bottom, 74, 21, 74, 9)
    bottom.plot([27.5, 27.5], [21, 4.5], color=INK, lw=1, solid_capstyle="butt")
    _arrow(bottom, 27.5, 4.5, 43, 4.5)
    bottom.plot([81, 93.5], [4.5, 4.5], color=INK, lw=1, solid_capstyle="butt")
    _arrow(bottom, 93.5, 4.5, 93.5, 22)

    def told(name: str, value: float | None) -> str:
        return name if value is None else f"{name}\n{100 * value:.0f} %"

    bottom.text(39.5, 27, told("no", beta), ha="center", va="bottom", fontsize=7)
    bottom.text(28.5, 12, told("yes", None if beta is None else 1 - beta), ha="left", va="center", fontsize=7)
    bottom.text(84.5, 27, told("accept", alpha), ha="center", va="bottom", fontsize=7)
    bottom.text(
        75, 15, told("reject", None if alpha is None else 1 - alpha), ha="left", va="center", fontsize=7
    )
    return figure


def _box(
    ax: Axes, x: float, y: float, w: float, h: float, text: str, color: str, filled: bool = True
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle="round,pad=0,rounding_size=1.2",
            facecolor=color if filled else "white",
            edgecolor=color,
            linewidth=1,
        )
    )
    ink = (
        INK if color == _STEP["draft"] else "white" if filled else color
    )  # white is hard to read on the orange
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=7.5, color=ink)


def _arrow(ax: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
    ax.add_patch(
        FancyArrowPatch(
            (x0, y0), (x1, y1), arrowstyle="-|>", mutation_scale=9, color=INK, lw=1, shrinkA=0, shrinkB=1
        )
    )
