"""The samples on which thresholds are calibrated and measured, and how they are halved.

Samples of one group (the four orders of a question, the questions about one picture) are not independent: a half holds
whole groups, and procedures that need independent samples take one of each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..stats.checks import as_flags, as_numbers, as_scores, require_same_length
from ..stats.resampling import grouped


@dataclass(frozen=True, eq=False)
class GateSamples:
    """The n samples of an instrumented run on which thresholds are chosen or measured. All arrays are [n]."""

    score: NDArray[
        np.float64
    ]  # in [0, 1]; nan where the draft cannot be accepted (routed, no score, no draft)
    draft_right: NDArray[np.bool_]
    agent_right: NDArray[np.bool_]
    groups: NDArray  # what samples share: the question or the picture; sortable
    strata: NDArray  # what halves are balanced over, the task; sortable
    accepted_s: NDArray[np.float64] | None = (
        None  # seconds when the draft is accepted; None: the run has no times
    )
    rejected_s: NDArray[np.float64] | None = None  # seconds when it is not accepted
    baseline_s: NDArray[np.float64] | None = None  # seconds of the agent alone

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: NDArray) -> GateSamples:
        """The samples of a mask, bool [n], or at some positions."""
        return GateSamples(*(None if a is None else a[index] for a in vars(self).values()))

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
        """Drafts that would be wrong if accepted, where the agent is right."""
        return self.wrong & self.agent_right


def gate_samples(
    score: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    routed: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    times: Sequence[ArrayLike] | None = None,
) -> GateSamples:
    """`GateSamples` of checked arrays [n].

    Args:
        score: in [0, 1], nan for "no score".
        draft_right: bool.
        agent_right: bool.
        routed: bool, true where the router sent the sample to the agent; such a sample loses its score. None: nowhere.
        groups: None: every sample is its own group.
        strata: None: all samples are of one stratum.
        times: accepted_s, rejected_s and baseline_s; None: the run has no times.

    Raises:
        UserError: unequal lengths, verdicts that are not true or false, scores outside [0, 1].
    """
    score = as_scores("score", score)
    if ((score < 0) | (score > 1)).any():
        raise UserError(
            "Scores to be certified must lie in [0, 1]; map others there first, in the same order."
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
    return GateSamples(**arrays | {"score": np.where(routed, np.nan, score)})


def calibration_half(groups: ArrayLike, strata: ArrayLike, seed: int) -> NDArray[np.bool_]:
    """A random half of the samples, bool [n], true for calibration. Groups stay whole, strata are halved.

    Groups that lie in the same strata, maybe in several, are halved among each other.
    """
    groups, strata = np.asarray(groups), np.asarray(strata)
    n_groups, group_of = grouped(groups, len(strata))
    kinds, stratum_of = np.unique(strata, return_inverse=True)
    n_in_stratum = np.zeros((n_groups, len(kinds)), np.int64)
    np.add.at(n_in_stratum, (group_of, stratum_of), 1)
    _, pattern = np.unique(n_in_stratum, axis=0, return_inverse=True)
    random = np.random.default_rng(seed)
    chosen = np.zeros(n_groups, bool)
    odd = 0  # a group left over goes to either half in turn
    for kind in range(pattern.max(initial=-1) + 1):
        members = random.permutation(np.flatnonzero(pattern.ravel() == kind))
        chosen[members[: (len(members) + odd) // 2]] = True
        odd ^= len(members) % 2
    return chosen[group_of]


def one_per_group(groups: ArrayLike, seed: int) -> NDArray[np.int64]:
    """Positions of independent samples: one of each group, drawn at random, ascending [groups]."""
    groups = np.asarray(groups)
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])
