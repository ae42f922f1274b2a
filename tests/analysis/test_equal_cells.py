"""Equal decisions have equal numbers, and a table whose cells contradict each other stops the notebook."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_run import TASKS, make_run

from speceyes_lib.analysis import results, sample_frame
from speceyes_lib.analysis.summary import arm_summary, summarise
from speceyes_lib.errors import ContradictionError
from speceyes_lib.stats.resampling import Bootstrap

FEW = Bootstrap(draws=100)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return sample_frame.assemble(*make_run(per_task=8, tasks=TASKS[:3]))


def with_gate(frame: pd.DataFrame, accepted) -> pd.DataFrame:
    """The parts of the arm with another gate, under their plain names."""
    return sample_frame.arm(sample_frame.with_gate(frame, "gated_otherwise", accepted), "gated_otherwise")


# ------------------------------------------------------------------ the same decisions
def test_the_same_gate_gives_the_same_arm(frame):
    again = with_gate(frame, frame["gated_decision"].eq("accepted"))
    pd.testing.assert_frame_equal(again, sample_frame.arm(frame, "gated"))


def test_the_same_decisions_give_the_same_speedup_and_the_same_intervals(frame):
    same = sample_frame.with_gate(frame, "gated_otherwise", frame["gated_decision"].eq("accepted"))
    entries = [arm_summary(same, name, FEW, "baseline") for name in ("gated", "gated_otherwise")]
    assert entries[0] == entries[1]
    assert entries[0]["average"]["speedup_low"] < entries[0]["average"]["speedup"]


# ------------------------------------------------------------------ other decisions
def test_a_draft_accepted_only_here_saves_what_its_agent_cost(frame):
    at = frame.index[frame["gated_decision"].eq("rejected")][0]
    accepted = frame["gated_decision"].eq("accepted")
    accepted[at] = True
    arm = with_gate(frame, accepted)
    spent = frame.loc[at, "gated_wall_s"] - frame.loc[at, "gated_agent_s"] - frame.loc[at, "gated_tool_s"]
    assert arm.loc[at, "wall_s"] == pytest.approx(spent)
    assert (arm.loc[at, "decision"], arm.loc[at, "answer"]) == ("accepted", frame.loc[at, "draft_answer"])
    assert arm.loc[at, "right"] == bool(frame.loc[at, "draft_right"])
    rest = frame.index != at
    assert arm.loc[rest, "wall_s"].equals(frame.loc[rest, "gated_wall_s"].rename("wall_s"))


def test_a_draft_rejected_only_here_pays_the_agent_of_the_baseline(frame):
    at = frame.index[frame["gated_decision"].eq("accepted")][0]
    accepted = frame["gated_decision"].eq("accepted")
    accepted[at] = False
    arm = with_gate(frame, accepted)
    agent_s = frame.loc[at, "baseline_agent_s"] + frame.loc[at, "baseline_tool_s"]
    assert arm.loc[at, "wall_s"] == pytest.approx(frame.loc[at, "gated_wall_s"] + agent_s)
    assert (arm.loc[at, "decision"], arm.loc[at, "answer"]) == ("rejected", frame.loc[at, "agent_answer"])


def test_without_a_baseline_the_time_of_a_draft_rejected_only_here_is_unknown():
    arms, judged = make_run(per_task=4, tasks=TASKS[:1])
    frame = sample_frame.assemble(*({a: part[a] for a in ("collect", "gated")} for part in (arms, judged)))
    arm = with_gate(frame, np.zeros(len(frame), bool))
    no_longer = frame["gated_decision"].eq("accepted")
    assert no_longer.any()
    assert arm["wall_s"].isna().equals(no_longer.rename("wall_s"))


# ------------------------------------------------------------------ the check
@pytest.fixture(scope="module")
def shown(frame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The results in long form, those of a second score with equal decisions included, and the arms."""
    summary = summarise(frame, run="mine", bootstrap=FEW)
    again = {"run": "mine", "gate": {"score": "log"}, "arms": {"gated": summary["arms"]["gated"]}}
    long = [results.measured_results(summary), results.measured_results(again, how="replayed")]
    return pd.concat(long, ignore_index=True), results.arm_results(summary)


def at(long: pd.DataFrame, method: str, split: str) -> int:
    return long.index[(long["method"] == method) & (long["split"] == split)][0]


def test_a_summary_contradicts_itself_nowhere(shown):
    assert results.check_cells(*shown) == len(shown[0])


@pytest.mark.parametrize("name", ["accuracy_pct", "accuracy_low_pct", "speedup", "speedup_high", "n"])
def test_two_numbers_for_equal_decisions_are_refused(shown, name):
    long = shown[0].copy()
    long.loc[at(long, "speceyes_log", TASKS[1]), name] *= 1.01
    with pytest.raises(ContradictionError, match=f"speceyes_min and speceyes_log.*{TASKS[1]}.*{name}"):
        results.check_cells(long)


def test_an_interval_beside_none_for_equal_decisions_is_refused(shown):
    long = shown[0].copy()
    long.loc[at(long, "speceyes_log", TASKS[0]), ["speedup_low", "speedup_high"]] = np.nan
    with pytest.raises(ContradictionError, match="speedup_low"):
        results.check_cells(long)


def test_a_prediction_beside_none_contradicts_nothing_but_two_predictions_do(shown):
    long = shown[0].copy()
    first, second = (at(long, method, TASKS[0]) for method in ("speceyes_min", "speceyes_log"))
    long.loc[first, "speedup_predicted"] = 2.0
    assert results.check_cells(long) == len(long)
    long.loc[second, "speedup_predicted"] = 2.2
    with pytest.raises(ContradictionError, match="speedup_predicted"):
        results.check_cells(long)


def test_an_average_that_is_not_the_mean_of_its_splits_is_refused(shown):
    long = shown[0].copy()
    long.loc[at(long, "draft_only", "average"), "accuracy_pct"] += 0.5
    with pytest.raises(ContradictionError, match=r"draft_only.*average"):
        results.check_cells(long)


def test_a_total_outside_its_splits_is_refused(shown):
    long, arms = shown
    with pytest.raises(ContradictionError, match="speceyes_min: speedup over all samples"):
        results.check_cells(long, arms.assign(speedup=arms["speedup"] * 3))
    with pytest.raises(ContradictionError, match="samples in total"):
        results.check_cells(long, arms.assign(n=arms["n"] + 1))


def test_a_method_with_two_rows_for_a_split_is_refused(shown):
    long = pd.concat([shown[0], shown[0].iloc[:1]], ignore_index=True)
    with pytest.raises(ContradictionError, match="two rows"):
        results.check_cells(long)
