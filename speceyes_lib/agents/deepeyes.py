"""The DeepEyes agent: thinks, may zoom into the picture by a JSON tool call, answers inside <answer>.

What a turn may contain, and what follows (source: the published behaviour of DeepEyes, its defects mended):

    <answer>text</answer>             final answer (`answer_from="tag"`), also beside a tool call
    <tool_call>JSON</tool_call>       zoom; the crop of the original comes back as the next user turn. Of several
                                      calls in one turn the first counts
    a call that cannot be read        error text as the next user turn; the same one twice in a row ends the run
      or a box that marks nothing     (`repeated_call`)
    neither tag, text after </think>  final answer (`answer_from="untagged"`)
    nothing at all, or thought only   the run ends (`no_answer`)
    an answer cut off by the token    the run ends (`cut_off`)
      limit
    the last turn still zooms         the run ends (`turn_limit`)

Only what follows </think> counts: tags that are merely thought about do nothing.
"""

from __future__ import annotations

import re
from typing import Literal

from PIL import Image

from ..backends.base import Generation, GenerationRequest
from ..images import BoxError, ImageSpec
from ..prompts import PromptSet
from ..records import Failure, Trajectory, Turn
from ..tools import zoom

STOP = ("</tool_call>", "</answer>", "<|im_end|>")

# a tag that was not closed counts as closed at the end of the turn: servers may leave the stop string out
_ANSWER = re.compile(r"<answer>(.*?)(</answer>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)


class DeepEyesAgent:
    """One run on one sample. Boxes are pixels of `view`; crops are always cut from `original` (the first picture).

    forbid_tool: the first look. One turn, whose opening words (prompts.forced_look_prefix) commit the model to
    answering from the view.
    """

    def __init__(
        self,
        id: str,
        block: str,
        original: Image.Image,
        view: Image.Image,
        *,
        spec: ImageSpec,
        prompts: PromptSet,
        max_turns: int = 6,
        max_new_tokens: int = 512,
        forbid_tool: bool = False,
    ) -> None:
        self.id, self.original, self.view, self.spec, self.prompts = id, original, view, spec, prompts
        self.max_turns = 1 if forbid_tool else max_turns
        self.max_new_tokens = max_new_tokens
        self.prefill = prompts.forced_look_prefix if forbid_tool else ""
        self.forbid_tool = forbid_tool
        self.messages = prompts.agent_messages(block, view)
        self.turns: list[Turn] = []
        self.answer: str | None = None
        self.answer_from: Literal["tag", "untagged", "none"] = "none"
        self.error: Failure | None = None
        self.done = False
        self._refused: str | None = None  # the call of the last turn, when it was refused

    @property
    def n_turns(self) -> int:
        return len(self.turns)

    def next_request(self) -> GenerationRequest | None:
        if self.done:
            return None
        return GenerationRequest(self.id, list(self.messages), self.max_new_tokens, STOP, self.prefill)

    def feed(self, generation: Generation) -> None:
        """Take one turn in. `generation.text` continues the prefill. Raises RuntimeError when already done."""
        if self.done:
            raise RuntimeError(f"{self.id}: the agent is done and takes no further turn")
        text = self.prefill + generation.text
        taken = {
            "text": text,
            "n_tokens": len(generation.token_ids),
            "turn_s": generation.generate_s,
            "batch_size": generation.batch_size,
            "finish_reason": generation.finish_reason,
        }
        body = _after_thought(text)
        if generation.error is not None:
            self._end(Turn(**taken, error=generation.error))
        elif (answer := _ANSWER.search(body)) is not None:
            self._answered(taken, answer[1], "tag", complete=bool(answer[2]))
        elif (call := _CALL.search(body)) is not None:
            self._called(taken, call[1].strip(), complete=bool(call[2]))
        else:
            self._answered(taken, body, "untagged", complete=False)

    def trajectory(self) -> Trajectory:
        return Trajectory(
            status="error" if self.error or not self.done else "ok",
            error=self.error if self.done else Failure(type="unfinished", message="The run is not over."),
            answer=self.answer,
            answer_from=self.answer_from,
            turns=tuple(self.turns),
            image_px=self.original.size,
            view_px=self.view.size,
        )

    # ------------------------------------------------------------------------------- what a turn leads to
    def _answered(self, taken: dict, text: str, where: Literal["tag", "untagged"], *, complete: bool) -> None:
        answer = text.strip()
        if not complete and taken["finish_reason"] == "length":
            self._end(
                _none(taken, "cut_off", "The token limit cut the turn off before an answer was complete.")
            )
        elif not answer:
            self._end(_none(taken, "no_answer", "The turn holds neither an answer nor a tool call."))
        else:
            self.answer, self.answer_from = answer, where
            self._end(Turn(**taken, action="answer"))

    def _called(self, taken: dict, written: str, *, complete: bool) -> None:
        if self.forbid_tool:
            self._end(_none(taken, "tool_forbidden", "The turn calls the tool, which was not allowed here."))
            return
        turn, reply = self._zoom(taken, written)
        self.turns.append(turn)
        if turn.error is not None and written == self._refused:
            self._end(
                error=Failure(type="repeated_call", message=f"Same refused call again: {turn.error.message}")
            )
        elif len(self.turns) >= self.max_turns:
            self._end(error=Failure(type="turn_limit", message=f"No answer within {self.max_turns} turns."))
        self._refused = written if turn.error is not None else None
        closing = "" if complete else "</tool_call>"  # a server may leave the stop string out
        self.messages += [{"role": "assistant", "content": taken["text"] + closing}, reply]

    def _zoom(self, taken: dict, written: str) -> tuple[Turn, dict]:
        """Run the tool: the turn as recorded, and the user turn that brings the crop or the reason for none."""
        try:
            call = zoom.parse_call(written)
        except zoom.CallError as e:
            error = Failure(type=e.type, message=str(e))
            turn = Turn(**taken, action="malformed", tool_call=e.call, error=error)
            return turn, self._refusal(error)
        taken = taken | {"action": "tool", "tool_call": call.raw, "box_px": call.box_px}
        try:
            crop, crop_px = zoom.zoom(self.original, call, self.view.size, self.spec)
        except BoxError as e:
            error = Failure(type="bad_box", message=str(e))
            return Turn(**taken, error=error), self._refusal(error)
        return Turn(**taken, crop_px=crop_px), self.prompts.tool_response(crop)

    def _refusal(self, error: Failure) -> dict:
        return self.prompts.tool_response(f"Error: {error.message}", is_image=False)

    def _end(self, turn: Turn | None = None, error: Failure | None = None) -> None:
        if turn is not None:
            self.turns.append(turn)
            error = turn.error
        self.error, self.done = error, True


def _none(taken: dict, type: str, message: str) -> Turn:
    """A turn that neither answers nor acts, and why that ends the run."""
    return Turn(**taken, action="none", error=Failure(type=type, message=message))


def _after_thought(text: str) -> str:
    """What follows the thought; all of it when no thought was marked, nothing when the thought never ended."""
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    has_tag = "<answer>" in text or "<tool_call>" in text
    return text if has_tag else text.partition("<think>")[0]
