"""What is drawn equals what was given; equal input gives equal files; nothing warns and nothing stays open."""

from __future__ import annotations

import itertools
import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_run import make_run

from speceyes_lib.analysis import results, sample_frame
from speceyes_lib.analysis.reported import read_reported
from speceyes_lib.analysis.run_result import RunResult
from speceyes_lib.analysis.summary import choose_threshold, summarise
from speceyes_lib.report import album
from speceyes_lib.report.figures import FIGURES
from speceyes_lib.report.plots import cost, gate, style
from speceyes_lib.tasks.registry import AVERAGE

THRESHOLD = 0.97
CELLS = pd.DataFrame(
    [("yes", "rejects", 6, 50.0, 100.0), ("no", "accepts", 4, 75.0, 50.0)],
    columns=["router", "gate", "n", "draft_pct", "agent_pct"],
)


@pytest.fixture(scope="module")
def frame():
    return sample_frame.assemble(*make_run(per_task=16))


@pytest.fixture(scope="module")
def summary(frame):
    return summarise(frame, run="demo", gate={"score": "min"})


def drawn(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def title_of(ax: Axes) -> Text:
    """The title at the left, as it is drawn."""
    texts = (child for child in ax.get_children() if isinstance(child, Text))
    return next(text for text in texts if text.get_text() == ax.get_title(loc="left"))


def all_figures(frame, summary) -> dict[str, Figure]:
    sizes = RunResult(None, frame, summary).first_look_by_size()
    return {
        "threshold": gate.accuracy_over_threshold(choose_threshold(frame).curve, THRESHOLD, 0.9),
        "speedup": gate.accuracy_speedup(results.measured_results(summary)),
        "first_look": cost.first_look_by_size(sizes, 0.42),
        "quadrants": gate.quadrants(CELLS),
        "phases": cost.phase_times(RunResult(None, frame, summary).phase_times()),
        "load": cost.served_load(under_load()),
    }


def test_every_figure_is_drawn_without_a_warning_and_left_to_the_caller(frame, summary):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = all_figures(frame, summary)
        for figure in figures.values():
            drawn(figure)
    assert plt.get_fignums() == []


def test_no_text_leaves_the_picture_and_no_tick_labels_overlap(frame, summary):
    for name, figure in all_figures(frame, summary).items():
        renderer = drawn(figure).get_renderer()
        frame_box = figure.bbox
        for ax in figure.axes:
            boxes = [t.get_window_extent(renderer) for t in ax.get_xticklabels() if t.get_text()]
            low, high = ax.bbox.x0 - 1, ax.bbox.x1 + 1
            inside = [b for b in boxes if low <= (b.x0 + b.x1) / 2 <= high]
            for a, b in itertools.pairwise(inside):
                assert a.x1 <= b.x0 + 1, f"{name}: x tick labels overlap"
            title = title_of(ax)
            for text in (title, ax.xaxis.label, ax.yaxis.label):
                box = text.get_window_extent(renderer)
                if text.get_text():
                    assert box.x0 >= frame_box.x0 - 1, f"{name}: {text.get_text()} is cut off"
                    assert box.x1 <= frame_box.x1 + 1, f"{name}: {text.get_text()} is cut off"
            if ax.get_legend() and title.get_text():
                box = title.get_window_extent(renderer)
                assert not box.overlaps(ax.get_legend().get_window_extent(renderer)), (
                    f"{name}: legend over title"
                )
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert box.x0 >= -1, f"{name}: legend is cut off"
            assert box.x1 <= frame_box.x1 + 1, f"{name}: legend is cut off"


def test_no_score_falls_outside_the_bins():
    score = pd.Series([0.001, 0.4, *np.linspace(0.9, 1.0, 400), 1.0, 1.0])
    bins = style.confidence_bins(score)
    assert np.histogram(np.clip(score, bins[0], bins[-1]), bins)[0].sum() == len(score)
    assert (np.diff(bins) > 0).all()


def test_the_scatter_shows_each_methods_numbers(summary):
    long = results.measured_results(summary)
    (ax,) = gate.accuracy_speedup(long).axes
    points = [c for c in ax.collections if isinstance(c, PathCollection)]
    shown = {tuple(np.round(c.get_offsets()[0], 9)) for c in points}
    wanted = long[long["split"] == AVERAGE][["speedup", "accuracy_pct"]].round(9)
    assert shown == set(map(tuple, wanted.to_numpy()))


def test_the_suites_own_score_is_drawn_above_those_that_agree_with_it(summary):
    long = results.measured_results(summary)
    twin = long[long["method"] == "speceyes_min"].assign(method="speceyes_mean")
    (ax,) = gate.accuracy_speedup(pd.concat([long, twin], ignore_index=True)).axes
    points = [c for c in ax.collections if isinstance(c, PathCollection)]
    top = max(points, key=lambda c: c.get_zorder())
    assert tuple(top.get_facecolor()[0]) == to_rgba(style.method_color("speceyes_min"))
    assert sum(c.get_zorder() == top.get_zorder() for c in points) == 1


def test_reported_and_measured_never_share_a_panel(summary):
    both = pd.concat(
        [results.reported_results(read_reported("table1")), results.measured_results(summary)],
        ignore_index=True,
    )
    titles = [ax.get_title(loc="left") for ax in gate.accuracy_speedup(both).axes]
    assert titles == ["Reported: DeepEyes", "Reported: Thyme", "Measured: run demo"]


def test_a_method_has_one_colour_and_methods_differ():
    assert len(set(style.METHOD_COLORS.values())) == len(style.METHOD_COLORS)
    assert style.method_color("speceyes_min_batched") == style.method_color("speceyes_min")
    assert {style.RIGHT, style.WRONG}.isdisjoint(style.METHOD_COLORS.values())


def test_a_quadrant_shows_its_samples_and_who_is_right():
    (ax,) = gate.quadrants(CELLS).axes
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts[1, 1.2] == "40% (n=4)"
    assert texts[1, 0.86] == "draft right 75 %\nagent right 50 %"


def test_the_size_bins_separate_hard_from_easy_and_keep_every_sample(frame, summary):
    table = RunResult(None, frame, summary).first_look_by_size()
    known = frame["first_look_verdict"].notna() & frame["target_fraction"].notna()
    assert table.groupby("who")["n"].sum().tolist() == [known.sum()] * 2
    assert 0.42 in set(table["high"])


def test_the_phase_bars_add_up_to_the_mean_clock(frame, summary):
    table = RunResult(None, frame, summary | {"arms": ["gated"]}).phase_times()
    assert table["ms"].sum() == pytest.approx(1000 * sample_frame.arm(frame, "gated")["wall_s"].mean())


def test_a_saved_figure_comes_with_its_numbers_and_origin_and_is_reproducible(frame, tmp_path):
    data = choose_threshold(frame).curve
    for folder in ("a", "b"):
        saved = album.Album(tmp_path / folder, {"run": "demo"})
        saved.draw("threshold_choice", data)
    assert {p.name for p in saved.paths} == {f"threshold_choice.{e}" for e in ("pdf", "png", "csv", "json")}
    for path in saved.paths:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    read = {path.suffix: path for path in saved.paths}
    caption = FIGURES["threshold_choice"].caption
    origin = {"run": "demo", "source": "measured", "caption": caption}
    assert json.loads(read[".json"].read_text()) == origin
    pd.testing.assert_frame_equal(pd.read_csv(read[".csv"]), data, rtol=1e-9, check_dtype=False)


def test_figures_of_an_almost_empty_run_are_drawn():
    arms, judged = make_run(per_task=2, tasks=("vstar/direct_attributes",), failed=2)
    frame = sample_frame.assemble(arms, judged)
    summary = summarise(frame, run="tiny")
    for figure in all_figures(frame, summary).values():
        drawn(figure)


def test_two_settings_on_a_front_have_marks_of_their_own():
    curve = pd.DataFrame(
        {"score": "min", "threshold": [0.9, 0.99], "speedup": [2.0, 1.5], "accuracy_pct": [90.0, 95.0],
         "baseline_accuracy_pct": 95.0}
    )  # fmt: skip
    reported = pd.DataFrame(columns=["agent", "kind", "speedup", "gain_pp"])
    points = pd.DataFrame({"label": ["in use", "another"], "speedup": [1.5, 2.0], "gain_pp": [0.0, -5.0]})
    (ax,) = gate.front(curve, reported, points).axes
    marks = {
        line.get_label(): line.get_marker() for line in ax.lines if line.get_label() in set(points["label"])
    }
    assert len(set(marks.values())) == 2


def under_load() -> pd.DataFrame:
    """Seven numbers of users, as predicted and as measured."""
    users = [1, 2, 4, 8, 16, 32, 64]
    row = [{"users": n, "per_s": min(5.0 * n, 12.0), "p50_s": 0.1 * n, "p95_s": 0.4 * n} for n in users]
    measured = [{"how": "measured"} | {k: 1.1 * v if k != "users" else v for k, v in r.items()} for r in row]
    return pd.DataFrame([{"how": "predicted"} | r for r in row] + measured)


def test_load_is_shown_with_its_prediction_on_the_same_axes():
    table = under_load()
    left, right = cost.served_load(table).axes
    lines = [line for ax in (left, right) for line in ax.lines if len(line.get_xdata())]
    columns = ["per_s", "per_s", "p50_s", "p50_s", "p95_s", "p95_s"]
    for line, column, how in zip(lines, columns, ["predicted", "measured"] * 3, strict=True):
        assert line.get_ydata().tolist() == table.loc[table["how"] == how, column].tolist()
        assert (line.get_linestyle() == "--") == (how == "predicted")


def fleet(best_at: int) -> pd.DataFrame:
    rate = {1: 3.0, 2: 3.0, 3: 3.0} | {best_at: 9.0}
    rows = [
        {"workload": "funnel", "large": n, "small": 4 - n, "gpus": 4, "per_gpu_per_s": r}
        for n, r in rate.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("best_at", "at_the_end"), [(1, True), (2, False), (3, True)])
def test_a_best_value_at_the_end_of_its_range_is_named_as_such(best_at, at_the_end):
    load = pd.DataFrame({"workload": "funnel", "users": [1, 100], "p50_s": [0.1, 10.0], "p95_s": [0.2, 20.0]})
    left, right = cost.fleets(fleet(best_at), load).axes
    (label,) = [line.get_label() for line in left.lines if line.get_marker() == "*"]
    assert ("end of the range" in label) == at_the_end
    drawn(right.figure)
    assert all("$" not in tick.get_text() for tick in (*right.get_xticklabels(), *right.get_yticklabels()))


def test_splits_look_different_where_the_gate_pays():
    tasks = ["pooled", "vstar/direct_attributes", "vstar/relative_position", "hr/hr_bench_4k", "pope/random"]
    table = pd.DataFrame({"task": tasks, "accepted": 0.5, "overhead": 0.1})
    (ax,) = cost.break_even(table).axes
    points = [line for line in ax.lines if line.get_marker() not in ("None", "*")]
    assert len({(line.get_color(), line.get_marker()) for line in points}) == len(points) == 4
    assert {line.get_color() for line in points} <= {color for color, _ in style.SERIES}
