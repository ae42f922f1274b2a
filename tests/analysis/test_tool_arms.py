"""Conditions of arms, and their comparison task by task."""

from __future__ import annotations

import numpy as np
import pytest
from tool_runs import recorded_runs

from speceyes_lib.analysis import audit_arms, audit_findings, compare_all, compare_arms, tool_latency
from speceyes_lib.analysis.tool_arms import replay_fidelity_of_tools, run_frame
from speceyes_lib.errors import UserError
from speceyes_lib.replay import ToolSetting, flatten_runs, replay_task_times


def arm(seed=0, faster=1.0, day="2026-11-30", actor="A", **changes):
    update = {"started": f"{day}T10:00:00+00:00", "models": {"actor": actor, "speculator": "S"}} | changes
    return [r.model_copy(update={"seconds": r.seconds / faster} | update) for r in recorded_runs(20, seed)]


def changed(runs, at, **update):
    return [run.model_copy(update=update) if i == at else run for i, run in enumerate(runs)]


def test_equal_conditions_give_no_finding():
    arms = {"baseline": arm(), "exact": arm()}
    assert audit_findings(arms) == []
    assert audit_arms(arms).loc["exact", ["tasks", "missing", "errors"]].tolist() == [20, 0, 0]


def test_every_unequal_condition_is_a_sentence():
    broken = changed(arm(day="2026-11-29", actor="B"), 0, error="Connection refused")
    broken = changed(broken, 1, error="no answer after 15 steps")[:-1]
    steps = [
        step.model_copy(update={"calls": [c.model_copy(update={"error": "broken"}) for c in step.calls]})
        for step in broken[2].steps
    ]
    findings = audit_findings({"baseline": arm(), "exact": changed(broken, 2, steps=steps)})
    text = "\n".join(findings)
    for part in (
        "exact: 1 tasks of other arms are missing",
        "exact: 1 tasks ended with a lost connection",
        "exact: 1 tasks ended with another error",
        "the actors differ: A, B",
        "different days, 2026-11-29 to 2026-11-30",
        "fails unequally often",
    ):
        assert part in text


def test_an_arm_is_compared_with_its_baseline_task_by_task():
    result = compare_arms(arm(faster=1.5), arm())
    assert result.speedup.value == pytest.approx(1.5)
    assert result.speedup.low == pytest.approx(1.5)
    assert result.p_seconds < 0.01
    assert (result.n, result.left_out, result.same_messages, result.same_answers) == (20, 0, 20, 20)
    assert result.accuracy["official"].difference.value == 0
    slower = compare_arms(arm(faster=0.8), arm())
    assert slower.speedup.value == pytest.approx(0.8)


def test_a_lost_connection_leaves_the_task_out_and_a_wrong_answer_counts():
    runs = changed(arm(), 0, error="HTTP 503", answer=None)
    runs = changed(runs, 1, answer="b")
    result = compare_arms(runs, arm())
    assert (result.n, result.left_out) == (19, 1)
    assert (result.accuracy["official"].b, result.accuracy["official"].c) == (0, 1)
    assert result.same_answers == 18


def test_a_table_has_a_row_per_arm():
    table = compare_all({"baseline": arm(), "exact": arm(faster=2), "original": arm(faster=0.5)})
    assert table.index.tolist() == ["exact", "original"]
    assert table["speedup"].tolist() == pytest.approx([2, 0.5])
    with pytest.raises(UserError, match="no task in common"):
        compare_arms(arm(), [])


def test_withheld_answers_have_no_verdict():
    frame = run_frame(arm(truth="?"))
    assert frame["right_official"].isna().all()
    assert compare_arms(arm(truth="?"), arm(truth="?")).accuracy["official"].difference.n == 0


def test_replayed_times_of_the_same_setting_are_those_of_the_run():
    runs = recorded_runs(10, 4)
    setting = ToolSetting(policy="off")
    frame = replay_fidelity_of_tools(replay_task_times(flatten_runs(runs), setting), runs)
    assert np.allclose(frame["off_pct"].dropna(), 0)
    assert (frame["hits_real"] == frame["hits_replayed"]).all()


def test_the_latency_of_tools_separates_right_and_wrong_runs():
    runs = changed(recorded_runs(30, 5), 0, answer="b")
    table = tool_latency(runs)
    assert set(table.index.names) == {"tool", "right"}
    calls = [call for run in runs for step in run.steps for call in step.calls]
    assert table["count"].sum() == len(calls)
    assert table["total_s"].sum() == pytest.approx(sum(call.tool_s for call in calls))
    assert not table["viable"].any()
