"""Confidence scores: equal to a plain float64 reading of the formulas, whatever the vocabulary holds."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speceyes_lib.errors import UserError
from speceyes_lib.gating import separability
from speceyes_lib.gating.separability import (
    FORCED,
    PAPER_SCORES,
    deciding_token,
    flatten_answers,
    score_answer,
    score_grid,
    separability_profile,
    token_separability,
)

VOCABULARY = 151_936  # Qwen3-VL
KS = (16, 32, 64, 96, 128)


@pytest.fixture(autouse=True)
def no_numpy_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def reference_separability(logits: np.ndarray, k: int) -> float:
    """The formula read off the page, over a whole unsorted vocabulary."""
    z = np.sort(np.asarray(logits, dtype=np.float64))[::-1][:k]
    return (z[0] - z[1:].mean()) / (z[1:].std() + 1e-6)


def reference_confidence(vocabularies: np.ndarray, mode: str, k: int, slope: float) -> float:
    logits = np.asarray(vocabularies, dtype=np.float64)
    if mode == "log":
        best = logits.max(axis=1)
        log_p = -np.log(np.exp(logits - best[:, None]).sum(axis=1))
        return math.exp(log_p.mean())
    s = sorted(reference_separability(row, k) for row in logits)
    lowest = {"min": s[:1], "mean": s, "bottom20": s[: max(1, math.floor(0.2 * len(s)))]}[mode]
    return 1 / (1 + math.exp(-slope * sum(lowest) / len(lowest)))


def top_of(vocabularies: np.ndarray, k_store: int = 128) -> np.ndarray:
    """What a backend stores: the k_store highest log-probabilities, descending, float32."""
    logits = np.asarray(vocabularies, dtype=np.float64)
    best = logits.max(axis=1, keepdims=True)
    logprobs = logits - best - np.log(np.exp(logits - best).sum(axis=1, keepdims=True))
    return -np.sort(-logprobs, axis=1)[:, :k_store].astype(np.float32)


def logprob_rows(max_tokens: int = 12, width: int = 24):
    """Sorted rows of log-probabilities with many ties, up to -inf from some column on."""
    steps = hnp.arrays(
        np.int64, st.tuples(st.integers(1, max_tokens), st.just(width)), elements=st.integers(0, 6)
    )
    return steps.map(lambda s: (-np.cumsum(s, axis=1) / 4).astype(np.float32))


# --- the formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("mode", PAPER_SCORES)
def test_full_vocabulary_scores_agree_with_the_reference_including_ties_and_masked_entries(mode, k):
    rng = np.random.default_rng(k)
    vocabularies = (rng.normal(0, 3, (7, VOCABULARY)) + 10 * (rng.random((7, 1)) > 0.5)).astype(np.float32)
    vocabularies[:, rng.integers(0, VOCABULARY, 40_000)] = -np.inf  # a masked part of the vocabulary
    vocabularies[0, :5] = vocabularies[0].max()  # a five-way tie at the top
    vocabularies[1] = np.round(vocabularies[1])  # ties everywhere, across the K-th place too
    vocabularies[2, 7] = 60.0  # as good as certain
    score = score_answer(top_of(vocabularies), mode, k)
    assert score == pytest.approx(reference_confidence(vocabularies, mode, k, 0.6), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    logits=hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(300)), elements=st.integers(-80, 80)),
    k=st.integers(2, 64),
    slope=st.sampled_from([0.3, 0.6, 1.0]),
    mode=st.sampled_from(PAPER_SCORES),
)
def test_scores_from_top_log_probabilities_equal_scores_from_raw_logits(logits, k, slope, mode):
    logits = logits / 4
    assert score_answer(top_of(logits), mode, k, slope) == pytest.approx(
        reference_confidence(logits, mode, k, slope), abs=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(rows=logprob_rows(), shift=st.integers(-64, 64), k=st.integers(2, 24))
def test_separability_ignores_a_constant_added_to_every_logit(rows, shift, k):
    np.testing.assert_allclose(token_separability(rows + shift, k), token_separability(rows, k), rtol=1e-9)


@pytest.mark.parametrize(
    ("k", "tied", "published"),
    [(64, 2, 0.991), (64, 3, 0.965), (64, 4, 0.936), (96, 2, 0.997), (32, 2, 0.964), (20, 2, 0.927)],
)
def test_blind_spot_a_perfect_tie_scores_high_however_far_the_rest(k, tied, published):
    for distance in (5.0, 50.0, 1e4):
        logits = np.full((1, k), -distance)
        logits[0, :tied] = 0.0
        assert round(score_answer(logits, "min", k), 3) == published


def test_bottom20_takes_a_fifth_rounded_down_but_at_least_one_token():
    separations = np.arange(1.0, 12.0)  # 11 tokens: floor(2.2) = 2 lowest
    rows = np.stack([separations, np.ones(11), -np.ones(11)], axis=1)  # S = separations / (1 + eps)
    assert score_answer(rows, "bottom20", 3) == pytest.approx(1 / (1 + math.exp(-0.6 * 1.5)), abs=1e-6)
    assert score_answer(rows[:4], "bottom20", 3) == score_answer(rows[:4], "min", 3)
    assert all(n // 5 == math.floor(0.2 * n) for n in range(2048))


def test_epsilon_keeps_a_single_alternative_finite():
    assert token_separability([[3e-6, 0.0]], 2) == pytest.approx(3.0)  # no spread: the gap over 1e-6
    assert token_separability([[0.0, 0.0]], 2) == 0.0


def test_log_is_the_geometric_mean_of_the_best_probabilities():
    rows = np.log([[0.9, 0.1], [0.4, 0.3]])
    assert score_answer(rows, "log", 2) == pytest.approx(math.sqrt(0.9 * 0.4))


def test_modes_are_ordered_min_below_bottom20_below_mean():
    rng = np.random.default_rng(0)
    scores = score_grid(top_of(rng.normal(0, 2, (25, 500))), (0, 25), ks=(64,))
    assert tuple(scores) == PAPER_SCORES
    assert scores["min"] <= scores["bottom20"] <= scores["mean"]


def test_large_logits_lose_no_precision():
    small = np.sort(np.random.default_rng(1).normal(0, 1, (4, 64)))[:, ::-1]
    np.testing.assert_allclose(token_separability(small + 1e6), token_separability(small), rtol=1e-7)


# --- what has no finite value -------------------------------------------------------------------------


def test_masked_alternatives_are_left_out_so_the_formula_runs_at_the_k_that_remains():
    row = np.array([[2.0, 1.0, 0.5, 0.25, -np.inf, -np.inf]])
    assert token_separability(row, 6) == pytest.approx(token_separability(row, 4))
    assert token_separability(row, 3) == pytest.approx(reference_separability(row[0], 3))


@settings(max_examples=60, deadline=None)
@given(
    rows=logprob_rows(), opened=st.integers(1, 24), k=st.integers(2, 24), mode=st.sampled_from(PAPER_SCORES)
)
def test_a_masked_vocabulary_always_has_a_finite_score(rows, opened, k, mode):
    rows = rows - 1.0
    rows[:, opened:] = -np.inf
    assert 0.0 <= score_answer(rows, mode, k) <= 1.0


def test_forced_token_never_decides_the_minimum():
    forced, open_row = [-0.0, -np.inf, -np.inf], [2.0, 1.0, 0.0]
    rows = np.array([forced, open_row])
    assert token_separability(rows, 3)[0] == FORCED
    assert score_answer(rows, "min", 3) == score_answer([open_row], "min", 3)
    assert deciding_token(rows, 3) == 1


@pytest.mark.parametrize(
    "broken", [[np.nan, np.nan, np.nan], [-0.1, np.nan, -3.0], [-np.inf] * 3, [np.inf, -1.0, -2.0]]
)
def test_unreadable_token_voids_its_answer_and_no_other(broken):
    good = [-0.1, -2.0, -3.0]
    rows = np.array([good, broken, good, good])
    grid = score_grid(rows, [0, 2, 4], ks=(3,), modes=("min", "mean", "bottom20"))
    for scores in grid.values():
        assert np.isnan(scores[0, 0])
        assert scores[1, 0] == score_answer([good, good], "min", 3)
    assert deciding_token(rows[:2], 3) is None


def test_nan_beyond_k_does_not_matter():
    row = np.array([[-0.1, -2.0, -3.0, np.nan]])
    assert token_separability(row, 3) == pytest.approx(reference_separability(row[0, :3], 3))
    assert np.isnan(token_separability(row, 4)).all()


@pytest.mark.parametrize("nothing", [[], np.empty((0, 64)), np.empty((0, 0), np.float32)])
def test_empty_answer_has_no_score(nothing):
    assert all(math.isnan(score_answer(nothing, mode)) for mode in PAPER_SCORES)
    assert deciding_token(nothing) is None
    assert token_separability(nothing).shape == (0,)


# --- many answers at once -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(0, 12), max_size=6), slope=st.sampled_from([0.6, 1.5]))
def test_grid_equals_scoring_each_answer_alone(data, lengths, slope):
    answers = []
    for n in lengths:
        rows = data.draw(logprob_rows(max_tokens=12)) if n else np.empty((0, 24), np.float32)
        answers.append(rows[:n])
    flat, offsets = flatten_answers(answers)
    ks = (24, 2, 7, 7)  # neither sorted nor unique
    grid = score_grid(flat, offsets, ks, PAPER_SCORES, slope)
    for mode in PAPER_SCORES:
        assert grid[mode].shape == (len(answers), len(ks))
        alone = [[score_answer(a, mode, k, slope) for k in ks] for a in answers]
        np.testing.assert_allclose(grid[mode], np.reshape(alone, grid[mode].shape), rtol=1e-9)


def test_profile_is_the_same_across_chunk_boundaries(monkeypatch):
    rows = top_of(np.random.default_rng(3).normal(0, 2, (50, 200)))
    whole = separability_profile(rows, KS)
    monkeypatch.setattr(separability, "_CHUNK_TOKENS", 7)
    np.testing.assert_array_equal(separability_profile(rows, KS), whole)


def test_input_is_left_as_it_was():
    rows = np.array([[0.0, -1.0, -np.inf]])
    before = rows.copy()
    score_grid(rows, (0, 1), ks=(3,))
    np.testing.assert_array_equal(rows, before)


# --- input that is refused ----------------------------------------------------------------------------


def test_k_beyond_what_is_stored_names_both_numbers_and_the_way_out():
    with pytest.raises(UserError, match=r"k=64 .* only 20 .* k <= 20.* k_store >= 64"):
        score_answer(np.zeros((3, 20)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, "k=1 leaves no alternative"),
        ({"k": 2.5}, "whole number"),
        ({"mode": "botom20"}, "did you mean 'bottom20'"),
        ({"slope": 0.0}, "slope must be a positive"),
        ({"slope": math.nan}, "slope must be a positive"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        score_answer([[-0.1, -2.0, -3.0]], **{"k": 3, **arguments})


def test_unsorted_row_is_refused_and_named():
    with pytest.raises(UserError, match=r"token 1 entry 2 \(5\) is above entry 1 \(1\)"):
        token_separability([[3.0, 2.0, 1.0], [2.0, 1.0, 5.0]], 3)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UserError, match="shape"):
        token_separability(np.zeros(shape), 2)


@pytest.mark.parametrize("rows", [[[1.0, 0.0], [1.0]], [["a", "b"]]])
def test_ragged_or_textual_rows_are_refused(rows):
    with pytest.raises(UserError, match="numeric"):
        token_separability(rows, 2)


def test_log_refuses_raw_logits():
    with pytest.raises(UserError, match=r"needs log-probabilities .* token 0 has 12"):
        score_answer([[12.0, 3.0, 1.0]], "log", 3)


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3], [0, 2, 1, 2], [], [0.0, 2.0]])
def test_offsets_must_cover_the_rows(offsets):
    with pytest.raises(UserError, match="offsets"):
        score_grid(np.zeros((2, 4)), offsets, ks=(2,))


def test_answers_of_different_width_cannot_be_flattened():
    with pytest.raises(UserError, match="between 20 and 64"):
        flatten_answers([np.zeros((1, 64)), np.zeros((1, 20))])
