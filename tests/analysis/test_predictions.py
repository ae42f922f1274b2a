"""The cost model's error on what it was not fitted to, and its predictions in a summary."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_run import TASKS, make_run, write_answers, write_verdicts

from speceyes_lib.analysis import predictions, run_result
from speceyes_lib.params import FiguresParams
from speceyes_lib.replay import replay_data
from speceyes_lib.runs import recorded_run

ARMS = ["collect", "baseline", "gated", "gated_batched"]
SOME = list(TASKS[:2])


@pytest.fixture
def recorded(tmp_path, monkeypatch) -> recorded_run.RecordedRun:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    drawn, judged = make_run(per_task=16, tasks=SOME, failed=0)
    for arm in ARMS:
        size = {"agent_batch_size": 8 if arm in ("collect", "gated_batched") else 1, "batch_size": 8}
        write_answers("r", {arm: drawn[arm]}, size)
        write_verdicts("r", {arm: judged[arm]})
    return recorded_run.open("r", tasks=SOME)


def test_every_gated_arm_and_task_has_its_error(recorded):
    data = replay_data.load(recorded)
    errors = predictions.cost_errors(recorded, data)
    assert list(zip(errors["arm"], errors["task"], strict=True)) == [
        (arm, task) for arm in ("gated", "gated_batched") for task in SOME
    ]
    for row in errors.itertuples():
        of_task = [r.wall_s for r in recorded.records(row.arm).values() if r.id.startswith(row.task)]
        assert row.measured_s == pytest.approx(sum(of_task))
        assert row.off_pct == pytest.approx(100 * (row.predicted_s / row.measured_s - 1))


def test_the_records_that_are_predicted_are_not_fitted_to(recorded):
    data = replay_data.load(recorded)
    before = predictions.cost_errors(recorded, data)
    slow = {
        id_: r.model_copy(update={"router": r.router and r.router.model_copy(update={"router_s": 9.0})})
        for id_, r in recorded.records("gated").items()
        if id_.startswith(SOME[0])
    }
    recorded.records("gated").update(slow)
    after = predictions.cost_errors(recorded, data)
    same = ["arm", "task", "predicted_s"]
    row = (after["arm"] == "gated") & (after["task"] == SOME[0])
    assert after.loc[row, same].equals(before.loc[row, same])
    assert after.loc[row, "measured_s"].item() > before.loc[row, "measured_s"].item() + 9


def test_a_summary_holds_what_is_predicted_beside_what_was_measured(recorded):
    params = FiguresParams(run="r", tasks=SOME, arms=ARMS, threshold_from="", bootstrap=100)
    arms = run_result.summarised(params).summary["arms"]
    for name in ("gated", "gated_batched", "router_only", "baseline_batched"):
        entries = arms[name]
        splits = [entries["splits"][task]["speedup_predicted"] for task in SOME]
        assert entries["average"]["speedup_predicted"] == pytest.approx(np.mean(splits))
        assert min(splits) <= entries["pooled"]["speedup_predicted"] <= max(splits)
    assert "speedup_predicted" not in arms["baseline"]["pooled"]


def test_the_setting_of_an_arm_has_its_gate_and_its_sizes(recorded):
    setting = predictions.setting_of(recorded, "gated_batched")
    assert (setting.score, setting.threshold, setting.batch_size, setting.agent_batch_size) == (
        "min",
        0.97,
        8,
        8,
    )
    assert predictions.setting_of(recorded, "baseline").agent_batch_size == 1
