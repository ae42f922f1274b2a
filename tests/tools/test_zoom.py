"""The zoom tool: a model's call is untrusted text; what comes through is four finite numbers."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.images import BoxError, ImageSpec
from speceyes_lib.records import Turn
from speceyes_lib.tools import zoom

SPEC = ImageSpec(factor=16, min_pixels=96 * 96, max_pixels=96 * 96)


def call(box, **more) -> str:
    return json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": box, **more}})


def test_a_good_call_keeps_its_box_and_what_was_written():
    parsed = zoom.parse_call(call([1, 2.5, 30, 40], label="star"))
    assert parsed.box_px == (1.0, 2.5, 30.0, 40.0)
    assert parsed.raw["arguments"]["label"] == "star"


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("", "malformed_call"),
        ("not json", "malformed_call"),
        ("[1, 2]", "malformed_call"),
        ('{"name": "image_zoom_in_tool"}', "malformed_call"),
        ('{"name": "image_zoom_in_tool", "arguments": [1]}', "malformed_call"),
        ('{"name": "image_zoom_in_tool", "arguments": {}}', "malformed_call"),
        (call([1, 2, 3, 4]) + call([1, 2, 3, 4]), "malformed_call"),
        (call([1, 2, 3, math.inf]), "malformed_call"),
        (call([1, 2, 3, math.nan]), "malformed_call"),
        (call([1, 2, 3, 4]).replace("4", "1e999"), "malformed_call"),
        (call([1, 2, 3, 4], label="\ud800"), "malformed_call"),
        ("[" * 1000, "malformed_call"),
        (call([1, 2, 3, 4], label="x" * 3000), "malformed_call"),
        ('{"name": "python", "arguments": {"code": "1"}}', "unknown_tool"),
        ('{"arguments": {"bbox_2d": [1, 2, 3, 4]}}', "unknown_tool"),
        (call([1, 2, 3]), "bad_box"),
        (call([1, 2, 3, "4"]), "bad_box"),
        (call([1, 2, 3, True]), "bad_box"),
        (call([1, 2, 3, None]), "bad_box"),
        (call("1,2,3,4"), "bad_box"),
        (call([1, 2, 3, 10**400]), "bad_box"),
    ],
)
def test_a_bad_call_is_refused_with_its_kind(text, type):
    with pytest.raises(zoom.CallError) as refused:
        zoom.parse_call(text)
    assert refused.value.type == type
    assert str(refused.value)


@given(
    st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_no_text_gets_through_as_anything_but_a_box_or_a_refusal(text):
    try:
        parsed = zoom.parse_call(text)
    except zoom.CallError:
        return
    assert all(math.isfinite(v) for v in parsed.box_px)


@given(
    st.lists(
        st.integers()
        | st.floats()
        | st.none()
        | st.text(st.characters(codec="utf-16", exclude_categories=[])),
        min_size=3,
        max_size=5,
    ),
    st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3),
)
def test_whatever_is_accepted_or_refused_can_be_recorded(box, more):
    try:
        raw = zoom.parse_call(call(box, **more)).raw
    except zoom.CallError as e:
        raw = e.call
    turn = Turn(text="", n_tokens=0, turn_s=0, tool_call=raw)
    assert Turn.model_validate_json(turn.model_dump_json()) == turn


def test_the_crop_comes_from_the_original_not_from_the_view():
    original = Image.new("RGB", (960, 960), "black")
    original.paste("red", (480, 480, 960, 960))
    crop, crop_px = zoom.zoom(original, zoom.parse_call(call([48, 48, 96, 96])), (96, 96), SPEC)
    assert crop_px == (480, 480, 960, 960)
    assert crop.size == (96, 96)
    assert crop.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("box", [[50, 50, 10, 60], [10, 10, 10, 10], [200, 200, 300, 300], [-9, 0, -1, 5]])
def test_a_box_that_marks_nothing_is_an_error_not_a_crash(box):
    with pytest.raises(BoxError):
        zoom.zoom(Image.new("RGB", (960, 960)), zoom.parse_call(call(box)), (96, 96), SPEC)
