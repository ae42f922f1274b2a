"""Comparisons on the same samples: McNemar's test and the speedup."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.stats.paired import mean_speedup, paired_test, sign_flip_test, speedup
from speceyes_lib.stats.proportions import accuracy
from speceyes_lib.stats.ranking import auroc
from speceyes_lib.stats.resampling import Bootstrap


def draw(n: int, seed: int = 0):
    """Scores in [0, 1], and verdicts that are right as often as the score says."""
    rng = np.random.default_rng(seed)
    score = rng.random(n).round(2)
    return score, rng.random(n) < score


def columns(pairs):
    return [np.array(column) for column in zip(*pairs, strict=True)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_p_value_is_the_exact_binomial_tail(pairs):
    a, b = columns(pairs)
    test = paired_test(a, b, bootstrap=Bootstrap(draws=50))
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    m = only_a + only_b
    tail = sum(math.comb(m, i) for i in range(min(only_a, only_b) + 1)) / 2**m
    assert (test.b, test.c, test.difference.n) == (only_a, only_b, len(pairs))
    assert test.p_value == pytest.approx(min(1.0, 2 * tail))
    assert test.difference.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert test.difference.low <= test.difference.value <= test.difference.high or math.isnan(
        test.difference.low
    )


def test_paired_interval_is_narrower_than_the_difference_of_independent_intervals():
    _, a = draw(400)
    b = a.copy()
    b[:10] = ~b[:10]
    test = paired_test(a, b)
    assert test.difference.high - test.difference.low < 0.5 * (accuracy(a).high - accuracy(a).low)


def test_systems_that_never_differ_are_not_called_certainly_equal():
    test = paired_test([True] * 98, [True] * 98)
    assert (test.difference.value, test.p_value, test.difference.method) == (0.0, 1.0, "Agresti-Min")
    assert test.difference.high == -test.difference.low == pytest.approx(1.96, abs=1e-3)  # z / (n + 2)


def test_paired_test_shows_the_discordant_counts():
    text = str(paired_test([1] * 30 + [0] * 10, [0] * 30 + [1] * 10))
    assert text.startswith("+50.0 pp [")
    assert text.endswith("McNemar p=0.002 (30 against 10 of n=40)")


def test_speedup_is_the_ratio_of_sums_and_its_interval_is_paired():
    rng = np.random.default_rng(4)
    run_s = rng.gamma(1, 1, 200)
    proportional = speedup(2 * run_s, run_s)  # every sample exactly twice as fast: no spread left
    assert (proportional.value, proportional.low, proportional.high) == pytest.approx((2, 2, 2))
    mixed = speedup([4.0, 0.0, 2.0], [1.0, 1.0, 1.0])
    assert mixed.value == 2.0
    assert mixed.low < 2.0 < mixed.high
    assert str(proportional) == "2.00x [2.00, 2.00] (n=200)"


@pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf])
def test_speedup_refuses_times_that_cannot_be(time_s):
    with pytest.raises(UserError, match=r"run_s\[1\] .* seconds"):
        speedup([1.0, 1.0], [1.0, time_s])


@pytest.mark.parametrize("estimator", [auroc, speedup, paired_test])
def test_single_sample_has_a_value_or_reason_but_no_interval(estimator):
    result = estimator([1.0], [1.0])
    assert "n=1" in str(result)


def test_a_single_group_has_no_interval():
    score, right = draw(20)
    for estimate in (auroc(score, right, ["a"] * 20), speedup(score, score, ["a"] * 20)):
        assert math.isfinite(estimate.value)
        assert str(estimate).endswith("[no interval] (n=20)")


def test_sign_flips_of_few_pairs_are_all_counted():
    assert sign_flip_test([1, 2, 3]) == 2 / 8
    assert sign_flip_test([1, -1]) == 1.0
    assert sign_flip_test([0, 0]) == 1.0
    assert np.isnan(sign_flip_test([]))
    with pytest.raises(UserError, match=r"differences\[1\] is nan"):
        sign_flip_test([1, np.nan])


def test_sign_flips_of_many_pairs_are_drawn():
    rng = np.random.default_rng(0)
    assert sign_flip_test(rng.normal(1, 1, 40)) < 0.001
    p_values = [sign_flip_test(rng.normal(0, 1, 20), 500, seed) for seed in range(200)]
    assert 0.02 < np.mean(np.array(p_values) < 0.1) < 0.2


def test_the_mean_speedup_weighs_every_part_alike():
    alone_s, run_s = np.array([2.0, 2.0, 9.0, 9.0, 9.0]), np.array([1.0, 1.0, 3.0, 3.0, 3.0])
    parts = ["a", "a", "b", "b", "b"]
    mean = mean_speedup(alone_s, run_s, parts, bootstrap=Bootstrap(draws=200))
    assert mean.value == pytest.approx((2 + 3) / 2)  # the ratio of the totals would be 31 / 11
    assert (mean.low, mean.high) == pytest.approx((2.5, 2.5))  # every sample of a part has the same speedup
    assert (mean.n, mean.unit) == (5, "x")
    assert mean_speedup(alone_s, run_s, ["a"] * 5).value == speedup(alone_s, run_s).value
    with pytest.raises(UserError, match=r"run_s\[0\]"):
        mean_speedup(alone_s, -run_s, parts)
