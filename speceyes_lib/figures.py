"""Figures: a tidy frame (or summary) in, a matplotlib `Figure` out. No file is read here.

Colours have one meaning everywhere: a method keeps its colour in every figure (palette of Okabe and Ito, its
yellow darkened for white paper), right and wrong keep theirs (palette "muted" of Tol). Both are told apart with
any colour vision, and line styles, markers and labels differ as well.
Every figure function has a partner `<name>_data` where the plotted numbers are not simply its argument:
`save_figure` stores them beside the picture.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import expit, logit

from . import frames, metrics
from .gate import OperatingPoint
from .paper import AVERAGE
from .params import BATCHED
from .tables import agent_label, method_label, method_of, split_label

STYLE = str(resources.files(__package__) / "styles" / "speceyes.mplstyle")
COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of a column and of a page

RIGHT, WRONG = "#117733", "#882255"
MUTED, INK = "#8c8c8c", "#222222"
METHOD_COLORS = {
    "baseline": "#4d4d4d",
    "draft_only": "#E69F00",
    "specreason": "#CC79A7",
    "speceyes_min": "#0072B2",
    "speceyes_mean": "#56B4E9",
    "speceyes_bottom20": "#009E73",
    "speceyes_log": "#B59F00",
    "router_only": "#D55E00",
}
METHOD_MARKERS = {
    "baseline": "s",
    "draft_only": "D",
    "specreason": "X",
    "speceyes_min": "o",
    "speceyes_mean": "^",
    "speceyes_bottom20": "v",
    "speceyes_log": "P",
    "router_only": "h",
}
# of what is neither a method nor a verdict (palette "muted" of Tol): colour and marker
SERIES = (("#222222", "s"), ("#332288", "o"), ("#44AA99", "^"), ("#999933", "D"), ("#CC6677", "v"))
PHASE_COLORS = {
    "decode_s": "#bdbdbd",
    "router_s": "#D55E00",
    "draft_s": "#E69F00",
    "agent_s": "#4d4d4d",
    "tool_s": "#999933",
}
PHASE_LABELS = {
    "decode_s": "picture",
    "router_s": "router",
    "draft_s": "draft",
    "agent_s": "agent",
    "tool_s": "tool",
}


def method_color(method: str) -> str:
    """The colour of a method; batched variants share it (they are drawn hollow)."""
    return METHOD_COLORS.get(method.removesuffix(BATCHED), MUTED)


def mode_color(mode: str) -> str:
    return METHOD_COLORS.get(f"speceyes_{mode}", MUTED)


def _drawn(function: Callable[..., Figure]) -> Callable[..., Figure]:
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


# ------------------------------------------------------------------ confidence

# Confidences are sigmoids and pile up below 1: on an axis of log-odds the thresholds that matter lie apart.
_TOP = 1 - 1e-6  # whatever is surer than this is drawn here
_CONFIDENCE_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def _shown(confidence: pd.Series | np.ndarray) -> np.ndarray:
    """Confidences as drawn: kept off the ends, where log-odds are infinite."""
    return np.clip(np.asarray(confidence, dtype="float64"), 1 - _TOP, _TOP)


def _confidence_axis(ax: Axes, low: float, high: float = _TOP) -> None:
    ax.set_xscale("logit")
    ax.set_xlim(low, 1 - 0.7 * (1 - high))
    ax.xaxis.set_major_locator(FixedLocator(_CONFIDENCE_TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("0.", ".")))


def _left_end(confidence: pd.Series | np.ndarray) -> float:
    """Where the axis begins: at the odds 1:1, or further left if more than a hundredth of the scores lie there."""
    values = np.asarray(confidence, dtype="float64")
    values = values[np.isfinite(values)]
    return 0.5 if not len(values) else float(min(0.9, 0.9 * np.quantile(values, 0.005)))


def confidence_bins(score: pd.Series, n_bins: int = 30) -> np.ndarray:
    """Bin edges, even in log-odds; the few scores beyond the ends belong into the first and last bin."""
    high = float(_shown(1 - 0.8 * (1 - score.max()))) if len(score) else _TOP
    return expit(np.linspace(logit(_left_end(score)), logit(high), n_bins + 1))


def operating_curve(point: OperatingPoint) -> pd.DataFrame:
    """The curve behind a choice of threshold: threshold, accepted_pct, accuracy_pct, agent_pct, n."""
    return pd.DataFrame(
        {
            "threshold": point.curve.threshold,
            "accepted_pct": point.curve.accepted_pct,
            "accuracy_pct": point.curve.accuracy_pct,
            "agent_pct": point.baseline_accuracy_pct,
            "n": point.n,
        }
    )


@_drawn
def accuracy_over_threshold(
    curve: pd.DataFrame, threshold: float | None = None, local: float | None = None, chosen_here: bool = False
) -> Figure:
    """The funnel's accuracy and its accepted share over the threshold; see `operating_curve` for the frame.

    `threshold` is the operating point in use; `local` is what the same rule would pick on these very samples,
    drawn only to show the difference.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(COLUMN_IN, 3.3), sharex=True)
    color = METHOD_COLORS["speceyes_min"]
    x = _shown(curve["threshold"])
    top.step(x, curve["accuracy_pct"], where="post", color=color, label="funnel")
    top.axhline(
        curve["agent_pct"].iloc[0], color=METHOD_COLORS["baseline"], ls="--", lw=1, label="agent alone"
    )
    bottom.step(x, curve["accepted_pct"], where="post", color=color)
    for ax in (top, bottom):
        if threshold is not None:
            name = "chosen here" if chosen_here else "in use (validation)"
            ax.axvline(_shown(threshold), color=INK, lw=1, label=f"{name}: {threshold:.5g}")
        if local is not None and local != threshold:
            ax.axvline(_shown(local), color=MUTED, lw=1, ls=":", label=f"rule applied here: {local:.5g}")
    inner = curve["threshold"][(curve["threshold"] > 0) & (curve["threshold"] < 1)]
    marks = [t for t in (threshold, local) if t is not None and t > 0]
    top.set(ylabel="accuracy, %", title=f"Funnel over the threshold (n={int(curve['n'].iloc[0])})")
    bottom.set(ylabel="accepted, %", xlabel="threshold", ylim=(0, 102))
    low = min([_left_end(inner), *(0.99 * _shown(t) for t in marks)])
    _confidence_axis(bottom, low, float(_shown(inner.max())) if len(inner) else _TOP)
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


