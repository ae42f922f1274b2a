"""What a model sees of a picture, and the way back: view sizes, boxes in the view, crops of the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from ..errors import DataError

Size = tuple[int, int]  # width, height in pixels
# outwards: no pixel of the box is lost, and a small box grows; original: as the SpecEyes authors' program cuts
Crop = Literal["outwards", "original"]
MAX_RATIO = 200  # of the sides of a picture


class BoxError(DataError):
    """A box that marks nothing in the picture. An agent that asks for it gets an error back, not a crash."""


@dataclass(frozen=True)
class ImageSpec:
    """How a family of models wants its pictures: sides multiples of `factor` px, area within the limits.

    resize: (width, height) -> width and height of the view, for models with another rule, such as tiles.
    """

    factor: int
    min_pixels: int
    max_pixels: int
    resize: Callable[[int, int], Size] | None = None


def view_size(width: int, height: int, spec: ImageSpec) -> Size:
    """Width and height (px) at which a model sees a picture of this size.

    The rule is `smart_resize` of Qwen's processors. A side has at least one cell, also where a long thin picture then
    has more pixels than `max_pixels`.

    Raises:
        DataError: one side is more than 200 times the other.
    """
    if spec.resize is not None:
        return spec.resize(width, height)
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(
            f"a picture of {width} x {height} px is too narrow for the model: one side is more than {MAX_RATIO} times "
            "the other"
        )
    f, sides = spec.factor, (width, height)
    w, h = (max(f, round(side / f) * f) for side in sides)
    if w * h > spec.max_pixels:
        shrink = math.sqrt(width * height / spec.max_pixels)
        w, h = (max(f, math.floor(side / shrink / f) * f) for side in sides)
    elif w * h < spec.min_pixels:
        grow = math.sqrt(spec.min_pixels / (width * height))
        w, h = (math.ceil(side * grow / f) * f for side in sides)
    return w, h


def resized_view(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """The whole picture as a model sees it (bicubic, as the models' own processors do it)."""
    return image.resize(view_size(*image.size, spec), Image.Resampling.BICUBIC)


def map_box(
    box_px: Sequence[float],
    view_px: Size,
    original_px: Size,
    min_side_px: float = 1,
    crop: Crop = "outwards",
) -> tuple[int, int, int, int]:
    """Map a box from the view a model saw to the original picture.

    Args:
        box_px: (x1, y1, x2, y2) in pixels of the view; clamped to it.
        view_px: size of the view.
        original_px: size of the original.
        min_side_px: a shorter side (view pixels) grows around its middle, moved inwards at the border.
        crop: "original" cuts the digits after the point off all four sides, and no box grows.

    Returns:
        Whole pixels (x1, y1, x2, y2) of the original, rounded outwards, within it.

    Raises:
        BoxError: not four finite numbers, a reversed or empty box, or one outside the view; for "original" also a box
            without a whole pixel.
    """
    box = list(box_px)
    if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        raise BoxError(f"box {box} is not four finite numbers x1, y1, x2, y2")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise BoxError(f"box {box} is empty or reversed: x1 < x2 and y1 < y2 are needed")
    sides = []
    for low, high, view, original in zip(box[:2], box[2:], view_px, original_px, strict=True):
        low, high = max(low, 0.0), min(high, float(view))
        if high <= low:
            raise BoxError(f"box {box} lies outside the picture of {view_px[0]} x {view_px[1]} px")
        scale = original / view
        # a hair of tolerance, so that float noise does not add a pixel to a box that ends on one, or take one away
        if crop == "original":
            sides.append((int(low * scale + 1e-6), int(high * scale + 1e-6)))
            if sides[-1][0] == sides[-1][1]:
                raise BoxError(f"box {box} holds no whole pixel of the picture")
            continue
        side = min(max(high - low, min_side_px), view)
        low = min(max((low + high - side) / 2, 0.0), view - side) if side > high - low else low
        high = max(high, low + side)
        start = min(math.floor(low * scale + 1e-6), original - 1)
        sides.append((start, min(max(math.ceil(high * scale - 1e-6), start + 1), original)))
    (x1, x2), (y1, y2) = sides
    return x1, y1, x2, y2


def crop_view(
    image: Image.Image, box_px: Sequence[float], view_px: Size, spec: ImageSpec, crop: Crop = "outwards"
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Zoom: the box (pixels of the view) cut out of the *original* and resized, and its pixels in the original.

    Boxes smaller than one cell of the view (`spec.factor`) are grown to one, unless `crop` is "original". Raises
    BoxError as `map_box` does, and for a crop too narrow for the model.
    """
    crop_px = map_box(box_px, view_px, image.size, spec.factor, crop)
    try:
        return resized_view(image.crop(crop_px), spec), crop_px
    except BoxError:
        raise
    except DataError as e:
        raise BoxError(f"box {list(box_px)}: {e}") from e


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0 when they do not overlap."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (total - shared)
