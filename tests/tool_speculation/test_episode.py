from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import toy_tools as toys
from tool_episodes import answer, call, episode, model, run, search, slow
from virtual_time import run_virtually

from speceyes_lib.tool_speculation.models import PolicyError, ScriptedPolicy, Token
from speceyes_lib.tool_speculation.records import TaskRun
from speceyes_lib.tools.declared import SAFE, Effect

THOUGHT = "I look for the price of oil. "
TURNS = [THOUGHT + search("oil"), answer("4")]


def seconds(value):
    return pytest.approx(value, abs=1e-6)


def the_call(result):
    return result.steps[0].calls[0]


def guess_of(result, index=0, step=0):
    return result.steps[step].guesses[index]


# ------------------------------------------------------------------------------------ hits and misses
def test_without_speculation_a_step_takes_the_thought_and_the_tool():
    result = run(model(TURNS, 1.0), policy="off")
    assert result.seconds == seconds(1.0 + 2.0 + 1.0)
    assert (result.answer, result.error) == ("4", None)
    assert the_call(result).source == "executed"
    assert (the_call(result).start_s, the_call(result).end_s) == (seconds(1.0), seconds(3.0))
    assert [m["role"] for m in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.messages[2] == {"role": "tool", "name": "search", "content": "page 1 on oil"}
    assert result.steps[0].text == THOUGHT.strip()
    assert result.models == {"actor": "actor", "speculator": None}


@pytest.mark.parametrize(
    ("tool_s", "source", "total"),
    [(0.5, "used", 1.0 + 1.0), (0.8, "used", 2.0), (3.0, "awaited", 0.1 + 3.0 + 1.0)],
)
def test_a_guess_that_matches_serves_at_once_or_when_it_has_ended(tool_s, source, total):
    result = run(model(TURNS), model(TURNS[:1], 0.1, "spec"), [slow(seconds=tool_s)])
    made = the_call(result)
    assert (made.source, made.guess, made.tool_s) == (source, 0, seconds(tool_s))
    assert result.seconds == seconds(total)
    assert guess_of(result).outcome == source
    assert guess_of(result).tool_start_s == seconds(0.1)
    assert made.result == "page 1 on oil"


def test_a_guess_starts_when_its_arguments_are_complete_and_not_when_the_turn_ends():
    talker = [search("oil") + " and then I would go on and on about it"]
    result = run(model(TURNS, 10.0), model(talker, 4.0, "spec"))
    assert guess_of(result).tool_start_s == guess_of(result).end_s
    assert guess_of(result).end_s < 4.0
    assert result.steps[0].speculator_s == seconds(4.0)


def test_a_miss_costs_nothing_and_cancels_speculator_and_tools_at_once():
    speculator = model([search("gas") + " " + "and more " * 50 + search("coal")], 5.0, "spec")
    result = run(model(TURNS), speculator, [slow(seconds=9.0)])
    assert result.seconds == seconds(1.0 + 9.0 + 1.0)
    assert the_call(result).source == "executed"
    assert the_call(result).start_s == seconds(1.0)
    assert guess_of(result).outcome == "cancelled"
    assert guess_of(result).tool_end_s is None
    assert result.steps[0].speculator_s == seconds(1.0)
    assert len(result.steps[0].guesses) == 1


def test_a_wrong_guess_that_has_ended_is_unused():
    result = run(model(TURNS), model([search("gas")], 0.1, "spec"), [slow(seconds=0.5)])
    assert guess_of(result).outcome == "unused"
    assert guess_of(result).tool_s == seconds(0.5)


def test_a_slow_speculator_delays_nothing():
    result = run(model(TURNS), model([search("oil")], 100.0, "spec"))
    assert result.seconds == seconds(4.0)
    assert result.steps[0].guesses == []


def test_when_the_actor_answers_everything_else_is_cancelled():
    result = run(model([answer("4")]), model([search("oil")], 0.1, "spec"), [slow(seconds=50)])
    assert result.seconds == seconds(1.0)
    assert guess_of(result).outcome == "cancelled"


def test_own_calls_need_no_slot_and_queued_guesses_are_dropped():
    guesses = [search("a") + search("b") + search("oil")]
    result = run(model(TURNS), model(guesses, 0.1, "spec"), [slow(seconds=30.0)], guess_slots=2)
    assert [g.outcome for g in result.steps[0].guesses] == ["cancelled"] * 3
    assert [g.tool_start_s is None for g in result.steps[0].guesses] == [False, False, True]
    assert the_call(result).source == "executed"
    assert result.seconds == seconds(1.0 + 30.0 + 1.0)


def test_several_calls_of_a_turn_are_all_matched():
    turns = [search("oil") + search("gas"), answer("4")]
    result = run(model(turns), model([search("gas") + search("oil")], 0.1, "spec"), [slow(seconds=0.5)])
    assert [(c.arguments["query"], c.source, c.guess) for c in result.steps[0].calls] == [
        ("oil", "used", 1),
        ("gas", "used", 0),
    ]
    assert result.seconds == seconds(2.0)


# ---------------------------------------------------------------------------------------- strategies
@pytest.mark.parametrize(
    ("strategy", "guess", "result", "source"),
    [
        ("exact", search("oil price"), "page 1 on oil price", "used"),
        ("exact", search("oil price", page=1), "page 1 on oil price", "executed"),
        ("normalised", search("oil price", page=1), "page 1 on oil price", "used"),
        ("normalised", search("oil  price"), "page 1 on oil price", "executed"),
        ("jaccard", search("the price of oil"), "page 1 on the price of oil", "used"),
        ("jaccard", search("gas"), "page 1 on oil price", "executed"),
        ("tool_name_only", search("gas"), "page 1 on gas", "used"),
        ("tool_name_only", call("look", query="oil price"), "page 1 on oil price", "executed"),
        ("none", search("oil price"), "page 1 on oil price", "executed"),
    ],
)
def test_what_the_strategies_serve(strategy, guess, result, source):
    turns = [THOUGHT + search("oil price"), answer("4")]
    tools = [slow(seconds=0.5), slow(toys.LOOK, 0.5)]
    made = the_call(run(model(turns), model([guess], 0.1, "spec"), tools, strategy=strategy))
    assert (made.result, made.source) == (result, source)


def test_the_best_of_several_matches_serves():
    turns = [search("the price of oil today"), answer("4")]
    guesses = [search("the price of oil") + search("price oil today")]
    result = run(
        model(turns),
        model(guesses, 0.1, "spec"),
        [slow(seconds=0.5)],
        strategy="jaccard",
        jaccard_threshold=0.5,
    )
    assert the_call(result).guess == 1


def test_lossy_strategies_do_not_serve_results_of_earlier_steps():
    turns = [search("a"), search("b"), answer("4")]
    result = run(
        model(turns),
        model([search("c"), "nothing", "nothing"], 0.1, "spec"),
        [slow(seconds=0.5)],
        strategy="tool_name_only",
    )
    assert [s.calls[0].source for s in result.steps[:2]] == ["used", "executed"]


# ------------------------------------------------------------------------------- steps and the cache
def test_a_wrong_guess_serves_a_later_step():
    turns = [search("oil"), search("gas"), answer("4")]
    result = run(model(turns), model([search("gas"), "no idea", "no idea"], 0.1, "spec"), [slow(seconds=0.5)])
    made = result.steps[1].calls[0]
    assert (made.source, made.guess) == ("cached", (1, 0))
    assert guess_of(result).outcome == "used"
    assert result.seconds == seconds(1.0 + 0.5 + 1.0 + 1.0)


def test_the_cache_keeps_as_many_results_as_it_may():
    turns = [search("oil"), search("a"), answer("4")]
    guesses = [search("a") + search("b"), "no idea", "no idea"]
    kept = run(model(turns), model(guesses, 0.1, "spec"), [slow(seconds=0.2)], cached_results=2)
    dropped = run(model(turns), model(guesses, 0.1, "spec"), [slow(seconds=0.2)], cached_results=1)
    assert [r.steps[1].calls[0].source for r in (kept, dropped)] == ["cached", "executed"]


def test_a_result_that_is_older_than_its_lifetime_is_not_served():
    turns = [search("oil"), search("gas"), answer("4")]
    guesses = [search("gas"), "no idea", "no idea"]
    for lifetime_s, source in ((3.0, "cached"), (2.0, "executed")):
        tools = [slow(seconds=0.5, lifetime_s=lifetime_s)]
        result = run(model(turns), model(guesses, 0.1, "spec"), tools)
        assert result.steps[1].calls[0].source == source


@pytest.mark.parametrize(
    ("writer", "reader", "source"),
    [
        (toys.NOTE, toys.SEARCH, "executed"),
        (toys.UNKNOWN, toys.SEARCH, "executed"),
        (replace(toys.NOTE, touches=frozenset({"read"})), toys.SEARCH, "cached"),
        (replace(toys.NOTE, touches=frozenset({"search"})), toys.SEARCH, "executed"),
        (toys.NOTE, replace(toys.SEARCH, effect=Effect.pure), "cached"),
    ],
)
def test_what_is_written_makes_earlier_results_invalid(tmp_path, writer, reader, source):
    turns = [call(writer.name, query="x"), search("oil"), answer("4")]
    guesses = [search("oil"), "no idea", "no idea"]
    result = run(model(turns), model(guesses, 0.1, "spec"), [slow(reader, 0.5), writer], tmp_path)
    assert result.steps[1].calls[0].source == source


def test_a_guess_in_flight_while_something_is_written_is_not_served(tmp_path):
    turns = [call("note", query="x") + search("oil"), answer("4")]
    result = run(model(turns), model([search("oil")], 0.1, "spec"), [slow(), toys.NOTE], tmp_path)
    assert [c.source for c in result.steps[0].calls] == ["executed", "executed"]
    assert guess_of(result).outcome == "cancelled"


def test_look_ahead_has_the_next_results_ready():
    turns = [search("a"), search("b"), search("c"), answer("4")]
    actor, guesser, tools = model(turns, [5.0, 1.0, 1.0, 1.0]), model(turns, 0.1, "spec"), [slow(seconds=2.0)]
    none, one, two = (run(actor, guesser, tools, look_ahead=n) for n in (0, 1, 2))
    assert none.seconds == seconds(5 + (0.1 + 2) + (0.1 + 2) + 1)
    # the second result is there at 4.2; the third is guessed when the second step begins, or at once
    assert one.seconds == seconds(5 + 0.1 + 0.1 + 2 + 1)
    assert two.seconds == seconds(5 + 1 + 1 + 1)
    assert [(c.source, c.guess) for s in two.steps for c in s.calls] == [
        ("used", 0),
        ("used", (1, 1)),
        ("used", (1, 2)),
    ]
    assert [g.ahead for g in two.steps[0].guesses] == [0, 1, 2]
    assert none.messages == one.messages == two.messages


def test_look_ahead_from_a_wrong_guess_ends_with_it():
    turns = [THOUGHT + search("a"), search("b"), answer("4")]
    wrong = [search("x"), search("y"), search("z"), search("w")]
    result = run(model(turns), model(wrong, 0.01, "spec"), [slow(seconds=0.4)], look_ahead=3)
    assert [(g.arguments["query"], g.ahead, g.outcome) for g in result.steps[0].guesses] == [
        ("x", 0, "unused"),
        ("y", 1, "unused"),
        ("z", 2, "cancelled"),
    ]
    assert result.seconds == seconds(1.0 + 0.4 + 1.0 + 0.4 + 1.0)


def test_the_same_call_is_executed_once():
    turns = [search("a"), search("b"), answer("4")]
    result = run(model(turns, 3.0), model(turns, 0.1, "spec"), [slow(seconds=1.0)], look_ahead=1)
    again = guess_of(result, 0, step=1)
    assert again.same_as == (1, 1)
    assert again.tool_start_s is None
    assert again.tool_s == seconds(1.0)
    assert result.steps[1].calls[0].guess == (1, 1)


# ---------------------------------------------------------------------------------- gate, fork, warm-up
SURE, UNSURE = (-0.01, -6.0, -7.0), (-0.6, -0.9, -5.0)


def scored(query_row, word="oil", other="gas"):
    pieces = ['<tool_call>{"name": "', "search", '", "arguments": {"query": "', word, '"}}</tool_call>']
    rows = [SURE, SURE, SURE, query_row, SURE]
    return [Token(p, row, (p, other, "!")) for p, row in zip(pieces, rows, strict=True)]


def test_the_gate_lets_sure_guesses_through_only():
    for row, outcome in ((SURE, "used"), (UNSURE, "refused")):
        result = run(model(TURNS), model([scored(row)], 0.1, "spec"), [slow(seconds=0.5)], threshold=2.0)
        assert guess_of(result).outcome == outcome
        assert guess_of(result).scores["weakest_argument"] == "query"
        assert (guess_of(result).refused is None) == (outcome == "used")
    blind = run(model(TURNS), model([search("oil")], 0.1, "spec"), threshold=2.0)
    assert "log-probabilities" in guess_of(blind).refused


def test_a_fork_is_a_second_guess_with_the_runner_up():
    speculator = model([scored(UNSURE, "gas", "oil")], 0.1, "spec", {"oil": '"}}</tool_call>'})
    one = run(model(TURNS), speculator, [slow(seconds=0.5)])
    two = run(model(TURNS), speculator, [slow(seconds=0.5)], guesses=2)
    assert [(g.arguments["query"], g.rank, g.outcome) for g in two.steps[0].guesses] == [
        ("gas", 0, "unused"),
        ("oil", 1, "used"),
    ]
    assert [g.tokens for g in two.steps[0].guesses] == [5, 4]
    assert (one.seconds, two.seconds) == (seconds(2.5), seconds(2.0))


def test_tools_warm_up_from_the_name_alone_once_each(tmp_path):
    warmed = []

    def warm_up(workspace, arguments):
        warmed.append(arguments and arguments.query)

    tools = [slow(replace(toys.NOTE, warm_up=warm_up)), slow(replace(toys.SEARCH, warm_up=warm_up))]
    turns = [THOUGHT + call("note", query="x"), THOUGHT + call("note", query="y"), answer("4")]
    result = run(model(turns), model([call("note", query="z")], 0.1, "spec"), tools, tmp_path, warm_up=True)
    assert warmed == [None, "z"]  # its name is known first; then the call, which is refused
    assert result.steps[0].warmed == ["note", "note"]
    cold = run(model(turns), model([call("note", query="z")], 0.1, "spec"), tools, tmp_path)
    assert cold.messages == result.messages
    assert len(warmed) == 2


def test_the_attachment_is_prepared_at_the_start_and_faults_of_it_are_no_result(tmp_path):
    (tmp_path / "a.txt").write_text("text", "utf-8")
    prepared = []

    def warm_up(workspace, arguments):
        prepared.append(arguments.path)
        raise RuntimeError("broken")

    tools = [replace(toys.READ, warm_up=warm_up)]
    result = run(model([answer("4")]), None, tools, tmp_path, "a.txt", policy="concurrent", warm_up=True)
    assert prepared == ["a.txt"]
    assert result.error is None


# ------------------------------------------------------------------------------------- other policies
def test_the_original_waits_for_speculator_and_tool_even_if_they_are_wrong():
    wrong = run(model(TURNS), model([search("gas"), "nothing"], 4.0, "spec"), policy="original")
    # step 1: max(1, 4 + 2) + 2; step 2: max(1, 4)
    assert wrong.seconds == seconds(4 + 2 + 2 + 4)
    assert the_call(wrong).start_s - wrong.steps[0].actor_end_s == seconds(5.0)
    right = run(model(TURNS), model([search("oil"), "nothing"], 4.0, "spec"), policy="original")
    assert right.seconds == seconds(4 + 2 + 4)


def test_the_original_takes_the_first_call_of_this_step_only():
    turns = [search("oil"), search("gas"), answer("4")]
    guesses = [search("gas") + search("oil"), "nothing", "nothing"]
    result = run(model(turns), model(guesses, 0.1, "spec"), [slow(seconds=0.5)], policy="original")
    assert [c.source for s in result.steps for c in s.calls] == ["executed", "executed"]
    assert len(result.steps[0].guesses) == 1
    assert guess_of(result).outcome == "unused"


def test_none_predicts_and_serves_nothing_and_is_slower_in_the_original_policy():
    arms = {
        policy: run(
            model(TURNS), model([search("oil"), "nothing"], 4.0, "spec"), policy=policy, strategy="none"
        )
        for policy in ("concurrent", "original")
    }
    assert arms["concurrent"].seconds == seconds(4.0)
    assert arms["original"].seconds == seconds(4 + 2 + 2 + 4)


def test_a_shadow_pass_times_every_guess_and_serves_none():
    turns = [search("a"), search("b"), answer("4")]
    guesses = [search("a") + search("x"), search("y"), "nothing"]
    result = run(model(turns), model(guesses, 0.1, "spec"), [slow(seconds=2.0)], policy="shadow")
    assert [c.source for s in result.steps for c in s.calls] == ["executed", "executed"]
    assert [g.tool_s for s in result.steps for g in s.guesses] == [seconds(2.0)] * 3
    assert {g.outcome for s in result.steps for g in s.guesses} == {"unused"}
    assert [s.actor_end_s - s.actor_start_s for s in result.steps] == [seconds(1.0)] * 3
    baseline = run(model(turns), policy="off")
    assert result.messages == baseline.messages


# --------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (PolicyError("spec: cannot be reached"), "cannot be reached"),
        (RuntimeError("boom"), "RuntimeError: boom"),
        ("la " * 90, "tokens without an end"),
    ],
)
@pytest.mark.parametrize("policy", ["concurrent", "original", "shadow"])
def test_a_speculator_that_fails_is_recorded_and_costs_its_guesses_only(turn, words, policy):
    result = run(model(TURNS), model([turn], 0.5, "spec"), policy=policy, guess_tokens=50)
    assert result.messages == run(model(TURNS), policy="off").messages
    assert words in result.steps[0].speculator_error


