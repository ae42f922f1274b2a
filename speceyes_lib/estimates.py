"""Estimates with their intervals and denominators, and the bootstrap and input checks behind every metric.

Arrays in, frozen results out. Nothing to estimate from is not an error: the value is nan and `n` is 0.
Intervals, 95 % unless told otherwise:

- Wilson (1927) for proportions of independent samples.
- Percentile bootstrap for everything else, seeded. With `groups` it draws whole groups (HR-Bench: the four
  option orders of one question; POPE: the questions on one image), which are not independent samples.
  A proportion of exactly 0 or 100 % has nothing to vary, so its interval is Wilson's with n = groups.
- A single group, or a bootstrap in which no draw is defined, has no interval (nan).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UserError

LEVEL = 0.95
DRAWS = 2000
SEED = 0

_CHUNK_CELLS = 2_000_000  # draws x samples held at once by a bootstrap: 16 MB per working array


def as_json(value: float) -> float | None:
    """The number, or None where it is not finite: JSON has no nan."""
    return value if math.isfinite(value) else None


def _shown(value: float, low: float, high: float, n: int, digits: int, unit: str) -> str:
    if math.isnan(value):
        return f"no estimate (n={n})"
    interval = "no interval" if math.isnan(low) else f"{low:.{digits}f}, {high:.{digits}f}"
    return f"{value:.{digits}f}{unit} [{interval}] (n={n})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in percent with its interval; `n` is its denominator, `method` names the interval."""

    value_pct: float
    low_pct: float
    high_pct: float
    n: int
    method: str = "Wilson"

    def __str__(self) -> str:
        return _shown(self.value_pct, self.low_pct, self.high_pct, self.n, 1, " %")

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON: nan becomes null."""
        return {
            "value_pct": as_json(self.value_pct),
            "low_pct": as_json(self.low_pct),
            "high_pct": as_json(self.high_pct),
            "n": self.n,
        }


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that is no share (AUROC, AURC, a speedup) with its bootstrap interval and sample count."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    def __str__(self) -> str:
        return _shown(self.value, self.low, self.high, self.n, 2 if self.unit else 3, self.unit)

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON: nan becomes null."""
        return {
            "value": as_json(self.value),
            "low": as_json(self.low),
            "high": as_json(self.high),
            "n": self.n,
        }


