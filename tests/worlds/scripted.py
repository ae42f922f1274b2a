"""A backend that answers from a script, to test agents and the scheduler without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from speceyes_lib.models.base import Generation, GenerationRequest, generate_isolated
from speceyes_lib.tasks.images import ImageSpec

Script = Callable[[GenerationRequest], str | Generation] | Mapping[str, Sequence[str]]


class ScriptedBackend:
    """Answers from a script: a function of the request, or per sample id the texts of its turns in order.

    The function may return a text, a whole Generation (evidence included), or raise; an exception is that
    request's failure. Every batch is kept in `batches`, for tests to look at.
    """

    def __init__(self, script: Script, image_spec: ImageSpec | None = None, vocab_size: int = 1000) -> None:
        self.script, self.vocab_size = script, vocab_size
        self.image_spec = image_spec or ImageSpec(factor=16, min_pixels=16 * 16, max_pixels=96 * 96)
        self.batches: list[list[GenerationRequest]] = []
        self._turn: dict[str, int] = {}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.batches.append(list(requests))
        return generate_isolated(lambda batch: [self._answer(r) for r in batch], requests)

    def warm_up(self) -> None:
        pass

    def info(self) -> dict:
        return {"name": "scripted", "architecture": "script"}

    def _answer(self, request: GenerationRequest) -> Generation:
        if isinstance(self.script, Mapping):
            turn = self._turn[request.id] = self._turn.get(request.id, 0) + 1
            answer = self.script[request.id][turn - 1]
        else:
            answer = self.script(request)
        if isinstance(answer, Generation):
            return replace(answer, id=request.id)
        tokens = tuple(range(len(answer.split())))
        reason = "stop" if len(tokens) < request.max_new_tokens else "length"
        return Generation(request.id, answer, tokens, reason, 0.0, 1)
