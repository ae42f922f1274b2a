"""Accuracy, coverage, selective risk and the other shares of samples, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from .checks import as_flags, as_numbers, require_same_length
from .intervals import Estimate, proportion, wilson
from .resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_ratio, grouped


class FunnelShares(NamedTuple):
    """Shares of a gated run, see `funnel_shares`."""

    alpha: Any
    beta: Any
    accepted: Any


@dataclass(frozen=True, slots=True)
class YesNoScores:
    """POPE's measures in percent, with yes as the positive class, and the counts they come from."""

    accuracy: Estimate  # an unknown answer (neither yes nor no) is wrong
    precision: Estimate
    recall: Estimate  # an unknown answer is a miss where the truth is yes
    f1: Estimate
    yes_ratio: Estimate  # an unknown answer is not a yes
    true_yes: int
    false_yes: int
    true_no: int
    false_no: int
    unknown: int


def share(
    part: ArrayLike,
    whole: ArrayLike,
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Share of the samples in `whole` that are also in `part`, in percent; n is the number in `whole`.

    The interval is Wilson's without groups, a cluster bootstrap with them. At 0 and 100 % every draw would give the
    same value, so that the interval is then Wilson's with n = number of groups.

    Args:
        part: bool [samples]; samples outside `whole` do not count.
        whole: bool [samples].
        groups: [samples] of anything sortable; samples of one group are drawn together.
        bootstrap: level, draws and seed.
    """
    part, whole = as_flags("part", part), as_flags("whole", whole)
    part = part & whole
    successes, n = int(part.sum()), int(whole.sum())
    if groups is None or not n:
        return proportion(successes, n, bootstrap.level)
    if successes in (0, n):
        _, group_of = grouped(groups, len(part))
        n_groups, _ = grouped(group_of[whole], n)
        low, high = wilson(n_groups if successes else 0, n_groups, bootstrap.level)
        value = 100.0 * successes / n
        return Estimate(value, 100.0 * float(low), 100.0 * float(high), n, "%", "Wilson of groups")
    return replace(bootstrap_ratio(1.0 * part, 1.0 * whole, groups, bootstrap).times_100(), n=n)


def accuracy(
    right: ArrayLike, groups: ArrayLike | None = None, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> Estimate:
    """Share of right answers [samples], in percent; interval and `groups` as in `share`."""
    right = as_flags("right", right)
    return share(right, np.ones(len(right), bool), groups, bootstrap)


def mean(
    values: ArrayLike, groups: ArrayLike | None = None, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> Estimate:
    """Mean of the values [samples], in their unit, with its bootstrap interval; `groups` as in `share`."""
    values = as_numbers("values", values)
    return bootstrap_ratio(values, np.ones(len(values)), groups, bootstrap)


def fraction(part: ArrayLike, whole: ArrayLike) -> Any:
    """Part over whole of counts, numbers or arrays; nan where the whole is 0."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def funnel_shares(
    accepted: ArrayLike, drafted: ArrayLike, n: ArrayLike, share: Callable[[Any, Any], Any] = fraction
) -> FunnelShares:
    """Acceptance rate alpha, drafted share beta, and accepted share of a gated run.

    The router (Phase I) lets `drafted` of `n` samples through to the draft model, and the gate (Phase III) accepts
    `accepted` of their drafts:

        beta         = drafted / n           drafted share
        alpha        = accepted / drafted    acceptance rate
        alpha * beta = accepted / n          accepted share (coverage): answered without the agent

    Args:
        accepted: counts of samples, numbers or arrays.
        drafted: the same.
        n: the same.
        share: (part, whole) -> what a share is given as: a `fraction`, or an Estimate in percent with `proportion`.

    Raises:
        UserError: more samples are accepted than drafted, or more are drafted than there are.

    Source: SpecEyes (arXiv:2603.23483), section 3, alpha and beta of its speedup model.
    """
    if (np.greater(accepted, drafted) | np.greater(drafted, n)).any():
        raise UserError("Only drafted samples can be accepted, and only samples drafted; check the counts.")
    return FunnelShares(share(accepted, drafted), share(drafted, n), share(accepted, n))


def yes_no_scores(
    truth: Sequence[str],
    answers: Sequence[str | None],
    groups: ArrayLike | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> YesNoScores:
    """Accuracy, precision, recall, F1 and yes-ratio of yes/no answers, yes being positive.

    Args:
        truth: "yes" or "no" [samples].
        answers: "yes", "no", or None for an answer that is neither [samples].
        groups: image ids for cluster bootstrap intervals; without, Wilson (F1: bootstrap over samples).
        bootstrap: level, draws and seed.

    Raises:
        UserError: other words than these, or unequal lengths.

    Source: POPE, Li et al. (2023), arXiv:2305.10355.
    """
    truth, answers = np.asarray(truth, dtype=object), np.asarray(answers, dtype=object)
    require_same_length(truth=truth, answers=answers)
    for name, values, valid in (("truth", truth, ("yes", "no")), ("answers", answers, ("yes", "no", None))):
        odd = [value for value in values if value not in valid]
        if odd:
            raise UserError(f"{name} holds {odd[0]!r}; expected one of {valid}.")
    yes, answered_yes, answered_no = truth == "yes", answers == "yes", answers == "no"
    hit, all_samples = yes & answered_yes, np.ones(len(yes), bool)
    correct = hit | (~yes & answered_no)
    return YesNoScores(
        accuracy=share(correct, all_samples, groups, bootstrap),
        precision=share(hit, answered_yes, groups, bootstrap),
        recall=share(hit, yes, groups, bootstrap),
        f1=bootstrap_ratio(2.0 * hit, 1.0 * yes + answered_yes, groups, bootstrap).times_100(),
        yes_ratio=share(answered_yes, all_samples, groups, bootstrap),
        true_yes=int(hit.sum()),
        false_yes=int((~yes & answered_yes).sum()),
        true_no=int((~yes & answered_no).sum()),
        false_no=int((yes & answered_no).sum()),
        unknown=int((~answered_yes & ~answered_no).sum()),
    )
