"""Frames of several training runs, on runs of a few steps whose right results can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from speceyes_lib.analysis import training_views as views
from speceyes_lib.judging.rewards import decompose

RED = "<think>a</think><answer>red</answer>"
ZOOMED = "<tool_call>{}</tool_call><tool_response>The box.</tool_response>" + RED


def rollouts(runs: dict[tuple[str, int], dict[int, list[list[float]]]]) -> pd.DataFrame:
    """Trajectories of (arm, seed) -> step -> groups of scores; 1.8 and more come with a crop."""
    rows = [
        {"arm": arm, "seed": seed, "set": "train", "step": step, "group": float(group), "score": score,
         "output": ZOOMED if score >= 1.8 else RED, "replies": int(score >= 1.8), "failed_replies": 0}
        for (arm, seed), steps in runs.items()
        for step, groups in steps.items()
        for group, scores in enumerate(groups)
        for score in scores
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return pd.concat([table, decompose(table["score"]).drop(columns="score")], axis=1)


def metrics(runs: dict[tuple[str, int], list[float]], key: str = "critic/score/mean") -> pd.DataFrame:
    rows = [
        (arm, seed, step, key, value)
        for (arm, seed), values in runs.items()
        for step, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "key", "value"])


def test_a_band_is_the_mean_of_its_seeds_from_the_smallest_to_the_largest():
    bands = views.curve_bands(metrics({("a", 0): [1.0, np.nan], ("a", 1): [3.0, 5.0], ("b", 0): [7.0]}),
                              ["none", "critic/score/mean"])  # fmt: skip
    assert bands.drop(columns="key").to_numpy().tolist() == [
        ["a", 1, 2.0, 1.0, 3.0, 2], ["a", 2, 5.0, 5.0, 5.0, 1], ["b", 1, 7.0, 7.0, 7.0, 1],
    ]  # fmt: skip
    smooth = views.curve_bands(metrics({("a", 0): [1.0, 3.0, 5.0]}), ["critic/score/mean"], smooth=2)
    assert smooth["value"].tolist() == [1.0, 2.0, 4.0]


def test_dumps_add_rates_per_step_and_boxes_where_they_are_known():
    table = rollouts({("a", 0): {1: [[2.0, 0.8, 0.0, -0.2]]}})
    long = views.dump_metrics(table).set_index("key")["value"]
    assert long["dump/tool_rate"] == 0.25
    assert (long["dump/right"], long["dump/format_errors"], long["dump/flat_groups"]) == (0.5, 0.25, 0.0)
    assert "dump/box_iou" not in long
    table = table.assign(boxes=["[[0, 0, 10, 10]]", "[]", None, "[]"], teacher_box="[0, 0, 10, 20]")
    long = views.dump_metrics(table).set_index("key")["value"]
    assert long[["dump/box_iou", "dump/crop_px2"]].tolist() == [0.5, 100.0]


def test_an_arms_steps_are_counted_over_its_seeds():
    table = rollouts({("a", 0): {1: [[2.0, 0.0]]}, ("a", 1): {1: [[0.8, 0.8]]}, ("b", 0): {1: [[0.0]]}})
    parts = views.score_parts(table).set_index("arm")
    assert parts["n"].to_dict() == {"a": 4, "b": 1}
    assert parts.loc["a", ["score", "accuracy", "tool"]].tolist() == pytest.approx([0.9, 0.6, 0.3])


def test_groups_of_two_seeds_are_two_groups():
    table = rollouts({("a", 0): {1: [[0.8, 0.8]]}, ("a", 1): {1: [[0.0, 0.0]]}})
    assert views.learning_signal(table)["flat"].tolist() == [1.0]


def test_the_phase_path_compares_right_answers_with_and_without_the_tool():
    table = rollouts({("a", 0): {1: [[2.0, 2.0, 0.8, 0.0]], 2: [[2.0, 0.0]], 3: [[0.8, 0.0]]}})
    path = views.phase_path(table, window=2)
    assert path["step"].tolist() == [2, 3]
    first = path.iloc[0]
    assert first["tool_rate"] == pytest.approx(0.5)
    assert first["difference"] == pytest.approx(1 - 1 / 3)
    assert first["low"] < first["difference"] < first["high"] <= 1.5
    assert np.isnan(path.iloc[1]["difference"])  # no trajectory with the tool


def test_the_ledger_of_a_step_orders_groups_by_their_mean():
    ledger = views.group_ledger(rollouts({("a", 0): {1: [[2.0, 0.8], [0.0, 0.0]], 2: [[0.0]]}}), 1)
    assert ledger["group"].tolist() == [1, 1, 0, 0]
    assert ledger["advantage"].tolist() == pytest.approx([0, 0, -(0.5**0.5), 0.5**0.5], abs=1e-5)
    assert ledger["flat"].tolist() == [True, True, False, False]
    assert ledger["used_tool"].tolist() == [False, False, False, True]


def test_warnings_name_their_run_and_the_metric_they_look_at():
    entropy = metrics({("sick", 0): [1.0] * 6 + [0.05] * 6, ("well", 0): [1.0] * 12}, "actor/entropy")
    table = views.alarm_table(entropy, pd.DataFrame())
    assert table[["arm", "seed", "name", "key"]].to_numpy().tolist() == [
        ["sick", 0, "entropy collapses", "actor/entropy"]
    ]


def test_mean_scores_bound_the_accuracy_with_turns_and_without():
    scores = metrics({("a", 0): [0.8, 0.8]})
    turns = metrics({("a", 0): [2.0]}, "num_turns/mean")
    bounds = views.bounds_by_step(pd.concat([scores, turns]))
    assert bounds[["low", "high"]].to_numpy().tolist() == [[1.0, 1.0], [0.4, 1.0]]
    assert len(views.bounds_by_step(turns)) == 0


def test_a_bonus_for_a_call_that_failed_is_counted_and_not_paid_by_the_other_variants():
    table = rollouts({("a", 0): {1: [[2.0, 0.8, 0.0, 0.0]]}}).assign(failed_replies=[1, 0, 0, 0])
    row = views.reward_variants(table).iloc[0]
    assert row[["n", "paid", "without_crop", "zero_pct"]].tolist() == [4, 1, 1, 50]
    assert row[["score", "recipe", "strict"]].tolist() == pytest.approx([0.7, 0.7, 0.4])


def test_runs_without_dumps_give_empty_frames():
    nothing = pd.DataFrame(columns=["step", "set", "group"])
    for frame in (views.dump_metrics, views.score_parts, views.phase_path, views.learning_signal):
        assert len(frame(nothing)) == 0
    assert len(views.reward_variants(nothing)) == 0


def test_held_out_answers_are_compared_with_the_start_on_the_same_questions():
    rows = [
        {"sampling": "greedy", "arm": arm, "seed": seed, "sample": sample, "hard": sample < 2, "right": right,
         "tool": arm == "bonus", "box_iou": 0.5 if arm == "bonus" else None}
        for arm, seed, answers in (("start", 0, [0, 1, 1, 0]), ("bonus", 0, [1, 1, 1, 0]), ("bonus", 1, [1, 1, 1, 1]))
        for sample, right in enumerate(answers)
    ]  # fmt: skip
    rows = rows[:4] + rows[:3:-1]  # paired whatever their order
    start, bonus = views.held_out_results(pd.DataFrame(rows)).to_dict("records")
    assert (start["accuracy_pct"], start["hard_pct"], start["zoom_easy_pct"], start["n"]) == (50, 50, 0, 4)
    assert np.isnan(start["diff_pp"])
    assert (bonus["seeds"], bonus["accuracy_pct"], bonus["hard_pct"], bonus["zoom_hard_pct"]) == (
        2,
        87.5,
        100,
        100,
    )
    assert (bonus["diff_pp"], bonus["box_iou"]) == (37.5, 0.5)
    assert bonus["low_pp"] < 37.5 < bonus["high_pp"]
    assert bonus["p_value"] == pytest.approx(0.25)  # 3 against 0
    assert len(views.held_out_results(pd.DataFrame(columns=["arm", "seed", "sampling"]))) == 0
