"""The interval without draws is that of the bootstrap, where there are enough groups."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speceyes_lib.stats.resampling import bootstrap_ratio, linearised_ratio


@pytest.mark.parametrize("group_size", [1, 4])
def test_linearised_interval_agrees_with_the_bootstrap(group_size):
    rng = np.random.default_rng(3)
    n = 1200
    groups = np.arange(n) // group_size
    own = rng.gamma(2.0, 1.0, n // group_size)[groups]  # samples of a group resemble each other
    numerator, denominator = own * rng.uniform(0.5, 1.5, n), rng.uniform(0.2, 1.0, n)
    drawn = bootstrap_ratio(numerator, denominator, groups, level=0.95, draws=4000, seed=1)
    told = linearised_ratio(numerator, denominator, groups)
    assert told[0] == pytest.approx(drawn[0])
    width = drawn[2] - drawn[1]
    assert told[1:] == pytest.approx(drawn[1:], abs=0.08 * width)


def test_nothing_to_divide_by_and_a_single_group_have_no_interval():
    assert all(math.isnan(v) for v in linearised_ratio(np.empty(0), np.empty(0)))
    assert all(math.isnan(v) for v in linearised_ratio(np.ones(3), np.zeros(3)))
    value, low, high = linearised_ratio(np.array([1.0, 0.0]), np.ones(2), np.array(["a", "a"]))
    assert value == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
