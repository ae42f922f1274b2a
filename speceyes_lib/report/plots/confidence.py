"""Figures of confidence: densities, rolling accuracy, risk over coverage, reliability, ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import logit

from ...gating.scores import score_of
from . import style


def short_label(name: str) -> str:
    """A score's short label; the words of a name that is no score."""
    return score_of(name).short


@style.drawn
def confidence_density(
    table: pd.DataFrame, names: Sequence[str], thresholds: Mapping[str, float] | None = None
) -> Figure:
    """How each score is distributed over right and over wrong drafts: kernel densities over log-odds, a panel each.

    Each density is normalised to its own n (in the legend); ticks below are the single wrong drafts. The arrow joins
    the two peaks: their distance in log-odds, which does not depend on how a sigmoid squeezes the ends.

    Args:
        table: a bool column `right`, and a column per score; a row per draft.
        names: scores to draw.
        thresholds: score -> where a line is drawn.
    """
    rows = (len(names) + 1) // 2
    figure, axes = plt.subplots(
        rows, min(2, len(names)), figsize=(style.PAGE_IN * 0.86, 1.75 * rows + 0.2), squeeze=False
    )
    for ax, name in zip(axes.flat, names, strict=False):
        part = table[[name, "right"]].dropna()
        low = style.left_end(part[name])
        high = float(style.clipped(1 - 0.8 * (1 - part[name].max()))) if len(part) else 0.99
        ends = logit(low), min(logit(high) + 0.6, logit(style.TOP))
        peaks = [
            _density(ax, logit(style.clipped(part.loc[part["right"] == right, name])), ends, color, label)
            for right, color, label in ((True, style.RIGHT, "right"), (False, style.WRONG, "wrong"))
        ]
        wrong = np.clip(logit(style.clipped(part.loc[~part["right"], name])), *ends)
        if len(wrong):
            ax.plot(wrong, np.full(len(wrong), -0.035), "|", color=style.WRONG, ms=4, mew=0.6, clip_on=False,
                    transform=ax.get_xaxis_transform())  # fmt: skip
        if thresholds and name in thresholds:
            ax.axvline(logit(style.clipped(thresholds[name])), color=style.INK, lw=1, ls="--")
        top = ax.get_ylim()[1]
        ax.set(
            title=short_label(name), xlabel="", ylabel="density", xlim=ends, ylim=(0, 1.18 * top), yticks=[]
        )
        if None not in peaks:
            _distance(ax, *peaks, 1.06 * top)
        ticks = [t for t in style.CONFIDENCE_TICKS if ends[0] <= logit(t) <= ends[1]]
        ax.set_xticks([logit(t) for t in ticks], [f"{t:g}".replace("0.", ".") for t in ticks])
        ax.tick_params(axis="x", pad=6)
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.97), ncols=2, columnspacing=0.8, handlelength=1)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    return figure


def _density(ax: Axes, values: np.ndarray, ends: tuple[float, float], color: str, label: str) -> float | None:
    """A filled kernel density over log-odds; where its peak is, None where there is no spread to speak of."""
    import seaborn as sns

    label = f"{label}, n={len(values)}"
    if len(values) < 3 or np.ptp(values) < 1e-9:
        ax.plot([], [], color=color, label=label)
        return None
    sns.kdeplot(x=values, ax=ax, color=color, label=label, clip=ends, gridsize=400, lw=1.4)
    x, y = ax.lines[-1].get_data()
    ax.fill_between(x, y, color=color, alpha=0.18, lw=0)
    return float(x[np.argmax(y)])


