"""The result type `Estimate`, and the Wilson interval of a proportion.

Two conventions hold in the whole wing. The caller decides what is right or wrong, and no function drops a sample that
has a verdict. Functions about a score leave out samples whose score is nan, and `n` says how many remain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError

LEVEL = 0.95  # of all intervals, where the caller gives no other
KEY_ENDINGS = {"%": "_pct", "pp": "_pp"}  # how a unit ends the keys of stored results
DIGITS = {"%": 1, "pp": 1, "x": 2}  # shown after the decimal point; other units: 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval."""

    value: float  # nan where the samples do not determine it
    low: float  # lower end of the interval; nan where there is no interval (a single group, no sample)
    high: float  # upper end
    n: int  # samples it is computed from; for a proportion its denominator
    unit: str = (
        ""  # "%" (a share), "pp" (a difference of shares), "x" (a ratio of times) or "" (a plain number)
    )
    method: str = ""  # how the interval was computed, such as "Wilson" or "cluster bootstrap"

    def __str__(self) -> str:
        return f"no estimate (n={self.n})" if math.isnan(self.value) else f"{self.shown()} (n={self.n})"

    def shown(self) -> str:
        """Value, unit and interval as text; a difference carries its sign."""
        number = f"{'+' if self.unit == 'pp' else ''}.{DIGITS.get(self.unit, 3)}f"
        interval = "no interval" if math.isnan(self.low) else f"{self.low:{number}}, {self.high:{number}}"
        space = " " if self.unit in KEY_ENDINGS else ""
        return f"{self.value:{number}}{space}{self.unit} [{interval}]"

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON: value, low and high with the unit in their keys (`value_pct`), and n. nan becomes None."""
        ending = KEY_ENDINGS.get(self.unit, "")
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {f"{key}{ending}": finite_or_none(number) for key, number in numbers.items()} | {"n": self.n}

    def times_100(self, unit: str = "%") -> Estimate:
        """The same estimate of a fraction, in percent (or in percentage points: unit "pp")."""
        return Estimate(100.0 * self.value, 100.0 * self.low, 100.0 * self.high, self.n, unit, self.method)


def finite_or_none(value: float) -> float | None:
    """The number, or None where it is not finite: JSON has no nan."""
    return float(value) if math.isfinite(value) else None


def wilson(
    successes: ArrayLike, n: ArrayLike, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the Wilson score interval of successes / n, as fractions.

    Args:
        successes: counts, any shape; expected counts need not be whole numbers.
        n: counts they are out of, of a shape that broadcasts with `successes`.
        level: confidence level in (0, 1).

    Returns:
        low and high, float64 of the broadcast shape; nan where n is 0.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = z_value(level)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / n
        centre = share + z**2 / (2 * n)
        spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        low, high = (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)
    # Rounding may leave the bound a few units in the last place off 0 or 1, which it must reach.
    low = np.where(successes == 0, np.where(n > 0, 0.0, np.nan), low)
    high = np.where(successes == n, np.where(n > 0, 1.0, np.nan), high)
    return low, high


def proportion(successes: int, n: int, level: float = LEVEL) -> Estimate:
    """Share of successes in n, in percent with its Wilson interval; nan for n = 0.

    Raises:
        UserError: successes is not between 0 and n.
    """
    if not 0 <= successes <= n:
        raise UserError(f"{successes} successes of {n}: the count must lie between 0 and n.")
    low, high = wilson(successes, n, level)
    value = 100.0 * successes / n if n else math.nan
    return Estimate(value, 100.0 * float(low), 100.0 * float(high), int(n), "%", "Wilson")


def z_value(level: float) -> float:
    """Half-width, in standard deviations, of the two-sided normal interval of this level (0.95: 1.96).

    Raises:
        UserError: level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level}; 0.95 is usual.")
    return NormalDist().inv_cdf((1 + level) / 2)
