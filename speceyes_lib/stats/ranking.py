"""How well a score ranks right answers above wrong ones: AUROC, risk over coverage, accuracy along the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_scores, require_same_length
from .intervals import LEVEL, Estimate, wilson
from .resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_statistic


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Selective risk when the most confident samples are answered first, arrays [points]."""

    score: NDArray[np.float64]  # the distinct scores, highest first; tied samples enter together
    coverage_pct: NDArray[np.float64]  # samples scored at least that high, of n
    risk_pct: NDArray[np.float64]  # wrong answers among these
    aurc: Estimate  # mean selective risk over the coverages 1/n..1, a fraction, expected over the orders of ties
    excess_aurc: Estimate  # aurc minus that of a score that ranks every wrong answer last; 0 is perfect
    n: int  # samples with a score


@dataclass(frozen=True, slots=True)
class RollingAccuracy:
    """Accuracy of windows of samples that are neighbours in score, arrays [windows]."""

    score: NDArray[np.float64]  # mean score of the window, ascending
    accuracy_pct: NDArray[np.float64]  # right answers in the window
    low_pct: NDArray[np.float64]  # lower end of its Wilson interval; neighbouring windows share samples
    high_pct: NDArray[np.float64]  # upper end
    window: int  # samples in each window
    n: int  # samples with a score


