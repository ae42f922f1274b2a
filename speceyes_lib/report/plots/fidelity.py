"""Figure of the study of replay fidelity."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import INK, MUTED, PAGE_IN, SERIES, drawn

GOAL_PCT = 10.0  # the band drawn around each measured speedup


@drawn
def replay_fidelity(table: pd.DataFrame) -> Figure:
    """Predicted beside measured speedup and accuracy, one line per setting (`compare_with_replay`).

    The band reaches `GOAL_PCT` per cent to either side of the measured speedup.
    """
    table = table.reset_index(drop=True)
    y = np.arange(len(table))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE_IN, 1.25 + 0.27 * len(table)), width_ratios=(1.5, 1), sharey=True
    )
    measured = table["speedup_measured"]
    reach = measured * GOAL_PCT / 100
    left.barh(
        y, 2 * reach, left=measured - reach, height=0.62, color=MUTED, alpha=0.25, label=f"± {GOAL_PCT:g} %"
    )
    for ax, name in ((left, "speedup"), (right, "accuracy_pct")):
        ax.plot(table[f"{name}_measured"], y, "o", color=INK, ms=5, label="measured")
        look = {"mfc": "none", "mec": SERIES[1][0], "mew": 1.2, "ms": 8, "label": "replayed"}
        ax.plot(table[f"{name}_predicted"], y, "o", **look)
        ax.grid(axis="y", visible=False)
    accuracies = table[["accuracy_pct_measured", "accuracy_pct_predicted"]].to_numpy()
    low, width = accuracies.min(), max(1.0, np.ptp(accuracies))
    right.set_xlim(low - 0.3 * width, low + 1.3 * width)
    ends = np.concatenate([measured - reach, measured + reach, table["speedup_predicted"]])
    left.set_xlim(ends.min() - 0.06 * np.ptp(ends), ends.max() + 0.06 * np.ptp(ends))
    left.set_yticks(y, table["setting"])
    left.invert_yaxis()
    left.set(title="Speedup over the agent alone", xlabel="×")
    right.set(title="Accuracy", xlabel=f"%, n={table['n'].max()} per setting")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
