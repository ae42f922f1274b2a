"""Measures of a ranking equal their definitions; ties stand for all their orders."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from speceyes_lib.errors import UserError
from speceyes_lib.stats.ranking import (
    Ranking,
    auroc,
    risk_coverage,
    rolling_accuracy,
)
from speceyes_lib.stats.resampling import Bootstrap, draw_counts

SCORED = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.5, 0.8, 0.99]), st.booleans()), min_size=1, max_size=30
)


def columns(pairs):
    return [np.array(column) for column in zip(*pairs, strict=True)]


def draw(n: int, seed: int = 0):
    """Scores in [0, 1], and verdicts that are right as often as the score says."""
    rng = np.random.default_rng(seed)
    score = rng.random(n).round(2)
    return score, rng.random(n) < score


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_auroc_with_ties_equals_sklearn(pairs):
    score, right = columns(pairs)
    assume(right.any() and not right.all())
    assert auroc(score, right, bootstrap=Bootstrap(draws=10)).value == pytest.approx(
        roc_auc_score(right, score)
    )


def test_auroc_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        right = rng.random(120) < 0.6
        score = rng.normal(right.astype(float), 1.0)  # true AUROC: Phi(1 / sqrt 2) = 0.7602
        estimate = auroc(score, right, bootstrap=Bootstrap(draws=300))
        hits += estimate.low <= 0.7602 <= estimate.high
    assert 52 <= hits <= 60


def test_auroc_of_one_class_is_undefined_with_its_n():
    estimate = auroc([0.2, 0.9], [True, True])
    assert math.isnan(estimate.value)
    assert str(estimate) == "no estimate (n=2)"


def reference_aurc(score, right):
    """Mean over coverages of the risk, averaged over many random orders within ties."""
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(score)), -score))
        runs.append((np.cumsum(~right[order]) / np.arange(1, len(score) + 1)).mean())
    return np.mean(runs)


@pytest.mark.parametrize("seed", range(4))
def test_aurc_is_the_expectation_over_the_orders_of_ties(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, 40) / 5
    right = rng.random(40) < 0.4 + score / 2
    assert risk_coverage(score, right, bootstrap=Bootstrap(draws=10)).aurc.value == pytest.approx(
        reference_aurc(score, right), abs=0.01
    )


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_excess_aurc_is_zero_for_a_perfect_ranking_and_never_negative(pairs):
    score, right = columns(pairs)
    assert risk_coverage(score, right, bootstrap=Bootstrap(draws=5)).excess_aurc.value >= -1e-12
    perfect = risk_coverage(
        right + 0.001 * np.arange(len(right)) / len(right), right, bootstrap=Bootstrap(draws=5)
    )
    assert perfect.excess_aurc.value == pytest.approx(0, abs=1e-12)
    order = np.argsort(~right, kind="stable")
    assert perfect.aurc.value == pytest.approx(
        (np.cumsum(~right[order]) / np.arange(1, len(right) + 1)).mean()
    )


def test_aurc_bootstrap_value_of_a_draw_is_the_aurc_of_the_drawn_sample():
    score, right = draw(30)
    groups = np.arange(30) // 3
    result = risk_coverage(score, right, groups, bootstrap=Bootstrap(draws=200))
    drawn = []
    for counts in draw_counts(10, 30, Bootstrap(draws=200)):
        for row in counts:
            index = np.repeat(np.arange(30), row[groups])
            drawn.append(risk_coverage(score[index], right[index], bootstrap=Bootstrap(draws=1)).aurc.value)
    assert (result.aurc.low, result.aurc.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_risk_coverage_curve_takes_tied_samples_together():
    curve = risk_coverage([0.9, 0.9, 0.5, 0.2], [True, False, True, False])
    assert curve.score.tolist() == [0.9, 0.5, 0.2]
    assert curve.coverage_pct.tolist() == [50, 75, 100]
    assert curve.risk_pct == pytest.approx([50, 100 / 3, 50])


def test_sample_without_score_is_left_out_of_the_ranking():
    score, right = [0.9, math.nan, 0.2], [True, True, False]
    assert (auroc(score, right).value, auroc(score, right).n) == (1.0, 2)
    assert risk_coverage(score, right).n == rolling_accuracy(score, right).n == 2


@settings(max_examples=60, deadline=None)
@given(SCORED, st.integers(1, 12), st.randoms())
def test_rolling_accuracy_moves_a_window_and_ignores_the_order_of_ties(pairs, window, random):
    score, right = columns(pairs)
    rolling = rolling_accuracy(score, right, window)
    random.shuffle(pairs)
    again = rolling_accuracy(*columns(pairs), window)
    np.testing.assert_allclose(again.accuracy_pct, rolling.accuracy_pct)
    assert rolling.window == min(window, len(pairs))
    assert len(rolling.score) == len(pairs) - rolling.window + 1
    assert (np.diff(rolling.score) >= -1e-12).all()
    assert (
        (rolling.low_pct <= rolling.accuracy_pct + 1e-9) & (rolling.accuracy_pct <= rolling.high_pct + 1e-9)
    ).all()


def test_rolling_accuracy_of_distinct_scores_is_the_plain_moving_mean():
    rolling = rolling_accuracy([0.4, 0.1, 0.3, 0.2], [True, False, True, False], window=2)
    assert rolling.accuracy_pct.tolist() == [0, 50, 100]
    assert rolling.score == pytest.approx([0.15, 0.25, 0.35])


def test_infinite_score_is_refused():
    with pytest.raises(UserError, match=r"score\[0\] is infinite"):
        auroc([math.inf], [True])


def test_accuracy_at_a_coverage_is_that_of_the_most_confident():
    score, right = np.array([0.9, 0.8, 0.7, np.nan]), np.array([True, False, True, False])
    ranking = Ranking(score, right)
    ones = np.ones((1, 4), int)
    assert ranking.accuracy_at(ones, 1 / 3)[0] == pytest.approx(1)
    assert ranking.accuracy_at(ones, 2 / 3)[0] == pytest.approx(0.5)
    assert ranking.accuracy_at(2 * ones, 2 / 3)[0] == pytest.approx(0.5)
