"""What is said of a training run, on runs of a few steps whose right results can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.analysis import training_curves as curves
from speceyes_lib.judging.rewards import decompose

REPLY = "<tool_call>{}</tool_call><tool_response>The box.</tool_response>"
REFUSED = "<tool_call>{}</tool_call><tool_response>Error: too small</tool_response>"
ANSWER = "<think>a</think><answer>red</answer>"


def rollouts(scores: dict[int, list[list[float]]], calls: dict[float, str] | None = None) -> pd.DataFrame:
    """Trajectories of steps -> groups -> scores; the text of a call goes with each score of 1.8 or more."""
    rows = []
    for step, groups in scores.items():
        for group, points in enumerate(groups):
            for score in points:
                text = (calls or {}).get(score, REPLY if score >= 1.8 else "")
                counts = {"replies": text.count("<tool_response>"), "failed_replies": text.count("Error")}
                row = {
                    "step": step,
                    "set": "train",
                    "group": float(group),
                    "score": score,
                    "output": text + ANSWER,
                }
                rows.append(row | counts)
    table = pd.DataFrame(rows)
    return pd.concat([table, decompose(table["score"]).drop(columns="score")], axis=1)


def metrics(**series: list[float]) -> pd.DataFrame:
    rows = [
        (step, key.replace("__", "/"), float(value))
        for key, values in series.items()
        for step, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=["step", "key", "value"])


def test_the_parts_of_the_score_sum_to_it_and_rates_are_counted():
    table = curves.by_step(rollouts({1: [[2.0, 0.8, 0.0, -0.2]], 2: [[2.0, 1.8]]}))
    assert table[["accuracy", "format", "tool"]].sum(axis=1).tolist() == pytest.approx(
        table["score"].tolist()
    )
    assert table.loc[1, ["n", "right", "format_errors", "tool_rate"]].tolist() == [4, 0.5, 0.25, 0.25]
    assert table.loc[1, ["right_with_tool", "right_with_tool_n"]].tolist() == [1.0, 1]
    assert table.loc[1, "right_without_tool"] == pytest.approx(1 / 3)
    assert np.isnan(table.loc[2, "right_without_tool"])


def test_advantages_are_those_of_verl():
    table = curves.advantages(rollouts({1: [[2.0, *[0.0] * 7], [0.8] * 4, [0.8]]}))
    assert table["advantage"].iloc[0] == pytest.approx(
        7 / np.sqrt(8), abs=1e-4
    )  # the largest of a group of 8
    assert table["flat"].tolist() == [False] * 8 + [True] * 4 + [pd.NA]
    assert table["advantage"].iloc[8:].tolist() == [0, 0, 0, 0, 0.8]
    plain = curves.advantages(rollouts({1: [[2.0, 0.0]]}), divide_by_std=False)
    assert plain["advantage"].tolist() == [1.0, -1.0]


GROUPS = st.lists(
    st.lists(st.sampled_from([-0.2, 0.0, 0.6, 0.8, 1.8, 2.0]), min_size=2, max_size=6), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=50)
@given(GROUPS)
def test_the_parts_share_the_variance_within_groups(groups):
    row = curves.contrasts(rollouts({1: groups})).loc[1]
    flat = np.mean([len(set(group)) == 1 for group in groups])
    assert row["flat"] == pytest.approx(flat)
    if flat == 1:
        assert row[["accuracy", "format", "tool"]].isna().all()
    else:
        assert row[["accuracy", "format", "tool"]].sum() == pytest.approx(1)


def test_among_right_answers_the_tool_is_the_whole_signal():
    assert curves.contrasts(rollouts({1: [[2.0, 2.0, 0.8, 0.8]]})).loc[1, "tool"] == pytest.approx(1)


def test_rescoring_shows_what_a_variant_pays_for():
    table = rollouts({1: [[2.0, 0.8, 0.0]]}, calls={2.0: REFUSED})
    assert curves.rescored(table).to_dict("list") == {
        "recipe": [2.0, 0.8, 0.0], "original": [0.8, 0.8, 0.0], "strict": [0.8, 0.8, 0.0],
    }  # fmt: skip
    audit = curves.bonus_audit(table).loc[1]
    assert audit.tolist() == [1, 0, 1, 1.0]


@pytest.mark.parametrize(
    ("score", "turns", "low", "high"),
    [(0.8, None, 0.4, 1.0), (0.8, 2.0, 1.0, 1.0), (2.0, 4.0, 1.0, 1.0), (0.2, 3.0, 0.1, 0.25)],
)
def test_a_mean_score_bounds_the_accuracy(score, turns, low, high):
    assert curves.accuracy_bounds(score, turns) == pytest.approx((low, high))


def test_calls_follow_from_turns():
    assert curves.executed_calls(pd.Series([2, 4, 10])).tolist() == [0, 1, 4]


STEADY = [1.0] * 12
SICK = {
    "entropy collapses": {"actor__entropy": [1.0] * 6 + [0.05] * 6},
    "entropy rises": {"actor__entropy": [1.0] * 6 + [1.8] * 6},
    "tool use is gone": {"num_turns__mean": [4.0] * 6 + [2.0] * 6},
    "scores are all zero": {"critic__score__max": [2.0] * 6 + [0.0] * 6},
    "responses are cut off": {"response_length__clip_ratio": [0.0] * 6 + [0.2] * 6},
    "gradients explode": {"actor__grad_norm": [1.0] * 6 + [30.0] * 6},
}


@pytest.mark.parametrize("name", SICK)
def test_each_alarm_fires_on_its_own_sign_and_on_no_other(name):
    alarms = curves.alarms(metrics(**SICK[name], other=STEADY))
    assert [a.name for a in alarms] == [name]
    assert 6 < alarms[0].step <= 12


def test_alarms_of_dumps():
    table = rollouts(
        {step: [[2.0, 0.8, 0.0, -0.2]] if step < 7 else [[-0.2, -0.2, -0.2, -0.2]] for step in range(1, 13)}
    )
    fired = [alarm.name for alarm in curves.alarms(metrics(other=STEADY), table)]
    assert fired == ["format errors rise", "most groups are flat"]
    down = rollouts({step: [[0.0] * 4] for step in range(1, 7)})
    assert "the judge is down" in {a.name for a in curves.alarms(metrics(other=STEADY), down)}


def test_a_healthy_run_raises_no_alarm():
    healthy = metrics(
        actor__entropy=list(np.linspace(1, 0.8, 12)),
        num_turns__mean=list(np.linspace(2.6, 3.7, 12)),
        critic__score__max=[2.0] * 12,
        actor__grad_norm=[1.0, 1.5] * 6,
    )
    table = rollouts({step: [[2.0, 0.8, 0.0, 2.0], [0.8, 0.8, 0.0, -0.2]] for step in range(1, 13)})
    assert curves.alarms(healthy, table) == []


def test_calls_of_the_original_repository_stand_for_turns():
    assert [a.name for a in curves.alarms(metrics(tool_calls__mean=[2.0] * 6 + [0.0] * 6))] == [
        "tool use is gone"
    ]
