"""Drawing of the pipeline: which notebook comes after which, with one of them marked."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from .style import INK, METHOD_COLORS, MUTED, PAGE_IN, box, drawn

# notebook -> left, bottom, width and height of its box (percent of the width), and what the box says
BOXES = {
    "00_prepare_data": (1, 11, 10, 8, "00\ndata"),
    "01_small_model_inference": (15, 11, 11, 8, "01\ndrafts"),
    "02_gated_agent_eval": (29.5, 11, 16, 8, "02\nrouter, gate, agent"),
    "03_judging": (49, 11, 10, 8, "03\njudging"),
    "04_threshold": (63, 15.3, 10.5, 3.7, "04 threshold"),
    "04_confidence_analysis": (74, 15.3, 10.5, 3.7, "04 confidence"),
    "04_certified_thresholds": (63, 11, 10.5, 3.7, "04 certified"),
    "04_costs": (74, 11, 10.5, 3.7, "04 costs"),
    "05_paper_figures": (88.5, 11, 10.5, 8, "05\ntables, figures"),
    "train_demo_models": (15, 2, 11, 4, "train models"),
    "study_own_results": (1, 2, 10, 4, "own results"),
    "study_position_bias": (29.5, 2, 11, 4, "position bias"),
    "study_replay_fidelity": (42, 2, 11, 4, "replay fidelity"),
    "study_reported_numbers": (54, 2, 13, 4, "reported numbers"),
    "explore_gating": (76, 2, 11, 4, "the gate"),
    "explore_traces": (88, 2, 11, 4, "trajectories"),
    "study_deepeyes_recipe": (1, -5, 13, 4, "recipe by RL"),
    "read_training_run": (15.5, -5, 14, 4, "a run of training"),
    "explore_training": (31, -5, 13, 4, "its trajectories"),
    "study_layer_gates": (48, -5, 14, 4, "layers of the draft"),
    "study_tool_speculation": (66, -5, 16, 4, "tool speculation"),
    "explore_tool_calls": (84, -5, 14, 4, "its tool calls"),
    "study_second_draft": (68, 2, 7, 4, "2nd draft"),
}
_ARROWS = (  # from (x, y) to (x, y)
    ((11, 15), (15, 15)),
    ((26, 15), (29.5, 15)),
    ((45.5, 15), (49, 15)),
    ((59, 15), (63, 15)),
    ((84.5, 15), (88.5, 15)),
    ((20.5, 6), (20.5, 11)),
)
_CAPTIONS = (  # x, y, text
    (48.5, 7.8, "studies, started by hand"),
    (87.5, 7.8, "explorers of a finished run"),
    (22.5, 0.5, "how such an agent is trained"),
    (55, 0.5, "inside the draft"),
    (82, 0.5, "tool calls made in advance"),
)
_BOTTOM, _TOP = -6, 20  # of the drawing, in the same unit


@drawn
def pipeline(stage: str) -> Figure:
    """A strip of boxes, one per notebook, in which the box of `stage` is filled.

    Args:
        stage: file name of the notebook without its ending, a key of `BOXES`.

    Raises:
        KeyError: no box is declared for this notebook.
    """
    if stage not in BOXES:
        raise KeyError(f"{stage}: no box in {__name__}.BOXES; add a line for it")
    figure, ax = plt.subplots(figsize=(PAGE_IN, PAGE_IN * (_TOP - _BOTTOM) / 100))
    ax.set_axis_off()
    ax.set_xlim(0, 100)
    ax.set_ylim(_BOTTOM, _TOP)
    for name, (*place, text) in BOXES.items():
        marked, color = name == stage, METHOD_COLORS["speceyes_min"]
        look = {"facecolor": color if marked else "white", "edgecolor": color if marked else MUTED}
        font = {"color": "white", "weight": "bold"} if marked else {"color": INK}
        box(ax, place, text, look, 0.8, fontsize=7, **font)
    for begin, end in _ARROWS:
        ax.add_patch(FancyArrowPatch(begin, end, arrowstyle="-|>", mutation_scale=7, color=INK, shrinkA=0))
    for x, y, text in _CAPTIONS:
        ax.text(x, y, text, ha="center", va="center", fontsize=7, color=MUTED)
    return figure
