"""The gate of Phase III: the only file that compares a score with a threshold.

Source: SpecEyes (arXiv:2603.23483), Phase III. `accepts` states the rule, and everything else in this file is derived
from it. The live gate, replay, the choice of a threshold, certificates, charts and explorers all use these functions,
so a change of `accepts` changes every one of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..stats.checks import as_scores


def accepts(score: ArrayLike, threshold: ArrayLike) -> NDArray[np.bool_]:
    """Which drafts the gate accepts: those with score > threshold. A missing score (nan or None) is never accepted.

    Args:
        score: [samples] or a single number.
        threshold: a number, or one per sample [samples].

    Raises:
        UserError: a threshold is nan.
    """
    if np.isnan(threshold).any():
        raise UserError("The gate's threshold is nan; give a number, 1 to accept nothing.")
    return np.asarray(score, dtype=np.float64) > threshold


# Does a score that equals the threshold pass? Binary searches have to know.
EQUAL_PASSES = bool(accepts(0.5, 0.5))
# the rule in words, for sentences: "accepted: a score ... the threshold"
PASSES = "at or above" if EQUAL_PASSES else "strictly above"


def rejecting_threshold(score: ArrayLike) -> NDArray[np.float64]:
    """The lowest threshold at which a score ([samples] or a number) is not accepted; any higher score still is."""
    score = np.asarray(score, dtype=np.float64)
    return np.nextafter(score, np.inf) if EQUAL_PASSES else score


NOTHING = float(rejecting_threshold(1.0))  # accepts no draft, as scores lie in [0, 1]


def thresholds_passed(score: ArrayLike, ascending: ArrayLike) -> NDArray[np.int64]:
    """How many of the thresholds each score passes, by binary search.

    No score is nan. A nan among the ascending thresholds stands last and is never passed.
    """
    return np.searchsorted(ascending, score, side="right" if EQUAL_PASSES else "left")


def count_accepted(
    score: ArrayLike, values: ArrayLike, thresholds: ArrayLike
) -> tuple[NDArray[np.int64], NDArray]:
    """How many scores each threshold accepts, and the sum of their values, by one sort.

    Args:
        score: [samples]; nan is never accepted.
        values: numbers [samples].
        thresholds: [t], in any order.

    Returns:
        counts int64 [t] and sums [t] in the dtype of the values.
    """
    score, values = np.asarray(score, dtype=np.float64), np.asarray(values)
    readable = ~np.isnan(score)
    order = np.argsort(score[readable], kind="stable")
    ascending = score[readable][order]
    sum_from = np.append(np.cumsum(values[readable][order][::-1])[::-1], 0).astype(values.dtype)
    first = np.searchsorted(ascending, thresholds, side="left" if EQUAL_PASSES else "right")
    return len(ascending) - first, sum_from[first]


def candidate_thresholds(score: ArrayLike) -> NDArray[np.float64]:
    """Every threshold that decides differently: 0, the midpoints between distinct scores, and `NOTHING`; ascending.

    Args:
        score: [samples] in [0, 1]; nan is ignored.

    Raises:
        UserError: a score lies outside [0, 1].
    """
    score = as_scores("score", score)
    distinct = np.unique(score[~np.isnan(score)])
    if len(distinct) and not 0 <= distinct[0] <= distinct[-1] <= 1:
        raise UserError(
            f"Scores must lie in [0, 1], got {distinct[0]:g} to {distinct[-1]:g}; "
            "give thresholds of your own for other scores."
        )
    lower, higher = distinct[:-1], distinct[1:]
    middle = lower + np.diff(distinct) / 2
    parts = accepts(higher, middle) & ~accepts(lower, middle)  # neighbouring floats have no midpoint
    middle = np.where(parts, middle, rejecting_threshold(lower))
    return np.unique(np.concatenate([[0.0], middle, [NOTHING]]))


def gated_right(
    score: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    threshold: float,
    routed: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Is the funnel's final answer right: the draft's where accepted and not routed, else the agent's."""
    accepted = accepts(score, threshold)
    if routed is not None:
        accepted &= ~np.asarray(routed, dtype=bool)
    return np.where(accepted, draft_right, agent_right).astype(bool)
