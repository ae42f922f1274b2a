"""Choosing the threshold of the gate on a validation run, and the file that keeps the choice."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..errors import ConfigError, StageError, UserError
from ..paths import notebook_of, resolve, shown
from ..stats.checks import as_flags, as_scores, require_same_length
from ..stats.intervals import Estimate, proportion
from .gate import NOTHING, candidate_thresholds, count_accepted


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The chosen threshold, what it gives on the validation set, and the rule that chose it.

    `curve` is the funnel at every threshold that decides differently, ascending: threshold, accepted_pct,
    accuracy_pct, agent_pct (the agent alone), n.
    """

    threshold: float
    accuracy: (
        Estimate  # of the funnel on the set the threshold was chosen on: optimistic, and no result to report
    )
    baseline_accuracy: Estimate  # the agent on every sample
    accepted: Estimate
    delta_pp: float
    rule: str
    n: int
    n_drafted: int  # samples that were not routed past the gate
    curve: pd.DataFrame

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.4f}: accepts {self.accepted}, accuracy {self.accuracy} "
            f"against the agent's {self.baseline_accuracy}"
        )

    def as_dict(self) -> dict:
        """For JSON, without the curve; nan becomes null."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "curve"}
        return {name: v.as_dict() if isinstance(v, Estimate) else v for name, v in values.items()}


def choose_threshold(
    confidence: ArrayLike,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    routed: ArrayLike | None = None,
    delta_pp: float = 0.0,
) -> OperatingPoint:
    """The lowest threshold at which the funnel is at most `delta_pp` points less accurate than the agent.

    Candidates are 0, 1 and the midpoints between distinct confidences of the drafts; 1 accepts nothing, equals the
    agent, and so always qualifies. When no draft has a confidence the threshold is 1.

    Args:
        confidence: [samples] in [0, 1]; nan or None where the draft has no score: never accepted.
        draft_right: bool [samples], judged on every sample (a `collect` run).
        agent_right: the same of the agent.
        routed: bool [samples], True where Phase I sent the sample to the agent; None: nowhere.
        delta_pp: percentage points of accuracy that may be given up, >= 0.

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
    n_accepted, gained = count_accepted(gated_confidence, draft.astype(np.int64) - agent, thresholds)
    # Counts are exact; the slack only absorbs the rounding of delta_pp * n, far below one sample.
    allowed = gained >= -(delta_pp * n / 100.0) - 1e-9
    allowed[:-1] &= not np.isnan(gated_confidence).all()
    best = int(allowed.argmax())

    n_agent = int(agent.sum())
    one_pct = 100.0 / n if n else np.nan  # what one sample is worth
    percent = {"accepted_pct": one_pct * n_accepted, "accuracy_pct": one_pct * (n_agent + gained)}
    baseline = proportion(n_agent, n)
    rule = f"lowest threshold whose accuracy on the validation set is at most {delta_pp:g} percentage points "
    return OperatingPoint(
        threshold=float(thresholds[best]),
        accuracy=proportion(n_agent + int(gained[best]), n),
        baseline_accuracy=baseline,
        accepted=proportion(int(n_accepted[best]), n),
        delta_pp=float(delta_pp),
        rule=rule + "below the agent's",
        n=n,
        n_drafted=int((~routed).sum()),
        curve=pd.DataFrame({"threshold": thresholds, **percent, "agent_pct": baseline.value, "n": n}),
    )


FILE = "operating_point.json"


def read_operating_point(path: str | Path) -> dict:
    """The operating point in a file; only `threshold`, a number from 0 to 1, is required.

    Raises StageError when the file is missing, ConfigError when it holds no threshold.
    """
    path = resolve(path)
    try:
        point = json.loads(path.read_text("utf-8"))
        threshold = point["threshold"]
        if isinstance(threshold, bool) or not 0 <= threshold <= NOTHING:
            raise ValueError(f"threshold is {threshold!r}")
    except FileNotFoundError:
        raise StageError(
            f"{shown(path)} does not exist; run {notebook_of('04_threshold')} on the validation run first, "
            "or name another operating_point.json in threshold_from"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise ConfigError(
            f"{shown(path)}: expected a JSON object whose 'threshold' is a number from 0 to 1 ({e}); "
            f"run {notebook_of('04_threshold')} again"
        ) from e
    return point | {"threshold": float(threshold)}