def _distance(ax: Axes, right: float, wrong: float, y: float) -> None:
    """The distance between two peaks, in log-odds, above them."""
    arrow = {"arrowstyle": "<->", "color": style.INK, "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
    text = f"{right - wrong:+.1f}"
    for artist in (
        ax.annotate("", (right, y), (wrong, y), arrowprops=arrow),
        ax.text(
            (right + wrong) / 2, y, text, ha="center", va="bottom", fontsize=7, color=style.INK, clip_on=True
        ),
    ):
        artist.set_in_layout(False)


@style.drawn
def rolling_by_rank(curves: pd.DataFrame) -> Figure:
    """Accuracy of drafts among neighbours in confidence, over rank. `curves`: `ConfidenceData.rolling_by_rank`."""
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN * 1.15, 2.5))
    names = list(dict.fromkeys(curves["score"]))
    for name, part in curves.groupby("score", sort=False):
        if name == names[0]:
            ax.fill_between(
                part["rank_pct"],
                part["low_pct"],
                part["high_pct"],
                color=style.score_color(name),
                alpha=0.18,
                lw=0,
            )
        ax.plot(
            part["rank_pct"], part["accuracy_pct"], color=style.score_color(name), label=short_label(name)
        )
    window, n = (int(curves[c].iloc[0]) if len(curves) else 0 for c in ("window", "n"))
    ax.set(
        title=f"Draft accuracy among {window} neighbours (n={n})",
        xlabel="rank by confidence, % (most confident at the right)",
        ylabel="draft accuracy, %",
        xlim=(0, 100),
        ylim=(0, 103),
    )
    if names:
        ax.legend(loc="lower right", ncols=1 + len(names) // 14)
    return figure


@style.drawn
def risk_coverage(curves: pd.DataFrame) -> Figure:
    """Wrong ones among the most confident drafts, over how many are kept. `curves`: `ConfidenceData.risk_coverage`."""
    figure, ax = plt.subplots(figsize=(style.COLUMN_IN * 1.15, 2.7))
    for name, part in curves.groupby("score", sort=False):
        label = f"{short_label(name)}: {part['aurc'].iloc[0]:.4f}"
        ax.plot(part["coverage_pct"], part["risk_pct"], color=style.score_color(name), label=label)
    n = int(curves["n"].max()) if len(curves) else 0
    ax.set(
        title=f"Risk of the drafts kept first (n={n})",
        xlabel="coverage: drafts kept, %",
        ylabel="wrong among them, %",
        xlim=(0, 101),
        ylim=(0, None),
    )
    if ax.lines:
        ax.legend(loc="upper left", title="AURC", title_fontsize=7, ncols=1 + len(ax.lines) // 14)
    return figure


@style.drawn
def reliability(bins: pd.DataFrame) -> Figure:
    """Promised and observed accuracy in equally filled bins. `bins`: `ConfidenceData.reliability`."""
    if not len(bins):
        return style.nothing("none of the run's scores is a probability")
    names = list(dict.fromkeys(bins["score"]))
    rows = 1 if len(names) <= 5 else 2
    across = -(-len(names) // rows)
    size = (min(style.PAGE_IN, 0.7 + 2.1 * across), 2.35 * rows)
    figure, axes = plt.subplots(rows, across, figsize=size, sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        part = bins[bins["score"] == name]
        ax.plot([0, 100], [0, 100], color=style.MUTED, lw=0.8, ls=":")
        look = {"fmt": "o-", "ms": 3, "lw": 1, "elinewidth": 0.7, "color": style.score_color(name)}
        ax.errorbar(part["promised_pct"], part["accuracy_pct"], yerr=style.errors(part), **look)
        low = max(0, 10 * np.floor(part[["promised_pct", "low_pct"]].min().min() / 10))
        ax.set(
            title=fill(score_of(name).label, 16), xlabel="promised, %", xlim=(low - 1, 101), ylim=(-2, 103)
        )
    for ax in axes[:, 0]:
        ax.set_ylabel("came true, %")
    for ax in axes.flat[len(names) :]:
        ax.remove()
    return figure


@style.drawn
def tie_geometry(near: pd.DataFrame, ties: pd.DataFrame) -> Figure:
    """Left: one token, its runner-up coming closer; right: a run's drafts by margin.

    Args:
        near: a token per row: gap (log-probability of the best less the second), and its scores.
        ties: rows of `score_comparison.near_ties`; the column `drafts` names the drafts that were counted.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_IN * 0.9, 2.7))
    for name in ("min", "tie_aware", "margin"):
        dashes = "--" if name == "margin" else "-"
        left.plot(near["gap"], near[name], dashes, color=style.score_color(name), label=short_label(name))
    left.axhspan(0.97, 0.98, color=style.MUTED, alpha=0.35, lw=0)
    left.text(
        near["gap"].max(),
        0.955,
        "thresholds of the paper",
        ha="right",
        va="top",
        fontsize=7,
        color=style.MUTED,
    )
    left.set(
        title="One token, its runner-up approaching",
        xlabel="log-probability of the best less the second",
        ylabel="score",
        ylim=(-0.02, 1.04),
        xlim=(0, near["gap"].max()),
    )
    left.legend(loc="center right", bbox_to_anchor=(1.0, 0.55))
    lines = list(dict.fromkeys(ties["drafts"]))
    spans = [
        f"{a:g}–{b:g}".replace("0.", ".")
        for a, b in dict.fromkeys(zip(ties["margin_from"], ties["margin_to"], strict=True))
    ]
    width = 0.84 / max(len(lines), 1)
    for number, line in enumerate(lines):
        part = ties[ties["drafts"] == line]
        x = np.arange(len(part)) + (number - (len(lines) - 1) / 2) * width
        alpha = (0.35, 0.65, 1.0)[number % 3]
        right.bar(x, part["n"], 0.9 * width, color=style.RIGHT, alpha=alpha, lw=0, label=line)
        right.bar(x, part["n_wrong"], 0.9 * width, color=style.WRONG, lw=0)
        for at, row in zip(x, part.itertuples(), strict=True):
            right.text(at, row.n, f"{row.n_wrong}/{row.n}", ha="center", va="bottom", fontsize=7, rotation=90)
    right.set_xticks(np.arange(len(spans)), spans)
    right.set_yscale("symlog", linthresh=10)
    right.yaxis.set_major_locator(FixedLocator([0, 5, 10, 30, 100, 300, 1000, 3000, 10000]))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    right.set(
        title="Drafts by their narrowest margin",
        xlabel="(p₁ − p₂) / (p₁ + p₂) of the narrowest token",
        ylabel="drafts",
        ylim=(0, 5 * max(ties["n"].max() if len(ties) else 1, 10)),
    )
    handles, labels = right.get_legend_handles_labels()
    wrong = plt.Rectangle((0, 0), 1, 1, color=style.WRONG, lw=0)
    figure.legend([*handles, wrong], [*labels, "wrong among them"], loc="outside lower center", ncols=4)
    return figure
