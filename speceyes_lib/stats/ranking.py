"""What a run is worth: accuracies, comparisons, rankings and shares, each with interval and denominator.

Arrays in, frozen results out (see `estimates` for intervals); no file, no model, no plot. Every result
carries `n`, and empty input gives nan with n = 0.

Two conventions hold throughout.

- Right or wrong is the caller's decision (under the strict protocol an error is wrong); this module never
  drops a sample that has a verdict.
- A score that is nan ("no score") can never be accepted. What judges the *gate* (wing `gating`) keeps such samples
  in its denominator as rejected; what judges the *score* (`auroc`, `risk_coverage`, `rolling_accuracy`) leaves them
  out, and its n says how many remain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_scores, require_same_length
from .intervals import DRAWS, LEVEL, SEED, Measure, wilson
from .resampling import bootstrap


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk of answering the most confident first, point by point as the threshold falls.

    Arrays over the distinct scores, highest first; tied samples enter together. `aurc` is the mean selective
    risk over the coverages 1/n..1 (Geifman and El-Yaniv 2017), a fraction: lower is better. Within a tie the
    expectation over its orders is taken, so the order of the input does not matter. `excess_aurc` is aurc
    less that of a score that ranks every wrong answer last (Geifman et al. 2019); 0 is perfect.
    """

    score: NDArray[np.float64]
    coverage_pct: NDArray[np.float64]
    risk_pct: NDArray[np.float64]
    aurc: Measure
    excess_aurc: Measure
    n: int


@dataclass(frozen=True, slots=True)
class RollingAccuracy:
    """Accuracy of `window` neighbours in score, ascending; `score` is their mean. n samples in all."""

    score: NDArray[np.float64]
    accuracy_pct: NDArray[np.float64]
    low_pct: NDArray[np.float64]
    high_pct: NDArray[np.float64]
    window: int
    n: int


# --- what a score is worth ----------------------------------------------------------------------------


