"""Scores of a draft from inside its model: what intermediate layers predict, and the last state of one token.

Higher means surer, nan means "no score". Over the tokens t = 1..n of an answer, with L layers in the model, the
recorded layers l < L, and p_l the distribution after layer l through the model's final norm and head:

    settling         1 - max_t s_t / L, where s_t is the first recorded layer from which the answer's token is the most
                     probable one in every later layer (L where that is the last layer alone)
    layer_agreement  min_t of the share of recorded layers whose most probable token is the answer's
    layer_margin     (1 + m) / 2, where m is the min_t of the mean over l, L included, of p_l(answer's token) less the
                     highest p_l of another token
    probe            probability of being right by a logistic regression on the state that the deciding token (the one
                     with the smallest separability) is predicted from, cross-fitted

A model of few layers gives few values: with 4 layers, `settling` can be 0, 1/4, 1/2 or 3/4.

Source: the logit lens, and early exits of language models (CALM, arXiv:2207.07061).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runs.evidence import Evidence
from .scores import cross_fitted

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

LAYER_SCORES = ("settling", "layer_agreement", "layer_margin")
NO_LAYERS = (
    "the layers of the draft model were not recorded (layers = 0 in notebook 01; a server returns none)"
)


def has_layers(evidence: Mapping[str, Evidence]) -> bool:
    """Whether any of these answers was recorded with layers."""
    return any(one.layers is not None for one in evidence.values())


def settling_layers(one: Evidence) -> NDArray[np.int64]:
    """The layer of each token from which on it stays the most probable one, int64 [T]; the depth: the last alone."""
    agrees = one.layers.top_ids[:, :, 0] == one.token_ids[:, None]
    since = np.logical_and.accumulate(agrees[:, ::-1], axis=1).sum(axis=1)  # layers at the end that agree
    numbers = np.append(one.layers.numbers, one.layers.depth)
    return numbers[len(numbers) - 1 - since]


def layer_margins(one: Evidence) -> NDArray[np.float64]:
    """The probability of each token less the highest of another one, after each recorded layer: float64 [T, L]."""
    top = np.exp(one.layers.top_logprobs[:, :, :2].astype(np.float64))
    first = one.layers.top_ids[:, :, 0] == one.token_ids[:, None]
    return np.exp(one.layers.chosen_logprobs.astype(np.float64)) - np.where(first, top[..., 1], top[..., 0])


def layer_scores(evidence: Mapping[str, Evidence], ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """`LAYER_SCORES` of the samples `ids`: name -> float64 [ids], nan without an answer or without its layers."""
    scores = {name: np.full(len(ids), np.nan) for name in LAYER_SCORES}
    for i, one in enumerate(map(evidence.get, ids)):
        if one is None or one.layers is None or not one.n_tokens:
            continue
        last = np.exp(one.top_logprobs[:, :2].astype(np.float64))
        margins = np.column_stack([layer_margins(one), last[:, 0] - last[:, 1]])
        agrees = one.layers.top_ids[:, :, 0] == one.token_ids[:, None]
        scores["settling"][i] = 1 - settling_layers(one).max() / one.layers.depth
        scores["layer_agreement"][i] = agrees.mean(axis=1).min()
        scores["layer_margin"][i] = (1 + margins.mean(axis=1).min()) / 2
    return scores


def deciding_states(evidence: Mapping[str, Evidence], ids: Sequence[str]) -> NDArray[np.float64]:
    """The state behind the deciding token of each sample, float64 [ids, width]; a row of nan where none is kept."""
    kept = {i: e.layers.hidden for i, e in evidence.items() if e.layers is not None and len(e.layers.hidden)}
    states = np.full((len(ids), next((s.shape[1] for s in kept.values()), 0)), np.nan)
    for row, id_ in enumerate(ids):
        if id_ in kept and np.isfinite(kept[id_]).all():
            states[row] = kept[id_][0]
    return states


def probe(
    states: NDArray[np.float64],
    right: ArrayLike,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Probability of being right from the states, cross-fitted: float64 [n]; see `scores.cross_fitted`."""
    return cross_fitted(probe_model, states, right, groups, folds, seed)


def probe_model(width: int) -> ClassifierMixin:
    """The regression that `probe` fits.

    Its prior gives the log-odds a standard deviation of about 3 at any width. Of 1/10 to 100 times the variance 1, this
    order of magnitude ranked best on the embedded validation run.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=10 / max(width, 1), max_iter=1000))
