"""The break-even condition and the ledgers of time add up to what replay predicts."""

from __future__ import annotations

import numpy as np
import pytest

from speceyes_lib.errors import UserError
from speceyes_lib.replay import outcomes, payoff, settings
from speceyes_lib.runs.records import PHASES
from tests.replay.test_fleet import data

SETTING = settings.Setting(threshold=0.95, batch_size=4)


@pytest.fixture(scope="module")
def seconds():
    return payoff.phase_seconds(data(), SETTING)


@pytest.mark.parametrize("agents", [1, 8])
def test_phases_sum_to_the_predicted_seconds(agents):
    setting = settings.Setting(threshold=0.95, batch_size=4, agent_batch_size=agents)
    result, decided = payoff.phase_seconds(data(), setting), outcomes.decisions(data(), setting)
    assert result[list(PHASES)].sum(axis=1).to_numpy() == pytest.approx(decided["wall_s"].to_numpy())
    alone = result[[f"alone_{p}" for p in PHASES]].sum(axis=1)
    assert alone.to_numpy() == pytest.approx(decided["baseline_wall_s"].to_numpy())


def test_the_condition_says_whether_time_is_saved(seconds):
    result = payoff.break_even(seconds).iloc[0]
    assert result["accepted"] == pytest.approx(result["alpha"] * result["beta"])
    assert result["gain_ms"] == pytest.approx(result["accepted"] * result["agent_ms"])
    assert result["price_ms"] == pytest.approx(result["route_ms"] + result["beta"] * result["draft_ms"])
    assert result["pays"] == (result["accepted"] > result["overhead"])
    spent = seconds[list(PHASES)].sum().sum() - seconds[[f"alone_{p}" for p in PHASES]].sum().sum()
    assert 1e3 * spent / len(seconds) == pytest.approx(result["price_ms"] - result["saved_ms"])


def test_a_gate_that_accepts_nothing_only_costs():
    result = payoff.break_even(payoff.phase_seconds(data(), settings.Setting(threshold=1.0))).iloc[0]
    assert result["accepted"] == result["gain_ms"] == result["saved_ms"] == 0
    assert result["price_ms"] > 0
    assert not result["pays"]


def test_the_waterfall_ends_where_it_says(seconds):
    result = payoff.waterfall(seconds).set_index("step")["ms"]
    assert result.iloc[:-1].sum() == pytest.approx(result["with the gate"])
    assert result["agent not asked"] < 0 < result["router"]
    assert result["agent alone"] == pytest.approx(
        1e3 * outcomes.decisions(data(), SETTING)["baseline_wall_s"].mean()
    )


def test_accepted_samples_never_wait_for_the_agent_and_routed_ones_never_draft(seconds):
    result = payoff.time_by_decision(seconds).set_index(["decision", "phase"])["ms"]
    assert result["accepted", "agent_s"] == result["accepted", "tool_s"] == result["routed", "draft_s"] == 0
    assert result["rejected", "agent_s"] > 0 < result["rejected", "draft_s"]
    counts = payoff.time_by_decision(seconds).drop_duplicates("decision")["n"]
    assert counts.sum() == len(seconds)
    assert np.isfinite(result).all()


def test_a_run_without_times_says_so():
    with pytest.raises(UserError, match="no times"):
        payoff.phase_seconds(data(timed=False), SETTING)
