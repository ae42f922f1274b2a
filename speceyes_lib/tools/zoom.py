"""The zoom tool: what a model asks for, checked, and the enlarged part of the original picture it gets."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from PIL import Image

from ..images import ImageSpec, Size, crop_view

NAME = "image_zoom_in_tool"
MAX_CALL_CHARS = 2000  # a call is one short JSON object; anything longer is no call

Box = tuple[float, float, float, float]


class CallError(Exception):
    """A tool call that cannot be carried out. `type` is for records, the message goes back to the model.

    call: the JSON object, as far as it could be read.
    """

    def __init__(self, type: str, message: str, call: dict | None = None) -> None:
        super().__init__(message)
        self.type, self.call = type, call


@dataclass(frozen=True)
class ZoomCall:
    """A well-formed call: four finite numbers, in pixels of the resized first picture. Not yet a sensible box."""

    raw: dict
    box_px: Box


def parse_call(text: str) -> ZoomCall:
    """Read what stands inside <tool_call>…</tool_call>. Model output is untrusted: everything is checked.

    Raises CallError of type malformed_call (no JSON object, too long, wrong shape), unknown_tool or bad_box
    (not four finite numbers).
    """
    if len(text) > MAX_CALL_CHARS:
        raise CallError("malformed_call", f"The call is longer than {MAX_CALL_CHARS} characters.")
    try:
        call = json.loads(text)
        # what cannot be written back cannot be recorded: NaN, 1e999, half of a surrogate pair
        json.dumps(call, allow_nan=False, ensure_ascii=False).encode()
        if not isinstance(call, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as e:
        raise CallError("malformed_call", "The call is not one valid JSON object.") from e
    if call.get("name") != NAME:
        raise CallError("unknown_tool", f"There is no such tool; the only tool is {NAME}.", call)
    arguments = call.get("arguments")
    if not isinstance(arguments, dict) or "bbox_2d" not in arguments:
        raise CallError("malformed_call", "The call needs arguments with bbox_2d.", call)
    box = arguments["bbox_2d"]
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(v) for v in box)):
        raise CallError("bad_box", "bbox_2d must be four numbers: x1, y1, x2, y2.", call)
    return ZoomCall(call, tuple(float(v) for v in box))


def zoom(original: Image.Image, call: ZoomCall, view_px: Size, spec: ImageSpec) -> tuple[Image.Image, Box]:
    """Carry out a call: the crop of the original as the model sees it, and the original's pixels it shows.

    Raises images.BoxError for a box that marks nothing (reversed, empty, outside).
    """
    return crop_view(original, call.box_px, view_px, spec)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
