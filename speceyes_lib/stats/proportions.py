"""Accuracy, coverage, selective risk and the other shares of samples, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .checks import as_flags, as_numbers, require_same_length
from .intervals import DRAWS, LEVEL, SEED, Estimate, Measure, proportion
from .resampling import bootstrap_ratio, clustered_share


@dataclass(frozen=True, slots=True)
class FunnelShares:
    """Where the samples went: beta of all to the draft, alpha of those accepted; accepted = alpha * beta."""

    alpha: Estimate
    beta: Estimate
    accepted: Estimate


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
