"""Calls of the zoom tool: they are checked and converted here. `tasks.images.crop_view` cuts the enlarged part."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..tasks.images import Crop, ImageSpec, Size

NAME = "image_zoom_in_tool"
MAX_CALL_CHARS = 2000  # a call is one short JSON object; anything longer is no call
MAX_CALL_DEPTH = 20  # of lists and objects in each other; records hold about 150
Box = tuple[float, float, float, float]
BoxUnits = Literal["view_px", "thousandths"]  # of Qwen2.5-VL and of Qwen3-VL
_CALL = re.compile(r"(?<=<tool_call>)(.*?)(?=</tool_call>|\Z)", re.DOTALL)


class CallError(Exception):
    """A tool call that cannot be carried out. The message goes back to the model.

    type: for records. call: the part of the JSON object that could be read.
    """

    def __init__(self, type: str, message: str, call: dict | None = None) -> None:
        super().__init__(message)
        self.type, self.call = type, call


@dataclass(frozen=True)
class ZoomCall:
    """A well-formed call: four finite numbers, in pixels of the resized first picture. They may still mark nothing."""

    raw: dict
    box_px: Box


def parse_call(text: str) -> ZoomCall:
    """The call inside <tool_call>…</tool_call>. Model output is untrusted, so everything is checked.

    Raises:
        CallError: malformed_call (no JSON object, too long, wrong shape), unknown_tool or bad_box (not four finite
            numbers).
    """
    if len(text) > MAX_CALL_CHARS:
        raise CallError("malformed_call", f"The call is longer than {MAX_CALL_CHARS} characters.")
    try:
        call = json.loads(text)
        # what cannot be written back cannot be recorded: NaN, 1e999, half of a surrogate pair
        json.dumps(call, allow_nan=False, ensure_ascii=False).encode()
        if not isinstance(call, dict) or _depth(call) > MAX_CALL_DEPTH:
            raise ValueError("not an object, or one that nests too deep to be recorded")
    except (ValueError, RecursionError) as e:
        raise CallError("malformed_call", "The call is not one valid JSON object.") from e
    if call.get("name") != NAME:
        raise CallError("unknown_tool", f"There is no such tool; the only tool is {NAME}.", call)
    arguments = call.get("arguments")
    if not isinstance(arguments, dict) or "bbox_2d" not in arguments:
        raise CallError("malformed_call", "The call needs arguments with bbox_2d.", call)
    box = arguments["bbox_2d"]
    values = box if isinstance(box, list) else []
    finite = all(type(v) in (int, float) and abs(v) <= sys.float_info.max for v in values)
    if len(values) != 4 or not finite:
        raise CallError("bad_box", "bbox_2d must be four numbers: x1, y1, x2, y2.", call)
    return ZoomCall(call, tuple(float(v) for v in values))


def in_view(call: ZoomCall, units: BoxUnits, view_px: Size) -> ZoomCall:
    """The call with its box converted to pixels of the view."""
    return call if units == "view_px" else replace(call, box_px=_scaled(call.box_px, view_px, 1 / 1000))


def rewritten(text: str, units: BoxUnits, wanted: BoxUnits, view_px: Size) -> str:
    """A turn for a model with other units: the boxes of readable calls are converted, the rest is unchanged."""
    if units == wanted:
        return text

    def convert(match: re.Match) -> str:
        try:
            call = parse_call(match[1].strip())
        except CallError:
            return match[1]
        if wanted == "view_px":
            box = _scaled(call.box_px, view_px, 1 / 1000)
        else:
            box = _scaled(call.box_px, (1 / view_px[0], 1 / view_px[1]), 1000)
        whole = [round(v) if round(v, 1) == round(v) else round(v, 1) for v in box]
        raw = call.raw | {"arguments": call.raw["arguments"] | {"bbox_2d": whole}}
        return f"\n{json.dumps(raw, ensure_ascii=False)}\n"

    return _CALL.sub(convert, text)


def oddities(call: ZoomCall, view_px: Size, spec: ImageSpec, crop: Crop = "outwards") -> tuple[str, ...]:
    """Names of what is unusual about a call that is carried out, for the record."""
    x1, y1, x2, y2 = call.box_px
    seen = {
        "box_clamped": min(x1, y1) < 0 or x2 > view_px[0] or y2 > view_px[1],
        "box_grown": crop == "outwards" and 0 < min(x2 - x1, y2 - y1) < spec.factor,
        "ignored_arguments": not set(call.raw["arguments"]) <= {"bbox_2d", "label"},
    }
    return tuple(name for name, is_so in seen.items() if is_so)


def _scaled(box: Box, sides: tuple[float, float], by: float) -> Box:
    return tuple(v * sides[i % 2] * by for i, v in enumerate(box))


def _depth(value: Any) -> int:
    """How many lists and objects lie in each other."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)
