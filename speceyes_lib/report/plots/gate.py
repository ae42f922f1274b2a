"""Figures of the gate: accuracy over threshold, accuracy over speedup, quadrants, certified points."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ...gating.certificates import Rule
from ...runs.arms import BATCHED
from ...tasks.registry import AVERAGE
from ..labels import agent_label, method_label, rule_labels
from . import style
from .confidence import short_label

POINT_MARKS = (("*", 9), ("X", 6), ("D", 5))  # of settings that are marked on a front, with their sizes


@style.drawn
def accuracy_over_threshold(
    curve: pd.DataFrame, threshold: float | None = None, local: float | None = None, chosen_here: bool = False
) -> Figure:
    """The funnel's accuracy and its accepted share over the threshold.

    Args:
        curve: `OperatingPoint.curve`.
        threshold: the operating point in use.
        local: what the same rule would pick on these very samples, drawn only to show the difference.
        chosen_here: the threshold in use was chosen on these samples.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(style.COLUMN_IN, 3.3), sharex=True)
    color = style.METHOD_COLORS["speceyes_min"]
    x = style.clipped(curve["threshold"])
    top.step(x, curve["accuracy_pct"], where="post", color=color, label="funnel")
    alone = {"color": style.METHOD_COLORS["baseline"], "ls": "--", "lw": 1, "label": "agent alone"}
    top.axhline(curve["agent_pct"].iloc[0], **alone)
    bottom.step(x, curve["accepted_pct"], where="post", color=color)
    for ax in (top, bottom):
        if threshold is not None:
            name = "chosen here" if chosen_here else "in use (validation)"
            if chosen_here and threshold in (curve["threshold"].min(), curve["threshold"].max()):
                name += ", at the end of the range"
            ax.axvline(style.clipped(threshold), color=style.INK, lw=1, label=f"{name}: {threshold:.5g}")
        if local is not None and local != threshold:
            ax.axvline(
                style.clipped(local), color=style.MUTED, lw=1, ls=":", label=f"rule applied here: {local:.5g}"
            )
    inner = curve["threshold"][(curve["threshold"] > 0) & (curve["threshold"] < 1)]
    marks = [t for t in (threshold, local) if t is not None and t > 0]
    top.set(ylabel="accuracy, %", title=f"Funnel over the threshold (n={int(curve['n'].iloc[0])})")
    bottom.set(ylabel="accepted, %", xlabel="threshold", ylim=(0, 102))
    low = min([style.left_end(inner), *(0.99 * style.clipped(t) for t in marks)])
    style.confidence_axis(bottom, low, float(style.clipped(inner.max())) if len(inner) else style.TOP)
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@style.drawn
def accuracy_speedup(results: pd.DataFrame, split: str = AVERAGE) -> Figure:
    """Accuracy against speedup (log scale), one point per method of the long form (`results.COLUMNS`).

    One panel per reported agent and one for the run, titled as what they are. Measured points carry their
    intervals; batched arms are hollow, and their speedup is over the batched agent alone. The paper's draft
    alone belongs to no agent and is shown with each.
    """
    part = results[(results["split"] == split) & results["speedup"].notna()]
    panels = list(dict.fromkeys(zip(part["source"], part["agent"], strict=True)))
    if len(panels) > 1:
        panels = [p for p in panels if p != ("reported", "none")]
    columns = max(1, len(panels))
    size = (min(style.PAGE_IN, 0.9 + 2.5 * columns), 3.2)
    figure, axes = plt.subplots(1, columns, figsize=size, squeeze=False)
    seen: dict[str, object] = {}
    for ax, (source, agent) in zip(axes.flat, panels, strict=False):
        agents = [agent, "none"] if source == "reported" else [agent]
        points = part[(part["source"] == source) & part["agent"].isin(agents)]
        for row in points.itertuples():
            seen[method_label(row.method)] = _point(ax, row)
        ax.axvline(1.0, color=style.MUTED, lw=0.8, ls=":")
        ax.set_xscale("log", base=2)
        low, high = points["speedup"].min(), points["speedup"].max()
        ax.set_xlim(min(0.8, low / 1.25), max(2.5, high * 1.25))
        ax.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4, 8, 16, 32]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
        ax.set_xlabel("speedup over its agent alone")
        ax.set_title(f"Reported: {agent_label(agent)}" if source == "reported" else f"Measured: run {agent}")
    axes.flat[0].set_ylabel("accuracy, %")
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=2 if len(panels) < 2 else 4)
    return figure


def _point(ax: Axes, row: tuple) -> object:
    color, hollow = style.method_color(row.method), row.method.endswith(BATCHED)
    x_error = _error(row.speedup, row.speedup_low, row.speedup_high)
    y_error = _error(row.accuracy_pct, row.accuracy_low_pct, row.accuracy_high_pct)
    bars = {"fmt": "none", "ecolor": color, "elinewidth": 0.8, "alpha": 0.7}
    ax.errorbar(row.speedup, row.accuracy_pct, xerr=x_error, yerr=y_error, **bars)
    look = {"facecolor": "none" if hollow else color, "edgecolor": color, "linewidth": 1.2}
    look["marker"] = style.METHOD_MARKERS.get(row.method.removesuffix(BATCHED), "o")
    size = 80 if hollow else 30  # a hollow marker frames a filled one in the same place
    order = 4 if row.method == "speceyes_min" else 3  # other scores must not hide it where they agree
    return ax.scatter(row.speedup, row.accuracy_pct, s=size, zorder=order, **look)


def _error(value: float, low: float, high: float) -> np.ndarray | None:
    return None if np.isnan([low, high]).any() else np.array([[value - low], [high - value]])


