from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.gating.separability import token_separability
from speceyes_lib.tool_speculation.gate import (
    Gate,
    call_scores,
    fork_prefixes,
    least_probability,
    value_spans,
    value_tokens,
)
from speceyes_lib.tool_speculation.models import CallComplete, CallReader, Token

SURE, UNSURE, WAVERING = (-0.01, -6.0, -7.0), (-0.6, -0.9, -5.0), (-0.3, -1.6, -5.0)


def token(text, row=SURE, runner_up="?"):
    return Token(text, row, (text, runner_up, "!"))


def completed(tokens):
    reader = CallReader()
    (event,) = [e for t in tokens for e in reader.feed(t) if isinstance(e, CallComplete)]
    return event, reader.tokens


CALL = [
    token("I think "),
    token("<tool_call>", UNSURE),
    token('{"name": "', UNSURE),
    token("search"),
    token('", "arguments": {"', UNSURE),
    token("query", UNSURE),
    token('": "', UNSURE),
    token("oil ", WAVERING, "gas "),
    token("price", UNSURE, "mass"),
    token('", "page": ', UNSURE),
    token("2", SURE, "3"),
    token("}}", UNSURE),
    token("</tool_call>", UNSURE),
]


def test_only_the_name_and_the_values_count():
    call, _ = completed(CALL)
    assert [(call.tokens[t.index].text, t.owner) for t in value_tokens(call)] == [
        ("search", "name"),
        ("oil ", "query"),
        ("price", "query"),
        ("2", "page"),
    ]


def test_the_scores_are_those_of_separability_over_these_tokens():
    call, _ = completed(CALL)
    each = token_separability([SURE, WAVERING, UNSURE, SURE], 3)
    scores = call_scores(call)
    assert scores["separability_min"] == pytest.approx(each.min())
    assert scores["separability_mean"] == pytest.approx(each.mean())
    assert scores["logprob_sum"] == pytest.approx(-0.01 - 0.3 - 0.6 - 0.01)
    assert scores["weakest_argument"] == "query"


def test_forks_begin_at_the_weakest_argument_tokens():
    call, turn = completed(CALL)
    first, second, third = fork_prefixes(call, turn, 5)
    assert [t.text for t in first][-3:] == ['": "', "oil ", "mass"]
    assert [t.text for t in second][-2:] == ['": "', "gas "]
    assert third[-1].text == "3"
    assert len(fork_prefixes(call, turn, 1)) == 1
    assert "".join(t.text for t in first).startswith("I think <tool_call>")


def test_a_fork_is_the_less_sure_the_surer_the_greedy_guess_was():
    def fork_score(row):
        call, turn = completed([*CALL[:8], token("price", row, "mass"), *CALL[9:]])
        (prefix,) = fork_prefixes(call, turn, 1)
        forked, _ = completed([*prefix, *CALL[9:]])
        return call_scores(forked)["separability_min"], call_scores(call)["separability_min"]

    close, clear = fork_score(UNSURE), fork_score((-0.45, -1.1, -5.0))
    assert close[0] < 0 < close[1]
    assert clear[0] < close[0]
    assert clear[1] > close[1]


def test_without_log_probabilities_there_is_no_score_and_no_fork():
    call, turn = completed([Token(t.text) for t in CALL])
    assert call_scores(call) == {}
    assert fork_prefixes(call, turn, 2) == []
    assert call_scores(CallComplete('{"name": "look", "arguments": {}}')) == {}


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ('{"name": "a", "arguments": {"q": "x y"}}', [("name", "a"), ("q", "x y")]),
        ('{"arguments": {"q": ""}, "name": "a"}', [("q", ""), ("name", "a")]),
        (
            '{"name": "a", "arguments": {"box": [1, -2.5], "deep": {"name": true, "l": ["z"]}, "n": null}}',
            [
                *[("name", "a"), ("box", "1"), ("box", "-2.5"), ("deep", "true"), ("deep", "z")],
                ("n", "null"),
            ],
        ),
        ('{"name": "a", "other": {"x": "b"}, "arguments": {"q\\"": "say \\"hi\\""}}', None),
        ("}}]]", []),
        ('"', []),
        ("", []),
    ],
)
def test_where_the_values_are(text, spans):
    found = [(owner, text[a:b]) for owner, a, b in value_spans(text)]
    if spans is None:
        assert [value for _, value in found] == ["a", 'say \\"hi\\"']
    else:
        assert found == spans


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def leaves(value):
    if isinstance(value, dict | list):
        return [leaf for v in (value.values() if isinstance(value, dict) else value) for leaf in leaves(v)]
    return [value]


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3))
@settings(deadline=None, max_examples=200)
def test_the_spans_are_the_values_of_any_arguments(arguments):
    text = json.dumps({"name": "tool", "arguments": arguments})
    name, *spans = value_spans(text)
    assert text[name[1] : name[2]] == "tool"
    expected = [json.dumps(leaf) for leaf in leaves(arguments)]
    assert [text[a:b] for _, a, b in spans] == [v[1:-1] if v[0] == '"' else v for v in expected]
    if not any(isinstance(v, dict | list) for v in arguments.values()):
        assert [owner for owner, *_ in spans] == [json.dumps(k)[1:-1] for k in arguments]


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_text_has_spans_within_it(text):
    assert all(0 <= a <= b <= len(text) for _, a, b in value_spans(text))


def test_the_gate():
    gate = Gate(threshold=2.0, thresholds={"look": 5.0})
    assert gate.refusal("search", {"separability_min": 2.0}) is None
    assert "below 2" in gate.refusal("search", {"separability_min": 1.99})
    assert "below 5" in gate.refusal("look", {"separability_min": 4.0})
    assert "log-probabilities" in gate.refusal("search", {})
    assert Gate().refusal("search", {}) is None


@pytest.mark.parametrize(
    ("saving", "cost", "price", "least"),
    [(1.0, 1.0, 1.0, 0.5), (3.0, 1.0, 1.0, 0.25), (1.0, 1.0, 0.0, 0.0), (0.0, 1.0, 1.0, 1.0), (0, 0, 1, 0)],
)
def test_from_which_probability_a_guess_pays(saving, cost, price, least):
    assert least_probability(saving, cost, price) == pytest.approx(least)
    if 0 < least < 1:
        assert least * saving == pytest.approx((1 - least) * cost * price)