class Ranking:
    """Measures of a score's ranking of right and wrong answers, for many bootstrap draws at once.

    Every method takes integer sample weights [draws, n] and returns float64 [draws]; weights of 1 are the sample
    itself. Samples without a score (nan) are left out whatever their weight. Tied samples stand for the expectation
    over their orders, so the order of the input does not matter. `index` holds the positions of the m scored samples in
    the input, highest score first; `score` and `right` [m] are theirs, and `starts` says where each tie begins.

    Args:
        score: numbers [n], nan for "no score".
        right: bool [n].
    """

    def __init__(self, score: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        order = np.argsort(-score, kind="stable")  # nan sorts last
        self.index = order[: len(score) - int(np.isnan(score).sum())]
        self.score, self.right = score[self.index], right[self.index]
        self.starts = tie_starts(self.score)
        self._harmonic = np.zeros(1)
        self._last_blocks: tuple[NDArray, tuple[NDArray, NDArray]] | None = None

    def blocks(self, weights: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Weight of every tie, and of its right samples: int64 [draws, ties] each."""
        # several measures are computed from the same draws
        if self._last_blocks is None or self._last_blocks[0] is not weights:
            scored = weights[:, self.index]
            size = np.add.reduceat(scored, self.starts, axis=1)
            good = np.add.reduceat(scored * self.right, self.starts, axis=1)
            self._last_blocks = weights, (size, good)
        return self._last_blocks[1]

    def auroc(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chance that a right answer outscores a wrong one, ties counting half; nan with one class only."""
        size, good = self.blocks(weights)
        bad = size - good
        bad_below = bad.sum(axis=1, keepdims=True) - np.cumsum(bad, axis=1)
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (good * (bad_below + bad / 2)).sum(axis=1) / pairs

    def areas(self, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AURC, and the AURC of a ranking with every wrong answer last, both as fractions.

        Within a tie block of m samples and e errors that begins after N samples and E errors, the expected
        risk at place i is (E + (i - N) e/m) / i = e/m + (E - N e/m) / i, and 1/i sums to harmonic numbers.
        """
        size, good = self.blocks(weights)
        errors = size - good
        n_end, errors_end = np.cumsum(size, axis=1), np.cumsum(errors, axis=1)
        n_begin, errors_begin = n_end - size, errors_end - errors
        total, all_errors = n_end[:, -1], errors_end[:, -1]
        if (n := int(total.max())) >= len(self._harmonic):
            self._harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])
        harmonic = self._harmonic
        rate = errors / np.maximum(size, 1)
        area = errors + (errors_begin - n_begin * rate) * (harmonic[n_end] - harmonic[n_begin])
        first_wrong = total - all_errors
        best = all_errors - first_wrong * (harmonic[total] - harmonic[first_wrong])
        with np.errstate(invalid="ignore", divide="ignore"):
            return area.sum(axis=1) / total, best / total

    def excess_aurc(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """AURC minus that of a ranking with every wrong answer last, a fraction."""
        area, best = self.areas(weights)
        return area - best

    def accuracy_at(self, weights: NDArray[np.int64], coverage: float) -> NDArray[np.float64]:
        """Share of right answers, a fraction, among the `coverage` (a fraction) most confident samples."""
        size, good = self.blocks(weights)
        end = np.cumsum(size, axis=1)
        taken = np.clip(coverage * end[:, -1:] - (end - size), 0, size)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (good * taken / np.maximum(size, 1)).sum(axis=1) / taken.sum(axis=1)


def auroc(
    score: ArrayLike,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Chance that a right answer outscores a wrong one, ties counting half: a fraction.

    nan where all answers are right or all are wrong. Draws of one class only are left out of the interval.

    Args:
        score: numbers [samples], nan for "no score"; samples without one are left out.
        right: bool [samples].
        groups: as in `proportions.share`.
        bootstrap: level, draws and seed.

    Source: Mann-Whitney U / (n_right n_wrong), Hanley and McNeil (1982).
    """
    ranking, groups = _ranked(score, right, groups)
    return bootstrap_statistic(ranking.auroc, len(ranking.score), groups, bootstrap)


def risk_coverage(
    score: ArrayLike,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> RiskCoverage:
    """Selective risk over coverage, the area below it (AURC), and its excess over a perfect ranking.

    Args as in `auroc`.

    Source: AURC, Geifman and El-Yaniv (2017), Selective classification for deep neural networks; excess AURC, Geifman
    et al. (2019), Bias-reduced uncertainty estimation for deep neural classifiers.
    """
    ranking, groups = _ranked(score, right, groups)
    n = len(ranking.score)
    ends = np.append(ranking.starts[1:], n) if n else ranking.starts
    return RiskCoverage(
        score=ranking.score[ranking.starts],
        coverage_pct=100.0 * ends / max(n, 1),
        risk_pct=100.0 * (np.cumsum(~ranking.right)[ends - 1] / ends if n else np.empty(0)),
        aurc=bootstrap_statistic(lambda weights: ranking.areas(weights)[0], n, groups, bootstrap),
        excess_aurc=bootstrap_statistic(ranking.excess_aurc, n, groups, bootstrap),
        n=n,
    )


def rolling_accuracy(
    score: ArrayLike, right: ArrayLike, window: int = 50, level: float = LEVEL
) -> RollingAccuracy:
    """Accuracy of every run of `window` samples that are neighbours in score.

    Tied samples share their mean correctness, so their order does not matter. Fewer samples than the window give one
    point over all of them.

    Args:
        score: numbers [samples], nan for "no score"; samples without one are left out.
        right: bool [samples].
        window: samples in a window, at least 1.
        level: of the Wilson intervals, in (0, 1).
    """
    if window < 1:
        raise UserError(f"window must be at least 1, got {window}.")
    ranking, _ = _ranked(score, right, None)
    n = len(ranking.score)
    width = min(window, n)
    if not n:
        empty = np.empty(0)
        return RollingAccuracy(empty, empty, empty, empty, 0, 0)
    score, right = ranking.score[::-1], ranking.right[::-1].astype(np.float64)
    starts = tie_starts(score)
    size = np.diff(np.append(starts, n))
    correct = np.repeat(np.add.reduceat(right, starts) / size, size)
    n_right = np.clip(_moving_sum(correct, width), 0, width)  # running sums round
    low, high = wilson(n_right, width, level)
    return RollingAccuracy(
        score=_moving_sum(score, width) / width,
        accuracy_pct=100.0 * n_right / width,
        low_pct=100.0 * low,
        high_pct=100.0 * high,
        window=width,
        n=n,
    )


def tie_starts(ordered: NDArray) -> NDArray[np.int64]:
    """First index of every run of equal values in a sorted array [n]: int64 [runs]."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, int)


def _moving_sum(values: NDArray, window: int) -> NDArray[np.float64]:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[window:] - total[:-window]


def _ranked(score: ArrayLike, right: ArrayLike, groups: ArrayLike | None) -> tuple[Ranking, NDArray | None]:
    """Ranking of the samples that have a score, in its order, and their groups in the same order."""
    score, right = as_scores("score", score), as_flags("right", right)
    require_same_length(score=score, right=right)
    index = Ranking(score, right).index
    if groups is not None:
        groups = np.asarray(groups)
        require_same_length(score=score, groups=groups)
        groups = groups[index]
    return Ranking(score[index], right[index]), groups
