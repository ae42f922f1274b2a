"""What a run is worth: accuracies, comparisons, rankings and shares, each with interval and denominator.

Arrays in, frozen results out (see `estimates` for intervals); no file, no model, no plot. Every result
carries `n`, and empty input gives nan with n = 0.

Two conventions hold throughout.

- Right or wrong is the caller's decision (under the strict protocol an error is wrong); this module never
  drops a sample that has a verdict.
- A score that is nan ("no score") can never be accepted. What judges the *gate* (`coverage`,
  `selective_risk`, `accuracy_over_threshold`) keeps such samples in its denominator as rejected; what judges
  the *score* (`auroc`, `risk_coverage`, `rolling_accuracy`) leaves them out, and its n says how many remain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UserError
from .estimates import (
    DRAWS,
    LEVEL,
    SEED,
    Estimate,
    Measure,
    as_flags,
    as_json,
    as_numbers,
    as_scores,
    bootstrap,
    bootstrap_ratio,
    clustered_share,
    n_groups_of,
    proportion,
    require_same_length,
    wilson,
    z_value,
)

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


@dataclass(frozen=True, slots=True)
class FunnelShares:
    """Where the samples went: beta of all to the draft, alpha of those accepted; accepted = alpha * beta."""

    alpha: Estimate
    beta: Estimate
    accepted: Estimate


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
class ThresholdCurve:
    """Accuracy of what a threshold accepts: arrays over `threshold`, the Wilson interval beside them.

    Where nothing is accepted the accuracy is nan. `coverage_pct` is the share of all n samples.
    """

    threshold: NDArray[np.float64]
    n_accepted: NDArray[np.int64]
    coverage_pct: NDArray[np.float64]
    accuracy_pct: NDArray[np.float64]
    low_pct: NDArray[np.float64]
    high_pct: NDArray[np.float64]
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


@dataclass(frozen=True, slots=True)
class YesNoScores:
    """POPE's figures with yes as the positive class; `unknown` answers said neither yes nor no.

    An unknown answer is wrong in `accuracy`, a miss in `recall` where the truth is yes, and no yes in
    `yes_ratio`. Counts: true/false positives and negatives.
    """

    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    yes_ratio: Estimate
    true_yes: int
    false_yes: int
    true_no: int
    false_no: int
    unknown: int


# --- shares -------------------------------------------------------------------------------------------


def accuracy(
    right: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Estimate:
    """Share of right answers: Wilson interval, or a cluster bootstrap over `groups` where given.

    Args:
        right: bool [samples].
        groups: [samples] of anything hashable and sortable; samples of one group are drawn together.
    """
    right = as_flags("right", right)
    if groups is None or not len(right):
        return proportion(int(right.sum()), len(right), level)
    return clustered_share(right, np.ones(len(right), bool), groups, level, draws, seed)


def coverage(score: ArrayLike, threshold: float, level: float = LEVEL) -> Estimate:
    """Share of all samples with a score strictly above `threshold`; no score (nan) is not above."""
    accepted = as_scores("score", score) > threshold
    return proportion(int(accepted.sum()), len(accepted), level)


def selective_risk(score: ArrayLike, right: ArrayLike, threshold: float, level: float = LEVEL) -> Estimate:
    """Share of wrong answers among those with a score strictly above `threshold`; n = how many those are."""
    score, right = as_scores("score", score), as_flags("right", right)
    require_same_length(score=score, right=right)
    accepted = score > threshold
    return proportion(int((accepted & ~right).sum()), int(accepted.sum()), level)


def funnel_shares(routed: ArrayLike, accepted: ArrayLike, level: float = LEVEL) -> FunnelShares:
    """alpha, beta and the accepted share of a gated run, with counts as denominators (facts §1).

    Args:
        routed: bool [samples], Phase I sent the sample to the agent.
        accepted: bool [samples], the gate accepted the draft.

    Raises:
        UserError: a sample is both routed and accepted.
    """
    routed, accepted = as_flags("routed", routed), as_flags("accepted", accepted)
    require_same_length(routed=routed, accepted=accepted)
    if (routed & accepted).any():
        raise UserError(
            f"Sample {int((routed & accepted).argmax())} is both routed to the agent and accepted from the "
            "draft; it can only be one of them."
        )
    n, drafted, taken = len(routed), int((~routed).sum()), int(accepted.sum())
    return FunnelShares(
        proportion(taken, drafted, level), proportion(drafted, n, level), proportion(taken, n, level)
    )


def yes_no_scores(
    truth: Sequence[str],
    said: Sequence[str | None],
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> YesNoScores:
    """Accuracy, precision, recall, F1 and yes-ratio of yes/no answers (POPE), yes being positive.

    Args:
        truth: "yes" or "no" [samples].
        said: "yes", "no", or None for an answer that is neither [samples].
        groups: image ids for cluster bootstrap intervals; without, Wilson (F1: bootstrap over samples).

    Raises:
        UserError: other words than these, or unequal lengths.
    """
    truth, said = np.asarray(truth, dtype=object), np.asarray(said, dtype=object)
    require_same_length(truth=truth, said=said)
    for name, values, valid in (("truth", truth, ("yes", "no")), ("said", said, ("yes", "no", None))):
        odd = [value for value in values if value not in valid]
        if odd:
            raise UserError(f"{name} holds {odd[0]!r}; expected one of {valid}.")
    yes, said_yes, said_no = truth == "yes", said == "yes", said == "no"
    correct = (yes & said_yes) | (~yes & said_no)
    hit = yes & said_yes
    everyone = np.ones(len(yes), bool)

    def share(of: NDArray, among: NDArray) -> Estimate:
        if groups is None or not among.any():
            return proportion(int(of.sum()), int(among.sum()), level)
        return clustered_share(of, among, groups, level, draws, seed)

    f1 = bootstrap_ratio(2.0 * hit, 1.0 * yes + said_yes, groups, level=level, draws=draws, seed=seed)
    f1_method = "bootstrap" if groups is None else "cluster bootstrap"
    return YesNoScores(
        accuracy=share(correct, everyone),
        precision=share(hit, said_yes),
        recall=share(hit, yes),
        f1=Estimate(*(100.0 * value for value in f1), len(yes), f1_method),
        yes_ratio=share(said_yes, everyone),
        true_yes=int(hit.sum()),
        false_yes=int((~yes & said_yes).sum()),
        true_no=int((~yes & said_no).sum()),
        false_no=int((yes & said_no).sum()),
        unknown=int((~said_yes & ~said_no).sum()),
    )


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


def cluster_bootstrap(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Measure:
    """Mean of `values` with a bootstrap interval that draws whole groups; without groups, single samples."""
    values = as_numbers("values", values)
    mean = bootstrap_ratio(values, np.ones(len(values)), groups, level=level, draws=draws, seed=seed)
    return Measure(*mean, len(values))


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


def candidate_thresholds(score: ArrayLike) -> NDArray[np.float64]:
    """Every threshold in [0, 1] that decides differently: 0, 1 and the midpoints between distinct scores.

    Ascending. "Accepted" is strictly above, so 0 accepts every positive score and 1 accepts none.

    Raises:
        UserError: a score lies outside [0, 1].
    """
    score = as_scores("score", score)
    distinct = np.unique(score[~np.isnan(score)])
    if len(distinct) and not 0 <= distinct[0] <= distinct[-1] <= 1:
        raise UserError(
            f"Confidences must lie in [0, 1], got {distinct[0]:g} to {distinct[-1]:g}; "
            "give thresholds of your own for other scores."
        )
    middle = distinct[:-1] + np.diff(distinct) / 2
    middle = np.where(middle < distinct[1:], middle, distinct[:-1])  # neighbouring floats have no midpoint
    return np.unique(np.concatenate([[0.0], middle, [1.0]]))


def above(score: ArrayLike, values: ArrayLike, thresholds: ArrayLike) -> tuple[NDArray[np.int64], NDArray]:
    """Count of scores strictly above each threshold and the sum of their values, by one sort.

    Args:
        score: [samples]; nan is above nothing.
        values: numbers [samples].
        thresholds: [t], in any order.

    Returns:
        counts int64 [t] and sums [t] in the dtype of the values.
    """
    score, values = np.asarray(score, dtype=np.float64), np.asarray(values)
    readable = ~np.isnan(score)
    order = np.argsort(score[readable], kind="stable")
    ascending = score[readable][order]
    from_here = np.append(np.cumsum(values[readable][order][::-1])[::-1], 0).astype(values.dtype)
    first = np.searchsorted(ascending, thresholds, side="right")
    return len(ascending) - first, from_here[first]


def accuracy_over_threshold(
    score: ArrayLike, right: ArrayLike, thresholds: ArrayLike | None = None, level: float = LEVEL
) -> ThresholdCurve:
    """Accuracy and coverage of the answers scored above each threshold (default: `candidate_thresholds`)."""
    score, right = as_scores("score", score), as_flags("right", right)
    require_same_length(score=score, right=right)
    thresholds = candidate_thresholds(score) if thresholds is None else as_numbers("thresholds", thresholds)
    n_accepted, n_right = above(score, right.astype(np.int64), thresholds)
    low, high = wilson(n_right, n_accepted, level)
    n = len(score)
    return ThresholdCurve(
        thresholds,
        n_accepted,
        _share_pct(n_accepted, np.full(len(thresholds), n)),
        _share_pct(n_right, n_accepted),
        100.0 * low,
        100.0 * high,
        n,
    )


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


# --- helpers ------------------------------------------------------------------------------------------


def _share_pct(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(100.0 * part, whole, out=np.full(len(part), np.nan), where=whole > 0)


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
