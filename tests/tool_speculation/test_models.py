from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import toy_tools as toys
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.tool_speculation.models import (
    CallComplete,
    CallReader,
    CallStarted,
    Finished,
    Malformed,
    ScriptedPolicy,
    Token,
    call_text,
    final_answer,
    parse_calls,
    scripted_tokens,
    without_calls,
)
from speceyes_lib.tools.declared import Toolbox, Workspace

SEARCH = '<tool_call>\n{"name": "search", "arguments": {"query": "oil"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("no call", []),
        (f"so I search {SEARCH}", [("search", '{"query": "oil"}')]),
        (f"{SEARCH}{SEARCH}", [("search", '{"query": "oil"}')] * 2),
        ('<tool_call>{"name": "look", "arguments": ""}</tool_call>', [("look", "")]),
        ('<tool_call>{"name": "look"}</tool_call>', [("look", "{}")]),
        ('<tool_call>{"name": "look", "arguments": "{\\"a\\": 1}"}</tool_call>', [("look", '{"a": 1}')]),
        ('<tool_call>{"name": "look", "arguments": {"a": 1}</tool_call>', ["bad"]),  # a brace is lost
        ('<tool_call>{"name": "look", "arguments": {"a": 1}}', ["bad"]),  # no end mark
        ('<tool_call>{"name": "look", "arguments": [1]}</tool_call>', ["bad"]),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', ["bad"]),
        ("<tool_call></tool_call>", ["bad"]),
        (f"<tool_call>{'[' * 30000}</tool_call>", ["bad"]),
    ],
)
def test_calls_are_read_and_never_repaired(text, calls):
    assert [c if isinstance(c, tuple) else "bad" for c in parse_calls(text)] == calls


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so FINAL ANSWER: 42 ", "42"),
        ("final answer: 42", "42"),
        ("Final  Answer : 1. FINAL ANSWER:\n2", "2"),
        ("the answer is 42", None),
        ("FINAL ANSWER:", ""),
    ],
)
def test_the_answer_is_what_follows_the_last_mark_in_any_case(text, answer):
    assert final_answer(text) == answer


def test_a_turn_without_its_calls():
    assert without_calls(f"I search. {SEARCH} <tool_call>{{") == "I search."


TEXTS = st.lists(
    st.sampled_from([*'<>/{}":, a', "<tool_call>", "</tool_call>", SEARCH, '{"name": "look"}', "oil"]),
    max_size=12,
).map("".join)


@given(TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_reading_token_by_token_finds_the_calls_of_the_whole_text(text, random):
    cuts = sorted(random.sample(range(len(text) + 1), min(len(text), random.randint(0, 9))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    reader, events = CallReader(), []
    for piece in pieces:
        events += reader.feed(Token(piece))
    complete = [e for e in events if isinstance(e, CallComplete)]
    ended = text.count("<tool_call>") and [
        c for c in parse_calls(text) if not (isinstance(c, Malformed) and "end" in c.reason)
    ]
    assert len(complete) == len(ended or [])
    assert reader.text == text
    for event in complete:
        joined = "".join(t.text for t in event.tokens)
        assert joined[event.offset :].startswith(event.text)
        assert [t.text for t in reader.tokens[event.first :]][: len(event.tokens)] == [
            t.text for t in event.tokens
        ]


@given(TEXTS)
@settings(deadline=None, max_examples=100)
def test_scripted_tokens_join_to_their_text(text):
    assert "".join(t.text for t in scripted_tokens(text)) == text


@given(
    st.text(max_size=9), st.dictionaries(st.text(max_size=5), st.text(max_size=5).map(lambda t: t.strip("<")))
)
@settings(deadline=None, max_examples=100)
def test_a_call_in_hermes_form_is_read_back(name, arguments):
    (call,) = parse_calls(call_text(name, json.dumps(arguments)))
    assert (call[0], json.loads(call[1])) == (name, arguments)


def test_a_scripted_turn_is_a_stream_of_events():
    async def events():
        policy = ScriptedPolicy(lambda messages, toolbox, prefix: f"I search {SEARCH}")
        return [e async for e in policy.stream([], Toolbox([toys.SEARCH]), Workspace(Path()))]

    stream = asyncio.run(events())
    assert [type(e).__name__ for e in stream if not isinstance(e, Token)] == [
        "CallStarted",
        "CallComplete",
        "Finished",
    ]
    assert CallStarted("search") in stream
    assert stream[-1] == Finished(f"I search {SEARCH}")
    (complete,) = [e for e in stream if isinstance(e, CallComplete)]
    assert json.loads(complete.text) == {"name": "search", "arguments": {"query": "oil"}}


def test_what_the_runner_up_is():
    token = Token("a", (-0.1, -2.0), ("a", "b"))
    assert token.logprob == -0.1
    assert token.runner_up().text == "b"
    assert token.runner_up().logprob == -2.0
    assert Token("a").runner_up() is None
    assert Token("a", (-0.1,), ("a",)).runner_up() is None
