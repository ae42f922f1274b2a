"""The cost model: at what was recorded it returns what was recorded; elsewhere it says what it assumes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_arrays import from_arrays

from speceyes_lib.replay import outcomes
from speceyes_lib.replay.cost_model import CostModel, fit
from speceyes_lib.replay.settings import Setting
from speceyes_lib.runs.records import AgentRecord, DraftRecord, Failure, RouterRecord, Trajectory, Turn

FIXED, STEP, OWN = 0.030, 0.004, 0.010  # seconds: of a call, of a step of its longest answer, of a sample
N = 40
IDS = [f"vstar/{'ab'[i >= 22]}/{i:03d}" for i in range(N)]
TASKS = [id_.rsplit("/", 1)[0] for id_ in IDS]
TOKENS = [(1 + i * 7 % 5, 2 + i * 3 % 7) for i in range(N)]  # of the agent's two turns
ONE_TURN = {3, 17, 30}


def call_s(tokens: list[int]) -> float:
    return FIXED + STEP * max(tokens, default=0) + OWN * len(tokens)


def batches(size: int) -> list[list[int]]:
    """Samples of each task in batches, in order."""
    tasks = [[i for i in range(N) if TASKS[i] == task] for task in dict.fromkeys(TASKS)]
    return [task[at : at + size] for task in tasks for at in range(0, len(task), size)]


def shares(size: int, tokens: list[int], called: set[int]) -> dict[int, tuple[float, int]]:
    """Share and call size of every sample when those in `called` are called in batches of `size` samples."""
    result = {}
    for batch in batches(size):
        members = [i for i in batch if i in called]
        for i in members:
            result[i] = (call_s([tokens[m] for m in members]) / len(members), len(members))
    return result


def arm(mode: str, size: int, agents: int, failed: int | None = None) -> dict[str, AgentRecord]:
    everyone = set(range(N))
    router, draft = shares(size, [0] * N, everyone), shares(size, [2] * N, everyone)
    called = (everyone, everyone - ONE_TURN)  # at the first turn, at the second
    turns = [shares(agents, [t[turn] for t in TOKENS], called[turn]) for turn in (0, 1)]
    records = {}
    for i, id_ in enumerate(IDS):
        path = tuple(
            Turn(text="x", n_tokens=TOKENS[i][turn], turn_s=turns[turn][i][0], batch_size=turns[turn][i][1])
            for turn in (0, 1)
            if i in turns[turn]
        )
        collect = mode == "collect"
        share, members = router[i]
        drafted = DraftRecord(
            id=id_,
            status="ok",
            answer="x",
            n_tokens=2,
            scores={"min": 0.5},
            draft_s=draft[i][0],
            batch_size=draft[i][1],
        )
        broken = i == failed
        records[id_] = AgentRecord(
            id=id_,
            run_mode=mode,
            status="error" if broken else "ok",
            error=Failure(type="image_error", message="no picture") if broken else None,
            decision="collected" if collect else "baseline",
            used="large",
            router=RouterRecord(verdict="no", text="no", router_s=share, batch_size=members)
            if collect
            else None,
            draft=drafted if collect else None,
            trajectory=None if broken else Trajectory(status="ok", turns=path),
            decode_s=0.002,
            tool_s=0.001,
        )
    return records


@pytest.fixture(scope="module")
def cost() -> CostModel:
    arms = {"collect": arm("collect", 8, 8), "baseline": arm("baseline", 1, 1)}
    return fit(arms, IDS, TASKS, {"collect": "large", "baseline": "none"})


def test_the_parts_of_a_call_are_found(cost):
    fits = cost.fits.set_index("phase")
    router = fits.loc["router (large)"]
    assert router["fixed_ms"] == pytest.approx(1e3 * FIXED, rel=1e-6)
    assert router["own_ms"] == pytest.approx(1e3 * OWN, rel=1e-6)
    agent = fits.loc["agent"]
    assert agent["fixed_ms"] == pytest.approx(1e3 * FIXED, rel=1e-6)
    assert agent["per_step_ms"] == pytest.approx(1e3 * STEP, rel=1e-6)
    assert (fits["r2"] > 0.999).all()
    assert (router["smallest_call"], router["largest_call"], router["calls"]) == (2, 8, 6)
    assert (agent["smallest_call"], agent["largest_call"]) == (1, 8)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.sets(st.integers(0, N - 1)))
def test_any_batch_size_and_choice_of_samples_is_predicted(cost, size, chosen):
    who, tasks = np.array([i in chosen for i in range(N)]), np.array(TASKS, dtype=object)
    expected = sum(call_s([2] * len(m)) for b in batches(size) if (m := [i for i in b if i in chosen]))
    assert cost.draft.shares(who, tasks, size).sum() == pytest.approx(expected, rel=1e-6)
    expected = sum(call_s([0] * len(m)) for b in batches(size) if (m := [i for i in b if i in chosen]))
    assert cost.router_shares("large", who, tasks, size).sum() == pytest.approx(expected, rel=1e-6)


def test_at_the_recorded_sizes_the_recorded_seconds_come_back(cost):
    tasks, everyone = np.array(TASKS, dtype=object), np.ones(N, bool)
    recorded = {size: arm("collect", 8, size) for size in (1, 8)}
    for size, off in (
        (1, 1e-6),
        (8, 0.01),
    ):  # together: which answers meet in a second turn's call is not known
        agents = cost.agents(tasks, size).shares(everyone, tasks).sum()
        measured = sum(r.trajectory.agent_s + r.tool_s for r in recorded[size].values())
        assert agents == pytest.approx(measured, rel=off)
    router = [r.router.router_s for r in recorded[8].values()]
    assert np.allclose(cost.router_shares("large", everyone, tasks, 8), router)


def test_agents_one_at_a_time_are_charged_what_the_baseline_measured(cost):
    baseline = arm("baseline", 1, 1)
    slow = {
        i: r.model_copy(update={"trajectory": with_turns(r, lambda t: 3 * t.turn_s)})
        for i, r in baseline.items()
    }
    arms = {"collect": arm("collect", 8, 8), "baseline": slow}
    result = fit(arms, IDS, TASKS, {"collect": "large", "baseline": "none"})
    assert np.allclose(result.serial_s, [r.trajectory.agent_s for r in slow.values()])
    assert result.notes("large", 8, 1) == ""


def with_turns(record: AgentRecord, seconds) -> Trajectory:
    turns = tuple(t.model_copy(update={"turn_s": seconds(t)}) for t in record.trajectory.turns)
    return record.trajectory.model_copy(update={"turns": turns})


def test_without_a_baseline_lone_agents_are_derived_and_that_is_reported():
    several = {"collect": arm("collect", 8, 8), "baseline_batched": arm("baseline", 5, 5)}
    result = fit(several, IDS, TASKS, {"collect": "large", "baseline_batched": "none"})
    alone = [r.trajectory.agent_s for r in arm("baseline", 1, 1).values()]
    assert result.serial_s == pytest.approx(alone, rel=0.05)
    assert "agents one at a time, recorded together only" in result.notes("large", 8, 1)


SAVED, AGAIN = (
    0.006,
    0.020,
)  # by the router's call in a first turn; spent on a later turn that computes all again


@pytest.fixture(scope="module")
def engines() -> CostModel:
    """The batched engine, which reuses, beside agents one at a time, which do not."""
    changed = {
        "collect": (arm("collect", 8, 8), 0.0, 0.0),
        "baseline": (arm("baseline", 1, 1), 0.0, AGAIN),
        "gated_batched": (arm("gated", 8, 8), -SAVED, 0.0),
    }
    arms = {}
    for name, (records, first_s, later_s) in changed.items():
        arms[name] = {}
        for id_, record in records.items():
            turns = record.trajectory.turns
            more = [first_s, *[later_s] * (len(turns) - 1)]
            turns = tuple(
                t.model_copy(update={"turn_s": t.turn_s + s}) for t, s in zip(turns, more, strict=True)
            )
            path = record.trajectory.model_copy(update={"turns": turns})
            arms[name][id_] = record.model_copy(update={"trajectory": path})
    return fit(arms, IDS, TASKS, {"collect": "large", "baseline": "none", "gated_batched": "large"})


def test_the_engine_that_reuses_is_fitted_apart_from_agents_one_at_a_time(engines):
    agent = engines.fits.set_index("phase").loc["agent"]
    assert agent["fixed_ms"] == pytest.approx(1e3 * FIXED, rel=1e-6)
    assert agent["per_step_ms"] == pytest.approx(1e3 * STEP, rel=1e-6)
    assert engines.routed_saves_s == pytest.approx(SAVED, rel=1e-6)
    assert engines.notes("large", 8, 8) == ""


@pytest.mark.parametrize("size", [2, 4, 20])
def test_agents_at_once_are_predicted_at_sizes_that_never_ran(engines, size):
    tasks, everyone = np.array(TASKS, dtype=object), np.ones(N, bool)
    measured = sum(r.trajectory.agent_s + r.tool_s for r in arm("collect", 8, size).values())
    alone = engines.agents(tasks, size).shares(everyone, tasks).sum()
    assert alone == pytest.approx(
        measured, rel=0.06
    )  # which answers meet in a second turn's call is not known
    routed = engines.agents(tasks, size, "large").shares(everyone, tasks).sum()
    assert alone - routed == pytest.approx(N * SAVED, rel=1e-6)
    assert engines.agents(tasks, size, "small").shares(everyone, tasks).sum() == pytest.approx(alone)


def test_a_router_saves_no_agent_that_runs_alone(engines):
    tasks = np.array(TASKS, dtype=object)
    assert np.array_equal(engines.agents(tasks, 1, "large").linear_s, engines.agents(tasks, 1).linear_s)


def test_what_was_not_recorded_is_called_extrapolated(cost):
    assert cost.notes("large", 8, 1) == ""
    assert cost.notes("none", 8, 8) == ""
    assert cost.notes("none", 4, 1) == ""
    assert "what the router's call saves the agent" in cost.notes("large", 8, 8)
    assert "draft in batches of 64, recorded 2 to 8" in cost.notes("large", 64, 1)
    assert "20 agents at once, recorded 1 to 8" in cost.notes("none", 8, 20)
    assert "the small router was not timed" in cost.notes("small", 8, 1)


def test_calls_of_one_size_leave_the_fixed_part_unknown_and_zero():
    tasks, ids = ["a"] * 16, [f"a/{i}" for i in range(16)]
    some = zip(ids, arm("collect", 8, 8).values(), strict=False)
    records = {id_: record.model_copy(update={"id": id_}) for id_, record in some}
    result = fit({"collect": records}, ids, tasks, {"collect": "large"})
    assert result.draft.sizes == (8, 8)
    assert result.draft.fixed_s == 0
    assert "draft in batches of 4, recorded 8" in result.notes("none", 4, 8)


def test_a_sample_that_failed_before_the_agent_costs_it_nothing():
    arms = {"collect": arm("collect", 8, 8, failed=5), "baseline": arm("baseline", 1, 1, failed=5)}
    result = fit(arms, IDS, TASKS, {"collect": "large", "baseline": "none"})
    assert result.serial_s[5] == 0
    assert np.isfinite(result.serial_s).all()
    assert result.agents(np.array(TASKS, dtype=object), 8).linear_s[5] == pytest.approx(
        0.001
    )  # its tool seconds


def test_untimed_records_give_no_model():
    records = {i: r.model_copy(update={"timed": False}) for i, r in arm("collect", 8, 8).items()}
    assert fit({"collect": records}, IDS, TASKS, {"collect": "large"}) is None


def test_a_run_that_timed_only_a_part_predicts_no_seconds_and_says_so(cost):
    holes = dataclasses.replace(cost, decode_s=np.where(np.arange(N) == 3, np.nan, cost.decode_s))
    pop = from_arrays(
        draft_right=np.ones(N),
        agent_right=np.ones(N),
        tasks=TASKS,
        scores={"min": np.full(N, 0.5)},
        cost=holes,
    )
    frame = outcomes.replay(pop, Setting(router="none", batch_size=8)).set_index("task")
    assert np.isnan(frame.loc["vstar/a", "wall_s"])
    assert frame.loc["vstar/a", "cost_note"] == "some samples were not timed"
    assert frame.loc["vstar/b", "speedup"] > 0
    assert frame.loc["vstar/b", "cost_note"] == ""


def test_larger_batches_are_never_slower_and_a_part_keeps_its_fits(cost):
    tasks, everyone = np.array(TASKS, dtype=object), np.ones(N, bool)
    seconds = [cost.draft.shares(everyone, tasks, size).sum() for size in range(1, 30)]
    assert all(np.diff(seconds) <= 1e-12)
    at = np.arange(0, N, 3)
    part = cost.take(at)
    assert part.draft.fixed_s == cost.draft.fixed_s
    assert np.array_equal(part.serial_s, cost.serial_s[at])
