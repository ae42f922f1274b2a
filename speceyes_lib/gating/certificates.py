"""Thresholds that hold on unseen data: calibrated on one half of the samples, measured on the other.

Which drafts a threshold accepts is the gate's rule (`gate.accepts`). Four risks can be bounded (`RISKS`):

    selective       P(draft wrong | accepted)
    accepted_wrong  P(accepted and draft wrong)
    regret          P(accepted, draft wrong, agent right): the errors that only the gate causes
    wrong_passes    P(accepted | draft wrong)

The procedures need nothing but exchangeable samples. Risks are those of a group drawn at random and a sample drawn from
it: samples of one group are not independent, so the binomial procedures use one sample of each group. "Not certifiable"
is a valid result: with few samples even a gate without an error proves little. Then nothing is accepted, and the reason
says how many samples are missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..stats.checks import as_flags, as_scores
from ..stats.resampling import Bootstrap, draw_counts, grouped
from .calibration_samples import GateSamples, calibration_half, one_per_group
from .gate import NOTHING, accepts, candidate_thresholds, count_accepted, rejecting_threshold
from .threshold import choose_threshold

STEPS = 40  # thresholds that Learn then Test goes through at most
DEFERRAL = Bootstrap(level=0.9, draws=200)  # how `deferral_threshold` draws


# ------------------------------------------------------------------ procedures


@dataclass(frozen=True, slots=True)
class Certified:
    """A threshold, whether its bound is certified on `n` independent units, and if not, why."""

    threshold: float
    certified: bool
    n: int
    reason: str = ""


def most_errors(n: int, target: float, delta: float) -> int:
    """The largest k with P(Binomial(n, target) <= k) <= delta, which proves a rate of at most `target`; or -1."""
    from scipy.stats import binom

    k = int(binom.ppf(delta, n, target)) if n else 0
    while k >= 0 and binom.cdf(k, n, target) > delta:
        k -= 1
    return k


def fewest_samples(target: float, delta: float, errors: int = 0) -> int:
    """How many samples with so many errors are needed to prove a rate of at most `target` at level `delta`."""
    n = math.ceil(math.log(delta) / math.log1p(-target))
    while most_errors(n, target, delta) < errors:
        n += 1
    return n


def threshold_sequence(
    reference: ArrayLike, n: int, target: float, delta: float, steps: int = STEPS
) -> NDArray[np.float64]:
    """Thresholds in the order in which Learn then Test goes through them, descending [at most `steps`].

    They are computed from scores that are not calibration data, for instance those of the samples to be decided. A
    sequence that begins with few samples stops at the first error; one that begins with many may begin beyond what can
    be proven. So it begins where two errors would still pass, or with half of what could be accepted if that is less,
    but with enough samples that one could pass. It ends where everything is accepted, in even steps of coverage.

    Args:
        reference: scores [any number], nan: cannot be accepted.
        n: independent calibration samples.
        target: bound of the risk, in (0, 1).
        delta: probability with which it may fail, in (0, 1).
        steps: thresholds at most.
    """
    reference = as_scores("reference", reference)
    scored = -np.sort(-reference[~np.isnan(reference)])
    if not len(scored):
        return np.empty(0)
    most = len(scored) / len(reference)
    two_errors, none = (fewest_samples(target, delta, errors) for errors in (2, 0))
    fewest = none + 2 * math.sqrt(none)  # another sample of the same size accepts more or fewer
    first = max(fewest, min(two_errors, n * most / 2)) / max(n, 1)
    shares = np.linspace(min(first, most), most, steps)
    last = np.minimum(np.ceil(shares * len(reference)).astype(int), len(scored))
    below = np.append(scored[1:], 0.0)[last - 1]  # the best score that is not among the `last` ones
    return np.unique(rejecting_threshold(below))[::-1]


def learn_then_test(
    score: ArrayLike, wrong: ArrayLike, thresholds: ArrayLike, target: float, delta: float
) -> Certified:
    """The lowest threshold of the sequence whose selective risk is proven to be at most `target`.

    This risk need not fall as the threshold rises. So thresholds are tested in a fixed order, strictest first, each by
    a binomial p-value, until one is not rejected.

    Args:
        score: of independent samples [n], nan is never accepted.
        wrong: bool [n], whether the draft would be wrong.
        thresholds: chosen without these samples' verdicts, tested in the order given.
        target: bound of the risk, in (0, 1).
        delta: probability with which it may fail, in (0, 1).

    Source: Angelopoulos et al. (2021), Learn then Test, arXiv:2110.01052.
    """
    from scipy.stats import binom

    _check(target, delta)
    n = len(np.asarray(score))
    n_accepted, n_wrong = count_accepted(score, as_flags("wrong", wrong).astype(np.int64), thresholds)
    p_values = np.where(n_accepted > 0, binom.cdf(n_wrong, np.maximum(n_accepted, 1), target), 1.0)
    rejected = np.logical_and.accumulate(p_values <= delta)
    if rejected.any():
        return Certified(float(np.asarray(thresholds)[rejected][-1]), True, n)
    need, most = fewest_samples(target, delta), int(n_accepted.max(initial=0))
    reason = (
        f"{most} drafts can be accepted, and without a single error {need} would be needed"
        if most < need
        else f"{n_wrong[0]} of the {n_accepted[0]} surest drafts are wrong, which proves nothing"
    )
    return Certified(NOTHING, False, n, reason)


def conformal_risk_control(score: ArrayLike, loss: ArrayLike, groups: ArrayLike, target: float) -> Certified:
    """The lowest threshold whose expected share of lost samples in all samples is at most `target`.

    Args:
        score: [samples], nan is never accepted.
        loss: bool [samples], lost if accepted; the loss of a group is its mean.
        groups: [samples], exchangeable with each other.
        target: bound of the expected risk, in (0, 1). For wrong drafts only, this is class-conditional split conformal
            prediction.

    Source: Angelopoulos et al. (2022), Conformal risk control, arXiv:2208.02814.
    """
    _check(target)
    n_groups, group_of = grouped(groups, len(np.asarray(score)))
    weight = as_flags("loss", loss) / np.bincount(group_of, minlength=max(n_groups, 1))[group_of]
    allowed = target * (n_groups + 1) - 1.0
    if allowed < 0:
        reason = f"{n_groups} groups: a target of {target:g} needs {math.ceil(1 / target - 1 - 1e-9)}"
        return Certified(NOTHING, False, n_groups, reason)
    return Certified(_lowest(score, weight, allowed), True, n_groups)


def binomial_bound(score: ArrayLike, loss: ArrayLike, target: float, delta: float) -> Certified:
    """The lowest threshold whose share of lost samples in all samples is proven to be at most `target`.

    The other arguments as in `learn_then_test`; `loss` is bool [n], lost if accepted.

    Source: Bates et al. (2021), Distribution-free risk-controlling prediction sets, arXiv:2101.02703.
    """
    _check(target, delta)
    n = len(np.asarray(score))
    allowed = most_errors(n, target, delta)
    if allowed < 0:
        reason = f"{n} samples: without a single error {fewest_samples(target, delta)} would be needed"
        return Certified(NOTHING, False, n, reason)
    return Certified(_lowest(score, 1.0 * as_flags("loss", loss), allowed), True, n)


def plug_in(score: ArrayLike, wrong: ArrayLike, target: float) -> Certified:
    """The lowest threshold whose selective risk on these samples is at most `target`; it proves nothing."""
    score = as_scores("score", score)
    thresholds = candidate_thresholds(score)
    n_accepted, n_wrong = count_accepted(score, as_flags("wrong", wrong).astype(np.int64), thresholds)
    return Certified(float(thresholds[(n_wrong <= target * n_accepted).argmax()]), False, len(score))


def _lowest(score: ArrayLike, loss: NDArray, allowed: float) -> float:
    """The lowest threshold at which the losses of what it accepts sum to at most `allowed`."""
    score = np.asarray(score, dtype=np.float64)
    lost = np.flatnonzero((loss > 0) & ~np.isnan(score))
    order = lost[np.argsort(-score[lost], kind="stable")]
    too_many = np.flatnonzero(np.cumsum(loss[order]) > allowed + 1e-9)
    return float(rejecting_threshold(score[order[too_many[0]]])) if len(too_many) else 0.0


def _check(target: float, delta: float = 0.5) -> None:
    for name, value in (("target", target), ("delta", delta)):
        if not 0 < value < 1:
            raise UserError(f"{name} must lie between 0 and 1, got {value}; it is a risk, such as 0.05.")


def deferral_threshold(half: GateSamples, delta_pp: float = 0.0, bootstrap: Bootstrap = DEFERRAL) -> float:
    """The upper end of the range in which the chosen threshold is uncertain; the agent answers what scores below it.

    `choose_threshold` is repeated on bootstrap draws of whole groups. A share `bootstrap.level` of its thresholds lies
    at or below the value returned. It guarantees nothing, but depends less on chance.
    """
    score = np.where(np.isnan(half.score), -1.0, half.score)
    order = np.argsort(-score, kind="stable")
    score = score[order]
    order, score = order[score >= 0], score[score >= 0]
    if not len(score):
        return NOTHING
    gain = half.draft_right.astype(np.int64) - half.agent_right
    ends = np.append(score[1:] != score[:-1], True)  # a threshold cannot part equal scores
    below = rejecting_threshold(np.append(score[1:], 0.0))
    chosen = []
    n_groups, group_of = grouped(half.groups, len(half))
    for counts in draw_counts(n_groups, len(half), bootstrap):
        weights = counts[:, group_of]
        gained = np.cumsum(weights[:, order] * gain[order], axis=1)
        allowed = (gained >= -delta_pp * weights.sum(axis=1, keepdims=True) / 100.0 - 1e-9) & ends
        last = len(score) - 1 - allowed[:, ::-1].argmax(axis=1)
        chosen.append(np.where(allowed.any(axis=1), below[last], NOTHING))
    return float(np.quantile(np.concatenate(chosen), bootstrap.level, method="higher"))


# ------------------------------------------------------------------ rules, evaluated on random halves


@dataclass(frozen=True)
class Rule:
    """A way to choose a threshold."""

    name: str  # in tables
    label: str  # for people
    guarantee: str  # for people: how the risk is bounded
    # (calibration samples, samples to be decided, seed) -> threshold; verdicts on the second are not used
    choose: Callable[[GateSamples, GateSamples, int], Certified] = field(repr=False)
    risk: str = ""  # what `target` bounds, one of `RISKS`; "" where nothing is bounded
    target: float = math.nan  # a fraction; nan where nothing is bounded


RISKS = {
    "selective": "wrong among accepted",
    "accepted_wrong": "accepted and wrong",
    "regret": "regret",
    "wrong_passes": "wrong drafts passing",
}


def certification_rules(
    risk: float = 0.05, loss: float = 0.015, passes: float = 0.2, delta: float = 0.1, delta_pp: float = 0.0
) -> list[Rule]:
    """The rules to compare: five with a guarantee, three without.

    Args:
        risk: target of the selective risk, a fraction.
        loss: target of accepted_wrong and regret, a fraction.
        passes: target of wrong_passes, a fraction.
        delta: probability with which a bound "with probability" may fail.
        delta_pp: accuracy, in percentage points, that the funnel may lose against the agent on the calibration half.
    """

    def tested(half: GateSamples, to_decide: GateSamples, seed: int) -> Certified:
        part = half.take(one_per_group(half.groups, seed))
        sequence = threshold_sequence(to_decide.score, len(part), risk, delta)
        return learn_then_test(part.score, part.wrong, sequence, risk, delta)

    def expected(which: str) -> Callable[..., Certified]:
        return lambda half, *_: conformal_risk_control(half.score, getattr(half, which), half.groups, loss)

    def bounded(half: GateSamples, _: GateSamples, seed: int) -> Certified:
        part = half.take(one_per_group(half.groups, seed))
        return binomial_bound(part.score, part.wrong, loss, delta)

    def passing(half: GateSamples, *_: object) -> Certified:
        part = half.take(half.wrong)
        return conformal_risk_control(part.score, part.wrong, part.groups, passes)

    def no_loss(half: GateSamples, *_: object) -> Certified:
        return Certified(_no_loss(half, delta_pp), False, len(half))

    def deferring(half: GateSamples, _: GateSamples, seed: int) -> Certified:
        upper = deferral_threshold(half, delta_pp, replace(DEFERRAL, seed=seed))
        return Certified(max(upper, _no_loss(half, delta_pp)), False, len(half))

    def uncorrected(half: GateSamples, *_: object) -> Certified:
        return plug_in(half.score, half.wrong, risk)

    def bounding(name: str, bounds: str, target: float, guarantee: str, choose: Callable) -> Rule:
        return Rule(name, f"{RISKS[bounds]} at most {100 * target:g} %", guarantee, choose, bounds, target)

    often, mean = f"with probability {1 - delta:g}", "in expectation"
    return [
        bounding("selective", "selective", risk, often, tested),
        bounding("accepted_wrong", "accepted_wrong", loss, mean, expected("wrong")),
        bounding("accepted_wrong_bound", "accepted_wrong", loss, often, bounded),
        bounding("regret", "regret", loss, mean, expected("regretted")),
        bounding("wrong_passes", "wrong_passes", passes, mean, passing),
        Rule("no_loss", "no less accurate than the agent", "none", no_loss),
        Rule("window", "the same, unsure window deferred", "none", deferring),
        bounding("plug_in", "selective", risk, "uncorrected", uncorrected),
    ]


def _no_loss(half: GateSamples, delta_pp: float = 0.0) -> float:
    routed = np.isnan(half.score)
    return choose_threshold(half.score, half.draft_right, half.agent_right, routed, delta_pp).threshold


def tuned_per_stratum(half: GateSamples, delta_pp: float = 0.0) -> NDArray[np.float64]:
    """A threshold for each stratum that costs it no accuracy, chosen on these samples: float64 [samples].

    The paper's operating points are chosen so, benchmark by benchmark on the split that they are reported on.
    """
    thresholds = np.full(len(half), NOTHING)
    for stratum in np.unique(half.strata):
        inside = half.strata == stratum
        thresholds[inside] = _no_loss(half.take(inside), delta_pp)
    return thresholds


def threshold_outcome(samples: GateSamples, threshold: float | NDArray) -> dict[str, float]:
    """Coverage, accuracy and the four risks in percent, and the speedup, of a threshold (one, or one per sample).

    Risks are those of a group and a sample drawn from it; coverage, accuracy and speedup count every sample. nan where
    there is nothing to count.
    """
    accepted = accepts(samples.score, threshold)
    right = np.where(accepted, samples.draft_right, samples.agent_right)
    n, weight = len(samples), samples.weight

    def share(part: NDArray, whole: NDArray | bool = True, weight: NDArray = weight) -> float:
        total = (weight * whole).sum()
        return 100.0 * float((weight * (part & whole)).sum() / total) if total else math.nan

    wrong = samples.take(samples.wrong)
    outcome = {
        "coverage_pct": 100.0 * float(accepted.mean()) if n else math.nan,
        "accuracy_pct": 100.0 * float(right.mean()) if n else math.nan,
        "agent_pct": 100.0 * float(samples.agent_right.mean()) if n else math.nan,
        "selective_pct": share(samples.wrong, accepted),
        "accepted_wrong_pct": share(samples.wrong & accepted),
        "regret_pct": share(samples.regretted & accepted),
        "wrong_passes_pct": share(accepted[samples.wrong], weight=wrong.weight),
        "speedup": math.nan,
    }
    if samples.baseline_s is not None and n:
        gated_s = float(np.where(accepted, samples.accepted_s, samples.rejected_s).sum())
        outcome["speedup"] = float(samples.baseline_s.sum()) / gated_s if gated_s else math.nan
    return outcome


def certify(samples: GateSamples, rules: Sequence[Rule], repeats: int = 20, seed: int = 0) -> pd.DataFrame:
    """Every rule on random halves of the samples: calibrated on one half, measured on the other.

    The rows of `evaluate_rules` for each of the `repeats` halves, numbered by the column `repeat`. `seed` is that of
    the first half; the others use the seeds that follow.
    """
    parts = []
    for repeat in range(repeats):
        inside = calibration_half(samples.groups, samples.strata, seed + repeat)
        part = evaluate_rules(samples.take(inside), samples.take(~inside), rules, seed + repeat)
        part.insert(0, "repeat", repeat)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def evaluate_rules(
    calibration: GateSamples, test: GateSamples, rules: Sequence[Rule], seed: int = 0
) -> pd.DataFrame:
    """Every rule calibrated on some samples and measured on others, a row per rule.

    Two rows are added for contrast: `per_split`, the thresholds of `tuned_per_stratum` on the calibration samples, and
    `per_split_on_test`, the same on the samples that they are measured on, as the paper's operating points are.

    Returns:
        Columns: rule, threshold, certified, reason (why not certified), n_calibration, n_test, those of
        `threshold_outcome` on the test samples, risk_pct (the risk that the rule bounds; nan: none) and target_pct.
    """
    sizes = {"n_calibration": len(calibration), "n_test": len(test)}
    rows = []
    for rule in rules:
        chosen = rule.choose(calibration, test, seed)
        outcome = threshold_outcome(test, chosen.threshold)
        row = {"rule": rule.name, "threshold": chosen.threshold, "certified": chosen.certified}
        row |= {"reason": chosen.reason, **sizes, **outcome}
        risk_pct = outcome[f"{rule.risk}_pct"] if rule.risk else math.nan
        rows.append(row | {"risk_pct": risk_pct, "target_pct": 100.0 * rule.target})
    for name, source in (("per_split", calibration), ("per_split_on_test", test)):
        of_stratum = dict(zip(source.strata, tuned_per_stratum(source), strict=True))
        thresholds = np.array([of_stratum.get(stratum, NOTHING) for stratum in test.strata])
        outcome = threshold_outcome(test, thresholds)
        rows.append({"rule": name, "certified": False, "reason": "", **sizes, **outcome})
    return pd.DataFrame(rows)
