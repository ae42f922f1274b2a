"""The gate of Phase III: which drafts to accept, and how the threshold is chosen.

Source: SpecEyes (arXiv:2603.23483), Phase III. A draft is accepted when its confidence is strictly greater
than the threshold. The paper reports thresholds picked on each test split; here the threshold comes from a
stated rule on a validation set. Arrays in, decisions out; no model, no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UserError
from .estimates import Estimate, as_flags, as_scores, proportion, require_same_length
from .metrics import above, candidate_thresholds


def accepts(confidence: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Accept where confidence > threshold. No confidence (nan or None) is never accepted.

    Args:
        confidence: [samples] or a single number.
        threshold: a number; at 1 or above nothing is accepted.

    Raises:
        UserError: the threshold is nan.
    """
    if np.isnan(threshold):
        raise UserError("The gate's threshold is nan; give a number, 1 to accept nothing.")
    return np.asarray(confidence, dtype=np.float64) > threshold


def gated_right(
    confidence: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    threshold: float,
    routed: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Is the funnel's final answer right: the draft's where accepted and not routed, else the agent's."""
    taken = accepts(confidence, threshold)
    if routed is not None:
        taken &= ~np.asarray(routed, dtype=bool)
    return np.where(taken, draft_right, agent_right).astype(bool)


@dataclass(frozen=True, slots=True)
class OperatingCurve:
    """The funnel at every threshold that decides differently, ascending; percent of all n samples."""

    threshold: NDArray[np.float64]
    accepted_pct: NDArray[np.float64]
    accuracy_pct: NDArray[np.float64]
    n: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The chosen threshold, what it promises on the validation set, and the rule that chose it.

    `accuracy` is the funnel's on the set the threshold was chosen on: optimistic by construction, and no
    result to report. `n_drafted` samples were not routed past the gate.
    """

    threshold: float
    accuracy: Estimate
    baseline_accuracy: Estimate  # the agent on every sample
    accepted: Estimate
    delta_pp: float
    rule: str
    n: int
    n_drafted: int
    curve: OperatingCurve

    @property
    def accuracy_pct(self) -> float:
        return self.accuracy.value_pct

    @property
    def baseline_accuracy_pct(self) -> float:
        return self.baseline_accuracy.value_pct

    @property
    def accepted_pct(self) -> float:
        return self.accepted.value_pct

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.4f}: accepts {self.accepted}, accuracy {self.accuracy} "
            f"against the agent's {self.baseline_accuracy}"
        )

    def as_dict(self) -> dict:
        """For JSON, without the curve; nan becomes null."""
        return {
            "threshold": self.threshold,
            "accuracy": self.accuracy.as_dict(),
            "baseline_accuracy": self.baseline_accuracy.as_dict(),
            "accepted": self.accepted.as_dict(),
            "delta_pp": self.delta_pp,
            "rule": self.rule,
            "n": self.n,
            "n_drafted": self.n_drafted,
        }


def choose_threshold(
    confidence: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    routed: ArrayLike | None = None,
    delta_pp: float = 0.0,
) -> OperatingPoint:
    """The lowest threshold at which the funnel is at most `delta_pp` points less accurate than the agent.

    Lowest means most drafts accepted. Candidates are 0, 1 and the midpoints between distinct confidences of
    the drafts; 1 accepts nothing, equals the agent, and so always qualifies. One sort, O(n log n).

    Args:
        confidence: [samples] in [0, 1]; nan or None where the draft has no score: never accepted.
        draft_right, agent_right: bool [samples], both answers judged on every sample (a `collect` run).
        routed: bool [samples], True where Phase I sent the sample to the agent; None: nowhere.
        delta_pp: percentage points of accuracy that may be given up, >= 0.

    Returns:
        The operating point. When no draft has a confidence (no samples, or all routed) the threshold is 1:
        nothing vouches for any draft.

    Raises:
        UserError: unequal lengths, verdicts that are not true or false, confidences outside [0, 1], a
            negative `delta_pp`.
    """
    if not delta_pp >= 0:
        raise UserError(f"delta_pp must be at least 0 percentage points, got {delta_pp}.")
    confidence = as_scores("confidence", confidence)
    draft, agent = as_flags("draft_right", draft_right), as_flags("agent_right", agent_right)
    routed = np.zeros(len(confidence), bool) if routed is None else as_flags("routed", routed)
    require_same_length(confidence=confidence, draft_right=draft, agent_right=agent, routed=routed)

    n = len(confidence)
    gated_confidence = np.where(routed, np.nan, confidence)  # a routed sample is never accepted
    thresholds = candidate_thresholds(gated_confidence)
    n_accepted, gained = above(gated_confidence, draft.astype(np.int64) - agent, thresholds)
    # Counts are exact; the slack only absorbs the rounding of delta_pp * n, far below one sample.
    allowed = gained >= -(delta_pp * n / 100.0) - 1e-9
    allowed[:-1] &= not np.isnan(gated_confidence).all()
    best = int(allowed.argmax())

    n_agent = int(agent.sum())
    one_pct = 100.0 / n if n else np.nan  # what one sample is worth
    curve = OperatingCurve(thresholds, one_pct * n_accepted, one_pct * (n_agent + gained), n)
    rule = (
        f"lowest threshold whose accuracy on the validation set is at most {delta_pp:g} percentage points "
        "below the agent's"
    )
    return OperatingPoint(
        threshold=float(thresholds[best]),
        accuracy=proportion(n_agent + int(gained[best]), n),
        baseline_accuracy=proportion(n_agent, n),
        accepted=proportion(int(n_accepted[best]), n),
        delta_pp=float(delta_pp),
        rule=rule,
        n=n,
        n_drafted=int((~routed).sum()),
        curve=curve,
    )
