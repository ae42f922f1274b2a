"""Whatever a speculator guesses and however long everything takes: lossless arms end in the baseline's conversation."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import toy_tools as toys
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tool_episodes import answer, call, run, search, turns_so_far

from speceyes_lib.tool_speculation.models import PolicyError, ScriptedPolicy
from speceyes_lib.tools.declared import Effect

# what reads, what writes what is read, what fails, and what is no call
CALLS = [
    *(search(q) for q in ("a", " a", "b")),
    search("a", page=1),
    search("a", page=2),
    call("read", path="note.txt"),
    call("read", path="../x"),
    call("note", query="one"),
    call("note", query="two"),
    call("unknown", query="three"),
    call("raises", query="x"),
    call("nothing"),
    "<tool_call>broken</tool_call>",
]
TURN = st.lists(st.sampled_from(CALLS), max_size=3).map("".join)
SECONDS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.0])
ARMS = {
    "exact": {},
    "normalised": {"strategy": "normalised"},
    "forks and look-ahead": {"strategy": "normalised", "guesses": 3, "look_ahead": 3, "guess_slots": 1},
    "look-ahead": {"look_ahead": 2, "warm_up": True, "cached_results": 1},
    "none": {"strategy": "none"},
    "original": {"policy": "original"},
    "shadow": {"policy": "shadow", "look_ahead": 1},
}


@st.composite
def episodes(draw):
    turns = draw(st.lists(TURN, min_size=1, max_size=4))
    likely = st.one_of(TURN, st.sampled_from(turns), st.just("FAILS"))
    return {
        "turns": [*turns, answer("4")],
        "turn_s": draw(st.lists(SECONDS, min_size=1, max_size=4)),
        "guesses": draw(st.lists(likely, min_size=1, max_size=8)),
        "guess_s": draw(st.lists(SECONDS, min_size=1, max_size=3)),
        "tool_s": draw(st.lists(SECONDS, min_size=1, max_size=5)),
        "lifetime_s": draw(st.sampled_from([None, 1.0])),
    }


def one_run(drawn, arm):
    def actor_turn(messages, toolbox, prefix):
        return drawn["turns"][min(turns_so_far(messages), len(drawn["turns"]) - 1)]

    def guess(messages, toolbox, prefix):
        text = drawn["guesses"][len(messages) % len(drawn["guesses"])]
        if text == "FAILS":
            raise PolicyError("down")
        return text

    def tool_s(called, workspace):  # the same for every arm: a function of the call alone
        return (
            0.0 if called.name == "raises" else drawn["tool_s"][len(called.canonical) % len(drawn["tool_s"])]
        )

    def pace(key):
        return lambda messages, index: drawn[key][(turns_so_far(messages) + index) % len(drawn[key])] / 4

    tools = [
        replace(t, wait_s=tool_s, lifetime_s=drawn["lifetime_s"] if t.effect == Effect.repeatable else None)
        for t in (toys.SEARCH, toys.READ, toys.NOTE, toys.UNKNOWN, toys.RAISES)
    ]
    with tempfile.TemporaryDirectory() as folder:
        result = run(
            ScriptedPolicy(actor_turn, pace("turn_s")),
            ScriptedPolicy(guess, pace("guess_s"), "spec"),
            tools,
            Path(folder),
            **arm,
        )
        return result, {p.name: p.read_text("utf-8") for p in Path(folder).iterdir()}


@pytest.mark.parametrize("arm", ARMS)
@given(episodes())
@example(
    {  # a note is written between two readings of it, and each reading is guessed before
        "turns": [
            *(call("note", query="one"), call("read", path="note.txt")),
            *(call("note", query="two"), call("read", path="note.txt"), answer("4")),
        ],
        "turn_s": [1.0],
        "guesses": [call("read", path="note.txt")],
        "guess_s": [0.1],
        "tool_s": [0.5],
        "lifetime_s": None,
    }
)
@settings(deadline=None, max_examples=20)
def test_messages_answers_and_files_are_those_of_the_baseline(arm, drawn):
    baseline, files = one_run(drawn, {"policy": "off"})
    result, left = one_run(drawn, ARMS[arm])
    assert result.settings["lossless"] is True
    assert json.dumps(result.messages) == json.dumps(baseline.messages)
    assert (result.answer, result.error, left) == (baseline.answer, baseline.error, files)
    guesses = [g for s in result.steps for g in s.guesses]
    failed = any(
        g.outcome == "failed" for g in guesses
    )  # one that fails while it is awaited is executed again
    if ARMS[arm].get("policy") is None and not failed:
        assert result.seconds <= baseline.seconds + 1e-6
    assert all((g.refused is not None) == (g.outcome == "refused") for g in guesses)
    assert not any(g.name in ("note", "unknown") and g.tool_start_s is not None for g in guesses)
    served = [c for s in result.steps for c in s.calls if c.source != "executed"]
    assert all(c.error is None for c in served)
    if ARMS[arm].get("strategy") == "none" or ARMS[arm].get("policy") == "shadow":
        assert served == []