@pytest.mark.parametrize(
    "guess",
    [
        "<tool_call>garbage</tool_call>",
        '<tool_call>{"name": "search"',
        call("nonsense", query="oil"),
        call("search", wrong=1),
        call("search", query=["oil"]),
        call("note", query="oil"),
        call("unknown", query="oil"),
        call("metered", query="oil"),
        call("outside", query="oil"),
        call("read", path="../../etc/passwd"),
        call("read", path="https://example.org/"),
    ],
)
def test_guesses_that_may_not_run_are_refused_and_recorded(tmp_path, guess):
    tools = [slow(), toys.NOTE, toys.UNKNOWN, toys.METERED, toys.OUTSIDE, toys.READ]
    result = run(model(TURNS), model([guess], 0.1, "spec"), tools, tmp_path)
    assert [g.outcome for g in result.steps[0].guesses] == ["refused"]
    assert guess_of(result).refused
    assert guess_of(result).tool_start_s is None
    assert list(tmp_path.iterdir()) == []
    assert result.messages == run(model(TURNS), policy="off").messages


def test_more_may_be_allowed_by_the_user_and_is_then_not_called_lossless():
    turns = [THOUGHT + call("metered", query="oil"), answer("4")]
    ran = run(model(turns), model(turns, 0.1, "spec"), [toys.METERED], effects=SAFE | {Effect.metered})
    assert the_call(ran).source == "used"
    assert ran.settings["lossless"] is False


