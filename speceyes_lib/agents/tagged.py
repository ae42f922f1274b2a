"""The base of agents that think in <think>, answer in <answer> and call their one tool by a tag.

docs/agents.md lists everything that a turn may contain, and what follows. A tag that was not closed counts as closed at
the end of the turn, because servers may omit the stop string.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from PIL import Image

from ..models.base import Generation, GenerationRequest
from ..models.thoughts import without_thoughts
from ..runs.records import Failure, Trajectory, Turn
from ..tasks.images import ImageSpec
from .prompt_sets import PromptSet

_ANSWER = re.compile(r"<answer>(.*?)(</answer>|\Z)", re.DOTALL)


@dataclass(eq=False, repr=False)
class TaggedAgent:
    """One sample. A subclass names the tag of its tool and carries out the call.

    Args:
        block: the question in the words of the prompt set.
        original: the picture.
        view: the picture as the model sees it.
        spec: picture sizes of the model.
        prompts: the wording.
        max_turns, max_new_tokens: limits of one sample and of one turn.
        forbid_tool: one turn without the tool. Its first words (prompts.forced_look_prefix) commit the model to an
            answer from the view.
        steps: a turn that is only a thought is a step of reasoning, and the next step follows (SpecReason). Otherwise
            such a turn ends the run without an answer.
    """

    tag: ClassVar[str]

    id: str
    block: str
    original: Image.Image
    view: Image.Image
    _: KW_ONLY
    spec: ImageSpec
    prompts: PromptSet
    max_turns: int = 6
    max_new_tokens: int = 512
    forbid_tool: bool = False
    steps: bool = False

    def __post_init__(self) -> None:
        if self.forbid_tool:
            self.max_turns = 1
        self.prefill = self.prompts.forced_look_prefix if self.forbid_tool else ""
        self.messages = self._opening()
        self.turns: list[Turn] = []
        self.answer: str | None = None
        self.answer_from: Literal["tag", "untagged", "none"] = "none"
        self.error: Failure | None = None
        self.done = False
        self._refused: str | None = None  # the call of the last turn, when it was refused
        self._call = re.compile(rf"<{self.tag}>(.*?)(</{self.tag}>|\Z)", re.DOTALL)
        self.stop = (f"</{self.tag}>", "</answer>", "<|im_end|>")

    @property
    def n_turns(self) -> int:
        """Number of turns so far."""
        return len(self.turns)

    def next_request(self) -> GenerationRequest | None:
        """The request for the next turn; None when done."""
        if self.done:
            return None
        return GenerationRequest(self.id, list(self.messages), self.max_new_tokens, self.stop, self.prefill)

    def feed(self, generation: Generation) -> None:
        """Use one turn. `generation.text` continues the prefill. Raises RuntimeError when already done."""
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
        body = without_thoughts(text)
        answer, calls = _ANSWER.search(body), list(self._call.finditer(body))
        if generation.error is not None:
            self._end(Turn(**taken, error=generation.error))
        elif answer is not None:
            notes = _notes(answer_beside_call=bool(calls), unclosed_tag=not answer[2])
            self._answered(taken | {"notes": notes}, answer[1], "tag", complete=bool(answer[2]))
        elif calls:
            complete = bool(calls[0][2])
            notes = _notes(several_calls=len(calls) > 1, unclosed_tag=not complete)
            self._called(taken | {"notes": notes}, calls[0][1].strip(), complete)
        elif self.steps and not body.strip() and text.strip() and generation.finish_reason == "stop":
            self._next_turn(Turn(**taken), text, None)
        else:
            self._answered(taken, body, "untagged", complete=False)
        if self.done:
            self._close()

    def trajectory(self) -> Trajectory:
        """All turns so far. Before the end its error is "unfinished"."""
        return Trajectory(
            status="error" if self.error or not self.done else "ok",
            error=self.error if self.done else Failure(type="unfinished", message="The run is not over."),
            answer=self.answer,
            answer_from=self.answer_from,
            turns=tuple(self.turns),
            image_px=self.original.size,
            view_px=self.view.size,
        )

    # ---------------------------------------------------------------------------------- what subclasses give
    def _opening(self) -> list[dict]:
        """The conversation before the first turn."""
        return self.prompts.agent_messages(self.block, self.view)

    def _use_tool(self, taken: dict[str, Any], written: str, complete: bool) -> tuple[Turn, object]:
        """Carry out a call: returns the recorded turn, and the result for `_continue`. Never raises."""
        raise NotImplementedError

    def _continue(self, text: str, result: object | None) -> None:
        """Add a turn and the result of its tool (None for a thought) to the conversation."""
        raise NotImplementedError

    def _close(self) -> None:
        """Release the tool. Called at the end."""

    # ------------------------------------------------------------------------------- what a turn leads to
    def _answered(self, taken: dict, text: str, where: Literal["tag", "untagged"], *, complete: bool) -> None:
        answer = text.strip()
        if not complete and taken["finish_reason"] == "length":
            self._end(
                _none(taken, "cut_off", "The token limit cut the turn off before an answer was complete.")
            )
        elif answer:
            self.answer, self.answer_from = answer, where
            self._end(Turn(**taken, action="answer"))
        elif not taken["text"].strip():
            self._end(_none(taken, "no_answer", "The turn is empty: the model ended it at once."))
        else:
            self._end(_none(taken, "no_answer", "The turn holds neither an answer nor a tool call."))

    def _called(self, taken: dict, written: str, complete: bool) -> None:
        if self.forbid_tool:
            self._end(_none(taken, "tool_forbidden", "The turn calls the tool, which was not allowed here."))
            return
        turn, result = self._use_tool(taken, written, complete)
        if turn.error is not None and written == self._refused:
            again = f"Same refused call again: {turn.error.message}"
            self._end(turn, Failure(type="repeated_call", message=again))
        else:
            self._refused = written if turn.error is not None else None
            closing = "" if complete else f"</{self.tag}>"
            self._next_turn(turn, taken["text"] + closing, result)

    def _next_turn(self, turn: Turn, text: str, result: object | None) -> None:
        if len(self.turns) + 1 >= self.max_turns:
            self._end(turn, Failure(type="turn_limit", message=f"No answer within {self.max_turns} turns."))
        else:
            self.turns.append(turn)
            self._continue(text, result)

    def _end(self, turn: Turn, error: Failure | None = None) -> None:
        self.turns.append(turn)
        self.error, self.done = error or turn.error, True


def _none(taken: dict[str, Any], type: str, message: str) -> Turn:
    """A turn without answer and action, and the reason why that ends the run."""
    return Turn(**taken, action="none", error=Failure(type=type, message=message))


def _notes(**seen: bool) -> tuple[str, ...]:
    return tuple(name for name, is_so in seen.items() if is_so)
