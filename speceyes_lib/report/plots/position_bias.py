"""Figure of the position bias of options."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..labels import split_label
from .style import INK, MUTED, PAGE_IN, SERIES, drawn, errors


@drawn
def accuracy_by_place(orders: pd.DataFrame, places: pd.DataFrame) -> Figure:
    """Draft accuracy by the order options are shown in, and by the place of the right one.

    Tables of `position_bias.by_order` and `by_place`; the right panel has a line for each number of options.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6), width_ratios=(1.6, 1), sharey=True)
    names, tasks = list(orders["order"].unique()), list(orders["task"].unique())
    for i, task in enumerate(tasks):
        part = orders[orders["task"] == task].set_index("order").loc[names]
        label = f"{'all' if task == 'all' else split_label(task)}, n={part['n'].max()}"
        x = np.arange(len(names)) + 0.6 * (i / max(1, len(tasks) - 1) - 0.5)
        _dots(left, x, part, SERIES[i % len(SERIES)], label)
    left.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.set(title="Order of the options", ylabel="draft accuracy, %")
    letters = sorted(places["place"].unique())
    for i, (options, part) in enumerate(places.groupby("options")):
        x = part["place"].map(letters.index).to_numpy() + 0.12 * i
        label = f"{options} options, n={part['n'].max()} each"
        _dots(right, x, part, ((MUTED, "o"), (INK, "s"))[i % 2], label, line="-")
    right.set_xticks(range(len(letters)), letters)
    right.set(title="Place of the right option", xlim=(-0.4, len(letters) - 0.5))
    for ax, columns in ((left, 3), (right, 1)):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, columnspacing=1.0)
    return figure


def _dots(ax: Axes, x: np.ndarray, part: pd.DataFrame, look: tuple, label: str, line: str = "none") -> None:
    """Accuracies with their intervals."""
    color, marker = look
    style = {"fmt": marker, "ls": line, "lw": 0.8, "ms": 4, "color": color, "elinewidth": 0.8, "label": label}
    ax.errorbar(x, part["accuracy_pct"].to_numpy(), yerr=errors(part), **style)
