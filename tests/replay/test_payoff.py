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
    told, decided = payoff.phase_seconds(data(), setting), outcomes.decisions(data(), setting)
    assert told[list(PHASES)].sum(axis=1).to_numpy() == pytest.approx(decided["wall_s"].to_numpy())
    alone = told[[f"alone_{p}" for p in PHASES]].sum(axis=1)
    assert alone.to_numpy() == pytest.approx(decided["baseline_wall_s"].to_numpy())


def test_the_condition_says_whether_time_is_saved(seconds):
    told = payoff.break_even(seconds).iloc[0]
    assert told["accepted"] == pytest.approx(told["alpha"] * told["beta"])
    assert told["gain_ms"] == pytest.approx(told["accepted"] * told["agent_ms"])
    assert told["price_ms"] == pytest.approx(told["route_ms"] + told["beta"] * told["draft_ms"])
    assert told["pays"] == (told["accepted"] > told["overhead"])
    spent = seconds[list(PHASES)].sum().sum() - seconds[[f"alone_{p}" for p in PHASES]].sum().sum()
    assert 1e3 * spent / len(seconds) == pytest.approx(told["price_ms"] - told["saved_ms"])


def test_a_gate_that_accepts_nothing_only_costs():
    told = payoff.break_even(payoff.phase_seconds(data(), settings.Setting(threshold=1.0))).iloc[0]
    assert told["accepted"] == told["gain_ms"] == told["saved_ms"] == 0
    assert told["price_ms"] > 0
    assert not told["pays"]


def test_the_waterfall_ends_where_it_says(seconds):
    told = payoff.waterfall(seconds).set_index("step")["ms"]
    assert told.iloc[:-1].sum() == pytest.approx(told["with the gate"])
    assert told["agent not asked"] < 0 < told["router"]
    assert told["agent alone"] == pytest.approx(
        1e3 * outcomes.decisions(data(), SETTING)["baseline_wall_s"].mean()
    )


def test_accepted_samples_never_wait_for_the_agent_and_routed_ones_never_draft(seconds):
    told = payoff.time_by_decision(seconds).set_index(["decision", "phase"])["ms"]
    assert told["accepted", "agent_s"] == told["accepted", "tool_s"] == told["routed", "draft_s"] == 0
    assert told["rejected", "agent_s"] > 0 < told["rejected", "draft_s"]
    counts = payoff.time_by_decision(seconds).drop_duplicates("decision")["n"]
    assert counts.sum() == len(seconds)
    assert np.isfinite(told).all()


def test_a_run_without_times_says_so():
    with pytest.raises(UserError, match="no times"):
        payoff.phase_seconds(data(timed=False), SETTING)
