"""Figures of time: phases, first look by size, throughput, break-even, ledger, fleets and a server under load."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from ...replay.payoff import DECISIONS
from ...runs.records import PHASES
from ..labels import method_label, split_label
from . import style
from .ablations import split_look


@style.drawn
def throughput(table: pd.DataFrame) -> Figure:
    """Samples per second over the agents at work at once: lines as predicted, markers as measured.

    Columns method, in_flight, samples_per_s, how ("predicted" or "measured"), off_pct: how far the prediction is off,
    which stands at the marker (on splits that the model was not fitted to).
    """
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN, 2.4))
    for name, part in table.groupby("method", sort=False):
        line = part[part["how"] == "predicted"].sort_values("in_flight")
        points = part[part["how"] == "measured"]
        color, marker = style.method_color(name), style.METHOD_MARKERS.get(name, "o")
        ax.plot(line["in_flight"], line["samples_per_s"], "--", color=color, lw=1.0)
        ax.plot(points["in_flight"], points["samples_per_s"], marker, color=color, label=method_label(name))
        for row in points[points["off_pct"].notna()].itertuples():
            ax.annotate(
                f"{row.off_pct:+.0f} %".replace("-", "−"), (row.in_flight, row.samples_per_s), (0, 6),
                textcoords="offset points", ha="center", fontsize=7, color=color,
            )  # fmt: skip
    ax.plot([], [], "--", color=style.INK, lw=1.0, label="predicted (%: off)")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.set(xlabel="agents at work at once", ylabel="samples per second", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.drawn
def first_look_by_size(table: pd.DataFrame, hard_below: float) -> Figure:
    """Accuracy of the agent with its tool and at its forced first look, by size of the target.

    Args:
        table: `RunResult.first_look_by_size`.
        hard_below: the size that separates hard from easy, as a fraction of the image's side.
    """
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN, 2.6))
    for name, label, color, marker, shift in (
        ("first_look", "first look, no tool", style.MUTED, "v", -0.08),
        ("zoom", "with zoom", style.METHOD_COLORS["baseline"], "s", 0.08),
    ):
        part = table[table["who"] == name]
        x = np.arange(len(part)) + shift
        look = {"color": color, "marker": marker, "label": label, "elinewidth": 0.8}
        ax.errorbar(x, part["accuracy_pct"], yerr=style.errors(part), **look)
    part = table[table["who"] == "zoom"]
    spans = [f"{r.low:.2f}–{r.high:.2f}\nn={r.n}".replace("0.", ".") for r in part.itertuples()]
    ax.set_xticks(np.arange(len(part)), spans)
    edges = part["high"].to_numpy()
    if hard_below in edges:
        at = int(np.flatnonzero(edges == hard_below)[0]) + 0.5
        ax.axvline(at, color=style.MUTED, lw=0.8, ls=":")
        ax.text(at - 0.08, 105, "hard", ha="right", color=style.MUTED)
        ax.text(at + 0.08, 105, "easy", ha="left", color=style.MUTED)
    ax.set(
        title="What zooming is worth",
        xlabel="target size / image size",
        ylabel="agent accuracy, %",
        ylim=(-2, 113),
        yticks=range(0, 101, 20),
    )
    if len(part):
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@style.drawn
def phase_times(table: pd.DataFrame) -> Figure:
    """Milliseconds per sample and phase, one bar per arm. `table`: see `RunResult.phase_times`."""
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN * 1.3, 0.34 * table["method"].nunique() + 1.25))
    methods = list(dict.fromkeys(table["method"]))
    left = np.zeros(len(methods))
    for phase in PHASES:
        part = table[table["phase"] == phase].set_index("method").reindex(methods)["ms"].to_numpy("float64")
        look = {"color": style.PHASE_COLORS[phase], "height": 0.62, "label": style.PHASE_LABELS[phase]}
        ax.barh([method_label(m) for m in methods], part, left=left, **look)
        left += part
    for y, total in enumerate(left):
        ax.text(total, y, f" {total:.1f}", va="center", fontsize=7)
    if not methods:
        look = {"transform": ax.transAxes, "ha": "center", "color": style.MUTED}
        ax.text(0.5, 0.5, "no times per sample in this run", **look)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(
        title="Where the time goes",
        xlabel="ms per sample (mean)",
        xlim=(0, 1.12 * left.max() if len(left) else 1),
    )
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.0)
    return figure


@style.drawn
def break_even(table: pd.DataFrame) -> Figure:
    """Where the gate pays: accepted share against its price in agent runs; `table`: `payoff.break_even`.

    On the thick line nothing is gained; the thin ones are speedups that the condition implies.
    """
    if not len(table):
        return style.nothing(style.NOT_TIMED)
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN * 1.15, 2.9))
    top = max(1.8 * float(table["overhead"].max()), 0.15)
    x = np.array([0.0, 1.0])
    ax.fill_between(x, x, 2, color=style.WRONG, alpha=0.08, lw=0, label="costs more than it saves")
    ax.plot(x, x, color=style.INK, lw=1.4)
    for speed in (1.25, 1.5, 2, 3, 5):
        ax.plot(x, x - 1 + 1 / speed, color=style.MUTED, lw=0.7, ls=":")
        at = top + 1 - 1 / speed  # where the line leaves the picture
        if at < 0.97:
            ax.text(at, top, f"{speed:g}x", fontsize=7, color=style.MUTED, ha="center", va="bottom")
    benchmarks = list(dict.fromkeys(task.split("/")[0] for task in table["task"] if task != "pooled"))
    for row in table[table["task"] != "pooled"].itertuples():
        marker = style.SERIES[1 + benchmarks.index(row.task.split("/")[0]) % (len(style.SERIES) - 1)][1]
        color, _ = split_look(row.task)
        ax.plot(
            row.accepted, row.overhead, marker, ms=5, color=color, alpha=0.85, label=split_label(row.task)
        )
    pooled = table[table["task"] == "pooled"].iloc[0]
    ax.plot(pooled["accepted"], pooled["overhead"], "*", ms=10, color=style.INK, label="all samples")
    ax.set(
        title="When does the gate pay?\n",
        xlabel="accepted share, alpha x beta",
        ylabel="price: router and drafts / agent",
        xlim=(0, 1),
        ylim=(0, top),
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=0.8,
                  handletextpad=0.2)  # fmt: skip
    return figure


@style.drawn
def time_ledger(steps: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """Left: from the agent alone to the gated run (`payoff.waterfall`); right: `payoff.time_by_decision`."""
    if not len(steps):
        return style.nothing(style.NOT_TIMED)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.PAGE_IN, 2.4), gridspec_kw={"width_ratios": [1.1, 1]}
    )
    level = 0.0
    for y, row in enumerate(steps.itertuples()):
        if row.total:
            left.barh(
                y, row.ms, color=style.METHOD_COLORS["baseline" if y == 0 else "speceyes_min"], height=0.6
            )
            level, end = row.ms, row.ms
        else:
            left.barh(y, row.ms, left=level, color=style.RIGHT if row.ms < 0 else style.WRONG, height=0.6)
            level += row.ms
            end = max(level, level - row.ms)
        text = f" {row.ms:.1f}" if row.total else f" {row.ms:+.1f}".replace("-", "−")
        left.text(end, y, text, va="center", fontsize=7)
        if y < len(steps) - 1:
            left.plot([level, level], [y + 0.3, y + 0.7], color=style.MUTED, lw=0.7)
    left.set_yticks(range(len(steps)), steps["step"])
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.set(title="From the agent alone to the gate", xlabel="ms per sample (predicted)")
    left.set_xlim(0, 1.18 * steps["ms"].max())

    shown = [d for d in DECISIONS if d in set(parts["decision"])]
    for y, decision in enumerate(shown):
        part, begin = parts[parts["decision"] == decision].set_index("phase"), 0.0
        for phase in PHASES:
            right.barh(
                y - 0.14, part.loc[phase, "ms"], left=begin, height=0.4, color=style.PHASE_COLORS[phase]
            )
            begin += part.loc[phase, "ms"]
        right.text(begin, y - 0.14, f" {begin:.0f}", va="center", fontsize=7)
        alone = part["alone_ms"].iloc[0]
        right.barh(y + 0.22, alone, height=0.18, color=style.MUTED, alpha=0.5)
        right.text(alone, y + 0.24, f" {alone:.0f}", va="center", fontsize=7, color=style.MUTED)
    counts = parts.drop_duplicates("decision").set_index("decision")["n"]
    right.set_yticks(range(len(shown)), [f"{d.replace('_', ' ')}\nn={counts[d]}" for d in shown])
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    right.set(title="Where the time goes, by decision", xlabel="ms per sample (predicted)")
    right.set_xlim(0, 1.15 * max(1.0, parts["alone_ms"].max(), parts.groupby("decision")["ms"].sum().max()))
    handles = [plt.Rectangle((0, 0), 1, 1, color=style.PHASE_COLORS[p]) for p in PHASES]
    handles.append(plt.Rectangle((0, 0), 1, 1, color=style.MUTED, alpha=0.5))
    figure.legend(handles, [*(style.PHASE_LABELS[p] for p in PHASES), "agent alone, same samples"],
                  loc="outside lower center", ncols=6, columnspacing=1.0)  # fmt: skip
    return figure


@style.drawn
def fleets(table: pd.DataFrame, load: pd.DataFrame) -> Figure:
    """Left: requests per second and GPU over how a fleet is divided; right: latency over the number of users.

    Args:
        table: `best_ratio` with a column `workload` ("funnel" or "agent").
        load: rows of `simulate_fleet` with `workload` and `users`.
    """
    if not len(table):
        return style.nothing(style.NOT_TIMED)
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_IN * 0.9, 2.6))
    funnel = table[table["workload"] == "funnel"].sort_values("large")
    agent = table[table["workload"] == "agent"]
    looks = {"funnel": ("with the gate", style.METHOD_COLORS["speceyes_min"])}
    looks |= {"agent": ("agent alone", style.METHOD_COLORS["baseline"])}
    label, color = looks["funnel"]
    left.plot(funnel["large"], funnel["per_gpu_per_s"], "o-", color=color, label=label)
    if len(agent):
        label, color = looks["agent"]
        left.axhline(agent["per_gpu_per_s"].max(), color=color, ls="--", lw=1, label=label)
    best = funnel.loc[funnel["per_gpu_per_s"].idxmax()]
    is_end = best["large"] in (funnel["large"].min(), funnel["large"].max())
    what = "best of these, at the end of the range" if is_end else "best"
    left.plot(best["large"], best["per_gpu_per_s"], "*", ms=10, color=style.INK, zorder=3, lw=0, label=what)
    left.set_xticks(funnel["large"], [f"{r.small}+{r.large}" for r in funnel.itertuples()])
    left.set(
        title=f"How to divide {int(table['gpus'].max())} replicas", xlabel="small + large", ylim=(0, None),
        ylabel="requests per second and replica",
    )  # fmt: skip
    left.legend(loc="lower right", handletextpad=0.4)
    for name, (label, color) in looks.items():
        part = load[load["workload"] == name].sort_values("users")
        right.plot(part["users"], part["p50_s"], "-", color=color, label=f"{label}, median")
        right.plot(part["users"], part["p95_s"], "--", color=color, label="95 % are faster")
    right.set(
        title="Latency over users",
        xlabel="users asking without pause",
        ylabel="seconds",
        xscale="log",
        yscale="log",
    )
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    right.legend(loc="upper left")
    return figure


@style.drawn
def served_load(table: pd.DataFrame) -> Figure:
    """Left: requests per second over the number of users; right: their latency. Lines are predicted, points measured.

    Columns users, how ("predicted" or "measured"), per_s, p50_s, p95_s (seconds).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_IN * 0.9, 2.6))
    predicted, measured = (
        table[table["how"] == how].sort_values("users") for how in ("predicted", "measured")
    )
    color = style.METHOD_COLORS["speceyes_min"]
    curves = [(left, "per_s", "o", color, ""), (right, "p50_s", "o", color, "median"),
              (right, "p95_s", "^", style.INK, "95 % are faster")]  # fmt: skip
    for ax, column, marker, shade, label in curves:
        ax.plot(predicted["users"], predicted[column], "--", color=shade, lw=1.0)
        ax.plot(measured["users"], measured[column], marker, color=shade, label=label)
    left.plot([], [], "--", color=color, lw=1.0, label="predicted")
    left.plot([], [], "o", color=color, label="measured")
    left.set(title="Throughput", ylabel="requests per second", ylim=(0, None))
    right.set(title="Latency", ylabel="seconds", yscale="log")
    for ax in (left, right):
        ax.set(xlabel="users asking without pause", xscale="log")
        ax.set_xticks(measured["users"].tolist())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend()
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    return figure
