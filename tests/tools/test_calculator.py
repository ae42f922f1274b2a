from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.tools.calculator import calculate
from speceyes_lib.tools.worker import ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("482+117", 599),
        (" (1 + 2) * -3 ", -9),
        ("2**10 % 1000 // 5", 4),
        ("7/2", 3.5),
        ("sqrt(16) + abs(-2) + pow(2, 3)", 14.0),
        ("max(1, 2, 3) - min([4, 5])", -1),
        ("sum([482, 117, 3])", 602),
        ("sum(1, 2)", 3),
        ("round(2.567, 1)", 2.6),
        ("round(2.5)", 2),
        ("2**-1", 0.5),
        ("pow(3, 200, 7)", pow(3, 200, 7)),
        ("2*pi", 2 * math.pi),
        ("1e3", 1000.0),
    ],
)
def test_arithmetic_has_pythons_value_and_type(expression, value):
    result = calculate(expression)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("9**9**9**9", "bits"),
        ("2**100000", "bits"),
        ("pow(10, 10**6)", "bits"),
        ("(2**4000)*(2**4000)", "bits"),
        ("1e308*10", "too large"),
        ("1/0", "divides by zero"),
        ("0**-1", "divides by zero"),
        ("sqrt(-1)", "no value"),
        ("(-8)**0.5", "root of a negative number"),
        ("__import__('os')", "not allowed"),
        ("(1).real", "not allowed"),
        ("open('x')", "not allowed"),
        ("'a'*3", "not allowed"),
        ("True+1", "not allowed"),
        ("[i for i in [1]]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("x", "not allowed"),
        ("2^3", r"write \*\* for a power"),
        ("1,234", "without commas"),
        ("[1]*9", "mixes a list"),
        ("max()", "other arguments|no value"),
        ("1+", "no arithmetic expression"),
        ("(" * 500 + ")" * 500, "no arithmetic expression"),
        ("1" + "+1" * 200, "more than 300 parts"),
        ("1" * 1001, "longer than"),
    ],
)
def test_what_is_no_arithmetic_or_too_large_is_refused_at_once(expression, words):
    with pytest.raises(ToolError, match=words):
        calculate(expression)


@given(st.text(alphabet="0123456789+-*/%().,e ^sqrtpowmaxin[]", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_number_or_a_sentence(expression):
    try:
        calculate(expression)
        sentence = "It has a value."
    except ToolError as error:
        sentence = str(error)
    assert sentence.endswith(".")
