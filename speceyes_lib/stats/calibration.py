"""How well a probability agrees with the observed accuracy: Brier score, reliability bins, calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_scores, require_same_length
from .intervals import LEVEL, wilson
from .ranking import tie_starts


def brier_terms(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Squared difference of each probability and the verdict (1 right, 0 wrong), float64 [n].

    Their mean is the Brier score; lower is better.

    Source: Brier (1950), Verification of forecasts expressed in terms of probability.
    """
    return (probability - right) ** 2


class CalibrationBins:
    """Equally filled bins of a probability, to compare it with the accuracy in each bin.

    Bins are cut between distinct probabilities. Equal ones share a bin, so there may be fewer than `n_bins`.

    Args:
        probability: in [0, 1], nan for "none" [n].
        right: bool [n].
        n_bins: at least 1.

    Attributes:
        index: positions of the m samples with a probability in the input, lowest first, int64 [m].
        probability: their probabilities [m].
        right: their verdicts [m].
        starts: where each bin begins in `index`, int64 [bins].
    """

    def __init__(self, probability: NDArray[np.float64], right: NDArray[np.bool_], n_bins: int = 10) -> None:
        order = np.argsort(probability, kind="stable")
        self.index = order[: len(probability) - int(np.isnan(probability).sum())]
        self.probability, self.right = probability[self.index], right[self.index]
        n = len(self.index)
        cuts = np.linspace(0, n, n_bins + 1).astype(int)[:-1]
        ties = tie_starts(self.probability)
        # a cut inside a run of equal probabilities moves to where the run begins
        self.starts = np.unique(ties[np.searchsorted(ties, cuts, side="right") - 1]) if n else ties

    def error(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Expected calibration error of each draw, a fraction: float64 [draws].

        The mean over bins, by their weight, of |accuracy - mean probability|; 0 is perfect. A small sample never
        reaches 0, and bootstrap draws lie further away from it than the sample does.

        Args:
            weights: integer sample weights [draws, n]; weights of 1 are the sample itself.

        Source: Naeini et al. (2015), Obtaining well calibrated probabilities using Bayesian binning, with equally
        filled bins.
        """
        scored = weights[:, self.index]
        gap = np.add.reduceat(scored * (self.right - self.probability), self.starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(gap).sum(axis=1) / scored.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted and observed accuracy per bin.

    Attributes:
        promised_pct: mean probability, in percent, float64 [bins].
        accuracy_pct: right answers, in percent [bins].
        low_pct: lower end of its Wilson interval [bins].
        high_pct: upper end [bins].
        n_bin: samples, int64 [bins].
        n: samples with a probability.
    """

    promised_pct: NDArray[np.float64]
    accuracy_pct: NDArray[np.float64]
    low_pct: NDArray[np.float64]
    high_pct: NDArray[np.float64]
    n_bin: NDArray[np.int64]
    n: int


def reliability(
    probability: ArrayLike, right: ArrayLike, n_bins: int = 10, level: float = LEVEL
) -> Reliability:
    """Mean probability and accuracy in equally filled bins.

    Args:
        probability: in [0, 1] [samples]; nan is left out.
        right: bool [samples].
        n_bins: at least 1.
        level: of the Wilson intervals, in (0, 1).

    Raises:
        UserError: a probability outside [0, 1], unequal lengths, fewer than one bin.
    """
    probability, right = as_scores("probability", probability), as_flags("right", right)
    require_same_length(probability=probability, right=right)
    if n_bins < 1:
        raise UserError(f"n_bins must be at least 1, got {n_bins}.")
    if ((probability < 0) | (probability > 1)).any():
        raise UserError("Probabilities must lie in [0, 1]; a score of another kind has no calibration.")
    bins = CalibrationBins(probability, right, n_bins)
    n_bin = np.diff(np.append(bins.starts, len(bins.index)))
    promised, hits = (
        np.add.reduceat(values.astype(np.float64), bins.starts) if len(n_bin) else np.empty(0)
        for values in (bins.probability, bins.right)
    )
    low, high = wilson(hits, n_bin, level)
    return Reliability(
        promised_pct=100.0 * promised / n_bin,
        accuracy_pct=100.0 * hits / n_bin,
        low_pct=100.0 * low,
        high_pct=100.0 * high,
        n_bin=n_bin,
        n=len(bins.index),
    )
