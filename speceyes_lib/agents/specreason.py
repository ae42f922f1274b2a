"""SpecReason: the small model proposes each step and the large model scores it. A good step is used as it is.

Per step (source: arXiv:2504.07891, as in Table 1 of the SpecEyes paper, but both models see all tool results):

    1  the small model writes the next step
    2  the large model rates how useful it is; the first digit of at most 10 tokens is the score
    3  score >= threshold: the step is used. Otherwise, or without a score, the large model writes the step
    4  the step counts like a turn of the agent: its tool call is carried out, both models see the result, and an answer
       ends the run. After a step that is only a thought comes the next one

It wraps an agent (DeepEyes or Thyme), which parses the steps, runs the tools and keeps the conversation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from ..models.base import Generation, GenerationRequest
from ..runs.records import Failure, Proposal, Trajectory
from ..tasks.images import ImageSpec, resized_view
from ..tools.zoom import BoxUnits, rewritten
from .deepeyes import DeepEyesAgent
from .tagged import TaggedAgent


@dataclass(frozen=True)
class SpecReason:
    """How steps are speculated.

    Args:
        small_spec: picture sizes of the small model.
        threshold: the lowest score (0 to 9) that accepts a step.
        small_boxes: unit of the small model's coordinates (Qwen3-VL: thousandths). Each model reads boxes in its unit.
    """

    small_spec: ImageSpec
    threshold: int = 7
    small_boxes: BoxUnits = "thousandths"
    score_max_new_tokens: int = 10


class SpecReasonAgent:
    """One sample. Each request names the model that it is for. `inner` must have been built with steps=True."""

    def __init__(self, inner: TaggedAgent, how: SpecReason) -> None:
        self.inner, self.how = inner, how
        self._next: Literal["propose", "score", "write"] = "propose"
        self._proposal: Proposal | None = None
        self._proposed: Generation | None = None  # the proposal as the large model reads it
        self._small_pictures = {id(inner.view): resized_view(inner.original, how.small_spec)}

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def done(self) -> bool:
        return self.inner.done

    @property
    def n_turns(self) -> int:
        return self.inner.n_turns

    def next_request(self) -> GenerationRequest | None:
        request = self.inner.next_request()
        if request is None or self._next == "write":
            return request
        if self._next == "propose":
            return replace(request, messages=self._as_small_reads(request.messages), role="small")
        messages = [
            *_with_step(request.messages, self._proposed.text),
            {"role": "user", "content": self.inner.prompts.step_score},
        ]
        return GenerationRequest(request.id, messages, self.how.score_max_new_tokens)

    def feed(self, generation: Generation) -> None:
        """Use a proposal, a score or a turn, whichever was requested last. Raises RuntimeError when done."""
        if self.done:
            raise RuntimeError(f"{self.id}: the agent is done and takes no further turn")
        getattr(self, f"_take_{self._next}")(generation)

    def trajectory(self) -> Trajectory:
        return self.inner.trajectory()

    # -------------------------------------------------------------------------------- what a word leads to
    def _take_propose(self, said: Generation) -> None:
        error = said.error
        if error is None and said.finish_reason == "length":
            error = Failure(type="cut_off", message="The token limit cut the step off.")
        elif error is None and not said.text.strip():
            error = Failure(type="no_step", message="The small model proposed nothing.")
        self._proposed = replace(said, text=self._boxes_for("large", said.text))
        self._proposal = Proposal(
            text=said.text, n_tokens=len(said.token_ids), propose_s=said.generate_s, error=error
        )
        self._next = "score" if error is None else "write"

    def _take_score(self, said: Generation) -> None:
        digit = re.search("[0-9]", said.text)
        score = int(digit[0]) if digit and said.error is None else None
        accepted = score is not None and score >= self.how.threshold
        error = said.error
        if error is None and score is None:
            error = Failure(type="no_score", message="There is no digit in the large model's reply.")
        scored = {"score": score, "score_text": said.text, "score_s": said.generate_s}
        self._proposal = self._proposal.model_copy(update=scored | {"accepted": accepted, "error": error})
        self._next = "write"
        if accepted:
            self._take_step(self._proposed, spent_s=said.generate_s)

    def _take_write(self, said: Generation) -> None:
        self._take_step(said, spent_s=self._proposal.propose_s + self._proposal.score_s)

    def _take_step(self, step: Generation, spent_s: float) -> None:
        self.inner.feed(replace(step, generate_s=step.generate_s + spent_s))
        self.inner.turns[-1] = self.inner.turns[-1].model_copy(update={"proposal": self._proposal})
        self._next = "propose"

    # ------------------------------------------------------------------------------- what the small model reads
    def _as_small_reads(self, messages: list[dict]) -> list[dict]:
        """The conversation with the view sizes and boxes of the small model, ending with the request for a step."""
        system, question, *rest = (self._message_for_small(m) for m in messages)
        asked = [*question["content"], {"type": "text", "text": self.inner.prompts.step}]
        return [system, question | {"content": asked}, *rest]

    def _message_for_small(self, message: dict) -> dict:
        content = message["content"]
        if isinstance(content, str):
            return message | {"content": self._boxes_for("small", content)}
        return message | {"content": [self._part_for_small(part) for part in content]}

    def _part_for_small(self, part: dict) -> dict:
        return part | {"image": self._small_picture(part["image"])} if part["type"] == "image" else part

    def _small_picture(self, picture: Image.Image) -> Image.Image:
        """The same object for the same picture each time, so that backends can reuse its encoding.

        The conversation keeps every picture until the end, so ids are not reused.
        """
        if id(picture) not in self._small_pictures:
            self._small_pictures[id(picture)] = resized_view(picture, self.how.small_spec)
        return self._small_pictures[id(picture)]

    def _boxes_for(self, reader: Literal["small", "large"], text: str) -> str:
        if not isinstance(self.inner, DeepEyesAgent):
            return text  # programs name pixels of the picture file, which is the same for both
        units = (self.inner.boxes, self.how.small_boxes)
        units = units if reader == "small" else units[::-1]
        return rewritten(text, *units, self.inner.view.size)


def _with_step(messages: list[dict], step: str) -> list[dict]:
    """The conversation as if the step had been used."""
    last = messages[-1]
    if last["role"] != "assistant":
        return [*messages, {"role": "assistant", "content": step}]
    return [*messages[:-1], last | {"content": [*last["content"], {"type": "text", "text": step}]}]
