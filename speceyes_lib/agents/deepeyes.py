"""The DeepEyes agent: it thinks, may zoom into the picture by a JSON tool call, and answers inside <answer>.

The crop, or the reason why a call was refused, comes back as the next user turn. Boxes always refer to the first
picture, even after a crop was shown, because the tool has no argument for another picture. docs/agents.md lists what a
turn may contain, and what follows.

Source: the published behaviour of DeepEyes, without its defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..runs.records import Failure, Turn
from ..tasks.images import BoxError, Crop, crop_view
from ..tools import zoom
from .tagged import TaggedAgent


@dataclass(eq=False, repr=False, kw_only=True)
class DeepEyesAgent(TaggedAgent):
    """An agent that zooms. Crops are always cut from `original`, the first picture.

    Args:
        boxes: unit of the model's coordinates: pixels of `view` (Qwen2.5-VL, hence DeepEyes) or thousandths of its
            sides (Qwen3-VL).
        crop: how a box becomes whole pixels of the original, see `map_box`.
    """

    tag = "tool_call"
    boxes: zoom.BoxUnits = "view_px"
    crop: Crop = "outwards"

    def _use_tool(
        self, taken: dict[str, Any], written: str, complete: bool
    ) -> tuple[Turn, Image.Image | Failure]:
        try:
            call = zoom.in_view(zoom.parse_call(written), self.boxes, self.view.size)
        except zoom.CallError as e:
            error = Failure(type=e.type, message=str(e))
            return Turn(**taken, action="malformed", tool_call=e.call, error=error), error
        notes = taken["notes"] + zoom.oddities(call, self.view.size, self.spec, self.crop)
        taken = taken | {"action": "tool", "tool_call": call.raw, "box_px": call.box_px, "notes": notes}
        try:
            crop, crop_px = crop_view(self.original, call.box_px, self.view.size, self.spec, self.crop)
        except BoxError as e:
            error = Failure(type="bad_box", message=str(e))
            return Turn(**taken, error=error), error
        return Turn(**taken, crop_px=crop_px), crop

    def _continue(self, text: str, result: object | None) -> None:
        if result is None:
            reply = {"role": "user", "content": self.prompts.step_next}
        elif isinstance(result, Failure):
            reply = self.prompts.tool_response(f"Error: {result.message}", is_image=False)
        else:
            reply = self.prompts.tool_response(result)
        self.messages += [{"role": "assistant", "content": text}, reply]
