"""Figure of judging: what separates two scoring protocols."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .style import INK, MUTED, PAGE_IN, RIGHT, WRONG, drawn


@drawn
def correction_waterfall(steps: pd.DataFrame) -> Figure:
    """What each correction moves between two protocols: the rows of `corrections`, from top to bottom.

    Dots: the accuracies at both ends. Green and purple: points gained and lost by a step, with the answers behind it.
    """
    steps = steps.reset_index(drop=True)
    fig, ax = plt.subplots(figsize=(PAGE_IN, 0.9 + 0.3 * len(steps)))
    last = len(steps) - 1
    for i, row in steps.iterrows():
        after = row["accuracy_pct"]
        if i in (0, last):
            ax.plot([after], [i], "o", color=INK, zorder=3)
            note = f"{after:.1f} %  (n={row['n']})"
        else:
            color = RIGHT if row["moved_points"] > 0 else WRONG
            ax.barh(i, -row["moved_points"], left=after, color=color, height=0.55)
            note = f"{row['moved_points']:+.1f}".replace("-", "−")
            if row["gained"] or row["lost"]:
                note += f"  (+{row['gained']}, −{row['lost']})"
        right_end = max(after, after - row["moved_points"])
        ax.annotate(note, (right_end, i), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7)
        if i < last:
            ax.plot([after, after], [i, i + 1], color=MUTED, lw=0.7, zorder=1)
    values = pd.concat([steps["accuracy_pct"], steps["accuracy_pct"] - steps["moved_points"]])
    low, high = values.min(), values.max()
    pad = max(0.5, high - low)
    ax.set_xlim(low - 0.1 * pad, high + 0.45 * pad)  # the notes stand to the right of the bars
    ax.set_xticks(
        [tick for tick in ax.get_xticks() if low - 0.1 * pad <= tick <= min(100, high + 0.45 * pad)]
    )
    ax.set_yticks(range(len(steps)), steps["step"])
    ax.set_ylim(last + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("accuracy % (the axis does not begin at 0)")
    return fig
