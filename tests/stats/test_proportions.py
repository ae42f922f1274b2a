"""Shares of samples equal their definitions, and their intervals follow the groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from speceyes_lib.errors import UserError
from speceyes_lib.stats.intervals import proportion
from speceyes_lib.stats.proportions import accuracy, funnel_shares, mean, share, yes_no_scores
from speceyes_lib.stats.resampling import Bootstrap


def draw(n: int):
    """Verdicts of n samples that get more often right along the list."""
    rng = np.random.default_rng(0)
    score = rng.random(n).round(2)
    return rng.random(n) < score


def test_verdict_that_is_neither_right_nor_wrong_is_refused():
    with pytest.raises(UserError, match=r"right\[1\] .* expected true or false"):
        accuracy([True, None])


def test_shares_multiply_and_carry_their_own_denominators():
    shares = funnel_shares(accepted=2, drafted=3, n=5, share=proportion)
    assert (shares.beta.value, shares.beta.n) == (60.0, 5)
    assert (shares.alpha.value, shares.alpha.n) == (pytest.approx(200 / 3), 3)
    assert shares.accepted.value == pytest.approx(shares.alpha.value * shares.beta.value / 100)


def test_fractions_of_many_counts_are_the_estimates_and_nan_where_nothing_was_drafted():
    accepted, drafted = np.array([[2, 0], [0, 3]]), np.array([[3, 0], [4, 3]])
    alpha, beta, coverage = funnel_shares(accepted, drafted, 5)
    np.testing.assert_array_equal(alpha, [[2 / 3, np.nan], [0, 1]])
    np.testing.assert_array_equal(beta, drafted / 5)
    np.testing.assert_array_equal(coverage, accepted / 5)


@pytest.mark.parametrize("counts", [(2, 1, 5), (1, 6, 5)])
def test_counts_that_no_funnel_gives_are_refused(counts):
    with pytest.raises(UserError, match="check the counts"):
        funnel_shares(*counts)


def test_cluster_interval_is_wider_when_groups_agree_and_equal_when_groups_are_single_samples():
    right = draw(100)
    quadrupled, groups = np.repeat(right, 4), np.repeat(np.arange(100), 4)
    naive, clustered = accuracy(quadrupled), accuracy(quadrupled, groups)
    assert clustered.value == naive.value
    assert clustered.high - clustered.low == pytest.approx(2 * (naive.high - naive.low), rel=0.1)
    alone = accuracy(right, np.arange(100))
    assert (clustered.low, clustered.high) == (alone.low, alone.high)  # same draws, same seed


def test_bootstrap_is_seeded_and_the_seed_matters():
    right = draw(80)
    groups = np.arange(80) // 2
    assert accuracy(right, groups, Bootstrap(seed=1)) == accuracy(right, groups, Bootstrap(seed=1))
    assert accuracy(right, groups, Bootstrap(seed=1)) != accuracy(right, groups, Bootstrap(seed=2))


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(2).normal(5, 2, 400)
    estimate = mean(values)
    reach = 1.96 * values.std() / 20
    assert (estimate.low, estimate.high) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), abs=0.03
    )


def test_all_right_in_groups_still_has_an_honest_interval():
    estimate = accuracy([True] * 40, np.arange(40) // 4)
    assert (estimate.low, estimate.high) == (proportion(10, 10).low, 100.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"])), min_size=1, max_size=25
    )
)
@settings(max_examples=50, deadline=None)
def test_yes_no_scores_agree_with_sklearn(pairs):
    truth, answers = zip(*pairs, strict=True)
    scores = yes_no_scores(truth, answers, bootstrap=Bootstrap(draws=20))
    options = {"pos_label": "yes", "zero_division": np.nan}
    for ours, theirs in (
        (scores.precision, precision_score),
        (scores.recall, recall_score),
        (scores.f1, f1_score),
    ):
        assert ours.value / 100 == pytest.approx(theirs(truth, answers, **options), nan_ok=True)
    assert scores.true_yes + scores.false_yes + scores.true_no + scores.false_no == len(pairs)


def test_unknown_answer_is_wrong_a_miss_and_no_yes():
    scores = yes_no_scores(["yes", "yes", "no", "no"], ["yes", None, None, "no"])
    assert (scores.accuracy.value, scores.recall.value, scores.precision.value) == (50, 50, 100)
    assert (scores.yes_ratio.value, scores.unknown) == (25, 2)


def test_other_words_than_yes_and_no_are_refused():
    with pytest.raises(UserError, match="answers holds 'Yes'"):
        yes_no_scores(["yes"], ["Yes"])


def test_groups_must_match_the_samples():
    with pytest.raises(UserError, match="2 entries for 3 samples"):
        accuracy([1, 0, 1], ["a", "b"])


def test_samples_outside_the_whole_do_not_count():
    estimate = share([1, 1, 0, 1], [1, 1, 1, 0])
    assert (estimate.value, estimate.n) == (pytest.approx(200 / 3), 3)
