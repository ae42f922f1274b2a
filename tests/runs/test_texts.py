"""Any text can be stored."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.texts import storable

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
