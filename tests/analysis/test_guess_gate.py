"""Thresholds for guesses and predictors without a model, on guesses whose chance to match is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from tool_runs import made_call, made_guess, recorded_runs

from speceyes_lib.analysis import (
    calibrate_guesses,
    certified_waste,
    compare_guess_scores,
    gate_front,
    least_waste,
    predictor_baselines,
    thresholds_by_value,
)
from speceyes_lib.analysis.guess_gate import calibration_error, value_of_guesses
from speceyes_lib.errors import UserError
from speceyes_lib.replay import ToolSetting, flatten_runs, replay_tools
from speceyes_lib.stats import Bootstrap
from speceyes_lib.tool_speculation.records import Step, TaskRun


def guesses(n=600, seed=0, tool_s=2.0, head_s=3.0):
    """Guesses that come true with the probability that their score states."""
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    frame = {"task_id": [f"t{i}" for i in range(n)], "tool": "web_search", "matched": rng.random(n) < score}
    return pd.DataFrame(frame | {"tool_s": tool_s, "head_s": head_s, "sure": score, "random": rng.random(n)})


def test_scores_are_ranked_with_intervals_and_missing_ones_left_out():
    table = compare_guess_scores(guesses(), ("sure", "random", "none"))
    assert table.index.tolist() == ["sure", "random"]
    assert table.loc["sure", "low"] > 0.75 > 0.6 > table.loc["random", "high"]
    assert table["n"].tolist() == [600, 600]


def test_a_calibration_gives_the_chance_to_match_on_other_tasks():
    fit = calibrate_guesses(guesses(6000), "sure")
    assert fit(np.array([0.2, 0.8])) == pytest.approx([0.2, 0.8], abs=0.1)
    assert np.isnan(fit(np.array([np.nan])))[0]
    assert calibration_error(guesses(1000, 1), fit, Bootstrap(draws=50)).value < 0.1
    with pytest.raises(UserError, match="No guess has the score 'none'"):
        calibrate_guesses(guesses(), "none")


def test_a_threshold_by_value_is_where_gain_and_loss_are_equal():
    frame = guesses(4000)  # s = 2, c = 2: least probability 1/2
    fit = calibrate_guesses(frame, "sure")
    assert thresholds_by_value(frame, fit)["web_search"] == pytest.approx(0.5, abs=0.08)
    assert thresholds_by_value(frame, fit, 0.25)["web_search"] == pytest.approx(0.2, abs=0.08)
    assert thresholds_by_value(frame, fit, 0)["web_search"] == frame["sure"].min()
    useless = guesses(500, head_s=-1.0)
    assert thresholds_by_value(useless, calibrate_guesses(useless, "sure"))["web_search"] == math.inf


def test_waste_is_certified_on_validation_tasks_and_holds_on_others():
    exceeded = []
    for seed in range(20):
        certified = certified_waste(
            guesses(600, seed), guesses(600, seed + 100), "sure", target=0.25, seed=seed
        )
        assert certified.certified
        others = guesses(2000, seed + 200)
        executed = others[others["sure"] >= certified.threshold]
        assert len(executed) > 100
        exceeded.append((~executed["matched"]).mean() > 0.25)
    assert np.mean(exceeded) <= 0.3  # 0.1 is promised


def test_too_few_guesses_certify_nothing_and_the_reason_says_how_many_are_missing():
    certified = certified_waste(guesses(5), guesses(50), "sure", target=0.05)
    assert (certified.certified, certified.threshold) == (False, math.inf)
    assert "would be needed" in certified.reason
    empty = certified_waste(guesses(5)[:0], guesses(50), "sure")
    assert not empty.certified


def shadow(n=120, seed=0):
    """A shadow pass of one step per task: a guess that matches with the probability that its score states."""
    rng = np.random.default_rng(seed)
    runs = []
    for i in range(n):
        score = float(rng.random())
        word = "x" if rng.random() < score else "y"
        guess = made_guess("web_search", word, 0, 1, 2, tokens=5, scores={"separability_min": score})
        calls = [made_call("web_search", "x", 4, 2)]
        step = Step(index=1, actor_start_s=0, actor_end_s=4, calls=calls, guesses=[guess])
        fields = {"task_id": f"t{i}", "level": 1, "question": "q", "truth": "a", "arm": "shadow"}
        runs.append(TaskRun(**fields, seconds=6, steps=[step]))
    return runs


def test_the_front_goes_from_always_to_never():
    front = gate_front(flatten_runs(shadow()))
    assert set(front["score"]) == {"separability_min"}
    assert front["saving_pct"].tolist() == sorted(front["saving_pct"], reverse=True)
    assert (front.iloc[0]["saving_pct"], front.iloc[0]["waste_pct"]) == (100, 100)
    assert (front.iloc[-1]["saving_pct"], front.iloc[-1]["executed"]) == (0, 0)
    chosen = least_waste(front, 85)
    assert chosen["saving_pct"] >= 85
    assert chosen["waste_pct"] < 70
    with pytest.raises(UserError, match="No threshold keeps 101 %"):
        least_waste(front, 101)
    with pytest.raises(UserError, match="No guess has any of the scores"):
        gate_front(flatten_runs(shadow()), ("none",))


def test_the_expected_value_is_a_gate_with_threshold_0():
    runs = shadow()
    steps = flatten_runs(runs)
    frame = pd.DataFrame(
        {
            "sure": [run.steps[0].guesses[0].scores["separability_min"] for run in runs],
            "matched": [run.steps[0].guesses[0].arguments["q"] == "x" for run in runs],
        }
    )
    fit = calibrate_guesses(frame.rename(columns={"sure": "separability_min"}), "separability_min")
    valued = steps.with_score("value", value_of_guesses(steps, fit))
    gated, always = replay_tools(valued, [ToolSetting(score="value", threshold=0), ToolSetting()]).to_dict(
        "records"
    )
    assert gated["wasted_s"] < always["wasted_s"] / 2
    assert gated["saved_s"] > always["saved_s"] / 2


def chain(task, number):
    """Read the file of the question, search its content, compute with the number that is found."""
    calls = [
        ("file_read", {"path": f"f{number}.csv"}, f"Oru{number}"),
        ("web_search", {"query": f"Oru{number}"}, f"mass {number}"),
        ("calculate", {"expression": f"{number}"}, f"{number}"),
    ]
    steps = []
    for index, (name, arguments, result) in enumerate(calls, 1):
        call = made_call(name, "", index * 2 - 1, 1, result=result)
        call = call.model_copy(update={"arguments": arguments, "given": arguments})
        steps.append(Step(index=index, actor_start_s=index * 2 - 2, actor_end_s=index * 2 - 1, calls=[call]))
    fields = {
        "task_id": task,
        "level": 1,
        "question": f"How heavy is it? [f{number}.csv]",
        "truth": "a",
        "arm": "x",
    }
    return TaskRun(**fields, seconds=6, steps=steps)


def test_copied_arguments_beat_frequent_ones_and_the_last_call():
    training, test = [chain(f"a{i}", i) for i in range(5)], [chain(f"b{i}", 50 + i) for i in range(4)]
    table = predictor_baselines(training, test)
    assert table["n"].tolist() == [12] * 5
    assert table.loc["argument copying", ["hit_pct", "name_pct"]].tolist() == [100, 100]
    assert table.loc["frequency", ["hit_pct", "name_pct"]].tolist() == [0, 100]
    assert table.loc["last call", "hit_pct"] == 0
    assert table.loc["speculator", "hit_pct"] == 0


def test_predictors_run_on_runs_of_chance():
    table = predictor_baselines(recorded_runs(30, 1), recorded_runs(30, 2))
    assert table.loc["speculator, any guess", "hit_pct"] >= table.loc["speculator", "hit_pct"] > 0
