"""Accuracy, coverage, selective risk and the other shares of samples, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from .checks import as_flags, as_numbers, require_same_length
from .intervals import LEVEL, Estimate, proportion, wilson
from .resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_ratio, grouped


@dataclass(frozen=True, slots=True)
class FunnelShares:
    """Shares of a gated run, in percent.

    Attributes:
        alpha: acceptance rate: accepted drafts in all drafted samples.
        beta: drafted share: samples that were not routed past the draft, in all samples.
        accepted: accepted drafts in all samples; as fractions, accepted = alpha * beta.
    """

    alpha: Estimate
    beta: Estimate
    accepted: Estimate


@dataclass(frozen=True, slots=True)
class YesNoScores:
    """POPE's measures in percent, with yes as the positive class, and the counts they come from.

    An unknown answer (neither yes nor no) is wrong in `accuracy`, a miss in `recall` where the truth is yes, and not a
    yes in `yes_ratio`.
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
    """Share of right answers, in percent; the interval as in `share`.

    Args:
        right: bool [samples].
        groups: [samples] of anything sortable; samples of one group are drawn together.
        bootstrap: level, draws and seed.
    """
    right = as_flags("right", right)
    return share(right, np.ones(len(right), bool), groups, bootstrap)


def mean(
    values: ArrayLike, groups: ArrayLike | None = None, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> Estimate:
    """Mean of the values [samples], in their unit, with its bootstrap interval; `groups` as in `share`."""
    values = as_numbers("values", values)
    return bootstrap_ratio(values, np.ones(len(values)), groups, bootstrap)


def funnel_shares(routed: ArrayLike, accepted: ArrayLike, level: float = LEVEL) -> FunnelShares:
    """Acceptance rate alpha, drafted share beta and accepted share of a gated run.

    Args:
        routed: bool [samples], true where the router sent the sample to the agent.
        accepted: bool [samples], true where the gate accepted the draft.
        level: of the Wilson intervals, in (0, 1).

    Raises:
        UserError: a sample is both routed and accepted.

    Source: SpecEyes (arXiv:2603.23483), alpha and beta of its speedup model.
    """
    routed, accepted = as_flags("routed", routed), as_flags("accepted", accepted)
    require_same_length(routed=routed, accepted=accepted)
    if (routed & accepted).any():
        raise UserError(
            f"Sample {int((routed & accepted).argmax())} is both routed to the agent and accepted from the "
            "draft; it can only be one of them."
        )
    n, n_drafted, n_accepted = len(routed), int((~routed).sum()), int(accepted.sum())
    return FunnelShares(
        alpha=proportion(n_accepted, n_drafted, level),
        beta=proportion(n_drafted, n, level),
        accepted=proportion(n_accepted, n, level),
    )


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
