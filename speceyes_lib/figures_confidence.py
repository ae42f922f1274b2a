"""Figures of notebook 04: see `figures` for the conventions. Frames come from `confidence_run` and its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from scipy.special import logit

from . import metrics, scores
from .economics import DECISIONS
from .figures import (
    _CONFIDENCE_TICKS,
    _TOP,
    COLUMN_IN,
    INK,
    METHOD_COLORS,
    MUTED,
    PAGE_IN,
    PHASE_COLORS,
    PHASE_LABELS,
    RIGHT,
    WRONG,
    _drawn,
    _left_end,
    _shown,
    mode_color,
)
from .frames import PHASES
from .paper import AVERAGE
from .tables import agent_label, split_label

SCORE_COLORS = {
    "min_prob": "#999933",
    "sequence": "#DDCC77",
    "entropy": "#CC79A7",
    "margin": "#D55E00",
    "tie_aware": "#332288",
    "options": "#117733",
    "router": "#882255",
    "combination": "#222222",
}
NOT_TIMED = "The run was not timed: nothing is known about speed."
SHORT = {"min": "min", "mean": "mean", "bottom20": "bottom", "log": "log", "tie_aware": "sep. x margin"}


def _nothing(why: str) -> Figure:
    """In place of a figure whose numbers the run does not have."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 0.7))
    ax.text(0.5, 0.5, why, ha="center", va="center", color=MUTED)
    ax.set_axis_off()
    return figure


def score_color(name: str) -> str:
    return SCORE_COLORS.get(name) or mode_color(name)


def short_label(name: str) -> str:
    return SHORT.get(name, name.replace("_", " "))


# ------------------------------------------------------------------ what the scores know