@pytest.mark.parametrize("tool", [toys.RAISES, replace(slow(toys.LOOK, 50.0), name="raises", timeout_s=0.5)])
def test_a_guess_that_failed_or_was_stopped_is_never_served(tool):
    turns = [THOUGHT + call("raises", query="oil"), answer("4")]
    result = run(model(turns), model(turns, 0.1, "spec"), [tool])
    assert guess_of(result).outcome == "failed"
    assert guess_of(result).result_error
    assert the_call(result).source == "executed"
    assert the_call(result).result.startswith("Error: ")
    assert result.messages == run(model(turns), None, [tool], policy="off").messages


def test_a_guess_that_fails_while_it_is_awaited_is_executed_anew():
    turns = [call("raises", query="oil"), answer("4")]
    result = run(model(turns, 1.0), model(turns, 0.1, "spec"), [slow(toys.RAISES, 3.0)])
    assert the_call(result).source == "executed"
    assert result.seconds == seconds(3.1 + 3.0 + 1.0)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("<tool_call>garbage</tool_call>", "JSON"),
        (call("nonsense"), "no tool 'nonsense'"),
        (call("search"), "query"),
        ('<tool_call>{"name": "search"', "does not end"),
    ],
)
def test_the_actor_reads_why_its_call_is_none(turn, words):
    result = run(model([turn, answer("4")]), policy="off")
    assert words in the_call(result).result
    assert the_call(result).error in result.messages[2]["content"]
    assert result.answer == "4"


