"""What guesses of a real run were worth, by cases worked out by hand."""

from __future__ import annotations

import math

import pytest
from tool_runs import made_call, made_guess, recorded_runs

from speceyes_lib.analysis import ceiling_losses, guess_ledger, hit_at_k, ledger_by
from speceyes_lib.analysis.tool_ledger import argument_hits, delay_of_actor, ready_before_demand
from speceyes_lib.replay.tool_steps import flatten_runs
from speceyes_lib.tool_speculation.records import Step, TaskRun


def run_of(call, guesses, task="t", policy="concurrent", g=4.0, seconds=None):
    step = Step(index=1, actor_start_s=0, actor_end_s=g, calls=[call] if call else [], guesses=guesses)
    fields = {
        "task_id": task,
        "level": 1,
        "question": "q",
        "truth": "a",
        "arm": "x",
        "settings": {"policy": policy},
    }
    return TaskRun(**fields, seconds=seconds or (call.end_s if call else g), steps=[step])


def served(source, end_s, tool_s=3.0, word="x", start_s=4.0):
    fields = {"source": source, "guess": 0, "end_s": end_s, "tool_s": tool_s}
    return made_call("web_search", word, start_s, 0).model_copy(update=fields)


HIT = made_guess("web_search", "x", 0, 1, 3, tokens=7)
MISS = made_guess("web_search", "y", 0, 1, 3, tokens=7, tool_end_s=4.0)
# call, guess, policy -> verdict, hidden_s, waited_s, wasted_s, delay_s
CASES = [
    (served("used", 4), HIT, "concurrent", ("helped", 3, 0, 0, 0)),
    (served("awaited", 6), HIT, "concurrent", ("late", 1, 2, 0, 0)),
    (made_call("web_search", "x", 4, 3), MISS, "concurrent", ("useless", 0, 0, 3, 0)),
    (served("used", 4, word="z"), HIT, "concurrent", ("harmful", 3, 0, 0, 0)),
    (made_call("web_search", "x", 6, 3), MISS, "original", ("harmful", 0, 0, 3, 2)),
    (served("used", 6, start_s=6.0), HIT, "original", ("late", 1, 2, 0, 0)),
    (None, MISS, "concurrent", ("useless", 0, 0, 3, 0)),
    (
        None,
        HIT.model_copy(update={"tool_start_s": None, "tool_end_s": None}),
        "concurrent",
        ("not executed", 0, 0, 0, 0),
    ),
]


@pytest.mark.parametrize(("call", "guess", "policy", "expected"), CASES)
def test_a_guess_is_judged_by_what_it_did(call, guess, policy, expected):
    row = guess_ledger([run_of(call, [guess], policy=policy)]).iloc[0]
    assert tuple(row[["verdict", "hidden_s", "waited_s", "wasted_s", "delay_s"]]) == expected
    assert (row["head_s"], row["tokens"]) == (3, 7)


def test_sums_by_tool_count_every_verdict():
    runs = [run_of(call, [guess], f"t{i}", policy) for i, (call, guess, policy, _) in enumerate(CASES)]
    table = ledger_by(guess_ledger(runs), "tool")
    assert table.loc[
        "web_search", ["guesses", "helped", "late", "useless", "harmful", "not executed"]
    ].tolist() == [*(8, 1, 2, 2, 2, 1)]
    assert table.loc["web_search", "wasted_tokens"] == 5 * 7
    share = ready_before_demand(guess_ledger(runs))
    assert share.value == pytest.approx(100 / 3)


def test_a_ledger_without_guesses_has_its_columns():
    ledger = guess_ledger([run_of(None, [])])
    assert (len(ledger), "verdict" in ledger) == (0, True)


def test_the_ceiling_is_saved_or_lost_for_one_reason():
    late = made_guess("web_search", "x", 0, 4.5, 3)
    refused = HIT.model_copy(update={"refused": "gate"})
    own = made_call("web_search", "x", 4, 3)
    runs = [
        run_of(served("used", 4), [HIT], "a"),
        run_of(served("awaited", 6), [HIT], "b"),
        run_of(own, [MISS], "c"),
        run_of(own, [], "d"),
        run_of(own, [late], "e"),
        run_of(own, [refused], "f"),
    ]
    baseline = [run_of(own, [], task) for task in "abcdef"]
    table = ceiling_losses(runs, baseline)["seconds"]
    expected = {"saved": 4, "waiting": 2, "wrong guess": 3, "no guess": 3, "too late": 3, "not executed": 3}
    assert table[list(expected)].to_dict() == expected
    assert table["ceiling"] == sum(expected.values())
    assert table["contention"] == 0


def test_slower_actors_are_contention_and_waits_of_the_original_are_negative_savings():
    own = made_call("web_search", "x", 4, 3)
    slowed = run_of(served("used", 5, start_s=5.0), [HIT], g=5.0)
    assert ceiling_losses([slowed], [run_of(own, [])])["seconds"]["contention"] == 1
    waited = run_of(made_call("web_search", "x", 6, 3), [MISS], policy="original")
    table = ceiling_losses([waited])["seconds"]
    assert (table["saved"], table["wrong guess"], table["ceiling"]) == (-2, 5, 3)


def test_hits_at_k_count_calls_among_the_first_guesses():
    second = made_guess("web_search", "x", 0, 1, 3, rank=1, tokens=3)
    steps = flatten_runs([run_of(made_call("web_search", "x", 4, 3), [MISS, second]), run_of(None, [], "u")])
    table = hit_at_k(steps, (1, 2))
    assert table["hit_pct"].tolist() == [0, 100]
    assert table["name_pct"].tolist() == [100, 100]
    assert table["tokens"].tolist() == [3.5, 5]
    assert table["n"].tolist() == [1, 1]


def test_arguments_are_compared_where_the_tool_is_right():
    runs = [
        run_of(made_call("web_search", "x", 4, 3), [guess], str(i)) for i, guess in enumerate((HIT, MISS))
    ]
    other = run_of(made_call("calculate", "x", 4, 3), [HIT], "o")
    table = argument_hits([*runs, other])
    assert table.loc[("web_search", "q")].tolist() == [50, 2]


def test_the_delay_of_the_actor_is_from_its_end_to_its_first_call():
    runs = [run_of(served("used", 6, start_s=6.0), [HIT], policy="original"), run_of(None, [], "u")]
    delays = delay_of_actor(runs)
    assert delays.to_dict() == {("t", 1): 2.0}


def test_runs_of_chance_add_up_to_their_ceiling():
    runs = recorded_runs(20, 3)
    table = ceiling_losses(runs)["seconds"]
    assert math.isclose(table.drop("ceiling").sum(), table["ceiling"])


def test_an_execution_that_was_cancelled_ran_until_the_actor_had_made_its_call():
    wrong = made_guess("web_search", "Oru", 0.1, 0.2, 9.0).model_copy(
        update={"tool_end_s": None, "tool_s": None, "outcome": "cancelled"}
    )
    made = made_call("web_search", "Belin", 1.0, 0.5)
    step = Step(index=1, actor_start_s=0.0, actor_end_s=1.0, calls=[made], guesses=[wrong])
    run = TaskRun(task_id="t", level=1, question="?", truth="1", arm="exact", seconds=1.5, steps=[step])
    row = guess_ledger([run]).iloc[0]
    assert (row["verdict"], row["wasted_s"]) == ("useless", pytest.approx(0.8))