@style.drawn
def quadrants(table: pd.DataFrame) -> Figure:
    """Router x gate: how many samples are where, and who is right there.

    Args:
        table: a row per cell: router ("yes", "no"), gate ("rejects", "accepts"), n, draft_pct and agent_pct.
    """
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN, 2.5))
    total = table["n"].sum()
    colors = mpl.colormaps["Blues"]
    for row in table.itertuples():
        x, y = ("rejects", "accepts").index(row.gate), ("yes", "no").index(row.router)
        share = row.n / total if total else 0.0
        look = {"facecolor": colors(0.6 * share), "edgecolor": "w"}
        ax.add_patch(mpl.patches.Rectangle((x - 0.5, y - 0.5), 1, 1, **look))
        ax.text(x, y + 0.2, f"{share:.0%} (n={row.n})", ha="center", va="center", weight="bold")
        right = f"draft right {row.draft_pct:.0f} %\nagent right {row.agent_pct:.0f} %" if row.n else "–"
        ax.text(x, y - 0.14, right, ha="center", va="center", fontsize=7)
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), title="Router and gate")
    ax.set_xticks([0, 1], ["gate rejects", "gate accepts"])
    ax.set_yticks([0, 1], ["tool helps:\nto the agent", "no tool:\nto the draft"])
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return figure


@style.drawn
def front(curves: pd.DataFrame, reported: pd.DataFrame, points: pd.DataFrame | None = None) -> Figure:
    """Accuracy gained or lost against the agent alone, over speedup: this run's funnel and the paper's points.

    The two come from other models and machines: compare shapes, not places.

    Args:
        curves: `ablations.front`, a line per score over all thresholds.
        reported: `reported_points`.
        points: of this run, columns label, speedup and gain_pp.
    """
    if not curves["speedup"].notna().any():
        return style.nothing(style.NOT_TIMED)
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN * 1.5, 3.3))
    for agent, part in reported.groupby("agent", sort=False):
        marker = {"deepeyes": "s", "thyme": "^"}.get(agent, "o")
        table, sweep = part[part["kind"] == "table"], part[part["kind"] == "threshold"].sort_values("speedup")
        look = {"color": style.MUTED, "lw": 0.8, "ls": ":", "marker": marker, "ms": 2.5, "zorder": 1}
        ax.plot(sweep["speedup"], sweep["gain_pp"], **look)
        label = f"reported: {agent_label(agent)}"
        ax.plot(
            table["speedup"],
            table["gain_pp"],
            marker,
            ms=6,
            mfc="none",
            mec=style.MUTED,
            mew=1.1,
            label=label,
        )
    for name, part in curves.groupby("score", sort=False):
        part = part.sort_values("threshold")
        gain = part["accuracy_pct"] - part["baseline_accuracy_pct"]
        label = f"this run: {short_label(name)}"
        ax.plot(part["speedup"], gain, color=style.score_color(name), lw=1.2, label=label)
    for i, row in enumerate([] if points is None else points.itertuples()):
        marker, size = POINT_MARKS[i % len(POINT_MARKS)]
        ax.plot(row.speedup, row.gain_pp, marker, color=style.INK, ms=size, zorder=4, lw=0, label=row.label)
    ax.axhline(0, color=style.MUTED, lw=0.8)
    ax.axvline(1, color=style.MUTED, lw=0.8)
    ax.set(
        title="Accuracy against speedup",
        xlabel="speedup over the agent alone",
        ylabel="accuracy less the agent's, points",
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@style.drawn
def certified_points(points: pd.DataFrame, rules: Sequence[Rule]) -> Figure:
    """Rules over repeated halves (`gating.certify`): the risk each bounds, coverage, and speedup, held out.

    A dot per repeat, hollow where nothing was certified; the bar is the mean, the cross the target.
    """
    labels = rule_labels(rules)
    order = [rule for rule in labels if rule in set(points["rule"])]
    measures = (
        ("risk_pct", "risk bounded, %"),
        ("coverage_pct", "accepted, %"),
        ("gain_pp", "accuracy less\nthe agent's, points"),
        ("speedup", "speedup"),
    )
    table = points.assign(gain_pp=points["accuracy_pct"] - points["agent_pct"])
    measures = [one for one in measures if np.isfinite(table[one[0]].astype(float)).any()]
    size = (style.PAGE_IN * (len(measures) + 1) / 5, 0.29 * len(order) + 0.95)
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    for ax, (measure, label) in zip(axes[0], measures, strict=True):
        for y, rule in enumerate(order):
            part = table[table["rule"] == rule]
            values = part[measure].to_numpy(dtype=float)
            has_target = part["target_pct"].notna().any()
            color = style.METHOD_COLORS["speceyes_min"] if has_target and rule != "plug_in" else style.MUTED
            jitter = y + 0.22 * np.linspace(-1, 1, len(values))
            sure = part["certified"].fillna(False).to_numpy(dtype=bool)
            ax.plot(values[sure], jitter[sure], "o", ms=2.2, color=color, alpha=0.7)
            ax.plot(values[~sure], jitter[~sure], "o", ms=2.2, mfc="none", mec=color, mew=0.5, alpha=0.8)
            if np.isfinite(values).any():
                ax.plot([np.nanmean(values)] * 2, [y - 0.36, y + 0.36], color=style.INK, lw=1.4)
            if measure == "risk_pct" and has_target:
                ax.plot(part["target_pct"].iloc[0], y, "x", color=style.WRONG, ms=5, mew=1.2)
        ax.set_xlabel(label)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if measure == "gain_pp":
            ax.axvline(0, color=style.MUTED, lw=0.8)
        elif measure == "speedup":
            ax.axvline(1, color=style.MUTED, lw=0.8)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    axes[0, 0].set_yticks(range(len(order)), [labels[rule] for rule in order])
    axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
    return figure
