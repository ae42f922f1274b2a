"""The gate of Phase III: which drafts to accept, and how the threshold is chosen.

Source: SpecEyes (arXiv:2603.23483), Phase III. A draft is accepted when its confidence is strictly greater
than the threshold. The paper reports thresholds picked on each test split; here the threshold comes from a
stated rule on a validation set. Arrays in, decisions out; no model, no file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError


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
