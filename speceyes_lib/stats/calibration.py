"""How well a confidence agrees with the observed accuracy: Brier score and reliability bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_scores, require_same_length
from .intervals import LEVEL, wilson
from .ranking import _tie_starts


def brier_terms(probability: NDArray, right: NDArray) -> NDArray[np.float64]:
    """Squared distance of each probability from what happened; their mean is the Brier score (lower is better)."""
    return (probability - right) ** 2


class CalibrationBins:
    """Equally filled bins of a probability, to hold what was promised against what came true.

    Bins are cut between distinct probabilities, so equal ones share a bin and there may be fewer than asked for.

    Args:
        probability: in [0, 1], nan for "none" [n].
        right: bool [n].
    """

    def __init__(self, probability: NDArray, right: NDArray, n_bins: int = 10) -> None:
        order = np.argsort(probability, kind="stable")
        self.index = order[: len(probability) - int(np.isnan(probability).sum())]
        self.probability, self.right = probability[self.index], right[self.index]
        n = len(self.index)
        cuts = np.linspace(0, n, n_bins + 1).astype(int)[:-1]
        ties = _tie_starts(self.probability)
        # a cut inside a run of equal probabilities moves to where the run begins
        self.starts = np.unique(ties[np.searchsorted(ties, cuts, side="right") - 1]) if n else ties

    def error(self, weights: NDArray) -> NDArray[np.float64]:
        """Expected calibration error for weights [draws, n]: mean distance of the bins, by their weight.

        Zero is perfect. A small sample never reaches it, and draws from it lie further off than the sample does.
        """
        own = weights[:, self.index]
        off = np.add.reduceat(own * (self.right - self.probability), self.starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(off).sum(axis=1) / own.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Per bin: mean probability promised, share that came true with its Wilson interval, and how many."""

    promised_pct: NDArray[np.float64]
    accuracy_pct: NDArray[np.float64]
    low_pct: NDArray[np.float64]
    high_pct: NDArray[np.float64]
    n_bin: NDArray[np.int64]
    n: int


def reliability(
    probability: ArrayLike, right: ArrayLike, n_bins: int = 10, level: float = LEVEL
) -> Reliability:
    """What was promised and what came true, in equally filled bins; probabilities that are nan are left out.

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
    count = np.diff(np.append(bins.starts, len(bins.index)))
    promised, hits = (
        np.add.reduceat(values.astype(np.float64), bins.starts) if len(count) else np.empty(0)
        for values in (bins.probability, bins.right)
    )
    low, high = wilson(hits, count, level)
    n = len(bins.index)
    return Reliability(
        _share_pct(promised, count), _share_pct(hits, count), 100.0 * low, 100.0 * high, count, n
    )


def _share_pct(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(100.0 * part, whole, out=np.full(len(part), np.nan), where=whole > 0)