@_drawn
def confidence_density(
    table: pd.DataFrame, names: Sequence[str], thresholds: Mapping[str, float] | None = None
) -> Figure:
    """How each score is distributed over right and over wrong drafts: kernel densities over log-odds, a panel each.

    `table` has a bool column `right` and a column per score. Each density is normalised to its own n (in the legend);
    ticks below are the single wrong drafts. The arrow joins the two peaks: their distance in log-odds, which does not
    depend on how a sigmoid squeezes the ends. `thresholds` draws a line per score.
    """
    rows = (len(names) + 1) // 2
    figure, axes = plt.subplots(
        rows, min(2, len(names)), figsize=(PAGE_IN * 0.86, 1.75 * rows + 0.2), squeeze=False
    )
    for ax, name in zip(axes.flat, names, strict=False):
        part = table[[name, "right"]].dropna()
        low = _left_end(part[name])
        high = float(_shown(1 - 0.8 * (1 - part[name].max()))) if len(part) else 0.99
        ends = logit(low), min(logit(high) + 0.6, logit(_TOP))
        peaks = [
            _density(ax, logit(_shown(part.loc[part["right"] == right, name])), ends, color, label)
            for right, color, label in ((True, RIGHT, "right"), (False, WRONG, "wrong"))
        ]
        wrong = np.clip(logit(_shown(part.loc[~part["right"], name])), *ends)
        if len(wrong):
            ax.plot(wrong, np.full(len(wrong), -0.035), "|", color=WRONG, ms=4, mew=0.6, clip_on=False,
                    transform=ax.get_xaxis_transform())  # fmt: skip
        if thresholds and name in thresholds:
            ax.axvline(logit(_shown(thresholds[name])), color=INK, lw=1, ls="--")
        top = ax.get_ylim()[1]
        ax.set(
            title=short_label(name), xlabel="", ylabel="density", xlim=ends, ylim=(0, 1.18 * top), yticks=[]
        )
        if None not in peaks:
            _distance(ax, *peaks, 1.06 * top)
        ticks = [t for t in _CONFIDENCE_TICKS if ends[0] <= logit(t) <= ends[1]]
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
    arrow = {"arrowstyle": "<->", "color": INK, "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
    text = f"{right - wrong:+.1f}"
    for drawn in (
        ax.annotate("", (right, y), (wrong, y), arrowprops=arrow),
        ax.text((right + wrong) / 2, y, text, ha="center", va="bottom", fontsize=6, color=INK, clip_on=True),
    ):
        drawn.set_in_layout(False)


@_drawn
def rolling_by_rank(curves: pd.DataFrame) -> Figure:
    """Accuracy of the drafts among neighbours in confidence, over their rank. `curves`: see `rolling_by_rank_data`."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.15, 2.5))
    names = list(dict.fromkeys(curves["score"]))
    for name, part in curves.groupby("score", sort=False):
        if name == names[0]:
            ax.fill_between(
                part["rank_pct"], part["low_pct"], part["high_pct"], color=score_color(name), alpha=0.18, lw=0
            )
        ax.plot(part["rank_pct"], part["accuracy_pct"], color=score_color(name), label=short_label(name))
    window, n = (int(curves[c].iloc[0]) if len(curves) else 0 for c in ("window", "n"))
    ax.set(
        title=f"Draft accuracy among {window} neighbours (n={n})",
        xlabel="rank by confidence, % (most confident at the right)",
        ylabel="draft accuracy, %",
        xlim=(0, 100),
        ylim=(0, 103),
    )
    if names:
        ax.legend(loc="lower right")
    return figure


def rolling_by_rank_data(table: pd.DataFrame, names: Sequence[str], window: int = 50) -> pd.DataFrame:
    """`metrics.rolling_accuracy` of several scores; `rank_pct` is the middle of the window. `table` as above."""
    parts = []
    for name in names:
        curve = metrics.rolling_accuracy(table[name], table["right"], window)
        middle = (np.arange(len(curve.score)) + curve.window / 2) / max(curve.n, 1)
        columns = {"rank_pct": 100 * middle, "accuracy_pct": curve.accuracy_pct}
        columns |= {
            "low_pct": curve.low_pct,
            "high_pct": curve.high_pct,
            "window": curve.window,
            "n": curve.n,
        }
        parts.append(pd.DataFrame({"score": name, **columns}))
    return pd.concat(parts, ignore_index=True)


@_drawn
def risk_coverage(curves: pd.DataFrame) -> Figure:
    """Wrong ones among the most confident drafts, over how many are kept. `curves`: see `risk_coverage_data`."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.15, 2.7))
    for name, part in curves.groupby("score", sort=False):
        label = f"{short_label(name)}: {part['aurc'].iloc[0]:.4f}"
        ax.plot(part["coverage_pct"], part["risk_pct"], color=score_color(name), label=label)
    n = int(curves["n"].max()) if len(curves) else 0
    ax.set(
        title=f"Risk of the drafts kept first (n={n})",
        xlabel="coverage: drafts kept, %",
        ylabel="wrong among them, %",
        xlim=(0, 101),
        ylim=(0, None),
    )
    if ax.lines:
        ax.legend(loc="upper left", title="AURC", title_fontsize=7)
    return figure


def risk_coverage_data(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    parts = []
    for name in names:
        curve = metrics.risk_coverage(table[name], table["right"], draws=1)
        points = {c: getattr(curve, c) for c in ("coverage_pct", "risk_pct")}
        parts.append(pd.DataFrame({"score": name, **points, "aurc": curve.aurc.value, "n": curve.n}))
    return pd.concat(parts, ignore_index=True)


@_drawn
def reliability(bins: pd.DataFrame) -> Figure:
    """What probabilities promise and what comes true, in equally filled bins. `bins`: see `reliability_data`."""
    if not len(bins):
        return _nothing("none of the run's scores is a probability")
    names = list(dict.fromkeys(bins["score"]))
    figure, axes = plt.subplots(
        1, max(1, len(names)), figsize=(min(PAGE_IN, 0.7 + 2.1 * max(1, len(names))), 2.35), sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, name in zip(axes.flat, names, strict=False):
        part = bins[bins["score"] == name]
        ax.plot([0, 100], [0, 100], color=MUTED, lw=0.8, ls=":")
        errors = np.abs(part[["low_pct", "high_pct"]].to_numpy().T - part["accuracy_pct"].to_numpy())
        ax.errorbar(
            part["promised_pct"], part["accuracy_pct"], yerr=errors, fmt="o-", ms=3, lw=1, elinewidth=0.7,
            color=score_color(name),
        )  # fmt: skip
        low = max(0, 10 * np.floor(part[["promised_pct", "low_pct"]].min().min() / 10))
        ax.set(title=scores.SCORES[name].label, xlabel="promised, %", xlim=(low - 1, 101), ylim=(-2, 103))
    axes.flat[0].set_ylabel("came true, %")
    return figure


def reliability_data(table: pd.DataFrame, names: Sequence[str], n_bins: int = 10) -> pd.DataFrame:
    parts = []
    for name in names:
        told = metrics.reliability(table[name], table["right"], n_bins)
        columns = ("promised_pct", "accuracy_pct", "low_pct", "high_pct", "n_bin")
        parts.append(pd.DataFrame({"score": name, **{c: getattr(told, c) for c in columns}}))
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------ what separability cannot see


@_drawn
def tie_geometry(near: pd.DataFrame, ties: pd.DataFrame) -> Figure:
    """Left: one token, its runner-up coming closer (`scores.near_tie_geometry`); right: a run's drafts by margin.

    ties: rows of `scores.near_ties` with a column `drafts` saying which drafts were counted.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN * 0.9, 2.7))
    for name in ("min", "tie_aware", "margin"):
        dashes = "--" if name == "margin" else "-"
        left.plot(near["gap"], near[name], dashes, color=score_color(name), label=short_label(name))
    left.axhspan(0.97, 0.98, color=MUTED, alpha=0.35, lw=0)
    left.text(
        near["gap"].max(), 0.955, "thresholds of the paper", ha="right", va="top", fontsize=6.5, color=MUTED
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
        own = ties[ties["drafts"] == line]
        x = np.arange(len(own)) + (number - (len(lines) - 1) / 2) * width
        alpha = (0.35, 0.65, 1.0)[number % 3]
        right.bar(x, own["n"], 0.9 * width, color=RIGHT, alpha=alpha, lw=0, label=line)
        right.bar(x, own["n_wrong"], 0.9 * width, color=WRONG, lw=0)
        for at, row in zip(x, own.itertuples(), strict=True):
            right.text(at, row.n, f"{row.n_wrong}/{row.n}", ha="center", va="bottom", fontsize=5, rotation=90)
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
    wrong = plt.Rectangle((0, 0), 1, 1, color=WRONG, lw=0)
    figure.legend([*handles, wrong], [*labels, "wrong among them"], loc="outside lower center", ncols=4)
    return figure


# ------------------------------------------------------------------ operating points


@_drawn
def front(curves: pd.DataFrame, reported: pd.DataFrame, points: pd.DataFrame | None = None) -> Figure:
    """Accuracy gained or lost against the agent alone, over speedup: this run's funnel and the paper's points.

    curves: `confidence_run.front`, a line per score over all thresholds. reported: `reported_points`. points: of this
    run, columns `label speedup gain_pp`. The two come from other models and machines: compare shapes, not places.
    """
    if not curves["speedup"].notna().any():
        return _nothing(NOT_TIMED)
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.5, 3.3))
    for agent, part in reported.groupby("agent", sort=False):
        marker = {"deepeyes": "s", "thyme": "^"}.get(agent, "o")
        table, sweep = part[part["kind"] == "table"], part[part["kind"] == "threshold"].sort_values("speedup")
        ax.plot(
            sweep["speedup"], sweep["gain_pp"], color=MUTED, lw=0.8, ls=":", marker=marker, ms=2.5, zorder=1
        )
        ax.plot(
            table["speedup"], table["gain_pp"], marker, ms=6, mfc="none", mec=MUTED, mew=1.1,
            label=f"reported: {agent_label(agent)}",
        )  # fmt: skip
    for name, part in curves.groupby("score", sort=False):
        part = part.sort_values("threshold")
        gain = part["accuracy_pct"] - part["baseline_accuracy_pct"]
        ax.plot(
            part["speedup"], gain, color=score_color(name), lw=1.2, label=f"this run: {short_label(name)}"
        )
    for i, row in enumerate([] if points is None else points.itertuples()):
        ax.plot(row.speedup, row.gain_pp, "*", color=INK, ms=9 - 2 * i, zorder=4, label=row.label)
    ax.axhline(0, color=MUTED, lw=0.8)
    ax.axvline(1, color=MUTED, lw=0.8)
    ax.set(
        title="Accuracy against speedup",
        xlabel="speedup over the agent alone",
        ylabel="accuracy less the agent's, points",
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def reported_points(table1: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """The paper's SpecEyes points, averaged over splits, against its own agent: `agent kind label speedup gain_pp`.

    kind: "table" (Table 1, a point per confidence mode) or "threshold" (its threshold ablation, `min`).
    """
    base = table1[(table1["method"] == "baseline") & (table1["split"] == AVERAGE)].set_index("agent")[
        "accuracy_pct"
    ]
    own = table1[(table1["method"] == "speceyes") & (table1["split"] == AVERAGE)]
    told = own.assign(kind="table", label=own["confidence"])
    sweep = thresholds[~thresholds["is_baseline"] & (thresholds["split"] != AVERAGE)]
    means = sweep.groupby(["agent", "threshold"])[["accuracy_pct", "speedup"]].mean()
    full = sweep.groupby(["agent", "threshold"])["split"].nunique() == sweep["split"].nunique()
    sweep = means[full].reset_index()  # an average over fewer splits is of other questions
    sweep = sweep.assign(kind="threshold", label=sweep["threshold"].map("{:g}".format))
    told = pd.concat([told, sweep], ignore_index=True)
    told["gain_pp"] = told["accuracy_pct"] - told["agent"].map(base)
    return told[["agent", "kind", "label", "speedup", "gain_pp"]]


@_drawn
def ablations(table: pd.DataFrame) -> Figure:
    """The ablations from one pass: accuracy above, speedup below, a column per panel of `confidence_run.ablations`.

    Settings that the run refuses leave a gap marked "n/a"; hollow points rest on extrapolated costs.
    """
    panels = list(dict.fromkeys(table["panel"]))
    figure, axes = plt.subplots(
        2, len(panels), figsize=(PAGE_IN, 3.9), sharey="row", sharex="col", squeeze=False,
        gridspec_kw={"width_ratios": [max(4, table[table["panel"] == p]["x"].nunique()) for p in panels]},
    )  # fmt: skip
    for column, panel in enumerate(panels):
        part = table[table["panel"] == panel]
        ticks = list(dict.fromkeys(part["x"]))
        for number, (line, own) in enumerate(part.groupby("line", sort=False)):
            x = np.array([ticks.index(v) for v in own["x"]])
            style = {
                "color": (METHOD_COLORS["speceyes_min"], METHOD_COLORS["router_only"])[number],
                "lw": 1.1,
            }
            joined = "-" if panel not in ("score", "router") else ""
            for row, measure in enumerate(("accuracy_pct", "speedup")):
                ax = axes[row, column]
                ax.plot(x, own[measure], joined + "os"[number], ms=3.2, **style, label=line)
                rough = (own["cost_note"].fillna("") != "").to_numpy() & (measure == "speedup")
                ax.plot(x[rough], own[measure][rough], "os"[number], ms=3.2, mfc="white", mec=style["color"])
        refused = part[part["status"] == "refused"]
        for value in dict.fromkeys(refused["x"]):
            if part[(part["x"] == value)]["accuracy_pct"].isna().all():
                axes[0, column].annotate(
                    "n/a",
                    (ticks.index(value), 0.04),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    fontsize=6,
                )
        axes[0, column].axhline(table["baseline_accuracy_pct"].max(), color=MUTED, lw=0.8, ls="--")
        axes[1, column].axhline(1, color=MUTED, lw=0.8, ls="--")
        labels = [short_label(v) if isinstance(v, str) else f"{v:g}".replace("0.", ".") for v in ticks]
        crowded = panel in ("score", "threshold", "router")
        axes[1, column].set_xticks(range(len(ticks)), labels, rotation=90 if crowded else 0)
        axes[1, column].set_xlabel({"batch": "batch size"}.get(panel, panel))
        axes[0, column].set_title(panel)
        axes[0, column].set_xlim(-0.6, len(ticks) - 0.4)
        if len(set(part["line"])) > 1:
            names = {"agents one at a time": "agents 1 by 1", "agents together too": "agents too"}
            handles, told = axes[0, column].get_legend_handles_labels()
            axes[1, column].legend(
                handles, [names.get(t, t.removeprefix("same ")) for t in told], fontsize=6, handlelength=1,
                title="same" if panel in ("K", "score") else None, title_fontsize=6,
            )  # fmt: skip
    axes[0, 0].set_ylabel(f"accuracy, % (n={int(table['n'].max())})")
    axes[1, 0].set_ylabel("speedup (predicted)")
    axes[1, 0].yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    return figure


@_drawn
def certified_points(points: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Rules over repeated halves (`certify.held_out`): the risk each bounds, coverage, and speedup, held out.

    A dot per repeat, hollow where nothing was certified; the bar is the mean, the cross the target. `labels`: by rule,
    in the order shown.
    """
    order = list(labels)
    figure, axes = plt.subplots(1, 4, figsize=(PAGE_IN, 0.29 * len(order) + 0.95), sharey=True)
    measures = (
        ("risk_pct", "risk bounded, %"),
        ("coverage_pct", "accepted, %"),
        ("gain_pp", "accuracy less\nthe agent's, points"),
        ("speedup", "speedup"),
    )
    table = points.assign(gain_pp=points["accuracy_pct"] - points["agent_pct"])
    for ax, (measure, label) in zip(axes, measures, strict=True):
        for y, rule in enumerate(order):
            part = table[table["rule"] == rule]
            values = part[measure].to_numpy(dtype=float)
            color = (
                METHOD_COLORS["speceyes_min"]
                if part["target_pct"].notna().any() and rule != "plug_in"
                else MUTED
            )
            jitter = y + 0.22 * np.linspace(-1, 1, len(values))
            sure = part["certified"].fillna(False).to_numpy(dtype=bool)
            ax.plot(values[sure], jitter[sure], "o", ms=2.2, color=color, alpha=0.7)
            ax.plot(values[~sure], jitter[~sure], "o", ms=2.2, mfc="none", mec=color, mew=0.5, alpha=0.8)
            if np.isfinite(values).any():
                ax.plot([np.nanmean(values)] * 2, [y - 0.36, y + 0.36], color=INK, lw=1.4)
            if measure == "risk_pct" and part["target_pct"].notna().any():
                ax.plot(part["target_pct"].iloc[0], y, "x", color=WRONG, ms=5, mew=1.2)
        ax.set_xlabel(label)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_yticks(range(len(order)), [labels[rule] for rule in order])
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    axes[2].axvline(0, color=MUTED, lw=0.8)
    axes[3].axvline(1, color=MUTED, lw=0.8)
    axes[3].xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    return figure


# ------------------------------------------------------------------ economics


@_drawn
def break_even(table: pd.DataFrame) -> Figure:
    """Where the gate pays: accepted share against its price in agent runs; `table`: `economics.break_even`.

    On the thick line nothing is won; the thin ones are speedups that the condition implies.
    """
    if not len(table):
        return _nothing(NOT_TIMED)
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.15, 2.9))
    top = max(1.8 * float(table["overhead"].max()), 0.15)
    x = np.array([0.0, 1.0])
    ax.fill_between(x, x, 2, color=WRONG, alpha=0.08, lw=0, label="costs more than it saves")
    ax.plot(x, x, color=INK, lw=1.4)
    for speed in (1.25, 1.5, 2, 3, 5):
        ax.plot(x, x - 1 + 1 / speed, color=MUTED, lw=0.7, ls=":")
        at = top + 1 - 1 / speed  # where the line leaves the picture
        if at < 0.97:
            ax.text(at, top, f"{speed:g}x", fontsize=6.5, color=MUTED, ha="center", va="bottom")
    colors = plt.get_cmap("tab10")
    for number, row in enumerate(table[table["task"] != "pooled"].itertuples()):
        ax.plot(row.accepted, row.overhead, "o", ms=4, color=colors(number), label=split_label(row.task))
    pooled = table[table["task"] == "pooled"].iloc[0]
    ax.plot(pooled["accepted"], pooled["overhead"], "*", ms=10, color=INK, label="all samples")
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


@_drawn
def time_ledger(steps: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """Left: from the agent alone to the gated run (`economics.waterfall`); right: `economics.time_by_decision`."""
    if not len(steps):
        return _nothing(NOT_TIMED)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4), gridspec_kw={"width_ratios": [1.1, 1]})
    level = 0.0
    for y, row in enumerate(steps.itertuples()):
        if row.total:
            left.barh(y, row.ms, color=METHOD_COLORS["baseline" if y == 0 else "speceyes_min"], height=0.6)
            level, end = row.ms, row.ms
        else:
            left.barh(y, row.ms, left=level, color=RIGHT if row.ms < 0 else WRONG, height=0.6)
            level += row.ms
            end = max(level, level - row.ms)
        text = f" {row.ms:.1f}" if row.total else f" {row.ms:+.1f}".replace("-", "−")
        left.text(end, y, text, va="center", fontsize=7)
        if y < len(steps) - 1:
            left.plot([level, level], [y + 0.3, y + 0.7], color=MUTED, lw=0.7)
    left.set_yticks(range(len(steps)), steps["step"])
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.set(title="From the agent alone to the gate", xlabel="ms per sample (predicted)")
    left.set_xlim(0, 1.18 * steps["ms"].max())

    shown = [d for d in DECISIONS if d in set(parts["decision"])]
    for y, decision in enumerate(shown):
        own, begin = parts[parts["decision"] == decision].set_index("phase"), 0.0
        for phase in PHASES:
            right.barh(y - 0.14, own.loc[phase, "ms"], left=begin, height=0.4, color=PHASE_COLORS[phase])
            begin += own.loc[phase, "ms"]
        right.text(begin, y - 0.14, f" {begin:.0f}", va="center", fontsize=7)
        alone = own["alone_ms"].iloc[0]
        right.barh(y + 0.22, alone, height=0.18, color=MUTED, alpha=0.5)
        right.text(alone, y + 0.24, f" {alone:.0f}", va="center", fontsize=6.5, color=MUTED)
    counts = parts.drop_duplicates("decision").set_index("decision")["n"]
    right.set_yticks(range(len(shown)), [f"{d.replace('_', ' ')}\nn={counts[d]}" for d in shown])
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    right.set(title="Where the time goes, by decision", xlabel="ms per sample (predicted)")
    right.set_xlim(0, 1.15 * max(1.0, parts["alone_ms"].max(), parts.groupby("decision")["ms"].sum().max()))
    handles = [plt.Rectangle((0, 0), 1, 1, color=PHASE_COLORS[p]) for p in PHASES]
    handles.append(plt.Rectangle((0, 0), 1, 1, color=MUTED, alpha=0.5))
    figure.legend(handles, [*(PHASE_LABELS[p] for p in PHASES), "agent alone, same samples"],
                  loc="outside lower center", ncols=6, columnspacing=1.0)  # fmt: skip
    return figure


