"""Figures of training runs draw the numbers of their frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from training_runs import write_runs

from speceyes_lib.analysis import training_views as views
from speceyes_lib.formats import read_training_runs
from speceyes_lib.report.plots import training as plots
from speceyes_lib.report.plots.recipe_speculation import speculation_by_agent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return read_training_runs(write_runs(tmp_path_factory.mktemp("t"), ("bonus", "rate_too_high"), seeds=2))


def titles(figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_curves_have_a_panel_per_metric_a_line_per_arm_and_the_warnings(runs):
    metrics = pd.concat([runs.metrics.astype({"key": object}), views.dump_metrics(runs.rollouts)])
    bands = views.curve_bands(metrics, list(plots.TITLES))
    alarms = views.alarm_table(runs.metrics, runs.rollouts)
    figure = plots.training_metrics(bands, alarms)
    keys = list(bands["key"].unique())
    assert titles(figure)[: len(keys)] == [plots.TITLES[key] for key in keys]
    score = figure.axes[0]
    expected = bands[(bands["key"] == keys[0]) & (bands["arm"] == "bonus")]["value"]
    assert score.lines[0].get_ydata().tolist() == expected.tolist()
    assert len(score.collections) == 2  # a band per arm
    lane = figure.axes[-1]
    assert [label.get_text() for label in lane.get_yticklabels()] == list(alarms["name"].unique())
    assert sum(len(line.get_xdata()) for line in lane.lines) == len(alarms) > 0
    assert len(plots.training_metrics(bands[bands["key"] == keys[0]]).axes) == 1


def test_bars_of_a_score_end_where_its_line_is(runs):
    parts = views.score_parts(runs.rollouts)
    ax = plots.parts_of_score(parts).axes[0]
    tops = np.array([bar.get_y() + bar.get_height() for bar in ax.containers[1]])
    below = np.array([bar.get_height() for bar in ax.containers[2]])
    assert tops + below == pytest.approx(ax.lines[0].get_ydata())
    titles = [ax.get_title("left") + ax.get_title() for ax in ax.figure.axes]
    assert [title.split(",")[0] for title in titles] == ["bonus", "rate_too_high"]


def test_shares_right_with_and_without_the_tool_are_two_lines(runs):
    parts = views.score_parts(runs.rollouts)
    ax = plots.right_by_tool(parts).axes[0]
    bonus = parts[parts["arm"] == "bonus"]
    assert ax.lines[0].get_ydata() == pytest.approx(bonus["right_with_tool"].to_numpy(), nan_ok=True)
    assert ax.lines[1].get_ydata() == pytest.approx(bonus["right_without_tool"].to_numpy(), nan_ok=True)


def test_the_phase_path_begins_hollow_and_ends_large(runs):
    path = views.phase_path(runs.rollouts)
    ax = plots.tool_phases(path).axes[0]
    drawn = next(line for line in ax.lines if line.get_label() == "bonus")
    bonus = path[path["arm"] == "bonus"]
    assert drawn.get_xdata().tolist() == bonus["tool_rate"].tolist()
    sizes = {float(line.get_markersize()) for line in ax.lines if line.get_marker() == "s"}
    assert len(sizes) == 3
    ends = path.groupby("arm").tail(1)
    low, high = ax.get_ylim()
    assert low < ends["low"].min()
    assert high > ends["high"].max()


def test_advantages_are_drawn_once_each_and_flat_groups_are_shaded():
    table = pd.DataFrame(
        {"group": [0.0, 0.0, 1.0, 1.0], "group_size": 2, "group_mean": [0.0, 0.0, 1.4, 1.4],
         "flat": [True, True, False, False], "advantage": [0.0, 0.0, -0.7, 0.7],
         "right": [0.0, 0.0, np.nan, 1.0], "used_tool": [False, False, False, True]}
    )  # fmt: skip
    ax = plots.advantages_by_prompt(table).axes[0]
    drawn = np.concatenate([line.get_ydata() for line in ax.lines if line.get_linewidth() == 0])
    assert sorted(drawn) == [-0.7, 0.0, 0.0, 0.7]
    assert len(ax.patches) == 1


def test_signal_and_bounds_have_a_panel_per_arm(runs):
    assert titles(plots.signal_by_part(views.learning_signal(runs.rollouts))) == ["bonus", "rate_too_high"]
    figure = plots.possible_accuracy(views.bounds_by_step(runs.metrics))
    assert titles(figure) == ["bonus", "rate_too_high"]
    assert len(figure.axes[0].collections) == 2  # seeds


def test_a_figure_without_numbers_says_why():
    empty = pd.DataFrame(columns=["arm", "step", "key", "group", "tool_rate", "difference"])
    for draw in (plots.training_metrics, plots.parts_of_score, plots.right_by_tool, plots.tool_phases,
                 plots.signal_by_part, plots.advantages_by_prompt, plots.possible_accuracy):  # fmt: skip
        assert draw(empty).axes[0].texts[0].get_text()


def test_agents_in_the_funnel_are_drawn_over_the_threshold():
    rows = [
        {"agent": agent, "threshold": t, "tokens": 50.0, "speedup": 1.5, "accuracy": 80.0, "accuracy_alone": 82.0}
        for agent in ("start", "bonus-0") for t in (0.5, 0.9)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("tokens", "speedup", "accuracy"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 1, table[name] + 1
    figure = speculation_by_agent(table)
    alone, faster, right = figure.axes
    assert [label.get_text() for label in alone.get_xticklabels()] == ["start", "bonus-0"]
    assert [list(line.get_ydata()) for line in faster.get_lines()][:2] == [[1.5, 1.5], [1.5, 1.5]]
    assert len(right.collections) == 2
    assert speculation_by_agent(table[:0]).axes
