"""Figures of what the layers inside the draft model predict."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import INK, PAGE_IN, RIGHT, SERIES, WRONG, drawn


@drawn
def early_exit(exits: pd.DataFrame, settled: pd.DataFrame) -> Figure:
    """Left: the layer at which drafts settle. Right: accuracy over layers saved, by the rule of leaving.

    Tables of `LayerRun.early_exits` and `LayerRun.settled`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.7), width_ratios=(1, 1.4))
    n_right = (settled["n"] * settled["right_pct"].fillna(0) / 100).to_numpy()
    bars = {"width": 0.8 * float(np.diff(settled["layer"]).min() if len(settled) > 1 else 1), "lw": 0}
    left.bar(settled["layer"], n_right, color=RIGHT, label="right", **bars)
    left.bar(settled["layer"], settled["n"] - n_right, bottom=n_right, color=WRONG, label="wrong", **bars)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(title="Where drafts settle", xlabel="layer", ylabel="drafts")
    left.legend(loc="upper left")
    for number, (first, part) in enumerate(exits[exits["rule"] == "exit"].groupby("first")):
        color, marker = SERIES[number % len(SERIES)]
        part = part.sort_values("saved_pct")
        label = f"from layer {first:g} on"
        right.plot(
            part["saved_pct"], part["accuracy_pct"], marker=marker, ms=3.5, lw=0.9, color=color, label=label
        )
    for rule, marker, label in (("whole", "s", "whole draft"), ("ceiling", "*", "ceiling: nothing changes")):
        part = exits[exits["rule"] == rule]
        right.plot(
            part["saved_pct"],
            part["accuracy_pct"],
            marker,
            ms=5 if marker == "s" else 8,
            color=INK,
            label=label,
        )
    n = int(exits["n"].max()) if len(exits) else 0
    right.set(title=f"Leaving early (n={n})", xlabel="layers saved, %", ylabel="accuracy of the drafts, %")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.0)
    return figure