@pytest.mark.parametrize("fault", [PolicyError("actor: refused"), ValueError("odd")])
def test_an_actor_that_fails_ends_the_task_with_the_reason(fault):
    result = run(model([TURNS[0], fault]), model([search("oil")], 0.1, "spec"))
    assert result.answer is None
    assert str(fault) in result.error
    assert len(result.steps) == 2


def test_thoughts_without_a_call_go_on_and_the_limit_of_steps_asks_for_an_answer():
    offered = []

    def turn(messages, toolbox, prefix):
        offered.append(len(toolbox.tools))
        return "hm" if toolbox.tools else answer("5")

    result = run(ScriptedPolicy(turn), None, policy="off", max_steps=3)
    assert offered == [1, 1, 1, 0]
    assert result.answer == "5"
    assert len(result.steps) == 4
    silent = run(ScriptedPolicy(lambda *_: "hm"), None, policy="off", max_steps=2)
    assert silent.answer is None
    assert "2 steps" in silent.error


def test_an_actor_that_is_cancelled_leaves_nothing_running():
    async def work():
        tools = [slow(seconds=100.0)]
        tasks = asyncio.all_tasks()
        going = asyncio.create_task(
            episode(model(TURNS, 50.0), model([search("oil")], 1.0, "spec"), tools).run()
        )
        await asyncio.sleep(10)
        assert len(asyncio.all_tasks()) > len(tasks) + 1
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        return asyncio.all_tasks() - tasks

    assert run_virtually(work()) == set()


