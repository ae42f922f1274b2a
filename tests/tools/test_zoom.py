"""Calls of the zoom tool: a model's call is untrusted text, and an accepted one has four finite numbers."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.runs.records import Turn
from speceyes_lib.tasks.images import BoxError, ImageSpec, crop_view
from speceyes_lib.tools import zoom

SPEC = ImageSpec(factor=16, min_pixels=96 * 96, max_pixels=96 * 96)


def call(box, **more) -> str:
    return json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": box, **more}})


def test_a_good_call_keeps_its_box_and_its_json():
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
        (
            call([1, 2, 3, 4], label=1).replace('"label": 1', f'"label": {"[" * 300 + "]" * 300}'),
            "malformed_call",
        ),
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
def test_any_text_is_a_box_of_finite_numbers_or_refused(text):
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
def test_accepted_and_refused_calls_can_be_recorded(box, more):
    try:
        raw = zoom.parse_call(call(box, **more)).raw
    except zoom.CallError as e:
        raw = e.call
    turn = Turn(text="", n_tokens=0, turn_s=0, tool_call=raw)
    assert Turn.model_validate_json(turn.model_dump_json()) == turn


def test_the_crop_comes_from_the_original_not_from_the_view():
    original = Image.new("RGB", (960, 960), "black")
    original.paste("red", (480, 480, 960, 960))
    crop, crop_px = crop_view(original, zoom.parse_call(call([48, 48, 96, 96])).box_px, (96, 96), SPEC)
    assert crop_px == (480, 480, 960, 960)
    assert crop.size == (96, 96)
    assert crop.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("box", [[50, 50, 10, 60], [10, 10, 10, 10], [200, 200, 300, 300], [-9, 0, -1, 5]])
def test_a_box_that_marks_nothing_is_an_error_not_a_crash(box):
    with pytest.raises(BoxError):
        crop_view(Image.new("RGB", (960, 960)), zoom.parse_call(call(box)).box_px, (96, 96), SPEC)


def test_boxes_in_thousandths_become_pixels_of_the_view_and_back():
    parsed = zoom.parse_call(call([500, 0, 1000, 250]))
    assert zoom.in_view(parsed, "thousandths", (200, 400)).box_px == pytest.approx((100, 0, 200, 100))
    assert zoom.in_view(parsed, "view_px", (200, 400)) is parsed
    text = f"so <tool_call>{call([500, 0, 1000, 250], label='a')}</tool_call>"
    in_pixels = zoom.rewritten(text, "thousandths", "view_px", (200, 400))
    assert json.loads(in_pixels[in_pixels.index("{") : in_pixels.rindex("}") + 1])["arguments"] == {
        "bbox_2d": [100, 0, 200, 100],
        "label": "a",
    }
    back = zoom.rewritten(in_pixels, "view_px", "thousandths", (200, 400))
    assert "[500, 0, 1000, 250]" in back


@given(st.text(max_size=80) | st.text(max_size=20).map(lambda t: f"<tool_call>{t}</tool_call>"))
def test_text_without_a_readable_call_is_not_rewritten(text):
    assert zoom.rewritten(text, "thousandths", "view_px", (96, 96)) == text


@pytest.mark.parametrize(
    ("box", "more", "notes"),
    [
        ([0, 0, 50, 50], {"label": "star"}, ()),
        ([-5, 0, 50, 50], {}, ("box_clamped",)),
        ([0, 0, 1e9, 1e9], {}, ("box_clamped",)),
        ([10, 10, 12, 60], {}, ("box_grown",)),
        ([0, 0, 50, 50], {"img_idx": 1}, ("ignored_arguments",)),
        ([60, 60, 10, 10], {}, ()),
    ],
)
def test_oddities_of_a_call_are_named(box, more, notes):
    assert zoom.oddities(zoom.parse_call(call(box, **more)), (96, 96), SPEC) == notes
