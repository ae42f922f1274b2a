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
    """Squared difference of each probability and the verdict (1 right, 0 wrong), float64 [n]; their mean is the score.

    Source: Brier (1950), Verification of forecasts expressed in terms of probability.
    """
    return (probability - right) ** 2


class CalibrationBins:
    """Equally filled bins of a probability, to compare it with the accuracy in each bin.

    Equal probabilities share a bin, so there may be fewer than `n_bins`. `index` holds the positions of the m samples
    with a probability in the input, lowest first; `probability` and `right` [m] are theirs, and `starts` [bins] says
    where each bin begins.

    Args:
        probability: in [0, 1], nan for "none" [n].
        right: bool [n].
        n_bins: at least 1.
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

        Source: Naeini et al. (2015), Obtaining well calibrated probabilities using Bayesian binning.
        """
        scored = weights[:, self.index]
        gap = np.add.reduceat(scored * (self.right - self.probability), self.starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(gap).sum(axis=1) / scored.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted and observed accuracy per bin, arrays [bins]."""

    promised_pct: NDArray[np.float64]  # mean probability
    accuracy_pct: NDArray[np.float64]  # right answers
    low_pct: NDArray[np.float64]  # lower end of its Wilson interval
    high_pct: NDArray[np.float64]  # upper end
    n_bin: NDArray[np.int64]  # samples in the bin
    n: int  # samples with a probability


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