# ------------------------------------------------------------------ the funnel


@_drawn
def accuracy_speedup(results: pd.DataFrame, split: str = AVERAGE) -> Figure:
    """Accuracy against speedup (log scale), one point per method of the long form (`tables.COLUMNS`).

    One panel per reported agent and one for the run, titled as what they are. Measured points carry their
    intervals; batched arms are hollow, and their speedup is over the batched agent alone. The paper's draft
    alone belongs to no agent and is shown with each.
    """
    part = results[(results["split"] == split) & results["speedup"].notna()]
    panels = list(dict.fromkeys(zip(part["source"], part["agent"], strict=True)))
    if len(panels) > 1:
        panels = [p for p in panels if p != ("reported", "none")]
    figure, axes = plt.subplots(
        1,
        max(1, len(panels)),
        figsize=(min(PAGE_IN, 0.9 + 2.5 * max(1, len(panels))), 3.2),
        squeeze=False,
    )
    seen: dict[str, object] = {}
    for ax, (source, agent) in zip(axes.flat, panels, strict=False):
        own = part[
            (part["source"] == source)
            & part["agent"].isin([agent, "none"] if source == "reported" else [agent])
        ]
        for row in own.itertuples():
            label = method_label(row.method)
            seen[label] = _point(ax, row)
        ax.axvline(1.0, color=MUTED, lw=0.8, ls=":")
        ax.set_xscale("log", base=2)
        low, high = own["speedup"].min(), own["speedup"].max()
        ax.set_xlim(min(0.8, low / 1.25), max(2.5, high * 1.25))
        ax.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4, 8, 16, 32]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
        ax.set_xlabel("speedup over its agent alone")
        ax.set_title(f"Reported: {agent_label(agent)}" if source == "reported" else f"Measured: run {agent}")
    axes.flat[0].set_ylabel("accuracy, %")
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=2 if len(panels) < 2 else 4)
    return figure


