"""Decoding of a batch, one token per step, and the evidence that it keeps.

Tokens and logits are those of transformers' `generate` (tests compare them), without what it prepares for other ways
of decoding. That takes a good part of the time of a small model (benchmarks/bench_decoding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Self

from ..errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from ..runs.evidence import LayerEvidence


def decode_batch(
    model: PreTrainedModel,
    inputs: dict,
    limit: int,
    ends: Collection[int],
    stopped: Callable[[list[int]], bool] | None = None,
    recorder: EvidenceRecorder | None = None,
    given_up: Callable[[], Iterable[int]] | None = None,
    temperature: float = 0.0,
    never: Sequence[int] = (),
) -> list[tuple[list[int], bool]]:
    """Per row of the batch: the new tokens (at most `limit`, no end token), and whether the row ended by itself.

    inputs: input_ids and attention_mask [batch, T], padded on the left; position_ids [4, batch, T] (text, then
        time, row, column); past_key_values, a cache that may already hold the first tokens and is filled; and
        further arguments of the first call, such as pictures.
    ends: tokens that end a row. stopped: called with the tokens of a row after each one; True ends the row.
    temperature: above 0, tokens are sampled by torch's global generator instead.
    never: tokens that are not sampled: a conversation with a picture's token but no picture cannot go on.
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
            logits = logits.float() / temperature
            logits[:, list(never)] = -torch.inf
            tokens = torch.multinomial(logits.softmax(-1), 1)[:, 0]
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
    """Keeps the k highest log-probabilities of every step of a greedy generation; `layers` records the same steps.

    Everything stays on the device until `arrays`, without a host synchronisation per step. Memory is O(k) per token.
    """

    # logits held before they are condensed, which saves small operations. A real vocabulary exceeds this in each step
    BLOCK = 2**17
    ROOM = 64  # steps per allocation: small results between large ones would fragment the heap

    def __init__(self, k: int, layers: LayerRecorder | None = None) -> None:
        self.k, self.layers = k, layers
        self._held: list[torch.Tensor] = []
        self._room: list[
            tuple[torch.Tensor, torch.Tensor]
        ] = []  # ids, log-probabilities: [ROOM, batch, k] each
        self._steps = 0

    def record(self, logits: torch.Tensor) -> None:
        """Record the raw logits [batch, vocabulary] of a step."""
        if self.layers:
            self.layers.record(logits)
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


class LayerRecorder:
    """Keeps what intermediate layers predict at every step, through the model's final norm and head.

    Use it as a context manager around the decoding. Memory is O(k) per token and layer, one state per token, and a
    block of states until they go through the head together: one product for many tokens and layers reads the head's
    weights once.

    Args:
        model: whose decoder has `layers` and `norm`, and which has `lm_head`.
        layers: how many; see `spaced_layers`.
        k: alternatives kept per token and layer.

    Raises:
        UserError: the model has no intermediate layer.
    """

    BLOCK = 2**25  # logits of intermediate layers that are held at once

    def __init__(self, model: PreTrainedModel, layers: int, k: int) -> None:
        self._decoder, self._head = model.model.language_model, model.lm_head
        self.depth = len(self._decoder.layers)
        self.numbers = spaced_layers(layers, self.depth)
        if not self.numbers:
            raise UserError(f"layers: the model has {self.depth} layer, so none in between; set layers = 0")
        self.k = k
        self._seen: list[torch.Tensor] = []  # of this step: a state for each layer, then the last one
        self._held: list[torch.Tensor] = []  # states [layers, batch, width] of steps
        self._tokens: list[torch.Tensor] = []  # [batch], of the same steps
        self._states: list[torch.Tensor] = []  # [batch, width], the last ones of all steps
        self._kept: list[tuple[torch.Tensor, ...]] = []
        self._hooks: list = []

    def __enter__(self) -> Self:
        modules = [*(self._decoder.layers[number - 1] for number in self.numbers), self._decoder.norm]
        self._hooks = [module.register_forward_hook(self._see) for module in modules]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, module: object, inputs: tuple, output: torch.Tensor | tuple) -> None:
        states = output[0] if isinstance(output, tuple) else output
        self._seen.append(states[:, -1].clone())  # a view would keep the whole prompt's states

    def record(self, logits: torch.Tensor) -> None:
        """Record a step whose logits are [batch, vocabulary]; called after the model's pass."""
        import torch

        *states, last = self._seen
        self._seen = []
        self._states.append(last.to(torch.float16))
        self._tokens.append(logits.argmax(-1))
        self._held.append(torch.stack([state.to(last.device) for state in states]))
        if len(self._held) * len(self.numbers) * logits.numel() >= self.BLOCK:
            self._condense()

    def _condense(self) -> None:
        import torch

        states, tokens = torch.stack(self._held), torch.stack(self._tokens)
        self._held, self._tokens = [], []
        # `forward` itself, which does not call the hooks
        logits = self._head.forward(self._decoder.norm.forward(states)).float()
        total = logits.logsumexp(-1, keepdim=True)
        top = logits.topk(self.k)
        chosen = tokens[:, None, :, None].expand(*logits.shape[:-1], 1).to(logits.device)
        values = (top.values - total, logits.gather(-1, chosen) - total)
        self._kept.append((top.indices.int(), *(v.to(torch.float16) for v in values)))

    def evidence(self) -> list[LayerEvidence]:
        """The evidence of each row of the batch, of all its steps and with the states of all of them."""
        import torch

        from ..runs.evidence import LayerEvidence

        if self._held:
            self._condense()
        # [steps, layers, batch, ...] -> [batch, steps, layers, ...]
        arrays = (torch.cat(parts).movedim(2, 0).cpu().numpy() for parts in zip(*self._kept, strict=True))
        ids, logprobs, chosen = arrays
        states = torch.stack(self._states, 1).cpu().numpy()
        return [
            LayerEvidence(self.depth, self.numbers, *row[:2], row[2][..., 0], row[3])
            for row in zip(ids, logprobs, chosen, states, strict=True)
        ]


def spaced_layers(n: int, depth: int) -> list[int]:
    """Numbers of n evenly spaced intermediate layers of a model with `depth`, from 1, ascending; at most all of them.

    The last layer is not among them, because its predictions are the model's own.
    """
    n = min(n, depth - 1)
    return [round((i + 1) * depth / (n + 1)) for i in range(n)]
