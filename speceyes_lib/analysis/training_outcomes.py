"""What a reinforcement-learning run changed: its end against its beginning, and held-out questions before and after.

Source: arXiv:2505.14362 (DeepEyes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..stats import proportions
from ..stats.paired import paired_test

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


def held_out_change(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """What two models do on the same held-out questions, one row for greedy and one for sampled answers.

    Args:
        before: of `training.miniature.measure`, or its file.
        after: the same questions, another model.

    Returns:
        Index: sampling. n; accuracy_before, accuracy_after, change (pp), change_low, change_high, p_value (McNemar);
        then before and after: hard (accuracy on hard questions), tool, tool_hard, tool_easy (rates), box_iou.
    """
    rows = {}
    for sampling, old in before.groupby("sampling", sort=False):
        new = after[after["sampling"] == sampling]
        both = old.merge(new, on="sample", suffixes=("_before", "_after"), validate="one_to_one")
        test = paired_test(both["right_after"], both["right_before"])
        row: dict[str, Any] = {
            "n": len(both),
            "accuracy_before": both["right_before"].mean(),
            "accuracy_after": both["right_after"].mean(),
            "change": test.difference.value,
            "change_low": test.difference.low,
            "change_high": test.difference.high,
            "p_value": test.p_value,
        }
        for when, table in {"before": old, "after": new}.items():
            row |= {
                f"hard_{when}": table.loc[table["hard"], "right"].mean(),
                f"tool_{when}": table["tool"].mean(),
                f"tool_hard_{when}": table.loc[table["hard"], "tool"].mean(),
                f"tool_easy_{when}": table.loc[~table["hard"], "tool"].mean(),
                f"box_iou_{when}": table["box_iou"].mean(),
            }
        rows[sampling] = row
    return pd.DataFrame(rows).T.rename_axis("sampling")