def _point(ax: Axes, row: tuple) -> object:
    color, hollow = method_color(row.method), row.method.endswith(BATCHED)
    ax.errorbar(
        row.speedup,
        row.accuracy_pct,
        xerr=_error(row.speedup, row.speedup_low, row.speedup_high),
        yerr=_error(row.accuracy_pct, row.accuracy_low_pct, row.accuracy_high_pct),
        fmt="none",
        ecolor=color,
        elinewidth=0.8,
        alpha=0.7,
    )
    return ax.scatter(
        row.speedup,
        row.accuracy_pct,
        s=80 if hollow else 30,  # a hollow marker frames a filled one in the same place
        marker=METHOD_MARKERS.get(row.method.removesuffix(BATCHED), "o"),
        facecolor="none" if hollow else color,
        edgecolor=color,
        linewidth=1.2,
        zorder=4 if row.method == "speceyes_min" else 3,  # what other scores must not hide where they agree
    )


def _error(value: float, low: float, high: float) -> np.ndarray | None:
    return None if np.isnan([low, high]).any() else np.array([[value - low], [high - value]])


@_drawn
def first_look_by_size(table: pd.DataFrame, hard_below: float) -> Figure:
    """Accuracy of the agent with its tool and at its forced first look, by size of the target.

    `table` comes from `first_look_by_size_data`.
    """
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 2.6))
    for name, label, color, marker, shift in (
        ("first_look", "first look, no tool", MUTED, "v", -0.08),
        ("zoom", "with zoom", METHOD_COLORS["baseline"], "s", 0.08),
    ):
        part = table[table["who"] == name]
        x = np.arange(len(part)) + shift
        errors = np.abs(part[["low_pct", "high_pct"]].to_numpy().T - part["accuracy_pct"].to_numpy())
        ax.errorbar(
            x, part["accuracy_pct"], yerr=errors, color=color, marker=marker, label=label, elinewidth=0.8
        )
    part = table[table["who"] == "zoom"]
    spans = [f"{r.low:.2f}–{r.high:.2f}\nn={r.n}".replace("0.", ".") for r in part.itertuples()]
    ax.set_xticks(np.arange(len(part)), spans)
    edges = part["high"].to_numpy()
    if hard_below in edges:
        at = int(np.flatnonzero(edges == hard_below)[0]) + 0.5
        ax.axvline(at, color=MUTED, lw=0.8, ls=":")
        ax.text(at - 0.08, 105, "hard", ha="right", color=MUTED)
        ax.text(at + 0.08, 105, "easy", ha="left", color=MUTED)
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


def first_look_by_size_data(frame: pd.DataFrame, hard_below: float, n_bins: int = 3) -> pd.DataFrame:
    """Accuracy per size bin; `hard_below` is always an edge, with up to `n_bins` equally filled bins each side."""
    looked = frame[frame["first_look_verdict"].notna() & frame["target_fraction"].notna()]
    size = looked["target_fraction"]
    edges = {hard_below}
    for side in (size[size < hard_below], size[size >= hard_below]):
        if len(side):
            cuts = np.quantile(side, np.linspace(0, 1, n_bins + 1))
            edges |= {round(float(c), 2) for c in cuts[1:-1]} | {
                float(np.floor(cuts[0] * 100) / 100) if side.iloc[0] < hard_below else hard_below,
                hard_below if side.iloc[0] < hard_below else float(np.ceil(cuts[-1] * 100) / 100),
            }
    rows = []
    bounds = sorted(edges)
    for low, high in itertools.pairwise(bounds):
        last = high == bounds[-1]
        part = looked[(size >= low) & ((size <= high) if last else (size < high))]
        for who, column in (("first_look", "first_look_right"), ("zoom", "agent_right")):
            share = metrics.accuracy(part[column].fillna(False).astype(bool), frames.groups_of(part))
            rows.append(
                {
                    "who": who,
                    "low": low,
                    "high": high,
                    "accuracy_pct": share.value_pct,
                    "low_pct": share.low_pct,
                    "high_pct": share.high_pct,
                    "n": share.n,
                }
            )
    columns = ["who", "low", "high", "accuracy_pct", "low_pct", "high_pct", "n"]
    table = pd.DataFrame(rows, columns=columns)
    return table[table["n"] > 0].reset_index(drop=True)


