"""The simulated fleet obeys the laws of queues, and asks of it exactly what the recorded run cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from replay_arrays import from_arrays

from speceyes_lib.errors import UserError
from speceyes_lib.replay import fleet, outcomes, replay_data, settings
from speceyes_lib.replay.cost_model import CallCost, CostModel
from speceyes_lib.replay.fleet import ASIDE, LARGE, NONE, SMALL, Fleet, Workload, simulate_fleet


def workload(*calls: tuple[int, float, float], n: int = 1) -> Workload:
    pool, added, fixed = zip(*calls, strict=True)
    return Workload(*(np.tile(values, (n, 1)) for values in (pool, added, fixed)))


def exponential(mean_s: float, n: int = 20_000, seed: int = 0) -> Workload:
    added = np.random.default_rng(seed).exponential(mean_s, (n, 1))
    return Workload(np.full((n, 1), LARGE), added, np.zeros((n, 1)))


def erlang_c_wait(arrivals_per_s: float, mean_s: float, servers: int) -> float:
    """Mean wait in an M/M/c queue (Erlang C)."""
    load = arrivals_per_s * mean_s
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    waits = last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)
    return waits * mean_s / (servers - load)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (3, 0.7)])
def test_random_arrivals_wait_as_erlang_says(servers, load):
    arrivals = load * servers  # mean service 1 s
    result = simulate_fleet(
        exponential(1.0), Fleet(0, servers, large_batch=1), arrivals_per_s=arrivals, requests=20_000, seed=1
    )
    assert result.mean_s == pytest.approx(1.0 + erlang_c_wait(arrivals, 1.0, servers), rel=0.07)
    assert result.large_utilisation == pytest.approx(load, rel=0.05)
    assert result.throughput_per_s == pytest.approx(arrivals, rel=0.05)


CHAIN = workload((ASIDE, 0.5, 0.0), (LARGE, 1.0, 0.0), (SMALL, 2.0, 0.0), (LARGE, 3.0, 0.0))


def test_a_single_user_never_waits():
    result = simulate_fleet(CHAIN, Fleet(1, 1), users=1, requests=50)
    assert result.p50_s == result.p95_s == result.mean_s == pytest.approx(6.5)
    assert result.throughput_per_s == pytest.approx(1 / 6.5)
    assert result.large_utilisation == pytest.approx(4 / 6.5)
    assert result.small_utilisation == pytest.approx(2 / 6.5)


@pytest.mark.parametrize(("small", "large", "per_s"), [(1, 1, 1 / 4), (1, 8, 1 / 2), (3, 4, 1.0)])
def test_many_users_get_what_the_bottleneck_gives(small, large, per_s):
    result = simulate_fleet(CHAIN, Fleet(small, large, small_batch=1, large_batch=1), users=60, requests=1000)
    assert result.throughput_per_s == pytest.approx(per_s, rel=0.02)
    assert max(result.small_utilisation, result.large_utilisation) == pytest.approx(1, abs=0.02)
    assert result.throughput_per_s * result.mean_s == pytest.approx(60, rel=0.08)  # Little's law


def test_a_batch_shares_the_fixed_part():
    shared = workload((LARGE, 0.1, 3.0))
    result = simulate_fleet(shared, Fleet(0, 1, large_batch=10), users=40, requests=1000)
    assert result.throughput_per_s == pytest.approx(10 / (3.0 + 10 * 0.1), rel=0.01)
    assert result.large_batch == pytest.approx(10)
    alone = simulate_fleet(shared, Fleet(0, 1, large_batch=1), users=40, requests=1000)
    assert alone.throughput_per_s == pytest.approx(1 / 3.1, rel=0.01)
    assert shared.seconds(LARGE, batch=10) == pytest.approx(0.4)
    assert shared.seconds(SMALL) == 0


def test_too_many_arrivals_pile_up():
    late = simulate_fleet(
        workload((LARGE, 1.0, 0.0)), Fleet(0, 1, large_batch=1), arrivals_per_s=2.0, requests=400
    )
    fine = simulate_fleet(
        workload((LARGE, 1.0, 0.0)), Fleet(0, 3, large_batch=1), arrivals_per_s=2.0, requests=400
    )
    assert late.large_utilisation == pytest.approx(1, abs=0.01)
    assert late.throughput_per_s == pytest.approx(1, rel=0.02)
    assert late.p95_s > 50 * fine.p95_s


def test_ten_thousand_users_are_simulated():
    result = simulate_fleet(workload((LARGE, 0.002, 0.02), n=5), Fleet(0, 4), users=10_000)
    assert result.n >= 10_000
    assert result.throughput_per_s == pytest.approx(4 * 16 / (0.02 + 16 * 0.002), rel=0.01)
    assert result.p50_s == pytest.approx(10_000 / result.throughput_per_s, rel=0.05)


def test_the_same_seed_gives_the_same_outcome():
    first, again, other = (
        simulate_fleet(exponential(1.0, 50), Fleet(0, 2), users=5, requests=200, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other


def test_the_best_ratio_follows_the_load():
    result = fleet.best_ratio(
        workload((SMALL, 1.0, 0.0), (LARGE, 3.0, 0.0)), 4, users=40, fleet=Fleet(1, 1, 1, 1), requests=400
    )
    assert len(result) == 3
    assert (result.loc[0, "small"], result.loc[0, "large"]) == (1, 3)
    assert result.loc[0, "per_gpu_per_s"] == pytest.approx(1 / 4, rel=0.02)
    # a small model on a quarter of a GPU leaves room for more of the large one
    cheap = fleet.best_ratio(
        workload((SMALL, 1.0, 0.0), (LARGE, 3.0, 0.0)),
        4,
        users=40,
        fleet=Fleet(1, 1, 1, 1, 0.25, 1),
        requests=400,
    )
    assert cheap.loc[0, "large"] == 3
    assert (cheap["gpus"] <= 4).all()
    alone = fleet.best_ratio(workload((LARGE, 1.0, 0.0)), 3, users=10, requests=200)
    assert alone.loc[0, "small"] == 0


def test_what_cannot_be_simulated_is_reported():
    with pytest.raises(UserError, match="no replica"):
        simulate_fleet(CHAIN, Fleet(0, 1), users=1)
    with pytest.raises(UserError, match="not both"):
        simulate_fleet(CHAIN, Fleet(1, 1), users=1, arrivals_per_s=1.0)
    with pytest.raises(UserError, match="must not be empty"):
        simulate_fleet(CHAIN, Fleet(1, 1), users=0)
    with pytest.raises(UserError, match="are too few"):
        fleet.best_ratio(CHAIN, 1)
    with pytest.raises(UserError, match="small_batch"):
        Fleet(1, 1, small_batch=0)


# ------------------------------------------------------------------ from a run


def data(timed: bool = True) -> replay_data.ReplayData:
    rng = np.random.default_rng(0)
    n = 30

    def cost(shape, fixed_s: float) -> CallCost:
        return CallCost(rng.uniform(0.01, 0.1, shape), np.ones(shape), fixed_s, 0.01, (1, 16), 40, 1.0)

    agent = cost((n, 2), 0.2)
    agent.added_s[::3, 1] = np.nan  # one turn only
    takes_turn = np.isfinite(agent.added_s)
    alone = np.where(takes_turn, agent.added_s + agent.fixed_s + agent.per_step_s, 0).sum(axis=1)
    decode_s, tool_s = rng.uniform(0, 0.01, (2, n))
    model = CostModel(decode_s, decode_s, tool_s, {"large": cost(n, 0.05)}, cost(n, 0.03), agent, alone, True)
    return from_arrays(
        draft_right=rng.uniform(size=n) < 0.9,
        agent_right=rng.uniform(size=n) < 0.9,
        routed={"large": rng.uniform(size=n) < 0.3},
        scores={"min": rng.uniform(0.9, 1, n)},
        cost=model if timed else None,
    )


def test_a_lone_user_is_served_in_the_seconds_that_replay_predicts():
    """One request at a time is the paper's setting at batch size 1: both models of the cost must agree."""
    result = data()
    setting = settings.Setting(threshold=0.95, batch_size=1)
    decided = outcomes.decisions(result, setting)
    assert set(decided["decision"]) == {"accepted", "rejected", "routed"}
    funnel = fleet.funnel_workload(result, setting)
    busy = sum(funnel.seconds(pool) for pool in (SMALL, LARGE, ASIDE))
    assert busy == pytest.approx(decided["wall_s"].mean())
    alone = fleet.agent_workload(result)
    assert sum(alone.seconds(p) for p in (LARGE, ASIDE)) == pytest.approx(decided["baseline_wall_s"].mean())
    assert (funnel.pool[decided["decision"] == "accepted"] == LARGE).sum(axis=1).max() == 1  # its router only
    assert ((funnel.pool != NONE).sum(axis=1) >= 2).all()


def test_a_run_without_times_cannot_be_planned_from():
    with pytest.raises(UserError, match="no times"):
        fleet.agent_workload(data(timed=False))
    with pytest.raises(UserError, match="small router"):
        fleet.funnel_workload(data(), settings.Setting(router="small"))
