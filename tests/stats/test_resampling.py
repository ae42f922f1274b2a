"""Draws are seeded, blocks do not change them, and intervals are those of the draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speceyes_lib.stats.resampling import (
    Bootstrap,
    bootstrap_ratio,
    bootstrap_statistic,
    draw_counts,
    interval_of,
    linearised_ratio,
)


def test_the_size_of_a_block_of_draws_does_not_change_the_draws():
    whole = np.concatenate(list(draw_counts(60, 60, Bootstrap(draws=50))))
    blocks = list(draw_counts(60, 60, Bootstrap(draws=50), max_cells=60 * 7))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    assert np.array_equal(np.concatenate(blocks), whole)


def test_bootstrap_is_seeded():
    first, again, other = (
        np.concatenate(list(draw_counts(20, 20, Bootstrap(draws=9, seed=seed)))) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_interval_of_draws_is_that_of_their_quantiles_and_leaves_out_what_is_not_finite():
    drawn = np.append(np.arange(101.0), [np.nan, np.inf])
    assert interval_of(drawn, 0.9) == pytest.approx((5, 95))
    assert np.isnan(interval_of(np.array([np.nan]))).all()


@pytest.mark.parametrize("group_size", [1, 4])
def test_linearised_interval_agrees_with_the_bootstrap(group_size):
    rng = np.random.default_rng(3)
    n = 1200
    groups = np.arange(n) // group_size
    of_group = rng.gamma(2.0, 1.0, n // group_size)[groups]  # samples of a group resemble each other
    numerator, denominator = of_group * rng.uniform(0.5, 1.5, n), rng.uniform(0.2, 1.0, n)
    drawn = bootstrap_ratio(numerator, denominator, groups, Bootstrap(draws=4000, seed=1))
    linear = linearised_ratio(numerator, denominator, groups)
    assert linear.value == pytest.approx(drawn.value)
    width = drawn.high - drawn.low
    assert (linear.low, linear.high) == pytest.approx((drawn.low, drawn.high), abs=0.08 * width)


@pytest.mark.parametrize("ratio", [bootstrap_ratio, linearised_ratio])
def test_nothing_to_divide_by_and_a_single_group_have_no_interval(ratio):
    assert math.isnan(ratio(np.empty(0), np.empty(0)).value)
    assert math.isnan(ratio(np.ones(3), np.zeros(3)).value)
    single = ratio(np.array([1.0, 0.0]), np.ones(2), np.array(["a", "a"]))
    assert single.value == 0.5
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_a_statistic_is_drawn_as_its_ratio():
    values = np.random.default_rng(0).random(40)
    drawn = bootstrap_statistic(lambda weights: weights @ values / weights.sum(axis=1), 40)
    assert (drawn.value, drawn.low, drawn.high) == pytest.approx(
        (lambda e: (e.value, e.low, e.high))(bootstrap_ratio(values, np.ones(40)))
    )
