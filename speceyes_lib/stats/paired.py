"""Comparisons of two arms on the same samples: McNemar test and speedup."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from .checks import as_flags, as_numbers, require_same_length
from .intervals import DRAWS, LEVEL, SEED, Measure, as_json, z_value
from .resampling import bootstrap_ratio, n_groups_of

# --- results ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two systems on the same samples: difference a - b in percentage points, exact McNemar p-value.

    `b` samples only the first got right, `c` only the second; the others say nothing about the difference.
    """

    diff_pp: float
    low_pp: float
    high_pp: float
    b: int
    c: int
    p_value: float
    n: int
    method: str

    def __str__(self) -> str:
        if not self.n:
            return "no estimate (n=0)"
        interval = "no interval" if math.isnan(self.low_pp) else f"{self.low_pp:+.1f}, {self.high_pp:+.1f}"
        p_value = f"p={self.p_value:.3f}" if self.p_value >= 0.001 else "p<0.001"
        return (
            f"{self.diff_pp:+.1f} pp [{interval}], McNemar {p_value} "
            f"({self.b} against {self.c} of n={self.n})"
        )

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON: nan becomes null."""
        return {
            "diff_pp": as_json(self.diff_pp),
            "low_pp": as_json(self.low_pp),
            "high_pp": as_json(self.high_pp),
            "b": self.b,
            "c": self.c,
            "p_value": as_json(self.p_value),
            "n": self.n,
        }


# --- comparisons --------------------------------------------------------------------------------------


def paired_test(
    a_right: ArrayLike,
    b_right: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> PairedTest:
    """Compare two systems on the same samples, sample by sample.

    The p-value is McNemar's exact two-sided test on the discordant pairs; it takes samples as independent,
    also when `groups` are given. The interval is the paired bootstrap (of whole groups). When the systems
    never differ there is nothing to draw, and the interval is that of Agresti and Min (2005) for paired
    proportions, with n = groups.

    Args:
        a_right, b_right: bool [samples] in the same order.
        groups: as in `accuracy`.
    """
    a, b = as_flags("a_right", a_right), as_flags("b_right", b_right)
    require_same_length(a_right=a, b_right=b)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    if not n:
        return PairedTest(math.nan, math.nan, math.nan, 0, 0, math.nan, 0, "none")
    if only_a + only_b == 0:
        reach = 100.0 * z_value(level) / (n_groups_of(groups, n) + 2)
        return PairedTest(0.0, -reach, reach, 0, 0, 1.0, n, "Agresti-Min")
    from scipy.stats import binomtest

    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue)
    difference = a.astype(np.float64) - b
    _, low, high = bootstrap_ratio(difference, np.ones(n), groups, level=level, draws=draws, seed=seed)
    method = "paired bootstrap" if groups is None else "paired cluster bootstrap"
    diff_pp = 100.0 * (only_a - only_b) / n
    return PairedTest(diff_pp, 100.0 * low, 100.0 * high, only_a, only_b, p_value, n, method)


def speedup(
    baseline_s: ArrayLike,
    run_s: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Measure:
    """How many times faster the run is: total baseline seconds over total run seconds.

    Args:
        baseline_s, run_s: seconds charged to each sample by the two arms, in the same order [samples].

    The interval is the paired bootstrap over samples: it speaks about other samples of this kind on the
    same machine, not about other machines or a second timing of the same samples.

    Raises:
        UserError: a time is negative or not finite, or the lengths differ.
    """
    times = {"baseline_s": as_numbers("baseline_s", baseline_s), "run_s": as_numbers("run_s", run_s)}
    require_same_length(**times)
    for name, values in times.items():
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            raise UserError(f"{name}[{bad[0]}] is {values[bad[0]]}; expected seconds of at least 0.")
    value, low, high = bootstrap_ratio(*times.values(), groups, level=level, draws=draws, seed=seed)
    return Measure(value, low, high, len(times["run_s"]), "x")