@_drawn
def quadrants(table: pd.DataFrame) -> Figure:
    """Router x gate: how many samples fall where, and who is right there. `table`: see `quadrants_data`."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN, 2.5))
    total = table["n"].sum()
    colors = mpl.colormaps["Blues"]
    for row in table.itertuples():
        x, y = ("rejects", "accepts").index(row.gate), ("yes", "no").index(row.router)
        share = row.n / total if total else 0.0
        ax.add_patch(
            mpl.patches.Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colors(0.6 * share), edgecolor="w")
        )
        ax.text(x, y + 0.2, f"{share:.0%} (n={row.n})", ha="center", va="center", weight="bold")
        told = f"draft right {row.draft_pct:.0f} %\nagent right {row.agent_pct:.0f} %" if row.n else "–"
        ax.text(x, y - 0.14, told, ha="center", va="center", fontsize=7)
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), title="Router and gate")
    ax.set_xticks([0, 1], ["gate rejects", "gate accepts"])
    ax.set_yticks([0, 1], ["tool helps:\nto the agent", "no tool:\nto the draft"])
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return figure


def quadrants_data(frame: pd.DataFrame, threshold: float, mode: str = "min") -> pd.DataFrame:
    """What router and gate say of every sample of the instrumented pass, and how often each answer is right.

    The funnel asks the gate only where the router says "no"; here it is asked everywhere.
    """
    part = frame[frame["collect_verdict"].notna() & frame["router_verdict"].notna()]
    gate = np.where(part[f"score_{mode}"] > threshold, "accepts", "rejects")
    rows = []
    for router in ("yes", "no"):
        for said in ("rejects", "accepts"):
            cell = part[(part["router_verdict"] == router) & (gate == said)]
            shares = {
                f"{who}_pct": 100.0 * cell[f"{who}_right"].fillna(False).astype(bool).mean()
                for who in ("draft", "agent")
            }
            rows.append({"router": router, "gate": said, "n": len(cell), **shares})
    return pd.DataFrame(rows)


@_drawn
def phase_times(table: pd.DataFrame) -> Figure:
    """Milliseconds per sample and phase, one bar per arm. `table`: see `phase_times_data`."""
    figure, ax = plt.subplots(figsize=(COLUMN_IN * 1.3, 0.34 * table["method"].nunique() + 1.25))
    methods = list(dict.fromkeys(table["method"]))
    left = np.zeros(len(methods))
    for phase in frames.PHASES:
        part = table[table["phase"] == phase].set_index("method").reindex(methods)["ms"].to_numpy("float64")
        ax.barh(
            [method_label(m) for m in methods],
            part,
            left=left,
            color=PHASE_COLORS[phase],
            height=0.62,
            label=PHASE_LABELS[phase],
        )
        left += part
    for y, total in enumerate(left):
        ax.text(total, y, f" {total:.1f}", va="center", fontsize=7)
    if not methods:
        ax.text(0.5, 0.5, "no times per sample in this run", transform=ax.transAxes, ha="center", color=MUTED)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(
        title="Where the time goes",
        xlabel="ms per sample (mean)",
        xlim=(0, 1.12 * left.max() if len(left) else 1),
    )
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.0)
    return figure


def phase_times_data(frame: pd.DataFrame, arms: Sequence[str], score: str = "min") -> pd.DataFrame:
    """Mean milliseconds per sample of every phase: columns method, phase, ms. Arms without times are left out."""
    rows = []
    for name in arms:
        part = frames.arm(frame, name)
        if part["wall_s"].isna().all():
            continue
        rows += [
            {"method": method_of(name, score), "phase": p, "ms": 1000.0 * float(part[p].mean())}
            for p in frames.PHASES
        ]
    return pd.DataFrame(rows, columns=["method", "phase", "ms"])


# ------------------------------------------------------------------ order of options


@_drawn
def position_bias(orders: pd.DataFrame, places: pd.DataFrame) -> Figure:
    """Draft accuracy by the order options are shown in, and by the place of the right one.

    Tables of `position_bias.by_order` and `by_place`; the right panel has a line for each number of options.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6), width_ratios=(1.6, 1), sharey=True)
    names, tasks = list(orders["order"].unique()), list(orders["task"].unique())
    for i, task in enumerate(tasks):
        part = orders[orders["task"] == task].set_index("order").loc[names]
        label = f"{'all' if task == 'all' else split_label(task)}, n={part['n'].max()}"
        x = np.arange(len(names)) + 0.6 * (i / max(1, len(tasks) - 1) - 0.5)
        _dots(left, x, part, SERIES[i % len(SERIES)], label)
    left.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.set(title="Order of the options", ylabel="draft accuracy, %")
    letters = sorted(places["place"].unique())
    for i, (options, part) in enumerate(places.groupby("options")):
        x = part["place"].map(letters.index).to_numpy() + 0.12 * i
        _dots(
            right,
            x,
            part,
            ((MUTED, "o"), (INK, "s"))[i % 2],
            f"{options} options, n={part['n'].max()} each",
            line="-",
        )
    right.set_xticks(range(len(letters)), letters)
    right.set(title="Place of the right option", xlim=(-0.4, len(letters) - 0.5))
    for ax, columns in ((left, 3), (right, 1)):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, columnspacing=1.0)
    return figure


