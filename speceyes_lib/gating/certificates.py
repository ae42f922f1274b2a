"""Thresholds that hold on unseen data: calibrated on one half of the samples, held to their word on the other.

Which drafts a threshold accepts is the gate's rule (`gate.accepts`). Four risks can be bounded:

    selective       P(draft wrong | accepted)
    accepted_wrong  P(accepted and draft wrong)
    regret          P(accepted, draft wrong, agent right): what the gate, and nothing else, gets wrong
    wrong_passes    P(accepted | draft wrong)

by three procedures, all of which need nothing but exchangeable samples:

- Learn then Test (Angelopoulos et al. 2021) for the selective risk, which need not fall as t rises: thresholds are
  tested in a sequence fixed beforehand, strictest first, each by a binomial p-value, until one is not rejected.
  The risk exceeds the target with probability at most delta.
- Conformal risk control (Angelopoulos et al. 2022) for the other three, which fall as t rises: the *expected* risk
  of the threshold is at most the target. For `wrong_passes` this is class-conditional split conformal prediction.
- The exact binomial bound for the same three (Bates et al. 2021): the risk exceeds the target with probability at
  most delta.

Samples of one group (the four orders of a question, the questions on one picture) are not independent. Risks are
therefore those of a group drawn at random and a sample drawn from it; conformal risk control averages over each
group, and the binomial procedures see one sample of each group, drawn with a seed.

"Not certifiable" is an answer: with few samples even a gate without a single mistake proves little. Then nothing is
accepted, and the result says how many samples were missing. Arrays in, results out; no model, no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..stats.checks import as_flags, as_numbers, as_scores, require_same_length
from ..stats.resampling import Bootstrap, draw_counts, grouped
from .gate import NOTHING, accepts, candidate_thresholds, count_accepted, rejecting_threshold
from .threshold import choose_threshold

STEPS = 40  # thresholds that Learn then Test goes through at most


@dataclass(frozen=True, eq=False)
class Samples:
    """What is known of n samples of an instrumented run, all arrays [n].

    score: in [0, 1], nan where the draft cannot be accepted (routed to the agent, no score, no draft).
    draft_right, agent_right: bool. groups: see the module. strata: what halves are balanced over (the task).
    accepted_s, rejected_s, baseline_s: seconds when the draft is accepted, when it is not, and of the agent alone;
    None where the run has no times.
    """

    score: NDArray[np.float64]
    draft_right: NDArray[np.bool_]
    agent_right: NDArray[np.bool_]
    groups: NDArray
    strata: NDArray
    accepted_s: NDArray[np.float64] | None = None
    rejected_s: NDArray[np.float64] | None = None
    baseline_s: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def take(self, mask: NDArray[np.bool_]) -> Samples:
        return Samples(*(None if a is None else a[mask] for a in vars(self).values()))

    @property
    def weight(self) -> NDArray[np.float64]:
        """1 / size of the sample's group: a group drawn at random, then a sample of it."""
        n_groups, group_of = grouped(self.groups, len(self))
        return 1.0 / np.bincount(group_of, minlength=n_groups)[group_of]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Drafts that would be wrong if accepted."""
        return ~self.draft_right & ~np.isnan(self.score)

    @property
    def regretted(self) -> NDArray[np.bool_]:
        return self.wrong & self.agent_right


def samples(
    score: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    routed: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    times: Sequence[ArrayLike] | None = None,
) -> Samples:
    """Checked `Samples`; a routed sample loses its score. `times`: accepted, rejected, baseline seconds.

    Raises:
        UserError: unequal lengths, verdicts that are not true or false, scores outside [0, 1].
    """
    score = as_scores("score", score)
    if ((score < 0) | (score > 1)).any():
        raise UserError(
            "Scores to be certified must lie in [0, 1]; map other scores there first, in the same order."
        )
    n = len(score)
    routed = np.zeros(n, bool) if routed is None else as_flags("routed", routed)
    arrays = {
        "score": score,
        "draft_right": as_flags("draft_right", draft_right),
        "agent_right": as_flags("agent_right", agent_right),
        "groups": np.arange(n) if groups is None else np.asarray(groups),
        "strata": np.zeros(n, int) if strata is None else np.asarray(strata),
    }
    for name, values in zip(("accepted_s", "rejected_s", "baseline_s"), times or (), strict=False):
        arrays[name] = as_numbers(name, values)
    require_same_length(routed=routed, **arrays)
    return Samples(**arrays | {"score": np.where(routed, np.nan, score)})


# ------------------------------------------------------------------ halves


def calibration_half(groups: ArrayLike, strata: ArrayLike, seed: int) -> NDArray[np.bool_]:
    """A seeded random half, True for calibration: groups stay whole, strata (and their mixtures) are halved.

    A group whose samples lie in several strata, such as a picture asked about in several splits, is halved among
    the groups that lie in the same ones.
    """
    groups, strata = np.asarray(groups), np.asarray(strata)
    n_groups, group_of = grouped(groups, len(strata))
    kinds, stratum_of = np.unique(strata, return_inverse=True)
    lies_in = np.zeros((n_groups, len(kinds)), np.int64)
    np.add.at(lies_in, (group_of, stratum_of), 1)
    _, pattern = np.unique(lies_in, axis=0, return_inverse=True)
    random = np.random.default_rng(seed)
    chosen = np.zeros(n_groups, bool)
    odd = 0  # odd ones out go to either half in turn
    for kind in range(pattern.max(initial=-1) + 1):
        members = random.permutation(np.flatnonzero(pattern.ravel() == kind))
        chosen[members[: (len(members) + odd) // 2]] = True
        odd ^= len(members) % 2
    return chosen[group_of]


def one_per_group(groups: ArrayLike, seed: int) -> NDArray[np.int64]:
    """Index of one sample of each group, drawn with a seed: independent samples."""
    groups = np.asarray(groups)
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])


# ------------------------------------------------------------------ procedures


@dataclass(frozen=True, slots=True)
class Certified:
    """A threshold and what stands behind it: `n` independent units; `reason` says why nothing is certified."""

    threshold: float
    certified: bool
    n: int
    reason: str = ""


def most_errors(n: int, target: float, delta: float) -> int:
    """How many errors among n still prove a rate of at most `target` at level `delta`; -1: not even none."""
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
    """Thresholds in the order Learn then Test goes through them, from scores that are no calibration data.

    `reference` are scores of other samples, for instance of those to be decided, which need no verdicts. They say
    which share a threshold accepts. A sequence that begins with few samples stops at the first error, one that begins
    with many may begin beyond what can be proven: it begins where two errors would still pass, or with half of what
    could be accepted if that is less, never with so few that none could pass, and goes down to everything in even
    steps of coverage.

    Args:
        reference: scores [any], nan: cannot be accepted.
        n: independent calibration samples.
    """
    reference = as_scores("reference", reference)
    readable = -np.sort(-reference[~np.isnan(reference)])
    if not len(readable):
        return np.empty(0)
    most = len(readable) / len(reference)
    two_errors, none = (fewest_samples(target, delta, errors) for errors in (2, 0))
    fewest = none + 2 * math.sqrt(none)  # another sample of the same size accepts more or fewer
    first = max(fewest, min(two_errors, n * most / 2)) / max(n, 1)
    shares = np.linspace(min(first, most), most, steps)
    last = np.minimum(np.ceil(shares * len(reference)).astype(int), len(readable))
    below = np.append(readable[1:], 0.0)[last - 1]  # the best score that is not among the `last` ones
    return np.unique(rejecting_threshold(below))[::-1]


def learn_then_test(
    score: ArrayLike, wrong: ArrayLike, thresholds: ArrayLike, target: float, delta: float
) -> Certified:
    """The lowest threshold of the sequence whose selective risk is proven to be at most `target`.

    Args:
        score: [independent samples], nan is never accepted.
        wrong: bool, would the draft be wrong.
        thresholds: fixed without sight of these samples' verdicts, tested in the order given.
        target, delta: the risk exceeds the target with probability at most delta.
    """
    from scipy.stats import binom

    _check(target, delta)
    n_accepted, n_wrong = count_accepted(score, as_flags("wrong", wrong).astype(np.int64), thresholds)
    p_values = np.where(n_accepted > 0, binom.cdf(n_wrong, np.maximum(n_accepted, 1), target), 1.0)
    rejected = np.logical_and.accumulate(p_values <= delta)
    if not rejected.any():
        need, most = fewest_samples(target, delta), int(n_accepted.max(initial=0))
        told = (
            f"{most} drafts can be accepted, and without a single error {need} would be needed"
            if most < need
            else f"{n_wrong[0]} of the {n_accepted[0]} surest drafts are wrong, which proves nothing"
        )
        return Certified(NOTHING, False, len(np.asarray(score)), told)
    return Certified(float(np.asarray(thresholds)[rejected][-1]), True, len(np.asarray(score)))


def risk_in_expectation(score: ArrayLike, loss: ArrayLike, groups: ArrayLike, target: float) -> Certified:
    """The lowest threshold whose expected share of lost samples among all is at most `target` (conformal risk control).

    Args:
        score: [samples], nan is never accepted.
        loss: bool [samples], lost if accepted; the loss of a group is its mean.
        groups: [samples], exchangeable with each other.
    """
    _check(target)
    n_groups, group_of = grouped(groups, len(np.asarray(score)))
    weight = as_flags("loss", loss) / np.bincount(group_of, minlength=max(n_groups, 1))[group_of]
    allowed = target * (n_groups + 1) - 1.0
    if allowed < 0:
        told = f"{n_groups} groups: a target of {target:g} needs {math.ceil(1 / target - 1 - 1e-9)}"
        return Certified(NOTHING, False, n_groups, told)
    return Certified(_lowest(np.asarray(score, dtype=np.float64), weight, allowed), True, n_groups)


def risk_with_probability(score: ArrayLike, loss: ArrayLike, target: float, delta: float) -> Certified:
    """The lowest threshold whose share of lost samples among all is proven to be at most `target`.

    Args:
        score: [independent samples], nan is never accepted.
        loss: bool, lost if accepted.
        target, delta: the share exceeds the target with probability at most delta.
    """
    _check(target, delta)
    n = len(np.asarray(score))
    allowed = most_errors(n, target, delta)
    if allowed < 0:
        told = f"{n} samples: without a single error {fewest_samples(target, delta)} would be needed"
        return Certified(NOTHING, False, n, told)
    return Certified(
        _lowest(np.asarray(score, dtype=np.float64), 1.0 * as_flags("loss", loss), allowed), True, n
    )


def plug_in(score: ArrayLike, wrong: ArrayLike, target: float) -> Certified:
    """The lowest threshold whose selective risk on these very samples is at most `target`: no correction, no proof.

    What is often done, kept to be held against the others.
    """
    score = as_scores("score", score)
    thresholds = candidate_thresholds(score)
    n_accepted, n_wrong = count_accepted(score, as_flags("wrong", wrong).astype(np.int64), thresholds)
    return Certified(float(thresholds[(n_wrong <= target * n_accepted).argmax()]), False, len(score))


def _lowest(score: NDArray, loss: NDArray, allowed: float) -> float:
    """The lowest threshold at which the losses above it sum to at most `allowed`."""
    lost = np.flatnonzero((loss > 0) & ~np.isnan(score))
    order = lost[np.argsort(-score[lost], kind="stable")]
    too_many = np.flatnonzero(np.cumsum(loss[order]) > allowed + 1e-9)
    return float(rejecting_threshold(score[order[too_many[0]]])) if len(too_many) else 0.0


def _check(target: float, delta: float = 0.5) -> None:
    for name, value in (("target", target), ("delta", delta)):
        if not 0 < value < 1:
            raise UserError(f"{name} must lie between 0 and 1, got {value}; it is a risk, such as 0.05.")


WINDOW = Bootstrap(level=0.9, draws=200)


def window(half: Samples, delta_pp: float = 0.0, bootstrap: Bootstrap = WINDOW) -> float:
    """The upper end of the window in which the chosen threshold itself is uncertain; drafts inside it are deferred.

    `choose_threshold` is repeated on bootstrap draws of whole groups; a share `bootstrap.level` of the thresholds it
    picks lies at or below the value returned. The agent answers whatever scores below that. No guarantee, only less
    luck.
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
    picked = []
    n_groups, group_of = grouped(half.groups, len(half))
    for counts in draw_counts(n_groups, len(half), bootstrap):
        weights = counts[:, group_of]
        gained = np.cumsum(weights[:, order] * gain[order], axis=1)
        fine = (gained >= -delta_pp * weights.sum(axis=1, keepdims=True) / 100.0 - 1e-9) & ends
        last = len(score) - 1 - fine[:, ::-1].argmax(axis=1)
        picked.append(np.where(fine.any(axis=1), below[last], NOTHING))
    return float(np.quantile(np.concatenate(picked), bootstrap.level, method="higher"))