def wilson(successes: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[NDArray, NDArray]:
    """Wilson interval of successes/n as fractions, element by element; nan where n is 0."""
    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = z_value(level)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / n
        centre = share + z**2 / (2 * n)
        spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        low, high = (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)
    # At the ends rounding may leave the bound a few ulp off the value it must reach.
    low = np.where(successes == 0, np.where(n > 0, 0.0, np.nan), low)
    high = np.where(successes == n, np.where(n > 0, 1.0, np.nan), high)
    return low, high


def proportion(successes: int, n: int, level: float = LEVEL) -> Estimate:
    """successes of n in percent with the Wilson interval; nan for n = 0.

    Raises:
        UserError: successes is not between 0 and n.
    """
    if not 0 <= successes <= n:
        raise UserError(f"{successes} successes of {n}: the count must lie between 0 and n.")
    low, high = wilson(successes, n, level)
    value = 100.0 * successes / n if n else math.nan
    return Estimate(value, 100.0 * float(low), 100.0 * float(high), int(n))


# --- the bootstrap ------------------------------------------------------------------------------------


def draw_counts(n: int, n_samples: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of n units was drawn, [some draws, n] at a time, `draws` rows in all.

    `n_samples`, how many samples the units hold, sets how many draws are held at once.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_CELLS // n_samples)
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        drawn = random.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def bootstrap(
    statistic: Callable[[NDArray], NDArray],
    n: int,
    groups: NDArray | None,
    level: float,
    draws: int,
    seed: int,
) -> Measure:
    """`statistic` maps integer sample weights [draws, n] to values [draws]; weights of 1 are the sample."""
    if not n:
        return Measure(math.nan, math.nan, math.nan, 0)
    value = float(statistic(np.ones((1, n), np.int64))[0])
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2 or math.isnan(value):
        return Measure(value, math.nan, math.nan, n)
    drawn = [statistic(counts[:, group_of]) for counts in draw_counts(n_groups, n, draws, seed)]
    return Measure(value, *interval_of(np.concatenate(drawn), level), n)


def bootstrap_ratio(
    numerator: NDArray,
    denominator: NDArray,
    groups: ArrayLike | None,
    *,
    level: float,
    draws: int,
    seed: int,
) -> tuple[float, float, float]:
    """sum(numerator) / sum(denominator) with its percentile interval; a draw costs two dot products."""
    n = len(numerator)
    if not n or not denominator.sum():
        return math.nan, math.nan, math.nan
    value = float(numerator.sum() / denominator.sum())
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2:
        return value, math.nan, math.nan
    sums = np.stack([np.bincount(group_of, part, n_groups) for part in (numerator, denominator)], axis=1)
    totals = np.concatenate([counts @ sums for counts in draw_counts(n_groups, n, draws, seed)])
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval_of(totals[:, 0] / totals[:, 1], level)
    return value, low, high


def linearised_ratio(
    numerator: NDArray, denominator: NDArray, groups: ArrayLike | None = None, level: float = LEVEL
) -> tuple[float, float, float]:
    """sum(numerator) / sum(denominator) with the interval that `bootstrap_ratio` tends to, without drawing.

    The ratio is linearised and the residuals are summed per group (delta method): milliseconds for 10,000
    samples, for views that follow a slider. Where nothing varies the interval has no width.
    """
    n, total = len(numerator), denominator.sum()
    if not n or not total:
        return math.nan, math.nan, math.nan
    value = float(numerator.sum() / total)
    n_groups, group_of = grouped(groups, n)
    if n_groups < 2:
        return value, math.nan, math.nan
    residual = np.bincount(group_of, numerator - value * denominator, n_groups)
    deviation = math.sqrt(n_groups / (n_groups - 1) * float(residual @ residual)) / float(total)
    reach = z_value(level) * deviation
    return value, value - reach, value + reach


def clustered_share(
    of: NDArray, among: NDArray, groups: ArrayLike, level: float, draws: int, seed: int
) -> Estimate:
    """Share of `of` in `among`, both bool [samples], with the cluster bootstrap of the module's rules."""
    successes, n = int(of.sum()), int(among.sum())
    if successes in (0, n):
        _, group_of = grouped(groups, len(of))
        n_groups = n_groups_of(group_of[among], n)
        low, high = wilson(n_groups if successes else 0, n_groups, level)
        return Estimate(100.0 * successes / n, 100.0 * float(low), 100.0 * float(high), n, "Wilson of groups")
    ratio = bootstrap_ratio(1.0 * of, 1.0 * among, groups, level=level, draws=draws, seed=seed)
    return Estimate(*(100.0 * value for value in ratio), n, "cluster bootstrap")


def interval_of(values: NDArray, level: float) -> tuple[float, float]:
    """Percentile interval of drawn values; draws that are not finite are left out, no draws give nan."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def grouped(groups: ArrayLike | None, n: int) -> tuple[int, NDArray[np.int64]]:
    """Number of groups and the group index of each sample."""
    if groups is None:
        return n, np.arange(n)
    groups = np.asarray(groups)
    if len(groups) != n:
        raise UserError(f"groups has {len(groups)} entries for {n} samples; give one per sample.")
    names, group_of = np.unique(groups, return_inverse=True)
    return len(names), group_of


def n_groups_of(groups: ArrayLike | None, n: int) -> int:
    return grouped(groups, n)[0]


# --- checked input ------------------------------------------------------------------------------------


def z_value(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level}; 0.95 is usual.")
    return NormalDist().inv_cdf((1 + level) / 2)


def as_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be numbers: {error}.") from error
    if array.ndim != 1:
        raise UserError(f"{name} must be one number per sample, got the shape {list(array.shape)}.")
    return array


def as_scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Scores with nan (or None) for "no score"; infinities are refused, they come from a broken score."""
    array = as_numbers(name, values)
    if np.isinf(array).any():
        raise UserError(f"{name}[{int(np.isinf(array).argmax())}] is infinite; expected a number or nan.")
    return array


def as_flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = as_numbers(name, values)
    odd = np.flatnonzero((array != 0) & (array != 1))
    if len(odd):
        raise UserError(
            f"{name}[{odd[0]}] is {array[odd[0]]:g}; expected true or false. Decide first how unparsed "
            "answers and errors count."
        )
    return array.astype(bool)


def require_same_length(**arrays: NDArray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"The arrays must describe the same samples, but their lengths differ: {told}.")