def _dots(ax: Axes, x: np.ndarray, part: pd.DataFrame, look: tuple, label: str, line: str = "none") -> None:
    """Accuracies with their intervals."""
    color, marker = look
    value = part["accuracy_pct"].to_numpy()
    spread = np.abs(np.array([value - part["low_pct"], part["high_pct"] - value]))
    ax.errorbar(
        x, value, yerr=spread, fmt=marker, ls=line, lw=0.8, ms=4, color=color, elinewidth=0.8, label=label
    )


# ------------------------------------------------------------------ files


def save_figure(fig: Figure, name: str, folder: Path, data: pd.DataFrame, provenance: Mapping) -> list[Path]:
    """Write `<name>.pdf`, `.png`, the plotted numbers as `.csv`, and where they are from as `.json`.

    Equal input gives equal bytes: no timestamps, no software versions in the pictures. Returns the four paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("pdf", "png", "csv", "json")]
    with plt.style.context(STYLE):
        fig.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
        fig.savefig(paths[1], metadata={"Software": None})
    data.to_csv(paths[2], index=False, lineterminator="\n", float_format="%.10g")
    paths[3].write_text(
        json.dumps(dict(provenance), indent=1, sort_keys=True, allow_nan=False) + "\n", "utf-8"
    )
    return paths


class Album:
    """Saves the figures of one stage into one folder, each with its numbers and origin, and keeps the list."""

    def __init__(self, folder: Path, provenance: Mapping) -> None:
        self.folder, self.provenance = Path(folder), dict(provenance)
        self.paths: list[Path] = []

    def add(self, figure: Figure, name: str, data: pd.DataFrame, source: str = "measured") -> Path:
        """Save a figure as `name`; `source`: measured, reported or both. Returns its PNG, to be shown."""
        self.paths += save_figure(figure, name, self.folder, data, {**self.provenance, "source": source})
        return self.folder / f"{name}.png"
