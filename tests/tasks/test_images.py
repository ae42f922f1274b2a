"""Boxes land where the model pointed, crops come from the original, degenerate boxes are named."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.errors import DataError
from speceyes_lib.tasks.images import BoxError, ImageSpec, crop_view, iou, map_box, resized_view, view_size

QWEN = ImageSpec(factor=28, min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28)
TINY = ImageSpec(factor=16, min_pixels=9000, max_pixels=9300)

sides = st.integers(28, 4000)
specs = st.builds(
    lambda factor, least, more: ImageSpec(factor, least, least + more),
    st.sampled_from([14, 16, 28, 32]),
    st.integers(1, 2_000_000),
    st.integers(0, 2_000_000),
)


@given(st.integers(1, 6000), st.integers(1, 6000), st.one_of(st.just(TINY), specs))
@example(5037, 74, TINY)
def test_views_have_the_sizes_of_the_models_processors_and_no_side_of_zero(width, height, spec):
    from qwen_vl_utils import smart_resize

    assume(max(width, height) <= 200 * min(width, height))
    view, (h, w) = (
        view_size(width, height, spec),
        smart_resize(height, width, spec.factor, spec.min_pixels, spec.max_pixels),
    )
    assert view == (max(w, spec.factor), max(h, spec.factor))


@given(sides, sides)
def test_view_sides_are_multiples_of_the_factor_within_the_area_limits(width, height):
    w, h = view_size(width, height, QWEN)
    assert w % 28 == h % 28 == 0
    assert QWEN.min_pixels <= w * h <= QWEN.max_pixels


@given(sides, sides)
def test_a_view_is_not_resized_a_second_time_by_the_processor(width, height):
    view = view_size(width, height, QWEN)
    assert view_size(*view, QWEN) == view


@pytest.mark.parametrize("side", [188, 286, 349, 384, 545, 608, 640, 704, 768, 1008, 1408])
def test_the_embedded_models_see_every_square_at_96_px(side):
    assert view_size(side, side, TINY) == (96, 96)


def test_a_picture_narrower_than_1_to_200_is_refused():
    with pytest.raises(DataError, match="1 x 500 px is too narrow"):
        view_size(1, 500, QWEN)


def test_a_box_of_the_view_maps_to_the_same_part_of_the_original():
    assert map_box((24, 0, 48, 96), (96, 96), (384, 1536)) == (96, 0, 192, 1536)


def test_mapped_pixels_are_rounded_outwards():
    assert map_box((1, 1, 2, 2), (3, 3), (10, 10)) == (3, 3, 7, 7)


@st.composite
def boxes_in_views(draw):
    view = draw(st.tuples(st.integers(16, 500), st.integers(16, 500)))
    coordinate = st.floats(-600, 1100, allow_nan=False)
    x1, x2 = sorted((draw(coordinate), draw(coordinate)))
    y1, y2 = sorted((draw(coordinate), draw(coordinate)))
    return (x1, y1, x2, y2), view, draw(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))


@given(boxes_in_views(), st.sampled_from([1, 16]))
def test_any_box_is_either_refused_or_maps_to_pixels_inside_that_cover_it(case, min_side):
    box, view, original = case
    inside = all(box[i] < view[i] and box[i + 2] > 0 and box[i] < box[i + 2] for i in (0, 1))
    if not inside:
        with pytest.raises(BoxError):
            map_box(box, view, original, min_side)
        return
    mapped = map_box(box, view, original, min_side)
    for axis in (0, 1):
        scale = original[axis] / view[axis]
        low, high = mapped[axis], mapped[axis + 2]
        assert 0 <= low < high <= original[axis]
        assert low <= max(box[axis], 0) * scale + 1e-4
        assert high >= min(box[axis + 2], view[axis]) * scale - 1e-4
        assert high - low >= math.floor(min(min_side, view[axis]) * scale - 1e-4)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, math.nan, 5), "four finite numbers"),
        ((0, 0, math.inf, 5), "four finite numbers"),
        ((0, 0, "5", 5), "four finite numbers"),
        ((0, 0, 5), "four finite numbers"),
        ((5, 0, 2, 5), "empty or reversed"),
        ((5, 0, 5, 5), "empty or reversed"),
        ((96, 0, 120, 5), "outside the picture of 96 x 96 px"),
        ((-9, -9, 0, 5), "outside"),
    ],
)
def test_a_degenerate_box_is_named(box, message):
    with pytest.raises(BoxError, match=message):
        map_box(box, (96, 96), (384, 384))


def test_a_tiny_box_grows_to_one_cell_around_its_middle_and_stays_inside():
    assert map_box((40, 40, 42, 42), (96, 96), (960, 960), 16) == (330, 330, 490, 490)
    assert map_box((94, 0, 96, 2), (96, 96), (960, 960), 16) == (800, 0, 960, 160)


@pytest.mark.parametrize(
    ("box", "outwards", "original"),
    [
        ((10, 10, 50, 50), (33, 33, 167, 167), (33, 33, 166, 166)),  # 33.3 to 166.7
        ((-5, 3.3, 40, 96), (0, 11, 134, 320), (0, 11, 133, 320)),
        (
            (30, 30, 33, 33),
            (78, 78, 132, 132),
            (100, 100, 110, 110),
        ),  # smaller than a cell of 16 px of the view
        ((9, 9, 87, 120), (30, 30, 290, 320), (30, 30, 290, 320)),  # whole pixels: no difference
    ],
)
def test_a_box_becomes_pixels_outwards_or_as_the_original_truncates(box, outwards, original):
    image = Image.new("RGB", (320, 320))
    assert crop_view(image, box, (96, 96), TINY)[1] == outwards
    assert crop_view(image, box, (96, 96), TINY, "original")[1] == original


@given(boxes_in_views())
def test_truncation_takes_less_than_a_pixel_from_a_side_or_refuses_a_box_without_one(case):
    box, view, original = case
    try:
        mapped = map_box(box, view, original, 16, "original")
    except BoxError:
        return
    for axis in (0, 1):
        scale = original[axis] / view[axis]
        assert 0 <= mapped[axis] < mapped[axis + 2] <= original[axis]
        for side, exact in ((axis, max(box[axis], 0)), (axis + 2, min(box[axis + 2], view[axis]))):
            assert -1e-4 < exact * scale - mapped[side] < 1 + 1e-4


def test_a_box_without_a_whole_pixel_is_refused_where_boxes_do_not_grow():
    with pytest.raises(BoxError, match="no whole pixel"):
        map_box((10, 10, 10.2, 50), (96, 96), (96, 96), 16, "original")


def test_zooming_shows_the_original_s_detail_not_the_view_s():
    image = Image.new("RGB", (960, 960), "white")
    for x in range(0, 160, 8):  # stripes of 4 px: gone in a view that makes 96 px of 960
        image.paste((0, 0, 0), (x, 0, x + 4, 160))
    view = resized_view(image, TINY)
    crop, crop_px = crop_view(image, (0, 0, 16, 16), view.size, TINY)
    assert crop_px == (0, 0, 160, 160)
    assert crop.size == view.size == (96, 96)
    low, high = crop.convert("L").getextrema()
    assert high - low > 100
    low, high = view.crop((2, 2, 14, 14)).convert("L").getextrema()
    assert high - low < 30


def test_a_sliver_that_the_model_would_refuse_is_an_error_of_the_box():
    image = Image.new("RGB", (8000, 8000))
    with pytest.raises(BoxError, match="too narrow"):
        crop_view(image, (0, 0, 8000, 30), (8000, 8000), ImageSpec(28, 3136, 10**9))


@given(*[st.tuples(st.floats(0, 9), st.floats(0, 9), st.floats(0.1, 9), st.floats(0.1, 9))] * 2)
def test_iou_is_symmetric_between_0_and_1_and_1_for_equal_boxes(a, b):
    a, b = ((x, y, x + w, y + h) for x, y, w, h in (a, b))
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1 + 1e-9
    assert iou(a, a) == pytest.approx(1)


def test_iou_of_known_boxes():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0
