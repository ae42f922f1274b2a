"""SpecReason: the small model proposes each step, and the large model scores how useful the step is.

A step with a score of at least the threshold is used as it is. Otherwise, or without a score, the large model writes
the step. A step counts like a turn of the wrapped agent (DeepEyes or Thyme), which parses it, runs its tool and keeps
the conversation. A step that is only a thought does not end the run.

Source: arXiv:2504.07891, as in Table 1 of the SpecEyes paper, but both models see all tool results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ..models.base import Generation, GenerationRequest
from ..models.picture_memory import PictureMemory
from ..models.thoughts import without_thoughts
from ..runs.records import Failure, Proposal
from ..tasks.images import ImageSpec, resized_view
from ..tools.zoom import BoxUnits, rewritten
from .deepeyes import DeepEyesAgent
from .tagged import TaggedAgent

SCORE_TOKENS = 10  # of the reply whose first digit is the score


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


class SpecReasonAgent:
    """One sample. Each request names the model that it is for. `inner` must have been built with steps=True."""

    def __init__(self, inner: TaggedAgent, how: SpecReason) -> None:
        self.inner, self.how = inner, how
        self._next: Literal["propose", "score", "write"] = "propose"
        self._proposal: Proposal | None = None
        self._proposed: Generation | None = None  # the proposal as the large model reads it
        # The same object each time, so that backends can reuse its encoding
        self._small_pictures = PictureMemory(
            lambda picture: resized_view(inner.original if picture is inner.view else picture, how.small_spec)
        )
        self.trajectory = inner.trajectory

    @property
    def done(self) -> bool:
        """True once the wrapped agent has ended."""
        return self.inner.done

    @property
    def n_turns(self) -> int:
        """Number of steps so far."""
        return self.inner.n_turns

    def next_request(self) -> GenerationRequest | None:
        """The request for a proposal, a score or a step of the large model; None when done."""
        request = self.inner.next_request()
        if request is None or self._next == "write":
            return request
        if self._next == "propose":
            return replace(request, messages=self._as_small_reads(request.messages), role="small")
        messages = [
            *_with_step(request.messages, self._proposed.text),
            {"role": "user", "content": self.inner.prompts.step_score},
        ]
        return GenerationRequest(request.id, messages, SCORE_TOKENS)

    def feed(self, generation: Generation) -> None:
        """Use a proposal, a score or a turn, whichever was requested last. Raises RuntimeError when done."""
        if self.done:
            raise RuntimeError(f"{self.inner.id}: the agent is done and takes no further turn")
        if self._next == "propose":
            self._take_proposal(generation)
        elif self._next == "score":
            self._take_score(generation)
        else:
            self._take_step(generation, spent_s=self._proposal.propose_s + self._proposal.score_s)

    # ---------------------------------------------------------------------------- what a generation leads to
    def _take_proposal(self, proposed: Generation) -> None:
        error = proposed.error
        if error is None and proposed.finish_reason == "length":
            error = Failure(type="cut_off", message="The token limit cut the step off.")
        elif error is None and not proposed.text.strip():
            error = Failure(type="no_step", message="The small model proposed nothing.")
        self._proposed = replace(proposed, text=self._boxes_for("large", proposed.text))
        n_tokens, seconds = len(proposed.token_ids), proposed.generate_s
        self._proposal = Proposal(text=proposed.text, n_tokens=n_tokens, propose_s=seconds, error=error)
        self._next = "score" if error is None else "write"

    def _take_score(self, reply: Generation) -> None:
        digit = re.search("[0-9]", without_thoughts(reply.text))
        score = int(digit[0]) if digit and reply.error is None else None
        accepted = score is not None and score >= self.how.threshold
        error = reply.error
        if error is None and score is None:
            error = Failure(type="no_score", message="There is no digit in the large model's reply.")
        scored = {"score": score, "score_text": reply.text, "score_s": reply.generate_s}
        self._proposal = self._proposal.model_copy(update=scored | {"accepted": accepted, "error": error})
        self._next = "write"
        if accepted:
            self._take_step(self._proposed, spent_s=reply.generate_s)

    def _take_step(self, step: Generation, spent_s: float) -> None:
        self.inner.feed(replace(step, generate_s=step.generate_s + spent_s))
        self.inner.turns[-1] = self.inner.turns[-1].model_copy(update={"proposal": self._proposal})
        self._next = "propose"

    # ------------------------------------------------------------------------------- what the small model reads
    def _as_small_reads(self, messages: list[dict]) -> list[dict]:
        """The conversation with the view sizes and boxes of the small model, ending with the request for a step."""
        system, question, *rest = (self._message_for_small(m) for m in messages)
        parts = [*question["content"], {"type": "text", "text": self.inner.prompts.step}]
        return [system, question | {"content": parts}, *rest]

    def _message_for_small(self, message: dict) -> dict:
        content = message["content"]
        if isinstance(content, str):
            return message | {"content": self._boxes_for("small", content)}
        small = self._small_pictures.of
        parts = [p | {"image": small(p["image"])} if p["type"] == "image" else p for p in content]
        return message | {"content": parts}

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
