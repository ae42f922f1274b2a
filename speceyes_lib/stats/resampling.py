"""Bootstrap intervals over independent groups of samples, and their closed-form approximation.

Samples that share a question or a picture resemble each other. `groups` names what they share: whole groups are drawn
then, so that no observation counts several times. Without `groups` each sample is its own group. Every interval is the
percentile interval of the draws; fewer than two groups have none (nan).

Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13 (percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .intervals import LEVEL, Estimate, z_value


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to draw: the confidence level in (0, 1), the number of draws, and the seed of the random numbers."""

    level: float = LEVEL
    draws: int = 2000
    seed: int = 0


DEFAULT_BOOTSTRAP = Bootstrap()


def draw_counts(
    n: int, n_samples: int, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, max_cells: int = 2_000_000
) -> Iterator[NDArray[np.int64]]:
    """How often each of n units was drawn, in blocks of some draws; `bootstrap.draws` rows in total.

    Args:
        n: units to draw from, at least 1.
        n_samples: samples that the units hold.
        bootstrap: number of draws, and seed.
        max_cells: draws x samples in a block at most. It does not change the numbers.

    Yields:
        int64 [draws in the block, n]; every row sums to n.
    """
    random = np.random.default_rng(bootstrap.seed)
    at_once = max(1, max_cells // n_samples)
    for start in range(0, bootstrap.draws, at_once):
        rows = min(at_once, bootstrap.draws - start)
        drawn = random.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    n: int,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Any statistic of n samples with its bootstrap interval.

    Args:
        statistic: maps sample weights, int64 [draws, n], to values, float64 [draws]. Weights of 1 are the sample
            itself. Values that are not finite are left out of the interval.
        n: samples.
        groups: [n] of anything sortable; samples of one group are drawn together.
        bootstrap: level, draws and seed.
    """
    method = _method(groups)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0, method=method)
    value = float(statistic(np.ones((1, n), np.int64))[0])
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, method=method)
    drawn = [statistic(counts[:, group_of]) for counts in draw_counts(n_groups, n, bootstrap)]
    return Estimate(value, *interval_of(np.concatenate(drawn), bootstrap.level), n, method=method)


def bootstrap_ratio(
    numerator: NDArray,
    denominator: NDArray,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """sum(numerator) / sum(denominator) with its bootstrap interval; nan where the denominator is 0.

    Both are numbers [samples]; `groups` as in `bootstrap_statistic`. The sums of each group are taken once, so a draw
    costs two dot products.
    """
    n, method = len(numerator), _method(groups)
    if not n or not denominator.sum():
        return Estimate(math.nan, math.nan, math.nan, n, method=method)
    value = float(numerator.sum() / denominator.sum())
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2:
        return Estimate(value, math.nan, math.nan, n, method=method)
    sums = np.stack([np.bincount(group_of, part, n_groups) for part in (numerator, denominator)], axis=1)
    totals = np.concatenate([counts @ sums for counts in draw_counts(n_groups, n, bootstrap)])
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval_of(totals[:, 0] / totals[:, 1], bootstrap.level)
    return Estimate(value, low, high, n, method=method)


def linearised_ratio(
    numerator: NDArray, denominator: NDArray, groups: ArrayLike | None = None, level: float = LEVEL
) -> Estimate:
    """sum(numerator) / sum(denominator) with the interval that `bootstrap_ratio` tends to, without drawing.

    It takes milliseconds for 10,000 samples and serves views that follow a slider. Where nothing varies the interval
    has no width. Arguments as in `bootstrap_ratio`; level in (0, 1).

    Source: the delta method for a ratio of cluster totals, Cochran (1977), Sampling Techniques, chapter 6.
    """
    n, total, method = len(numerator), denominator.sum(), "linearised"
    if not n or not total:
        return Estimate(math.nan, math.nan, math.nan, n, method=method)
    value = float(numerator.sum() / total)
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2:
        return Estimate(value, math.nan, math.nan, n, method=method)
    # with ratio r, G groups, e_g the sum over group g of (numerator - r denominator) and D the sum of denominators, the
    # standard error is sqrt(G / (G - 1) sum(e_g^2)) / D
    residual = np.bincount(group_of, numerator - value * denominator, n_groups)
    deviation = math.sqrt(n_groups / (n_groups - 1) * float(residual @ residual)) / float(total)
    reach = z_value(level) * deviation
    return Estimate(value, value - reach, value + reach, n, method=method)


def linearised_difference(
    first: tuple[NDArray, NDArray],
    second: tuple[NDArray, NDArray],
    groups: ArrayLike | None = None,
    level: float = LEVEL,
) -> Estimate:
    """The ratio of the first sums less that of the second, on the same samples, with its linearised interval.

    Each is (numerator, denominator), numbers [samples]; where a denominator sums to 0, the difference is nan. Other
    arguments and source as `linearised_ratio`.
    """
    n, totals = len(first[0]), [float(denominator.sum()) for _, denominator in (first, second)]
    if not n or not all(totals):
        return Estimate(math.nan, math.nan, math.nan, n, method="linearised")
    ratios = [float(pair[0].sum()) / total for pair, total in zip((first, second), totals, strict=True)]
    value = ratios[0] - ratios[1]
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2:
        return Estimate(value, math.nan, math.nan, n, method="linearised")
    errors = [
        (numerator - ratio * denominator) / total
        for (numerator, denominator), ratio, total in zip((first, second), ratios, totals, strict=True)
    ]
    residual = np.bincount(group_of, errors[0] - errors[1], n_groups)
    reach = z_value(level) * math.sqrt(n_groups / (n_groups - 1) * float(residual @ residual))
    return Estimate(value, value - reach, value + reach, n, method="linearised")


def interval_of(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of drawn values [draws]; draws that are not finite are left out, no draws give nan."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def grouped(groups: ArrayLike | None, n: int) -> tuple[int, NDArray[np.int64]]:
    """Number of groups, and the group index of each sample, int64 [n]; None: every sample is its own group.

    Raises:
        UserError: `groups` does not have n entries.
    """
    if groups is None:
        return n, np.arange(n)
    groups = np.asarray(groups)
    if len(groups) != n:
        raise UserError(f"groups has {len(groups)} entries for {n} samples; give one per sample.")
    names, group_of = np.unique(groups, return_inverse=True)
    return len(names), group_of


def _method(groups: ArrayLike | None) -> str:
    return "bootstrap" if groups is None else "cluster bootstrap"