def test_a_guess_that_is_cancelled_midway_leaves_no_process_and_writes_nothing(tmp_path):
    """On the real clock: the actor makes its call once the guessed tool says that it runs."""

    class WaitingActor(ScriptedPolicy):
        async def stream(self, messages, toolbox, workspace, prefix=()):
            while not (tmp_path / "pids").exists():
                await asyncio.sleep(0.01)  # looks again; what counts is the file
            async for event in super().stream(messages, toolbox, workspace, prefix):
                yield event

    actor = WaitingActor(lambda messages, *_: TURNS[len(messages) > 1])
    guesser = model([call("hangs", path="late"), "nothing"], 0.0, "spec")
    result = asyncio.run(episode(actor, guesser, [toys.SEARCH, toys.HANGS], tmp_path).run())
    assert guess_of(result).outcome == "cancelled"
    assert result.answer == "4"
    worker, _ = (tmp_path / "pids").read_text("utf-8").split()
    assert not Path(f"/proc/{worker}").exists()
    assert not (tmp_path / "late").exists()


def test_a_thread_that_hangs_delays_nothing():
    ended = threading.Event()
    hangs = replace(toys.LOOK, run=lambda a, w: str(ended.wait(600)))
    guesser = ScriptedPolicy(lambda *_: call("look", query="x"))
    actor = ScriptedPolicy(lambda messages, *_: TURNS[len(messages) > 1], 0.001)
    try:
        result = asyncio.run(episode(actor, guesser, [toys.SEARCH, hangs]).run())
    finally:
        ended.set()
    assert result.answer == "4"
    assert {g.outcome for s in result.steps for g in s.guesses} == {"cancelled"}


def test_a_run_can_be_stored_and_read_back():
    result = run(model(TURNS), model([scored(SURE)], 0.1, "spec"), look_ahead=1)
    assert TaskRun.model_validate_json(result.model_dump_json()) == result
    json.dumps(result.settings)
