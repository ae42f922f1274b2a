"""Tables behind figures whose plotted numbers are not simply the argument."""

from __future__ import annotations

import pandas as pd

from ..gating.threshold import OperatingPoint


def operating_curve(point: OperatingPoint) -> pd.DataFrame:
    """The curve behind a choice of threshold: threshold, accepted_pct, accuracy_pct, agent_pct, n."""
    return pd.DataFrame(
        {
            "threshold": point.curve.threshold,
            "accepted_pct": point.curve.accepted_pct,
            "accuracy_pct": point.curve.accuracy_pct,
            "agent_pct": point.baseline_accuracy_pct,
            "n": point.n,
        }
    )
