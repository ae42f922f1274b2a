"""Scores from inside a draft's model, on answers of a few tokens."""

from __future__ import annotations

import numpy as np
import pytest

from speceyes_lib.gating import layers
from speceyes_lib.runs.evidence import Evidence, LayerEvidence
from speceyes_lib.stats.ranking import auroc

RED, BLUE, DOT = 7, 9, 3


def answer(predicted: list[list[int]], p: list[list[float]], depth: int = 4, state=(1.0, 0.0)) -> Evidence:
    """An answer whose tokens are RED and so on; per token what each layer predicts, and how probable RED is there.

    The most probable other token of a layer has the rest of the probability.
    """
    predicted, p = np.array(predicted), np.array(p)
    tokens = np.full(len(predicted), RED)
    right = predicted == RED
    top = np.stack([np.maximum(p, 1 - p), np.minimum(p, 1 - p)], -1)
    assert ((p >= 0.5) == right).all()
    ids = np.stack([predicted, np.where(right, DOT, RED)], -1)
    inside = LayerEvidence(depth, np.arange(1, depth), ids, np.log(top), np.log(p), np.array([state]))
    last = np.log(np.tile([0.9, 0.1], (len(tokens), 1)))
    return Evidence(
        tokens, ["red"] * len(tokens), last[:, 0], np.tile([RED, DOT], (len(tokens), 1)), last, inside
    )


LATE = answer([[BLUE, BLUE, RED]], [[0.1, 0.2, 0.7]])
WAVERS = answer([[RED, BLUE, RED]], [[0.6, 0.3, 0.8]])
EARLY = answer([[RED, RED, RED]], [[0.9, 0.9, 0.9]])
NEVER = answer([[BLUE, BLUE, BLUE]], [[0.1, 0.1, 0.1]])
TWO_TOKENS = answer([[RED, RED, RED], [BLUE, RED, RED]], [[0.9, 0.9, 0.9], [0.4, 0.6, 0.8]])


@pytest.mark.parametrize(
    ("one", "settled", "settling", "agreement", "margin"),
    [
        (LATE, [3], 1 / 4, 1 / 3, (-0.8 - 0.6 + 0.4 + 0.8) / 4),
        (WAVERS, [3], 1 / 4, 2 / 3, (0.2 - 0.4 + 0.6 + 0.8) / 4),
        (EARLY, [1], 3 / 4, 1, 0.8),
        (NEVER, [4], 0, 0, (-0.8 * 3 + 0.8) / 4),
        (TWO_TOKENS, [1, 2], 2 / 4, 2 / 3, (-0.2 + 0.2 + 0.6 + 0.8) / 4),
    ],
)
def test_scores_by_hand(one, settled, settling, agreement, margin):
    assert layers.settling_layers(one).tolist() == settled
    scores = {name: values[0] for name, values in layers.layer_scores({"x": one}, ["x"]).items()}
    expected = {"settling": settling, "layer_agreement": agreement, "layer_margin": (1 + margin) / 2}
    assert scores == pytest.approx(expected, abs=1e-3)  # stored as float16


def test_layers_that_were_skipped_count_by_their_number():
    sparse = answer([[BLUE, RED, RED]], [[0.1, 0.8, 0.8]])
    inside = LayerEvidence(28, [7, 14, 21], *(getattr(sparse.layers, n) for n in ARRAYS))
    one = Evidence([RED], ["red"], [-0.1], sparse.top_ids, sparse.top_logprobs, inside)
    assert layers.settling_layers(one).tolist() == [14]
    assert layers.layer_scores({"x": one}, ["x"])["settling"][0] == 0.5


ARRAYS = ("top_ids", "top_logprobs", "chosen_logprobs", "hidden")


def test_an_answer_without_layers_without_tokens_or_without_a_record_has_no_score():
    plain = Evidence([RED], ["red"], [-0.1], [[RED]], [[-0.1]])
    inside = LayerEvidence(
        4, [1, 2], np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), np.zeros((0, 2)), np.zeros((0, 2))
    )
    empty = Evidence([], [], [], np.zeros((0, 4)), np.zeros((0, 4)), inside)
    evidence = {"plain": plain, "empty": empty, "whole": EARLY}
    ids = ["whole", "plain", "empty", "unknown"]
    for values in layers.layer_scores(evidence, ids).values():
        assert np.isnan(values).tolist() == [False, True, True, True]
    assert np.isnan(layers.deciding_states(evidence, ids)).all(axis=1).tolist() == [False, True, True, True]
    assert layers.has_layers(evidence)
    assert not layers.has_layers({"plain": plain})


def test_states_that_are_not_finite_are_none():
    broken = answer([[RED, RED, RED]], [[0.9, 0.9, 0.9]], state=(np.inf, 0.0))
    assert np.isnan(layers.deciding_states({"a": broken, "b": EARLY}, ["a", "b"])).all(axis=1).tolist() == [
        True,
        False,
    ]


# ------------------------------------------------------------------ the probe


def learnable(n: int, width: int = 12, seed: int = 0, strength: float = 2.0):
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.7
    states = rng.normal(size=(n, width))
    states[:, 0] += strength * right
    return states, right


def test_a_probe_finds_what_the_states_say_and_nothing_where_they_say_nothing():
    states, right = learnable(400)
    assert auroc(layers.probe(states, right), right).value > 0.85
    noise, right = learnable(400, strength=0.0)
    assert 0.35 < auroc(layers.probe(noise, right), right).value < 0.65


def test_a_probe_learns_nothing_from_the_sample_that_it_scores():
    """Each group has a state of its own and random verdicts: only a leak over the folds could tell them apart."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 4)
    states = rng.normal(size=(60, 40))[groups] * 5
    right = np.repeat(rng.random(60) < 0.5, 4)
    assert auroc(layers.probe(states, right, groups), right).value < 0.65


def test_a_probe_scores_every_sample_with_a_state_and_is_the_same_again():
    states, right = learnable(120)
    states[5] = np.nan
    first, second = layers.probe(states, right, seed=4), layers.probe(states, right, seed=4)
    assert np.flatnonzero(np.isnan(first)).tolist() == [5]
    assert np.array_equal(first, second, equal_nan=True)
    assert not np.array_equal(first, layers.probe(states, right, seed=5), equal_nan=True)


def test_too_few_wrong_drafts_give_no_probe():
    states, right = learnable(40)
    right[:] = True
    right[:3] = False
    assert np.isnan(layers.probe(states, right)).all()
