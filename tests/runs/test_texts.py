"""Any text can be stored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.runs.stage import csv_text
from speceyes_lib.texts import from_cell, storable, to_cell

characters = st.characters(codec=None, categories=None) | st.integers(0xD800, 0xDFFF).map(chr)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("B \ud835", "B \ufffd"),
        ("\udc00 B", "\ufffd B"),
        ("\ud835B\udc00", "\ufffdB\ufffd"),
        ("\ud835\udc00", "\U0001d400"),
        ("\ud835\ud835\udc00", "\ufffd\U0001d400"),
        ("é\0\u2028\U0001d400", "é\0\u2028\U0001d400"),
    ],
)
def test_half_of_a_pair_is_replaced_and_nothing_else(text, stored):
    assert storable(text) == stored


def test_texts_inside_a_value_are_replaced_and_its_types_stay():
    value = {"\ud835": ["a\udfff", ("b", None, 1.5, True)], "n": 10**30}
    assert storable(value) == {"\ufffd": ["a\ufffd", ("b", None, 1.5, True)], "n": 10**30}


@given(st.text(characters))
@settings(deadline=None)
def test_any_text_becomes_utf8_and_keeps_its_whole_characters(text):
    stored = storable(text)
    stored.encode()
    assert storable(stored) == stored

    def whole(t):
        return [c for c in t if c != "\ufffd" and not "\ud800" <= c <= "\udfff" and ord(c) < 0x10000]

    assert whole(stored) == whole(text)


@pytest.mark.parametrize(
    "text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''-a", "-", "--1"]
)
def test_a_formula_is_a_text_to_a_spreadsheet_and_comes_back(text):
    assert to_cell(text) == "'" + text
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("text", ["", "A", "-1", "+0.5", "-1e-05", "-.5", "'A'", "a=b", "’=1", " =1"])
def test_numbers_and_other_texts_stay(text):
    assert to_cell(text) == from_cell(text) == text


@given(st.text())
@settings(deadline=None)
def test_every_text_comes_back_from_its_cell(text):
    assert from_cell(to_cell(text)) == text


def test_frames_are_written_with_harmless_texts_and_exact_numbers():
    frame = pd.DataFrame(
        {"=name": ["=HYPERLINK(1)", "-0.5", "red"], "x": [-0.1, 1 / 3, np.nan], "n": [-1, 0, 1]}
    )
    frame["kind"] = pd.Categorical(["@a", "b", "b"])
    assert csv_text(frame) == (
        "'=name,x,n,kind\n'=HYPERLINK(1),-0.1,-1,'@a\n-0.5,0.3333333333,0,b\nred,,1,b\n"
    )
