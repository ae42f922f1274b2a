"""What a reinforcement-learning run changed: its end against its beginning.

Source: arXiv:2505.14362 (DeepEyes).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..stats import proportions

FIRST, LAST = 4, 8  # steps that are compared


def windows(rollouts: pd.DataFrame, first: int = FIRST, last: int = LAST) -> pd.DataFrame:
    """The last steps of a run against its first, over trajectories; prompts are drawn together for the intervals.

    Args:
        rollouts: of `formats.read_training`.
        first: steps at the beginning.
        last: steps at the end.

    Returns:
        Index: score (points), tool_rate, right, format_errors (rates; a call counts if the tool carried it out).
        Columns: start, start_low, start_high, end, end_low, end_high, change.
    """
    trained = rollouts[rollouts["set"] == "train"]
    steps = np.sort(trained["step"].unique())
    values = {
        "score": trained["score"],
        "tool_rate": trained["replies"] > trained["failed_replies"],
        "right": trained["right"],
        "format_errors": trained["format_error"],
    }
    prompts = trained["step"].astype(str) + " " + trained["group"].astype(str)
    rows: dict[str, dict[str, float]] = {}
    for name, column in values.items():
        rows[name] = {}
        for window, among in {"start": steps[:first], "end": steps[-last:]}.items():
            part = trained["step"].isin(among) & column.notna()
            mean = proportions.mean(column[part].astype(float), prompts[part])
            rows[name] |= {window: mean.value, f"{window}_low": mean.low, f"{window}_high": mean.high}
        rows[name]["change"] = rows[name]["end"] - rows[name]["start"]
    return pd.DataFrame(rows).T
