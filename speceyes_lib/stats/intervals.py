"""Estimates with intervals: the `Estimate` value and the Wilson interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError

LEVEL = 0.95
DRAWS = 2000
SEED = 0


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


# --- checked input ------------------------------------------------------------------------------------


def z_value(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level}; 0.95 is usual.")
    return NormalDist().inv_cdf((1 + level) / 2)