# ------------------------------------------------------------------ planner


@_drawn
def fleets(table: pd.DataFrame, load: pd.DataFrame) -> Figure:
    """Left: requests per second and GPU over how a fleet is divided; right: latency over the number of users.

    table: `planner.best_ratio` with a column `workload` ("funnel" or "agent"). load: rows of `planner.simulate`
    with `workload` and `users`.
    """
    if not len(table):
        return _nothing(NOT_TIMED)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN * 0.9, 2.6))
    funnel = table[table["workload"] == "funnel"].sort_values("large")
    agent = table[table["workload"] == "agent"]
    left.plot(
        funnel["large"],
        funnel["per_gpu_per_s"],
        "o-",
        color=METHOD_COLORS["speceyes_min"],
        label="with the gate",
    )
    if len(agent):
        left.axhline(
            agent["per_gpu_per_s"].max(), color=METHOD_COLORS["baseline"], ls="--", lw=1, label="agent alone"
        )
    best = funnel.loc[funnel["per_gpu_per_s"].idxmax()]
    left.plot(best["large"], best["per_gpu_per_s"], "*", ms=10, color=INK, zorder=3)
    left.set_xticks(funnel["large"], [f"{r.small}+{r.large}" for r in funnel.itertuples()])
    left.set(
        title=f"How to divide {int(table['gpus'].max())} replicas", xlabel="small + large", ylim=(0, None),
        ylabel="requests per second and replica",
    )  # fmt: skip
    left.legend(loc="lower right")
    for name, label, color in (
        ("funnel", "with the gate", METHOD_COLORS["speceyes_min"]),
        ("agent", "agent alone", METHOD_COLORS["baseline"]),
    ):
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
    right.legend(loc="upper left")
    return figure
