"""Stopping a draft at an intermediate layer, replayed from what the layers predicted.

A token leaves at the first recorded layer whose most probable token is at least as probable as a threshold, and at the
last layer otherwise. Until the first token that changes, an exit at one fixed layer predicts exactly what the model cut
off there would, because each layer reads only what lower layers wrote. Behind a changed token the answer was never
generated: the replayed answer holds the other tokens as recorded, and is marked as such.

Not simulated: the keys and values of skipped layers, which later tokens would need where tokens leave at different
layers (CALM, arXiv:2207.07061, copies them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class LayerPredictions:
    """What L layers, the last one among them, predict at all tokens of n answers, one answer after the other."""

    numbers: NDArray[np.int64]  # [L], ascending, from 1; the last is the model's depth
    offsets: NDArray[np.int64]  # [n + 1], answer i owns the tokens offsets[i] up to offsets[i + 1]
    predicted: NDArray[np.int64]  # [tokens, L], the most probable token
    probability: NDArray[np.float64]  # [tokens, L], of that token

    @property
    def depth(self) -> int:
        """Layers of the model."""
        return int(self.numbers[-1])

    @property
    def answer_of(self) -> NDArray[np.int64]:
        """The answer that each token belongs to, int64 [tokens]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, eq=False)
class Exits:
    """Where the tokens of n answers leave the model, and what that changes."""

    tokens: NDArray[np.int64]  # [tokens], as predicted where each leaves
    layers: NDArray[np.float64]  # [n], layers computed per token, mean over the answer's
    changed: NDArray[np.bool_]  # [n], a token differs from the whole model's
    checks: NDArray[
        np.float64
    ]  # [n], products with the head per token beyond the one that is always needed, mean
    exact: NDArray[
        np.bool_
    ]  # [n], no token behind a changed one, so that the answer is what would be generated


def exits(data: LayerPredictions, threshold: float, first: int = 1) -> Exits:
    """The exits of every token.

    Args:
        data: of the answers, each with at least one token.
        threshold: probability from which on a token leaves; 0: always at the first layer allowed, above 1: never.
        first: number of the first layer at which a token may leave.
    """
    allowed = data.numbers >= first
    leaves = (data.probability >= threshold) & allowed
    leaves[:, -1] = True
    at = leaves.argmax(axis=1)
    tried = np.cumsum(allowed)[at] - 1  # the last product gives the token, wherever it leaves
    return _at(data, at, tried)


def best_exits(data: LayerPredictions) -> Exits:
    """The ceiling: every token leaves at the first layer from which on it stays what the whole model predicts."""
    agrees = data.predicted == data.predicted[:, -1:]
    since = np.logical_and.accumulate(agrees[:, ::-1], axis=1).sum(axis=1)
    at = len(data.numbers) - since
    return _at(data, at, np.zeros(len(at)))


def _at(data: LayerPredictions, at: NDArray, tried: NDArray) -> Exits:
    rows, starts = np.arange(len(at)), data.offsets[:-1]
    tokens = data.predicted[rows, at]
    changed = tokens != data.predicted[:, -1]
    lengths = np.diff(data.offsets)
    # tokens behind the first changed one of their answer
    before = np.cumsum(changed) - changed
    behind = before - np.repeat(before[starts], lengths) > 0
    return Exits(
        tokens=tokens,
        layers=np.add.reduceat(data.numbers[at].astype(np.float64), starts) / lengths,
        changed=np.logical_or.reduceat(changed, starts),
        checks=np.add.reduceat(tried.astype(np.float64), starts) / lengths,
        exact=~np.logical_or.reduceat(behind, starts),
    )


def saved_share(
    layers: ArrayLike, depth: int, prompt: float, tokens: float, checks: ArrayLike, head: float
) -> NDArray[np.float64]:
    """Share of the language model's arithmetic that leaving after `layers` layers saves; negative: it costs.

    A layer computes prompt + tokens positions, a check one product with the head:

        1 - (layers * (prompt + tokens) + checks * tokens * head) / (depth * (prompt + tokens))

    Args:
        layers: computed per token, mean.
        depth: of the model.
        prompt: positions before the answer, those of the picture included.
        tokens: of the answer.
        checks: products with the head per token beyond the one that is always needed.
        head: weights of the head over those of a layer.
    """
    whole = depth * (prompt + tokens)
    computed = np.asarray(layers, np.float64) * (prompt + tokens)
    return 1 - (computed + np.asarray(checks, np.float64) * tokens * head) / whole