# ------------------------------------------------------------------ rules, tried over repeated halves


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen: from calibration samples and the scores (no verdicts) of those to be decided.

    `risk` names what `target` bounds ("" where nothing is bounded); `guarantee` says how, for people.
    `choose(calibration, to_decide, seed)` gives a threshold, or an array of one per sample to be decided.
    """

    name: str
    label: str
    guarantee: str
    choose: Callable[[Samples, Samples, int], Certified] = field(repr=False)
    risk: str = ""
    target: float = math.nan


def rules(
    risk: float = 0.05, loss: float = 0.015, passes: float = 0.2, delta: float = 0.1, delta_pp: float = 0.0
) -> list[Rule]:
    """The rules that notebook 04 compares.

    Args:
        risk: target of the selective risk.
        loss: target of accepted_wrong and regret.
        passes: target of wrong_passes.
        delta: how often a bound with probability may fail.
        delta_pp: accuracy in points that the funnel may lose against the agent on the calibration half.
    """
    often, mean = f"with probability {1 - delta:g}", "in expectation"
    pct = "at most {:g} %".format

    def tested(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        part = one_per_group(calibration.groups, seed)
        sequence = threshold_sequence(to_decide.score, len(part), risk, delta)
        return learn_then_test(calibration.score[part], calibration.wrong[part], sequence, risk, delta)

    def expected(which: str, target: float) -> Callable[..., Certified]:
        def choose(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
            return risk_in_expectation(
                calibration.score, getattr(calibration, which), calibration.groups, target
            )

        return choose

    def bounded(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        part = one_per_group(calibration.groups, seed)
        return risk_with_probability(calibration.score[part], calibration.wrong[part], loss, delta)

    def passing(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        part = calibration.take(calibration.wrong)
        return risk_in_expectation(part.score, part.wrong, part.groups, passes)

    def no_loss(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        return Certified(_tuned(calibration, delta_pp), False, len(calibration))

    def deferring(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        upper = max(window(calibration, delta_pp, replace(WINDOW, seed=seed)), _tuned(calibration, delta_pp))
        return Certified(upper, False, len(calibration))

    def uncorrected(calibration: Samples, to_decide: Samples, seed: int) -> Certified:
        return plug_in(calibration.score, calibration.wrong, risk)

    return [
        Rule("selective", f"wrong among accepted {pct(100 * risk)}", often, tested, "selective", risk),
        Rule(
            "accepted_wrong",
            f"accepted and wrong {pct(100 * loss)}",
            mean,
            expected("wrong", loss),
            "accepted_wrong",
            loss,
        ),
        Rule(
            "accepted_wrong_bound",
            f"accepted and wrong {pct(100 * loss)}",
            often,
            bounded,
            "accepted_wrong",
            loss,
        ),
        Rule("regret", f"regret {pct(100 * loss)}", mean, expected("regretted", loss), "regret", loss),
        Rule(
            "wrong_passes", f"wrong drafts passing {pct(100 * passes)}", mean, passing, "wrong_passes", passes
        ),
        Rule("no_loss", "no less accurate than the agent", "none", no_loss),
        Rule("window", "the same, unsure window deferred", "none", deferring),
        Rule(
            "plug_in",
            f"wrong among accepted {pct(100 * risk)}",
            "uncorrected",
            uncorrected,
            "selective",
            risk,
        ),
    ]


def _tuned(half: Samples, delta_pp: float = 0.0) -> float:
    return choose_threshold(
        half.score, half.draft_right, half.agent_right, np.isnan(half.score), delta_pp
    ).threshold


def tuned_per_stratum(half: Samples, delta_pp: float = 0.0) -> NDArray[np.float64]:
    """A threshold for each stratum that costs it no accuracy, chosen on these very samples: one per sample.

    The paper's operating points are chosen so, benchmark by benchmark on the split they are reported on.
    """
    thresholds = np.full(len(half), NOTHING)
    for stratum in np.unique(half.strata):
        inside = half.strata == stratum
        thresholds[inside] = _tuned(half.take(inside), delta_pp)
    return thresholds


def outcome(part: Samples, threshold: float | NDArray) -> dict[str, float]:
    """What a threshold does on samples: coverage, accuracy, the four risks (percent), and speedup.

    Risks are weighted as the guarantees are (see the module); coverage, accuracy and speedup count every sample.
    nan where there is nothing to count.
    """
    accepted = accepts(part.score, threshold)
    right = np.where(accepted, part.draft_right, part.agent_right)
    weight = part.weight

    def share(of: NDArray, among: NDArray | bool = True, weight: NDArray = weight) -> float:
        total = (weight * among).sum()
        return 100.0 * float((weight * (of & among)).sum() / total) if total else math.nan

    told = {
        "coverage_pct": 100.0 * float(accepted.mean()) if len(part) else math.nan,
        "accuracy_pct": 100.0 * float(right.mean()) if len(part) else math.nan,
        "agent_pct": 100.0 * float(part.agent_right.mean()) if len(part) else math.nan,
        "selective_pct": share(part.wrong, accepted),
        "accepted_wrong_pct": share(part.wrong & accepted),
        "regret_pct": share(part.regretted & accepted),
        "wrong_passes_pct": share(accepted[part.wrong], weight=part.take(part.wrong).weight),
        "speedup": math.nan,
    }
    if part.baseline_s is not None and len(part):
        spent_s = float(np.where(accepted, part.accepted_s, part.rejected_s).sum())
        told["speedup"] = float(part.baseline_s.sum()) / spent_s if spent_s else math.nan
    return told


def held_out(population: Samples, chosen: Sequence[Rule], repeats: int = 20, seed: int = 0) -> pd.DataFrame:
    """`tried` on `repeats` random halves, calibrated on one and measured on the other; `repeat` numbers them."""
    made = []
    for repeat in range(repeats):
        inside = calibration_half(population.groups, population.strata, seed + repeat)
        made.append(tried(population.take(inside), population.take(~inside), chosen, seed + repeat))
    return pd.concat(made, keys=range(repeats), names=["repeat"]).reset_index("repeat").reset_index(drop=True)


def tried(calibration: Samples, test: Samples, chosen: Sequence[Rule], seed: int = 0) -> pd.DataFrame:
    """Every rule calibrated on some samples and measured on others, one row a rule.

    Columns: `rule threshold certified reason n_calibration n_test`, those of `outcome` on the test samples, and
    `risk_pct` (the risk that the rule bounds; nan: none) with its `target_pct`. Two rows are added for contrast:
    `per_split`, a threshold per stratum chosen as `tuned_per_stratum` does on the calibration samples, and
    `per_split_on_test`, the same chosen on the very samples it is measured on, as the paper's points are.
    """
    sizes = {"n_calibration": len(calibration), "n_test": len(test)}
    rows: list[dict[str, Any]] = []
    for rule in chosen:
        made = rule.choose(calibration, test, seed)
        told = outcome(test, made.threshold)
        risk = {
            "risk_pct": told[f"{rule.risk}_pct"] if rule.risk else math.nan,
            "target_pct": 100.0 * rule.target,
        }
        made_so = {"threshold": made.threshold, "certified": made.certified, "reason": made.reason}
        rows.append({"rule": rule.name, **made_so, **sizes, **told, **risk})
    for name, source in (("per_split", calibration), ("per_split_on_test", test)):
        of = dict(zip(source.strata, tuned_per_stratum(source), strict=True))
        thresholds = np.array([of.get(stratum, NOTHING) for stratum in test.strata])
        rows.append({"rule": name, "certified": False, "reason": "", **sizes, **outcome(test, thresholds)})
    return pd.DataFrame(rows)
