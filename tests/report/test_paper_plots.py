"""Every drawn line, bar and baseline is a number of the given table; each source has its own look; nothing overlaps."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

from speceyes_lib.analysis import ablations as ablations_analysis
from speceyes_lib.analysis.reported import read_reported
from speceyes_lib.report.album import Album
from speceyes_lib.report.labels import agent_label, split_label
from speceyes_lib.report.plots import ablations, cost, method, pipeline
from speceyes_lib.tasks.registry import BENCHMARKS, TASKS

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_DPI = 50
TOLERANCE = 2.0  # root mean square of grey values: fonts may be rasterised a little differently


def gains_of(sweep: pd.DataFrame) -> pd.DataFrame:
    """Speedup added per query, as notebook 05 computes it."""
    points = sweep[~sweep["is_baseline"]].sort_values("batch_size")
    steps = points.groupby(["source", "split"], sort=False)[["batch_size", "speedup"]].diff()
    return points.assign(gain_per_query=steps["speedup"] / steps["batch_size"]).dropna(
        subset="gain_per_query"
    )


DRAWN = {
    "threshold": (ablations.threshold_ablation, "ablation_threshold", "threshold"),
    "topk": (ablations.topk_ablation, "ablation_topk", "top_k"),
    "batch_size": (
        lambda sweep: ablations.batch_size_ablation(sweep, gains_of(sweep)),
        "ablation_batch_size",
        "batch_size",
    ),
}


def given(name: str) -> pd.DataFrame:
    _, table, x = DRAWN[name]
    return ablations_analysis.reported_sweep(read_reported(table), x)


def measured(name: str) -> pd.DataFrame:
    """Rows as replay gives them, with a refused setting and a total among them."""
    _, _, x = DRAWN[name]
    values = {"threshold": (0.9986, 0.99, 0.97, 0.94), "top_k": (32, 64, 96), "batch_size": (1, 4, 16)}[x]
    rows = [
        {
            "task": task,
            x: value,
            "status": "ok",
            "accuracy_pct": 90.0 + i - j / 4,
            "speedup": 1.1 + i / 10 + j / 8,
            "baseline_accuracy_pct": 91.5 + i / 8,
        }
        for i, task in enumerate((*TASKS, "pooled", "average"))
        for j, value in enumerate(values)
    ]
    rows.append({"task": TASKS[0], x: 128.0, "status": "refused", "accuracy_pct": np.nan, "speedup": np.nan})
    replayed = pd.DataFrame(rows)
    if x == "top_k":  # a second line, two points lower
        fair = replayed.assign(accuracy_pct=replayed["accuracy_pct"] - 2)
        parts = {ablations_analysis.SAME_THRESHOLD: replayed, ablations_analysis.SAME_COVERAGE: fair}
        replayed = pd.concat([part.assign(line=line) for line, part in parts.items()], ignore_index=True)
    return ablations_analysis.measured_sweep(replayed, x, "deepeyes")


def both(name: str) -> pd.DataFrame:
    return ablations_analysis.joined(given(name), measured(name))


@cache
def drawn(name: str, sweep_of: Callable[[str], pd.DataFrame]) -> Figure:
    return DRAWN[name][0](sweep_of(name))


def panels(figure: Figure) -> dict[str, Axes]:
    return {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}


def behind(figure: Figure, ax: Axes) -> Axes:
    """The axes of the bars of a panel."""
    (twin,) = (o for o in figure.axes if o is not ax and o in ax.get_shared_x_axes().get_siblings(ax))
    return twin


def labels(ax: Axes) -> list[str]:
    """The tick labels below a panel, which stand at the lower of its two axes."""
    together = ax.get_shared_x_axes().get_siblings(ax)
    return max(([t.get_text() for t in one.get_xticklabels()] for one in together), key=len)


def named(value: float) -> str:
    """A value of x as its tick says it."""
    return f"{value:.4g}".removeprefix("0")


def points(ax: Axes) -> list[tuple]:
    """(tick, y, colour, line style) of every marker of the lines."""
    names = labels(ax)
    lines = (line for line in ax.lines if line.get_marker() not in ("None", "", None))
    return sorted(
        (names[round(x)], round(float(y), 9), line.get_color(), line.get_linestyle())
        for line in lines
        for x, y in zip(*line.get_data(), strict=True)
    )


def bars(ax: Axes, names: list[str]) -> list[tuple]:
    """(tick, height, hatched) of every bar."""
    by_title = []
    for patch in ax.patches:
        x = patch.get_x() + patch.get_width() / 2
        by_title.append((names[round(x)], round(float(patch.get_height()), 9), bool(patch.get_hatch())))
    return sorted(by_title)


def across(ax: Axes) -> list[float]:
    return sorted(
        round(float(line.get_ydata()[0]), 9) for line in ax.lines if line.get_marker() in ("None", "")
    )


def check_panel(figure: Figure, ax: Axes, part: pd.DataFrame, x: str) -> None:
    sweep, alone = part[~part["is_baseline"]], part[part["is_baseline"]]
    style = {"reported": "-", "measured": "--"}
    sweep = sweep.assign(style=sweep["source"].map(style))
    if "line" in sweep:
        sweep["style"] = sweep["style"].mask(sweep["line"].eq("same coverage"), ":")
    assert points(ax) == sorted(
        (named(r[x]), round(r["accuracy_pct"], 9), ablations.split_look(r["split"])[0], r["style"])
        for r in sweep.to_dict("records")
    )
    assert bars(behind(figure, ax), labels(ax)) == sorted(
        (named(r[x]), round(r["speedup"], 9), r["source"] == "measured") for r in sweep.to_dict("records")
    )
    assert across(ax) == sorted(round(v, 9) for v in alone["accuracy_pct"])


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize("sweep_of", [given, both])
def test_the_threshold_figure_shows_every_number(sweep_of):
    sweep = sweep_of("threshold")
    figure = drawn("threshold", sweep_of)
    by_title = panels(figure)
    assert len(by_title) == 6
    for agent, benchmark in itertools.product(("deepeyes", "thyme"), BENCHMARKS):
        part = sweep[(sweep["agent"] == agent) & sweep["split"].str.startswith(benchmark + "/")]
        assert len(part)
        check_panel(
            figure, by_title[f"{BENCHMARKS[benchmark].title}, {agent_label(agent)}"], part, "threshold"
        )


@pytest.mark.parametrize("sweep_of", [given, both])
def test_the_k_figure_shows_every_number(sweep_of):
    sweep = sweep_of("topk")
    figure = drawn("topk", sweep_of)
    by_title = panels(figure)
    assert len(by_title) == sweep["split"].nunique() == (4 if sweep_of is given else 7)
    for split, part in sweep.groupby("split"):
        check_panel(figure, by_title[split_label(split)], part, "top_k")


@pytest.mark.parametrize("sweep_of", [given, both])
def test_the_batch_figure_shows_every_number_and_the_gain_between_them(sweep_of):
    sweep = sweep_of("batch_size")
    figure = drawn("batch_size", sweep_of)
    by_title = panels(figure)
    for benchmark in BENCHMARKS:
        part = sweep[sweep["split"].str.startswith(benchmark + "/") & ~sweep["is_baseline"]]
        ax = by_title[BENCHMARKS[benchmark].title]
        lines = [line for line in ax.lines if line.get_marker() != "None"]
        assert sorted((x, y) for line in lines for x, y in zip(*line.get_data(), strict=True)) == sorted(
            zip(part["batch_size"], part["speedup"], strict=True)
        )
        assert across(ax) == [1.0]
        (inset,) = ax.child_axes
        gains = gains_of(part)
        assert sorted(tuple(p) for line in inset.lines for p in zip(*line.get_data(), strict=True)) == sorted(
            zip(gains["batch_size"], gains["gain_per_query"], strict=True)
        )


def test_a_changed_number_moves_its_point_and_no_other():
    sweep = given("threshold")
    at = sweep[~sweep["is_baseline"]].index[4]
    changed = sweep.copy()
    changed.loc[at, "accuracy_pct"] -= 3.0
    row = sweep.loc[at]
    title = f"{BENCHMARKS[row['split'].split('/')[0]].title}, {agent_label(row['agent'])}"
    before, after = (points(panels(ablations.threshold_ablation(s))[title]) for s in (sweep, changed))
    gone = set(before) - set(after)
    assert {(p[0], p[1]) for p in gone} == {(named(row["threshold"]), row["accuracy_pct"])}
    assert len(set(after) - set(before)) == 1


def test_what_was_measured_has_its_interval_and_what_was_reported_has_none():
    sweep = both("threshold").assign(accuracy_low_pct=np.nan, accuracy_high_pct=np.nan)
    ours = sweep["source"].eq("measured") & ~sweep["is_baseline"]
    sweep.loc[ours, "accuracy_low_pct"] = sweep["accuracy_pct"] - 3
    sweep.loc[ours, "accuracy_high_pct"] = sweep["accuracy_pct"] + 2
    figure = ablations.threshold_ablation(sweep)
    ends = [
        (round(segment[0][1], 6), round(segment[1][1], 6))
        for ax in figure.axes
        for collection in ax.collections
        for segment in collection.get_segments()
    ]
    assert sorted(ends) == sorted((round(a - 3, 6), round(a + 2, 6)) for a in sweep.loc[ours, "accuracy_pct"])


def test_a_sweep_leaves_out_what_was_refused_and_totals():
    sweep = measured("threshold")
    assert set(sweep["split"]) == set(TASKS)
    assert sweep["threshold"].max() < 1
    assert sweep[sweep["is_baseline"]]["accuracy_pct"].tolist() == [91.5 + i / 8 for i in range(7)]


def test_nothing_to_join_is_an_empty_sweep():
    assert ablations_analysis.joined(None, pd.DataFrame()).empty


# ------------------------------------------------------------------ sources
@pytest.mark.parametrize("name", DRAWN)
def test_the_legend_says_whose_numbers_are_drawn(name):
    def legend_of(sweep_of) -> str:
        return " ".join(t.get_text() for t in drawn(name, sweep_of).legends[0].get_texts())

    assert "reported" in legend_of(given)
    assert "this run" not in legend_of(given)
    assert "this run" in legend_of(measured)
    assert ("same coverage" in legend_of(measured)) == (name == "topk")
    assert "reported" not in legend_of(measured)
    assert "reported" in legend_of(both)
    assert "this run" in legend_of(both)


def test_the_agent_alone_of_each_source_has_a_line_style_of_its_own():
    figure = drawn("threshold", both)
    ax = panels(figure)["V*, DeepEyes"]
    flat = [line for line in ax.lines if line.get_marker() == "None"]
    for line in flat:
        line.set_gid(f"alone {float(line.get_ydata()[0]):.2f}")
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    dashes = dict(
        re.findall(r'id="alone ([\d.]+)">.*?stroke-dasharray: ([\d., ]+)', svg.getvalue(), re.DOTALL)
    )
    assert dashes["90.43"] != dashes["91.50"]  # reported, measured
    assert len(flat) == len(dashes)
    assert len(set(dashes.values())) == 2


def test_a_split_has_one_colour_in_every_figure():
    colors = [ablations.split_look(s) for s in TASKS if s.startswith("pope/")]
    assert len(set(colors)) == 3
    assert (
        ablations.split_look("vstar/direct_attributes")
        == ablations.split_look("hr/hr_bench_4k")
        == ablations.split_look("pope/adversarial")
    )


# ------------------------------------------------------------------ score, router, throughput, the method
def scores() -> pd.DataFrame:
    sweep = measured("topk")
    return sweep.assign(score=sweep["top_k"].map({32: "min", 64: "bottom20", 96: "log"})).drop(
        columns="top_k"
    )


def test_scores_keep_their_order_and_have_both_lines():
    figure = ablations.score_ablation(scores())
    ax = panels(figure)["V* direct"]
    assert labels(ax) == ["min", "bottom", "log"]
    assert {style for *_, style in points(ax)} == {"--", ":"}


def routers() -> pd.DataFrame:
    rows = [
        {
            "router": router,
            "task": task,
            "status": "refused" if router == "small" else "ok",
            "accuracy_pct": np.nan if router == "small" else 90 + i + j,
            "accuracy_low_pct": np.nan if router == "small" else 80 + i + j,
            "accuracy_high_pct": np.nan if router == "small" else 95 + i + j,
            "speedup": np.nan if router == "small" else 1.2 + i / 10,
            "baseline_accuracy_pct": 91.0 + j,
        }
        for i, router in enumerate(("large", "small", "none"))
        for j, task in enumerate((TASKS[0], TASKS[4], "pooled"))
    ]
    return pd.DataFrame(rows)


def test_the_router_figure_shows_what_each_router_gives_and_names_the_refused():
    left, right = ablations.router_ablation(routers()).axes
    assert labels(left) == ["V* direct", "POPE adv.", "All"]
    shown = {c.get_label(): c.lines[0].get_ydata() for c in left.containers}
    assert shown["large model"].tolist() == [90, 91, 92]
    assert shown["none: all drafted"].tolist() == [92, 93, 94]
    assert all(pd.isna(value) for value in shown["small model (not in this run)"])
    speeds = [line.get_ydata().tolist() for line in right.lines if len(line.get_ydata()) == 3]
    assert [1.2] * 3 in speeds
    assert [1.4] * 3 in speeds


def throughput() -> pd.DataFrame:
    rows = [
        (m, n, s * n**0.5, how)
        for m, s in (("baseline", 5.0), ("speceyes_min", 9.0))
        for n, how in ((1, "predicted"), (4, "predicted"), (16, "predicted"), (4, "measured"))
    ]
    table = pd.DataFrame(rows, columns=["method", "in_flight", "samples_per_s", "how"])
    is_gated = (table["how"] == "measured") & (table["method"] == "speceyes_min")
    return table.assign(off_pct=np.where(is_gated, -4.2, np.nan))


def test_throughput_is_a_line_where_predicted_and_a_marker_where_measured():
    (ax,) = cost.throughput(throughput()).axes
    lines = {line.get_marker() == "None": [] for line in ax.lines}
    for line in ax.lines:
        lines[line.get_marker() == "None"].append(line.get_xydata().tolist())
    assert [[1, 5.0], [4, 10.0], [16, 20.0]] in lines[True]
    assert [[4, 10.0]] in lines[False]
    assert [[4, 18.0]] in lines[False]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("−4 %", (4, 18.0))]


def test_the_drawn_method_shows_a_runs_shares_and_none_without_a_run():
    def texts(shares=None) -> str:
        return " ".join(t.get_text() for ax in method.method_diagram(shares).axes for t in ax.texts)

    shown = texts({"alpha": 0.81, "beta": 0.74})
    assert all(share in shown for share in ("no\n74 %", "yes\n26 %", "accept\n81 %", "reject\n19 %"))
    assert "%" not in texts()


# ------------------------------------------------------------------ looks
def all_figures() -> dict[str, Figure]:
    figures = {
        f"{name} {s.__name__}": DRAWN[name][0](s(name)) for name in DRAWN for s in (given, both, measured)
    }
    figures["scores"] = ablations.score_ablation(scores())
    figures["routers"] = ablations.router_ablation(routers())
    figures["throughput"] = cost.throughput(throughput())
    return figures


def test_labels_and_legends_stay_apart_and_inside_the_picture():
    for name, figure in all_figures().items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer, frame = canvas.get_renderer(), figure.bbox
        for ax in figure.axes:
            ticks = [t for t in ax.get_xticklabels() if t.get_text() and t.get_visible()]
            if ax.axison and ax.xaxis.get_visible() and all(t.get_rotation() == 0 for t in ticks):
                low, high = ax.get_window_extent().x0 - 1, ax.get_window_extent().x1 + 1
                boxes = [t.get_window_extent(renderer) for t in ticks]
                inside = sorted((b for b in boxes if low <= (b.x0 + b.x1) / 2 <= high), key=lambda b: b.x0)
                for a, b in itertools.pairwise(inside):
                    assert a.x1 <= b.x0 + 1, f"{name}: x tick labels overlap"
            titles = [
                t
                for t in ax.get_children()
                if isinstance(t, Text) and t.get_text() == ax.get_title(loc="left")
            ]
            for text in (*titles, ax.xaxis.label, ax.yaxis.label):
                if text.get_text():
                    box = text.get_window_extent(renderer)
                    assert box.x0 >= -1, f"{name}: {text.get_text()}"
                    assert box.x1 <= frame.x1 + 1, f"{name}: {text.get_text()}"
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert box.x0 >= -1, name
            assert box.x1 <= frame.x1 + 1, name
            for ax in figure.axes:
                assert not box.overlaps(ax.xaxis.label.get_window_extent(renderer)), name


def test_equal_input_gives_equal_files(tmp_path):
    for folder in ("a", "b"):
        sweep = both("topk")
        album = Album(tmp_path / folder, {"run": "demo"})
        album.draw("ablation_topk", sweep)
    assert len(album.paths) == 4
    for path in album.paths:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_the_reported_figures_look_as_they_were_looked_at(name, tmp_path):
    """To renew one after looking at it: save the figure at GOLDEN_DPI as tests/golden/<name>.png."""
    draw = DRAWN[name][0]
    drawn(name, given).savefig(tmp_path / "now.png", dpi=GOLDEN_DPI, metadata={"Software": None})
    golden = GOLDEN / f"{name}.png"
    assert compare_images(str(golden), str(tmp_path / "now.png"), tol=TOLERANCE) is None
    moved = given(name)
    moved.loc[moved.index[3:9], "speedup"] *= 2  # and the picture does tell: a few bars or points elsewhere
    draw(moved).savefig(tmp_path / "moved.png", dpi=GOLDEN_DPI, metadata={"Software": None})
    assert compare_images(str(golden), str(tmp_path / "moved.png"), tol=TOLERANCE) is not None


@pytest.mark.parametrize("stage", pipeline.BOXES)
def test_the_pipeline_fills_the_box_of_one_notebook(stage):
    (ax,) = pipeline.pipeline(stage).axes
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    white = [box.get_facecolor()[:3] == (1, 1, 1) for box in boxes]
    assert len(boxes) == len(pipeline.BOXES)
    assert white.index(False) == list(pipeline.BOXES).index(stage)
    assert white.count(False) == 1
