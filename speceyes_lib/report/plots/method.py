"""Drawing of the method: the serial agent above, the funnel below."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from .style import INK, METHOD_COLORS, MUTED, PAGE_IN, PHASE_COLORS, box, drawn

_STEP = {
    "agent": METHOD_COLORS["baseline"],
    "router": PHASE_COLORS["router_s"],
    "draft": PHASE_COLORS["draft_s"],
}


@drawn
def method_diagram(shares: Mapping[str, float] | None = None) -> Figure:
    """The serial agent chain and the funnel, drawn to be read in a talk.

    Args:
        shares: fractions `beta` (sent to the draft) and `alpha` (drafts accepted) of a run, written beside the arrows.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(PAGE_IN, 3.0), height_ratios=(0.7, 1.5))
    for ax in (top, bottom):
        ax.set_axis_off()
        ax.set_xlim(0, 100)
    top.set_ylim(0, 15)
    bottom.set_ylim(-1, 33)
    top.set_title("Agent alone: every question waits for the whole chain")
    chain = ["question", "look", "think", "tool", "look again", "think", "answer"]
    for at, name in enumerate(chain):
        plain = at in (0, len(chain) - 1)
        _box(top, 1 + 14.2 * at, 6, 11.5, 8, name, INK if plain else _STEP["agent"], filled=not plain)
        if at:
            _arrow(top, 1 + 14.2 * (at - 1) + 11.5, 10, 1 + 14.2 * at, 10)
    top.text(50, 1.5, "depth D, one sample after another", ha="center", va="center", fontsize=7, color=MUTED)

    beta, alpha = (shares or {}).get("beta"), (shares or {}).get("alpha")
    bottom.set_title("SpecEyes: answers the gate trusts leave early")
    _box(bottom, 1, 22, 11, 8, "questions\n(a batch)", INK, filled=False)
    _box(bottom, 19, 21, 17, 10, "I  router\nwould a tool help?", _STEP["router"])
    _box(bottom, 43, 21, 17, 10, "II  draft\nsmall model", _STEP["draft"])
    _box(bottom, 67, 21, 14, 10, "III  gate\nconfidence > t", METHOD_COLORS["speceyes_min"])
    _box(bottom, 88, 22, 11, 8, "answer", INK, filled=False)
    _box(bottom, 43, 0, 38, 9, "IV  the agent, with its tools: D steps", _STEP["agent"])
    for x0, x1 in ((12, 19), (36, 43), (60, 67), (81, 88)):
        _arrow(bottom, x0, 26, x1, 26)
    _arrow(bottom, 74, 21, 74, 9)
    bottom.plot([27.5, 27.5], [21, 4.5], color=INK, lw=1, solid_capstyle="butt")
    _arrow(bottom, 27.5, 4.5, 43, 4.5)
    bottom.plot([81, 93.5], [4.5, 4.5], color=INK, lw=1, solid_capstyle="butt")
    _arrow(bottom, 93.5, 4.5, 93.5, 22)

    def share(name: str, value: float | None) -> str:
        return name if value is None else f"{name}\n{100 * value:.0f} %"

    routed, rejected = (None if value is None else 1 - value for value in (beta, alpha))
    bottom.text(39.5, 27, share("no", beta), ha="center", va="bottom", fontsize=7)
    bottom.text(28.5, 12, share("yes", routed), ha="left", va="center", fontsize=7)
    bottom.text(84.5, 27, share("accept", alpha), ha="center", va="bottom", fontsize=7)
    bottom.text(75, 15, share("reject", rejected), ha="left", va="center", fontsize=7)
    return figure


def _box(
    ax: Axes, x: float, y: float, w: float, h: float, text: str, color: str, filled: bool = True
) -> None:
    ink = "white" if filled else color
    if color == _STEP["draft"]:  # white is hard to read on the orange
        ink = INK
    look = {"facecolor": color if filled else "white", "edgecolor": color, "linewidth": 1}
    box(ax, (x, y, w, h), text, look, 1.2, fontsize=7.5, color=ink)


def _arrow(ax: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "color": INK, "lw": 1, "shrinkA": 0, "shrinkB": 1}
    ax.add_patch(FancyArrowPatch((x0, y0), (x1, y1), **look))
