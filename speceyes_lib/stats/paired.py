"""Comparisons of two arms on the same samples: McNemar's test and the speedup."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_numbers, require_same_length
from .intervals import LEVEL, Estimate, finite_or_none, z_value
from .resampling import (
    DEFAULT_BOOTSTRAP,
    Bootstrap,
    bootstrap_ratio,
    bootstrap_statistic,
    grouped,
    linearised_ratio,
)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two systems, A and B, on the same samples. Only the samples of b and c affect the difference."""

    difference: Estimate  # accuracy of A minus accuracy of B, in percentage points
    b: int  # samples that only A got right
    c: int  # samples that only B got right
    p_value: float  # of McNemar's exact two-sided test; nan without samples

    def __str__(self) -> str:
        if not self.difference.n:
            return str(self.difference)
        p_value = f"p={self.p_value:.3f}" if self.p_value >= 0.001 else "p<0.001"
        return f"{self.difference.shown()}, McNemar {p_value} ({self.b} against {self.c} of n={self.difference.n})"

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON, with the keys diff_pp, low_pp, high_pp, b, c, p_value, n; nan becomes None."""
        ends = self.difference.as_dict()
        result = {"diff_pp": ends["value_pp"], "low_pp": ends["low_pp"], "high_pp": ends["high_pp"]}
        return result | {"b": self.b, "c": self.c, "p_value": finite_or_none(self.p_value), "n": ends["n"]}


def paired_test(
    a_right: ArrayLike,
    b_right: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
) -> PairedTest:
    """Difference of two systems' accuracies on the same samples, with McNemar's exact test.

    The verdicts are bool [samples], in the same order. The test takes samples as independent, also when `groups` are
    given. The interval is the paired bootstrap of whole groups, or with `bootstrap` None its limit, which takes
    milliseconds (`linearised_ratio`). Where the systems never differ, it is that of `no_difference`.

    Source: McNemar (1947), Note on the sampling error of the difference between correlated proportions.
    """
    a, b = as_flags("a_right", a_right), as_flags("b_right", b_right)
    require_same_length(a_right=a, b_right=b)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    if not n:
        return PairedTest(Estimate(math.nan, math.nan, math.nan, 0, "pp", "none"), 0, 0, math.nan)
    if only_a + only_b == 0:
        return PairedTest(no_difference(n, groups, bootstrap.level if bootstrap else LEVEL), 0, 0, 1.0)
    from scipy.stats import binomtest

    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue)
    parts = a.astype(np.float64) - b, np.ones(n), groups
    ratio = (bootstrap_ratio(*parts, bootstrap) if bootstrap else linearised_ratio(*parts)).times_100("pp")
    # the difference of the counts is exact, where a sum of fractions would round
    difference = replace(ratio, value=100.0 * (only_a - only_b) / n, method=f"paired {ratio.method}")
    return PairedTest(difference, only_a, only_b, p_value)


def no_difference(n: int, groups: ArrayLike | None = None, level: float = LEVEL) -> Estimate:
    """The difference, in percentage points, of two systems with equal verdicts on all n >= 1 samples.

    No draw would differ from 0. The interval reaches z / (G + 2) to both sides, with G groups (None: n).

    Source: Agresti and Min (2005), Simple improved confidence intervals for comparing matched proportions.
    """
    reach = 100.0 * z_value(level) / (grouped(groups, n)[0] + 2)
    return Estimate(0.0, -reach, reach, n, "pp", "Agresti-Min")


def speedup(
    baseline_s: ArrayLike,
    run_s: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """How many times faster a run is than its baseline: total baseline seconds / total run seconds.

    The interval is the paired bootstrap over samples. It describes other samples of this kind on the same machine,
    neither other machines nor a second timing of the same samples.

    Args:
        baseline_s: seconds charged to each sample by the baseline [samples].
        run_s: the same of the run, in the same order.
        groups: as in `proportions.share`.
        bootstrap: level, draws and seed.

    Raises:
        UserError: a time is negative or not finite, or the lengths differ.
    """
    return replace(bootstrap_ratio(*_seconds(baseline_s, run_s), groups, bootstrap), unit="x")


def mean_speedup(
    baseline_s: ArrayLike,
    run_s: ArrayLike,
    parts: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Unweighted mean of the speedups of several parts, such as the splits of a benchmark.

    The interval draws whole groups over all parts, as for the other arguments of `speedup`.

    Args:
        baseline_s: see `speedup` [samples].
        run_s: see `speedup` [samples].
        parts: the part of each sample, anything sortable [samples].
        groups: as in `proportions.share`.
        bootstrap: level, draws and seed.

    Raises:
        UserError: as `speedup`.
    """
    times = _seconds(baseline_s, run_s)
    _, part_of = grouped(parts, len(times[0]))
    members = np.eye(int(part_of.max(initial=-1)) + 1)[part_of]

    def mean(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        alone_s, run_s = ((weights * seconds) @ members for seconds in times)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (alone_s / run_s).mean(axis=1)

    return replace(bootstrap_statistic(mean, len(times[0]), groups, bootstrap), unit="x")


def _seconds(baseline_s: ArrayLike, run_s: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays of one length; raises UserError for a time that is negative or not finite."""
    times = {"baseline_s": as_numbers("baseline_s", baseline_s), "run_s": as_numbers("run_s", run_s)}
    require_same_length(**times)
    for name, values in times.items():
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            raise UserError(f"{name}[{bad[0]}] is {values[bad[0]]}; expected seconds of at least 0.")
    return times["baseline_s"], times["run_s"]


def sign_flip_test(differences: ArrayLike, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of paired differences being symmetric around 0, by flipping their signs; nan without any.

    Up to 2^12 sign patterns are all counted, otherwise `draws` are drawn.

    Args:
        differences: one per pair [pairs], such as seconds of two arms on a task.
        draws: patterns to draw.
        seed: of the draws.

    Raises:
        UserError: a difference is not finite.

    Source: Fisher (1935), The Design of Experiments, section 21 (randomisation test).
    """
    values = as_numbers("differences", differences)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"differences[{bad[0]}] is {values[bad[0]]}; expected numbers. Leave out pairs without both."
        )
    if not len(values):
        return math.nan
    observed = abs(float(values.sum()))
    if len(values) <= 12:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        extra = 0
    else:
        signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (draws, len(values)))
        extra = 1  # the observed pattern is one of those possible
    slack = 1e-12 * float(np.abs(values).sum())  # sums of the same numbers may round differently
    as_large = int((np.abs(signs @ values) >= observed - slack).sum())
    return (as_large + extra) / (len(signs) + extra)