class Ranking:
    """What a score's ranking of right and wrong answers is worth, for many bootstrap draws at once.

    Every method takes integer sample weights [draws, n] and gives float64 [draws]; weights of 1 are the sample
    itself. Samples without a score (nan) are left out whatever their weight. Tied samples stand for the
    expectation over their orders, so the order of the input does not matter.

    Args:
        score: numbers [n], nan for "no score".
        right: bool [n].
    """

    def __init__(self, score: NDArray, right: NDArray) -> None:
        order = np.argsort(-score, kind="stable")  # nan sorts last
        self.index = order[: len(score) - int(np.isnan(score).sum())]  # of the scored samples, best first
        self.right = right[self.index]
        self.score = score[self.index]
        self.starts = _tie_starts(self.score)
        self._harmonic = np.zeros(1)
        self._blocks: tuple[NDArray, tuple[NDArray, NDArray]] | None = None  # of the weights asked last

    def blocks(self, weights: NDArray) -> tuple[NDArray, NDArray]:
        """Weight of every run of tied samples, and that of the right ones among them: [draws, runs] each.

        Several measures are asked of the same draws: the blocks of the last weights are kept.
        """
        if self._blocks is None or self._blocks[0] is not weights:
            own = weights[:, self.index]
            size = np.add.reduceat(own, self.starts, axis=1)
            good = np.add.reduceat(own * self.right, self.starts, axis=1)
            self._blocks = weights, (size, good)
        return self._blocks[1]

    def auroc(self, weights: NDArray) -> NDArray[np.float64]:
        """Chance that a right answer outscores a wrong one, ties counting half; nan with one class only."""
        size, good = self.blocks(weights)
        bad = size - good
        bad_below = bad.sum(axis=1, keepdims=True) - np.cumsum(bad, axis=1)
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (good * (bad_below + bad / 2)).sum(axis=1) / pairs

    def areas(self, weights: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AURC, and that of a ranking with every wrong answer last.

        Within a tie block of m samples and e errors that begins after N samples and E errors, the expected
        risk at place i is (E + (i - N) e/m) / i = e/m + (E - N e/m) / i, and 1/i sums to harmonic numbers.
        """
        size, good = self.blocks(weights)
        errors = size - good
        n_end, errors_end = np.cumsum(size, axis=1), np.cumsum(errors, axis=1)
        n_begin, errors_begin = n_end - size, errors_end - errors
        total, all_errors = n_end[:, -1], errors_end[:, -1]
        harmonic = self._harmonic_up_to(int(total.max()))
        rate = errors / np.maximum(size, 1)
        area = errors + (errors_begin - n_begin * rate) * (harmonic[n_end] - harmonic[n_begin])
        first_wrong = total - all_errors
        best = all_errors - first_wrong * (harmonic[total] - harmonic[first_wrong])
        with np.errstate(invalid="ignore", divide="ignore"):
            return area.sum(axis=1) / total, best / total

    def excess_aurc(self, weights: NDArray) -> NDArray[np.float64]:
        area, best = self.areas(weights)
        return area - best

    def accuracy_at(self, weights: NDArray, coverage: float) -> NDArray[np.float64]:
        """Share of right answers among the `coverage` (a fraction) most confident of the scored samples."""
        size, good = self.blocks(weights)
        end = np.cumsum(size, axis=1)
        taken = np.clip(coverage * end[:, -1:] - (end - size), 0, size)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (good * taken / np.maximum(size, 1)).sum(axis=1) / taken.sum(axis=1)

    def _harmonic_up_to(self, n: int) -> NDArray[np.float64]:
        if n >= len(self._harmonic):
            self._harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])
        return self._harmonic


def auroc(
    score: ArrayLike,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Measure:
    """Chance that a right answer outscores a wrong one, ties counting half (Mann-Whitney U).

    nan when all answers are right or all wrong. Draws of one class only are left out of the interval.
    """
    score, right, groups = _scored(score, right, groups)
    return bootstrap(Ranking(score, right).auroc, len(score), groups, level, draws, seed)


def risk_coverage(
    score: ArrayLike,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> RiskCoverage:
    """Selective risk over coverage, its area and the excess over a perfect ranking; see `RiskCoverage`."""
    score, right, groups = _scored(score, right, groups)
    n, starts, wrong = len(score), _tie_starts(score), ~right
    ranking = Ranking(score, right)
    aurc = bootstrap(lambda weights: ranking.areas(weights)[0], n, groups, level, draws, seed)
    excess_aurc = bootstrap(ranking.excess_aurc, n, groups, level, draws, seed)
    ends = np.append(starts[1:], n) if n else starts
    risk = np.cumsum(wrong)[ends - 1] / ends if n else np.empty(0)
    return RiskCoverage(score[starts], 100.0 * ends / max(n, 1), 100.0 * risk, aurc, excess_aurc, n)


def rolling_accuracy(
    score: ArrayLike, right: ArrayLike, window: int = 50, level: float = LEVEL
) -> RollingAccuracy:
    """Accuracy of every run of `window` samples neighbouring in score.

    Tied samples share their mean correctness, so their order does not matter. Fewer samples than the window
    give one point over all of them. The intervals are Wilson's, pointwise; neighbouring points overlap.
    """
    if window < 1:
        raise UserError(f"window must be at least 1, got {window}.")
    score, right, _ = _scored(score, right, None)
    n = len(score)
    width = min(window, n)
    if not n:
        empty = np.empty(0)
        return RollingAccuracy(empty, empty, empty, empty, 0, 0)
    score, starts = score[::-1], _tie_starts(score[::-1])
    block = np.diff(np.append(starts, n))
    correct = np.repeat(np.add.reduceat(right[::-1].astype(np.float64), starts) / block, block)
    n_right = np.clip(_moving_sum(correct, width), 0, width)  # running sums round
    low, high = wilson(n_right, width, level)
    return RollingAccuracy(
        _moving_sum(score, width) / width, 100.0 * n_right / width, 100.0 * low, 100.0 * high, width, n
    )


def _moving_sum(values: NDArray, window: int) -> NDArray[np.float64]:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[window:] - total[:-window]


def _tie_starts(ordered: NDArray) -> NDArray[np.int64]:
    """First index of every run of equal values in a sorted array."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, int)


def _scored(
    score: ArrayLike, right: ArrayLike, groups: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray | None]:
    """The samples that have a score, highest score first."""
    score, right = as_scores("score", score), as_flags("right", right)
    require_same_length(score=score, right=right)
    if groups is not None:
        groups = np.asarray(groups)
        require_same_length(score=score, groups=groups)
    order = np.argsort(-score, kind="stable")  # nan sorts last
    order = order[: len(score) - int(np.isnan(score).sum())]
    return score[order], right[order], None if groups is None else groups[order]
