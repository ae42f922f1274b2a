from __future__ import annotations

import pytest
import toy_tools as toys
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import ConfigError
from speceyes_lib.tool_speculation.matching import (
    STRATEGIES,
    exact_arguments,
    jaccard_arguments,
    strategy_of,
)
from speceyes_lib.tools.declared import Toolbox

BOX = Toolbox(toys.ALL)


@pytest.mark.parametrize(
    ("guess", "wanted", "same"),
    [
        ({"query": " oil "}, {"query": "oil"}, True),
        ({"query": "Oil"}, {"query": "oil"}, False),
        ({"query": "oil"}, {"query": "oil", "page": 1}, False),  # defaults are not filled in
        ({"x": {"a": 1, "b": [2]}}, {"x": {"b": [2], "a": 1}}, True),
        ({"x": [1, 2]}, {"x": [2, 1]}, False),
        ({"x": 1}, {"x": 1.0}, True),
        ({"x": "1"}, {"x": 1}, False),
        ({"x": None}, {"x": None}, True),
        ({}, {}, True),
    ],
)
def test_exact(guess, wanted, same):
    assert exact_arguments(guess, wanted) is same
    assert exact_arguments(wanted, guess) is same


@pytest.mark.parametrize(
    ("guess", "wanted", "score"),
    [
        ({"q": "The price of oil"}, {"q": "oil price"}, 1.0),
        ({"q": "oil price 2020"}, {"q": "oil price"}, 2 / 3),
        ({"q": "of the"}, {"q": "is was"}, 1.0),
        ({"q": "of the"}, {"q": "oil"}, 0.0),
        ({"q": "oil", "n": 1}, {"q": "oil", "n": 2}, 0.5),
        ({"q": "oil", "n": 1}, {"q": "oil", "n": "1"}, 0.5),
        ({"q": "oil", "n": 1}, {"q": "oil", "n": 1.0}, 0.5),  # another type
        ({"q": "oil"}, {"q": "oil", "n": 1}, 0.0),
        ({"n": 1}, {"n": 1}, 1.0),
        ({"n": 1}, {"n": 2}, 0.0),
        ({"n": 1}, {"q": "oil"}, 0.0),
        ({}, {}, 1.0),
    ],
)
def test_jaccard(guess, wanted, score):
    assert jaccard_arguments(guess, wanted) == pytest.approx(score)
    assert jaccard_arguments(wanted, guess) == pytest.approx(score)


@given(*[st.dictionaries(st.sampled_from("qn"), st.one_of(st.text("ab "), st.integers(0, 2))) for _ in "ab"])
@settings(deadline=None, max_examples=100)
def test_jaccard_is_a_share_and_1_for_equal_arguments(guess, wanted):
    assert 0 <= jaccard_arguments(guess, wanted) <= 1
    assert jaccard_arguments(wanted, wanted) == 1


def test_strategies_on_calls():
    wanted = BOX.call("search", {"query": "oil price"})
    guesses = {
        "the same": BOX.call("search", {"query": "oil price"}),
        "a default written out": BOX.call("search", {"query": "oil price", "page": 1}),
        "nearly": BOX.call("search", {"query": "the oil price"}),
        "another": BOX.call("search", {"query": "gas"}),
        "another tool": BOX.call("look", {"query": "oil price"}),
    }
    matching = {
        name: [what for what, guess in guesses.items() if strategy.match(guess, wanted) is not None]
        for name, strategy in STRATEGIES.items()
    }
    assert matching == {
        "exact": ["the same"],
        "normalised": ["the same", "a default written out"],
        "jaccard": ["the same", "nearly"],
        "tool_name_only": ["the same", "a default written out", "nearly", "another"],
        "none": [],
    }
    assert {n for n, s in STRATEGIES.items() if s.lossless} == {"exact", "normalised", "none"}


def test_the_threshold_counts_for_jaccard_only():
    wanted, guess = (BOX.call("search", {"query": q}) for q in ("oil price", "oil price 2020"))
    assert strategy_of("jaccard").match(guess, wanted) is None
    assert strategy_of("jaccard").match(guess, wanted, 0.6) == pytest.approx(2 / 3)
    assert strategy_of("exact").match(guess, wanted, 0.0) is None
    with pytest.raises(ConfigError, match="did you mean 'jaccard'"):
        strategy_of("jacard")
