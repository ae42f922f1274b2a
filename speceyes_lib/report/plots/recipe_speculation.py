"""What trained agents do to speculation: how long each works, and what the gate saves and costs with it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import PAGE_IN, SERIES, drawn, nothing


@drawn
def speculation_by_agent(table: pd.DataFrame) -> Figure:
    """Tokens of each agent on its own, then speedup and accuracy of its funnel over the threshold.

    Args:
        table: agent, threshold, and with `_low` and `_high`: tokens, speedup, accuracy; accuracy_alone. Rows of one
            router. Bars and bands are 95 % intervals.
    """
    if not len(table):
        return nothing("No agent of these runs was put through the funnel.")
    figure, (alone, faster, right) = plt.subplots(1, 3, figsize=(PAGE_IN, 2.4), width_ratios=(1, 1.4, 1.4))
    thresholds = sorted(table["threshold"].unique())
    places = np.arange(len(thresholds))
    for at, (agent, part) in enumerate(table.groupby("agent", sort=False)):
        color, marker = SERIES[at % len(SERIES)]
        part = part.set_index("threshold").loc[thresholds]
        first = part.iloc[0]
        ends = [[first["tokens"] - first["tokens_low"]], [first["tokens_high"] - first["tokens"]]]
        alone.errorbar([at], [first["tokens"]], ends, color=color, marker=marker, capsize=2)
        for ax, name in ((faster, "speedup"), (right, "accuracy")):
            ax.plot(places, part[name], color=color, marker=marker, ms=3, lw=1.2, label=agent)
            ax.fill_between(places, part[f"{name}_low"], part[f"{name}_high"], color=color, alpha=0.15, lw=0)
        right.axhline(first["accuracy_alone"], color=color, ls=":", lw=1)
    agents = list(table["agent"].unique())
    alone.set_xticks(range(len(agents)), agents, rotation=20)
    alone.set(title="tokens of the agent alone", ylim=(0, None), xlim=(-0.5, len(agents) - 0.5))
    for ax, title in ((faster, "speedup of the funnel"), (right, "accuracy, % (dotted: agent alone)")):
        ax.set_xticks(places, [f"{value:g}" for value in thresholds], rotation=45)
        ax.set(title=title, xlabel="threshold")
    faster.axhline(1, color=SERIES[0][0], lw=0.6)
    faster.legend(loc="upper right")
    return figure
