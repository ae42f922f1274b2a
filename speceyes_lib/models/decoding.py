"""Decoding of a batch, one token per step, and the evidence that it keeps.

Tokens and logits are those of transformers' `generate` (tests compare them), without what it prepares for other ways
of decoding. That takes a good part of the time of a small model (benchmarks/bench_decoding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel


def decode_batch(
    model: PreTrainedModel,
    inputs: dict,
    limit: int,
    ends: Collection[int],
    stopped: Callable[[list[int]], bool] | None = None,
    recorder: EvidenceRecorder | None = None,
    given_up: Callable[[], Iterable[int]] | None = None,
    temperature: float = 0.0,
) -> list[tuple[list[int], bool]]:
    """Per row of the batch: the new tokens (at most `limit`, no end token), and whether the row ended by itself.

    inputs: input_ids and attention_mask [batch, T], padded on the left; position_ids [4, batch, T] (text, then
        time, row, column); past_key_values, a cache that may already hold the first tokens and is filled; and
        further arguments of the first call, such as pictures.
    ends: tokens that end a row. stopped: called with the tokens of a row after each one; True ends the row.
    temperature: above 0, tokens are sampled by torch's global generator instead.
    recorder: records the raw logits of every step, including those of rows that have ended.
    given_up: called between two steps; the rows of the batch to end here, although they did not end by themselves.
    """
    import torch

    inputs = dict(inputs)
    ids, mask, positions = (inputs.pop(name) for name in ("input_ids", "attention_mask", "position_ids"))
    cache = inputs.pop("past_key_values")
    length, known = ids.shape[1], cache.get_seq_length()
    # without padding no mask is needed; with it, the mask of every later step is a longer part of this one
    mask = None if bool(mask.all()) else torch.nn.functional.pad(mask, (0, limit), value=1)
    step = inputs | {"input_ids": ids[:, known:], "position_ids": positions[..., known:]}
    rows: list[list[int]] = [[] for _ in ids]
    going, ended = dict(enumerate(rows)), set()
    for new in range(limit):
        if new and given_up:
            for i in given_up():
                going.pop(i, None)
            if not going:
                break
        seen = None if mask is None else mask[:, : length + new]
        cached = {"attention_mask": seen, "past_key_values": cache, "use_cache": True}
        logits = model(**step, **cached, logits_to_keep=1).logits[:, -1]
        if recorder:
            recorder.record(logits)
        if temperature:
            tokens = torch.multinomial((logits.float() / temperature).softmax(-1), 1)[:, 0]
        else:
            tokens = logits.argmax(-1)
        chosen = tokens.tolist()
        for i, row in list(going.items()):
            if chosen[i] not in ends:
                row.append(chosen[i])
                if not (stopped and stopped(row)):
                    continue
            del going[i]
            ended.add(i)
        if not going:
            break
        # rows that have ended are still fed; their tokens are not read
        step = {"input_ids": tokens[:, None], "position_ids": positions[..., -1:] + (new + 1)}
    return [(row, i in ended) for i, row in enumerate(rows)]


class EvidenceRecorder:
    """Keeps the k highest log-probabilities of every step of a greedy generation.

    Everything stays on the device until `arrays`, without a host synchronisation per step. Memory is O(k) per token.
    """

    # logits held before they are condensed, which saves small operations. A real vocabulary exceeds this in each step
    BLOCK = 2**17
    ROOM = 64  # steps per allocation: small results between large ones would fragment the heap

    def __init__(self, k: int) -> None:
        self.k = k
        self._held: list[torch.Tensor] = []
        self._room: list[
            tuple[torch.Tensor, torch.Tensor]
        ] = []  # ids, log-probabilities: [ROOM, batch, k] each
        self._steps = 0

    def record(self, logits: torch.Tensor) -> None:
        """Record the raw logits [batch, vocabulary] of a step."""
        self._held.append(logits)
        if len(self._held) * logits.numel() >= self.BLOCK:
            self._condense()

    def _condense(self) -> None:
        import torch

        logits = (torch.stack(self._held) if len(self._held) > 1 else self._held[0][None]).float()
        self._held.clear()
        top = logits.topk(self.k)
        logprobs = top.values - logits.logsumexp(-1, keepdim=True)
        for ids, values in zip(top.indices, logprobs, strict=True):
            place = self._steps % self.ROOM
            if place == 0:
                room = (self.ROOM, *values.shape)
                self._room.append((ids.new_empty(room, dtype=torch.int32), values.new_empty(room)))
            self._room[-1][0][place], self._room[-1][1][place] = ids, values
            self._steps += 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(token ids int32, log-probabilities float32), each [steps, batch, k], highest first."""
        import torch

        if self._held:
            self._condense()
        ids, logprobs = zip(*self._room, strict=True)
        return tuple(torch.cat(parts)[: self._steps].cpu().numpy() for parts in (ids, logprobs))
