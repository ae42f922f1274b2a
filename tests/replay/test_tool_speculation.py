"""Ceiling and replay of tool speculation, against cases worked out by hand and a simulation event by event."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_runs import Simulated, made_call, made_guess, recorded_runs

from speceyes_lib.errors import UserError
from speceyes_lib.replay.tool_playing import SOURCES, ToolSetting, play, tool_grid
from speceyes_lib.replay.tool_speculation import (
    ceiling,
    client_bound,
    over_tool_share,
    replay_task_times,
    replay_tools,
)
from speceyes_lib.replay.tool_steps import flatten_runs, other_waits
from speceyes_lib.tool_speculation.records import Step, TaskRun
from speceyes_lib.tools.waits import Waits


def one_step(g=4.0, t=3.0, guesses=(), task="t", name="web_search", tail=0.0):
    """A task of one step with one call."""
    calls = [made_call(name, "x", g, t)]
    steps = [Step(index=1, actor_start_s=0, actor_end_s=g, calls=calls, guesses=list(guesses))]
    fields = {"task_id": task, "level": 1, "question": "q", "truth": "a", "arm": "shadow"}
    return TaskRun(**fields, seconds=g + t + tail, steps=steps)


def replayed(run, **setting):
    return replay_tools(flatten_runs([run]), ToolSetting(**setting)).iloc[0]


HIT = made_guess("web_search", "x", 0, 1, 3)
MISS = made_guess("web_search", "y", 0, 1, 3)
# guess, policy, seconds of a step with G = 4, T = 3: facts of the formulas
CASES = [
    ([HIT], "concurrent", 4.0),  # max(G, g + T)
    ([HIT], "original", 4.0),
    ([MISS], "concurrent", 7.0),  # G + T
    ([MISS], "original", 7.0),  # max(G, g + T') + T with g + T' = G
    ([made_guess("web_search", "y", 0, 3, 3)], "original", 9.0),
    ([made_guess("web_search", "y", 0, 3, 3)], "concurrent", 7.0),
    ([made_guess("web_search", "x", 0, 3, 3)], "concurrent", 6.0),  # awaited
    ([made_guess("web_search", "x", 0, 3, 3)], "original", 6.0),
    ([made_guess("web_search", "x", 0, 5, 3)], "concurrent", 7.0),  # too late: cancelled
    ([made_guess("web_search", "x", 0, 5, 3)], "original", 8.0),
    (
        [made_guess("web_search", "x", 0, 1, 3, result_error="broken")],
        "concurrent",
        7.0,
    ),  # an error is never served
    ([made_guess("web_search", "x", 0, 3, 3, result_error="broken")], "concurrent", 9.0),  # awaited in vain
    ([], "concurrent", 7.0),
    ([HIT], "off", 7.0),
]


@pytest.mark.parametrize(("guesses", "policy", "seconds"), CASES)
def test_one_step_takes_what_the_formulas_say(guesses, policy, seconds):
    row = replayed(one_step(guesses=guesses, tail=0.5), policy=policy)
    assert (row["sequential_s"], row["seconds"]) == (7.5, seconds + 0.5)
    assert row["speedup"] == pytest.approx(7.5 / (seconds + 0.5))


def test_waste_ends_where_a_guess_is_cancelled_and_the_original_cancels_nothing():
    late = one_step(guesses=[made_guess("web_search", "y", 0, 3, 3, tokens=9)])
    ours, original = replayed(late), replayed(late, policy="original")
    assert (ours["wasted_s"], original["wasted_s"]) == (1.0, 3.0)
    assert (ours["wasted_tokens"], ours["wasted"], ours["amplification"]) == (9, 1, 2.0)
    assert replayed(one_step(guesses=[HIT]))["amplification"] == 1.0


def test_the_ceiling_of_known_steps():
    runs = [one_step(4, 3, task="a"), one_step(2, 6, task="b"), one_step(1, 1, task="c", name="code_exec")]
    result = ceiling(flatten_runs(runs))
    assert result.sequential_s == 17
    assert result.saved_s == 3 + 2  # min(G, T), nothing of code_exec
    assert result.one_step.value == pytest.approx(17 / 12)
    assert result.tool_share.value == pytest.approx(100 * 10 / 17)
    assert result.by_share.value == pytest.approx(17 / 7)
    assert result.one_step.low <= result.one_step.value <= result.one_step.high
    assert ceiling(flatten_runs(runs), tool_scale=0).one_step.value == 1


def test_at_equal_times_the_ceiling_is_two():
    assert ceiling(flatten_runs([one_step(2, 2)])).one_step.value == 2


def test_the_bound_for_a_client():
    assert client_bound(4, 1, 3, 0.5) == pytest.approx(7 / (0.5 * 4 + 0.5 * 7))
    assert client_bound(4, 1, 3, 0) == 1


def test_a_lossy_strategy_names_its_first_false_hit_and_has_no_times():
    runs = [one_step(guesses=[HIT], task="a"), one_step(guesses=[MISS], task="b")]
    steps = flatten_runs(runs)
    row = replay_tools(steps, ToolSetting(strategy="tool_name_only")).iloc[0]
    assert (row["status"], row["diverging_tasks"], math.isnan(row["speedup"])) == ("diverges", 1, True)
    assert row["reason"].startswith(
        'task b, step 1: web_search {"q": "x"} would get the result of web_search {"q": "y"}'
    )
    times = replay_task_times(steps, ToolSetting(strategy="tool_name_only"))
    assert times["diverges_at"].tolist() == [0, 1]
    assert times["seconds"].isna().tolist() == [False, True]


def test_a_lossy_strategy_that_served_no_wrong_result_has_times():
    assert replayed(one_step(guesses=[HIT]), strategy="tool_name_only")["status"] == "ok"


def test_a_gate_executes_what_reaches_its_threshold_and_nothing_without_a_score():
    scored = made_guess("web_search", "x", 0, 1, 3, scores={"separability_min": 0.5})
    steps = flatten_runs([one_step(guesses=[scored], task="a"), one_step(guesses=[HIT], task="b")])
    grid = tool_grid(threshold=[-math.inf, 0.5, 0.6])
    assert replay_tools(steps, grid)["hits"].tolist() == [1, 1, 0]
    grid = tool_grid(thresholds=[{"web_search": 0.6}, {"calculate": 0.6}])
    assert replay_tools(steps, grid)["hits"].tolist() == [0, 2]
    assert replay_tools(steps, ToolSetting())["hits"].tolist() == [2]


def test_an_expected_value_can_be_a_score():
    steps = flatten_runs([one_step(guesses=[HIT, MISS])])
    valued = steps.with_score("value", np.array([[0.1, -0.1]]))
    row = replay_tools(valued, ToolSetting(score="value", threshold=0, guesses=9)).iloc[0]
    assert (row["executed"], row["hits"]) == (1, 1)
    with pytest.raises(UserError, match=r"score 'value' has the shape \(2,\)"):
        steps.with_score("value", np.zeros(2))


def test_other_latencies_and_a_guess_that_was_never_executed():
    guess = made_guess("web_search", "y", 0, 1, 0, tool_s=None, tool_start_s=None, tool_end_s=None)
    steps = flatten_runs(
        [one_step(guesses=[guess])], {"slow": lambda name, call, s: 10 * s if "x" in call else s}
    )
    assert steps.latencies["recorded"][1].tolist() == [[3.0]]  # the median of its tool
    assert steps.latencies["slow"][0].tolist() == [[30.0]]
    rows = replay_tools(steps, tool_grid(latency=["recorded", "slow"], policy="original"))
    assert rows["seconds"].tolist() == [7.0, 34.0]
    assert rows["estimated"].tolist() == [1, 1]


def test_times_under_another_table_of_waits_are_those_of_a_run_with_it():
    fast, slow = Waits(0.5, seed=1), Waits(2.0, seed=1)
    call = made_call("web_search", "x", 4, 0)
    own = 0.25
    recorded_s, other_s = (own + waits.seconds(call.canonical) for waits in (fast, slow))
    run = one_step(t=recorded_s, guesses=[made_guess("web_search", "x", 0, 1, recorded_s)])
    table = {"slow": other_waits(fast, slow, ["web_search"]), "none": other_waits(fast, None, ["web_search"])}
    steps = flatten_runs([run], table | {"kept": other_waits(fast, slow, ["file_read"])})
    times = {name: (calls[0, 0], guesses[0, 0]) for name, (calls, guesses) in steps.latencies.items()}
    assert times["slow"] == pytest.approx((other_s, other_s))
    assert times["none"] == pytest.approx((own, own))
    assert times["kept"] == times["recorded"] == (recorded_s, recorded_s)


def test_a_cancelled_guess_would_have_run_longer_than_it_did():
    cancelled = made_guess("web_search", "y", 0, 0.5, 0, tool_s=None, tool_end_s=None)
    row = replayed(one_step(t=1.0, guesses=[cancelled]), policy="original")
    assert row["seconds"] == pytest.approx(4.0 + 1.0, abs=1e-5)  # 0.5 + 3.5, though the tool's median is 1
    assert row["wasted_s"] == pytest.approx(3.5, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "exakt"}, r"strategy: 'exakt' is none of .*did you mean 'exact'"),
        ({"policy": "theirs"}, "policy: 'theirs' is none of concurrent, original, off"),
        ({"score": "sure", "threshold": 1}, r"score: 'sure' is none of \(none\)"),
        ({"latency": "slow"}, "latency: 'slow' is none of recorded"),
        ({"guesses": -1}, "guesses must be at least 0"),
        ({"tool_scale": math.nan}, "tool_scale must be at least 0"),
    ],
)
def test_an_impossible_setting_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        replayed(one_step(), **change)


def test_runs_of_two_arms_and_no_runs_are_refused():
    with pytest.raises(UserError, match="Task t occurs twice"):
        flatten_runs([one_step(), one_step()])
    with pytest.raises(UserError, match="no recorded run"):
        flatten_runs([])
    with pytest.raises(UserError, match=r"no axis 'guess' \(did you mean 'guesses'\?\)"):
        tool_grid(guess=1)


def test_the_setting_of_a_recorded_run_is_read_and_changed():
    recorded = {
        "policy": "concurrent",
        "strategy": "jaccard",
        "guesses": 2,
        "effects": ["pure"],
        "look_ahead": 0,
    }
    expected = ToolSetting(strategy="jaccard", guesses=2, speculator=0.5)
    assert ToolSetting.of(recorded, speculator=0.5) == expected
    with pytest.raises(UserError, match="look_ahead cannot be replayed"):
        ToolSetting.of(recorded | {"look_ahead": 1})


def test_a_shadow_pass_and_the_original_wait_for_guesses_outside_of_the_steps():
    run = one_step(guesses=[MISS], tail=5)
    assert flatten_runs([run]).rest_s.tolist() == [5]
    shadow = run.model_copy(update={"settings": {"policy": "shadow"}})
    assert flatten_runs([shadow]).rest_s.tolist() == [0]


def test_runs_without_steps_have_times_and_no_ceiling_to_reach():
    run = one_step().model_copy(update={"steps": [], "seconds": 2.0})
    row = replayed(run)
    assert (row["seconds"], row["speedup"], row["calls"]) == (2.0, 1.0, 0)
    assert math.isnan(row["ceiling_pct"])


setting = st.builds(
    ToolSetting,
    policy=st.sampled_from(["concurrent", "concurrent", "concurrent", "original", "off"]),
    strategy=st.sampled_from(["normalised", "exact", "jaccard", "tool_name_only", "none"]),
    guesses=st.integers(0, 3),
    threshold=st.none() | st.floats(0, 1),
    thresholds=st.dictionaries(st.sampled_from(["web_search", "calculate"]), st.floats(0, 1), max_size=1),
    guess_slots=st.integers(0, 2),
    cache=st.booleans(),
    speculator=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    tool_scale=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), setting)
def test_replay_is_what_a_simulation_event_by_event_gives(seed, setting):
    runs = recorded_runs(4, seed)
    steps = flatten_runs(runs)
    if setting.score not in steps.scores:  # no guess at all
        return
    played = play(steps, setting)
    times = steps.per_task(played.duration_s) + steps.rest_s
    for number, run in enumerate(runs):
        expected = Simulated(run, setting)
        own = steps.task == number
        sources = [SOURCES[s] for s in played.source[own].ravel() if s]
        assert sources == expected.sources
        assert times[number] == expected.seconds
        assert played.started[own].sum() == expected.started
        assert np.where(played.served, 0, played.wasted_s)[own].sum() == expected.wasted_s
        assert steps.index[own][played.false_hit[own]].tolist() == sorted(set(expected.false_hits))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_no_setting_of_ours_without_failures_is_slower_and_none_is_beyond_the_ceiling(seed, k):
    runs = [
        run.model_copy(
            update={
                "steps": [
                    s.model_copy(update={"guesses": [g for g in s.guesses if not g.result_error]})
                    for s in run.steps
                ]
            }
        )
        for run in recorded_runs(5, seed)
    ]
    steps = flatten_runs(runs)
    row = replay_tools(steps, ToolSetting(guesses=k), never=()).iloc[0]
    assert -1e-9 <= row["saved_s"] <= ceiling(steps, never=()).saved_s + 1e-9


def test_tool_times_are_scaled_to_a_share_of_the_time_without_speculation():
    steps = flatten_runs([one_step(guesses=[HIT])])
    table = over_tool_share(
        steps, {"exact": ToolSetting(), "original": ToolSetting(policy="original")}, (0.2, 0.5)
    )
    assert table["tool_share_pct"].tolist() == [20, 20, 50, 50]
    assert table["tool_scale"].tolist() == pytest.approx([1 / 3, 1 / 3, 4 / 3, 4 / 3])
    assert table["ceiling"].tolist() == pytest.approx([1.25, 1.25, 2, 2])
    assert table["speedup"].tolist() == pytest.approx([1.25, 1.25, 1.6, 1.6])
    with pytest.raises(UserError, match="took no time"):
        over_tool_share(flatten_runs([one_step(t=0)]), {"exact": ToolSetting()})
