"""Figures of reinforcement-learning runs: curves with seeds, what a score consists of, who learns from whom."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import COLUMN_IN, INK, MUTED, PAGE_IN, PART_COLORS, RIGHT, SERIES, WRONG, drawn, nothing

# metric -> the title of its panel, with its unit
TITLES = {
    "critic/score/mean": "score, points",
    "num_turns/mean": "turns of both sides",
    "tool_calls/mean": "tool calls",
    "actor/entropy": "entropy, nats a token",
    "actor/grad_norm": "norm of the gradient",
    "response_length/mean": "response, tokens",
    "response_length/clip_ratio": "responses cut off, share",
    "timing_s/step": "seconds a step",
    "timing_s/gen": "seconds of sampling",
    "timing_s/update_actor": "seconds of the update",
    "dump/score": "score, points",
    "dump/right": "right, share",
    "dump/tool_rate": "tool used, share",
    "dump/format_errors": "format errors, share",
    "dump/flat_groups": "flat groups, share",
    "dump/response_chars": "response, characters",
    "dump/box_iou": "IoU of the first crop",
    "dump/crop_px2": "area of the first crop, px²",
}
NO_DUMPS = "No trajectories were dumped."


@drawn
def training_metrics(bands: pd.DataFrame, alarms: pd.DataFrame | None = None) -> Figure:
    """A panel per metric over the steps, a line per arm, its seeds as a band, and early warnings below.

    Args:
        bands: `training_views.curve_bands`.
        alarms: `training_views.alarm_table`; a warning is a dotted line in the panel of its metric, and a mark in the
            lowest panel.
    """
    keys, arms = list(bands["key"].unique()), list(bands["arm"].unique())
    if not keys:
        return nothing("The log holds none of these metrics.")
    warned = alarms is not None and len(alarms) > 0
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    names = list(alarms["name"].unique()) if warned else []
    lane = [0.5 + 0.17 * len(names)] if warned else []
    figure = plt.figure(figsize=(PAGE_IN, 1.55 * rows + sum(lane)))
    grid = figure.add_gridspec(rows + len(lane), columns, height_ratios=[1.55] * rows + lane)
    steps = (bands["step"].min(), bands["step"].max())
    for place, key in enumerate(keys):
        ax = figure.add_subplot(grid[divmod(place, columns)])
        for at, arm in enumerate(arms):
            part = bands[(bands["key"] == key) & (bands["arm"] == arm)]
            color = SERIES[at % len(SERIES)][0]
            ax.plot(part["step"], part["value"], color=color, lw=1.2, marker=_mark(part))
            if (part["n"] > 1).any():
                ax.fill_between(part["step"], part["low"], part["high"], color=color, alpha=0.18, lw=0)
            if warned:
                for step in alarms.loc[(alarms["arm"] == arm) & (alarms["key"] == key), "step"]:
                    ax.axvline(step, color=color, ls=":", lw=1)
        ax.set_title(TITLES.get(key, key))
        _step_axis(ax, steps)
    if warned:
        _alarm_lane(figure.add_subplot(grid[rows, :]), alarms, names, arms, steps)
    _arm_legend(figure, arms)
    return figure


def _alarm_lane(ax: Axes, alarms: pd.DataFrame, names: list, arms: list, steps: tuple) -> None:
    for at, arm in enumerate(arms):
        part = alarms[alarms["arm"] == arm]
        color, marker = SERIES[at % len(SERIES)]
        places = np.array([names.index(name) for name in part["name"]], dtype="float64")
        ax.plot(part["step"], places + 0.2 * (at % 3 - 1), marker, color=color, ms=4)
    ax.set_yticks(range(len(names)), names)
    ax.set(
        title="early warnings, at the first step of each run", ylim=(len(names) - 0.5, -0.5), xlabel="step"
    )
    _step_axis(ax, steps)


@drawn
def parts_of_score(parts: pd.DataFrame) -> Figure:
    """The mean score of each step as the sum of its parts, an arm a panel.

    Args:
        parts: `training_views.score_parts`.
    """

    def bars(ax: Axes, part: pd.DataFrame) -> None:
        bottom = np.zeros(len(part))
        for name in ("accuracy", "tool"):
            ax.bar(part["step"], part[name], 1.0, bottom, color=PART_COLORS[name], lw=0, label=name)
            bottom += part[name].fillna(0).to_numpy()
        ax.bar(part["step"], part["format"], 1.0, color=PART_COLORS["format"], lw=0, label="format")
        ax.plot(part["step"], part["score"], color=INK, lw=1, label="score")
        ax.axhline(0, color=INK, lw=0.7)
        ax.set_title(f"{part['arm'].iloc[0]}, n={part['n'].median():.0f} a step")

    return _arm_panels(parts, bars, "points")


@drawn
def right_by_tool(parts: pd.DataFrame) -> Figure:
    """P(right) of the trajectories that used the tool and of those that did not, with 95 % intervals, an arm a panel.

    Args:
        parts: `training_views.score_parts`.
    """

    def lines(ax: Axes, part: pd.DataFrame) -> None:
        for name, label, color, ls in (
            ("right_with_tool", "with the tool", SERIES[1][0], "-"),
            ("right_without_tool", "without", MUTED, "--"),
        ):
            if name in part:
                low, high = part[f"{name}_low"], part[f"{name}_high"]
                ax.fill_between(part["step"], low, high, color=color, alpha=0.18, lw=0)
                ax.plot(part["step"], part[name], color=color, ls=ls, label=label, marker=_mark(part))
        ax.set_ylim(-0.02, 1.02)

    return _arm_panels(parts, lines, "share right")


@drawn
def tool_phases(path: pd.DataFrame) -> Figure:
    """Tool use against what the tool goes with, a point per window, from the hollow first to the large last one.

    Args:
        path: `training_views.phase_path`.
    """
    path = path.dropna(subset=["tool_rate", "difference"])
    if not len(path):
        return nothing("No window has trajectories with the tool and without it.")
    figure, ax = plt.subplots(figsize=(COLUMN_IN + 1, 3.2))
    ax.axhline(0, color=MUTED, lw=0.8)
    ax.axvline(0.5, color=MUTED, lw=0.8)
    ends = path.groupby("arm").tail(1)  # these have intervals
    reach = pd.concat([path["difference"], ends["low"], ends["high"]]).abs().max()
    span = 1.1 * max(0.25, float(reach))
    for x, y, words in (
        (0.01, 0.97, "selective"),
        (0.99, 0.97, "learns to look"),
        (0.01, 0.03, "gives up"),
        (0.99, 0.03, "paid for calling"),
    ):
        where = {"ha": "left" if x < 0.5 else "right", "va": "top" if y > 0.5 else "bottom"}
        ax.text(x, y, words, transform=ax.transAxes, color=MUTED, fontsize=7, **where)
    for at, (arm, part) in enumerate(path.groupby("arm", sort=False)):
        color, marker = SERIES[at % len(SERIES)]
        ax.plot(part["tool_rate"], part["difference"], color=color, lw=0.9, marker=marker, ms=3, label=arm)
        ax.plot(part["tool_rate"].iloc[0], part["difference"].iloc[0], marker, color=color, ms=6, mfc="white")
        ends = part.iloc[-1]
        bar = [[ends["difference"] - ends["low"]], [ends["high"] - ends["difference"]]]
        ax.errorbar(ends["tool_rate"], ends["difference"], bar, fmt=marker, color=color, ms=7, elinewidth=0.8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-span, span), xlabel="share of trajectories that used the tool")
    ax.set_ylabel("P(right | tool) - P(right | no tool)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@drawn
def signal_by_part(signal: pd.DataFrame) -> Figure:
    """Which part of the reward separates the trajectories of a group, and the share of groups that teach nothing.

    Args:
        signal: `training_views.learning_signal`.
    """

    def lines(ax: Axes, part: pd.DataFrame) -> None:
        for name, color in PART_COLORS.items():
            ax.plot(part["step"], part[name], color=color, label=name, marker=_mark(part))
        ax.plot(part["step"], part["flat"], color=INK, ls="--", lw=1, label="flat groups", marker=_mark(part))

    return _arm_panels(signal, lines, "share of the variance")


@drawn
def advantages_by_prompt(ledger: pd.DataFrame) -> Figure:
    """The advantage of each trajectory of a step, a column per prompt; flat groups are shaded.

    Args:
        ledger: `training_views.group_ledger`.
    """
    if not len(ledger):
        return nothing("The step has no trajectories whose group is known.")
    groups = list(ledger["group"].unique())
    figure, ax = plt.subplots(figsize=(min(PAGE_IN, 1.6 + 0.45 * len(groups)), 2.6))
    size = ledger["group_size"].max()
    for at, group in enumerate(groups):
        part = ledger[ledger["group"] == group]
        if part["flat"].fillna(False).all():
            ax.axvspan(at - 0.5, at + 0.5, color=MUTED, alpha=0.15, lw=0)
        across = at + 0.6 * ((np.arange(len(part)) + 0.5) / size - 0.5)
        for tool, marker in ((True, "^"), (False, "o")):
            for verdict, color in ((1, RIGHT), (0, WRONG), (None, MUTED)):
                same = part["right"].isna() if verdict is None else part["right"] == verdict
                chosen = ((part["used_tool"] == tool) & same).to_numpy()
                ax.plot(across[chosen], part["advantage"][chosen], marker, color=color, ms=4, lw=0)
    for marker, color, words in (
        ("^", INK, "used the tool"),
        ("o", INK, "did not"),
        ("s", RIGHT, "right"),
        ("s", WRONG, "wrong"),
    ):
        ax.plot([], [], marker, color=color, lw=0, label=words)
    ax.axhline(0, color=INK, lw=0.7)
    labels = ledger.groupby("group", sort=False)["group_mean"].first()
    ax.set_xticks(range(len(groups)), [f"{group:.0f}\n{labels[group]:.2f}" for group in groups])
    ax.set(ylabel="advantage", xlabel="prompt, mean score (shaded: flat)")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@drawn
def possible_accuracy(bounds: pd.DataFrame) -> Figure:
    """Between which limits the accuracy lies by the mean score alone.

    Args:
        bounds: `training_views.bounds_by_step`.
    """

    def bands(ax: Axes, part: pd.DataFrame) -> None:
        for at, (seed, run) in enumerate(part.groupby("seed", sort=False)):
            look = {"color": SERIES[(at + 1) % len(SERIES)][0], "alpha": 0.25, "lw": 0.8}
            ax.fill_between(run["step"], run["low"], run["high"], label=f"seed {seed}", **look)
        ax.set_ylim(-0.02, 1.02)

    return _arm_panels(bounds, bands, "share right", "The log holds no scores.")


def _arm_panels(
    table: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None], label: str, absent: str = NO_DUMPS
) -> Figure:
    """A panel per arm over the steps, at most three in a row, and a legend. `draw` draws the rows of an arm."""
    arms = list(table["arm"].unique())
    if not arms:
        return nothing(absent)
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    size = (min(PAGE_IN, max(COLUMN_IN, 2.4 * columns)), 2 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for ax, arm in zip(axes.flat, arms, strict=False):
        ax.set_title(arm)
        draw(ax, table[table["arm"] == arm])
    for ax in axes.flat[len(arms) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes.flat:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes[0, 0].set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _mark(part: pd.DataFrame) -> str:
    """A line of one step is a point."""
    return "." if len(part) == 1 else ""


def _step_axis(ax: Axes, steps: tuple[float, float]) -> None:
    margin = 0.5 + 0.01 * (steps[1] - steps[0])
    ax.set_xlim(steps[0] - margin, steps[1] + margin)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _arm_legend(figure: Figure, arms: list) -> None:
    for at, arm in enumerate(arms):
        figure.axes[0].plot([], [], color=SERIES[at % len(SERIES)][0], label=str(arm))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
