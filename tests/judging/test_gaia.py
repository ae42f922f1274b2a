"""Both protocols of GAIA: their rules, their known edges, and where they differ."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.judging import compare_protocols
from speceyes_lib.judging.gaia import PROTOCOLS, is_right, official_right, original_right
from speceyes_lib.tasks.gaia import WITHHELD

# truth, answer, right by the original, right by the official protocol
CASES = [
    ("17", "17", True, True),
    ("Paris", " paris ", True, True),
    ("a, b", "a ,b", True, True),
    ("5", "$5", False, True),
    ("5", "5 %", False, True),
    ("5", "5.0", False, True),
    ("5", "5.", False, True),
    ("5.", "5", False, True),
    ("89706.00", "89,706", False, True),
    ("1000", "1e3", False, True),
    ("1e3", "1000", False, True),
    ("3", "3 km", False, False),
    ("3", "three", False, False),
    ("inf", "many", False, True),
    ("nan", "nan", True, False),
    ("1,234", "1,234", True, True),
    ("1,234", "1234", False, False),
    ("1,234", "1;234.0", False, True),
    ("b, a", "a, b", False, False),
    ("a, b", "a, b, c", False, False),
    ("a b; c", "ab,c", False, True),
    ("a., b", "a, b", False, False),
    ("Sea-gull", "seagull", False, True),
    ("St. Petersburg", "St Petersburg", False, True),
    ("Yes!", "Yes !", True, True),
    ("yes", "yes.", False, True),
    ("None", None, False, True),
    ("none of it", None, False, False),
    ("", "", True, True),
    ("", "...", False, True),
]


@pytest.mark.parametrize(("truth", "answer", "original", "official"), CASES)
def test_rules_and_edges(truth, answer, original, official):
    assert (original_right(truth, answer), official_right(truth, answer)) == (original, official)


def test_the_frame_names_what_the_protocols_score_differently_first():
    truths = {"a": "17", "b": "5", "c": WITHHELD, "d": "x, y"}
    frame = compare_protocols(truths, {"a": "17", "b": "$5", "c": "?"})
    assert frame.index.tolist() == ["b", "a", "d"]
    assert frame["differ"].tolist() == [True, False, False]
    assert frame["rule"].tolist() == ["number", "number", "list"]
    assert frame.loc["b", list(PROTOCOLS)].tolist() == [False, True]
    assert frame["predicted"].isna().tolist() == [False, False, True]


def test_a_withheld_truth_is_no_verdict_and_an_unknown_protocol_is_refused():
    assert is_right(WITHHELD, "?") is None
    assert is_right("5", "$5") is True
    with pytest.raises(UserError, match=r"none of original, official \(did you mean 'official'\?\)"):
        is_right("5", "5", "offical")


words = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(deadline=None, max_examples=200)
@given(words)
def test_the_truth_itself_is_right_but_for_nan(truth):
    assert original_right(truth, truth)
    with_nan = any(_is_nan(part) for part in truth.replace(";", ",").split(",")) or _is_nan(truth)
    assert with_nan or official_right(truth, truth)


@settings(deadline=None, max_examples=200)
@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "${}", "{}%", " {} ", "{}.0", "{:,}"]))
def test_an_integer_is_right_in_every_way_of_writing_it(number, form):
    assert official_right(str(number), form.format(number))


def _is_nan(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return False
