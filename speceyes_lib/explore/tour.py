"""A tour of the gate explorer in four steps. It ends at a draft that the gate accepted although it is wrong."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np

from ..gating.gate import PASSES, rejecting_threshold
from . import charts, explain
from .gating import Gating
from .state import Chosen, GateView
from .widgets import button, row

if TYPE_CHECKING:
    from .gating_explorer import GatingExplorer

HERE = "se-tour-here"  # class of the widget that a step is about


@dataclass(frozen=True)
class Step:
    """One step: what it says, the view that it shows, and the attribute of the explorer that it is about."""

    text: str
    view: GateView
    about: str


def tour_steps(gating: Gating, view: GateView) -> list[Step]:
    """The four steps on a run, at a view's setting; the last two move the threshold where no accepted draft is wrong.

    Raises:
        NotRecorded: the run lacks what the setting needs.
    """
    view = replace(view, chosen=Chosen(), sample="")
    decided = gating.decided(view)
    accepted = int((decided["decision"] == "accepted").sum())
    moved = _with_a_wrong_draft(gating, view)
    wrong = _accepted(gating, moved, right=False)
    ends_at = wrong if len(wrong) else _accepted(gating, moved, right=True)
    last = replace(moved, chosen=Chosen("decision", f"accepted {'wrong' if len(wrong) else 'right'}"))
    steps = [
        Step(
            f"A draft whose score is {PASSES} the threshold is the answer, and the agent does not run. At "
            f"{view.threshold:.6g} the gate accepts {accepted} of {len(decided)} samples. These are the consequences.",
            view,
            "numbers",
        ),
        Step(
            "Right drafts stand upwards, wrong ones downwards, the surer the further to the right. Drag the line, or "
            "focus it and use the arrow keys: further left is faster, and accepts more wrong drafts.",
            view,
            "distribution",
        ),
    ]
    if not len(ends_at):
        missing = "No draft of this part reaches the gate with a score, so there is nothing to accept."
        return [*steps, Step(missing, view, "samples"), Step(missing, view, "samples")]
    shift = "" if moved.threshold == view.threshold else (
        f"No draft accepted at {view.threshold:.6g} is wrong, so the threshold is now {moved.threshold:.6g}. "
    )  # fmt: skip
    count = f"{len(wrong)} accepted draft{'s are' if len(wrong) != 1 else ' is'} wrong"
    sample = replace(last, sample=ends_at["id"].iloc[0])
    reason = explain.reason(ends_at.iloc[0], explain.answers_of(gating, sample.sample), sample)
    return [
        *steps,
        Step(f"{shift}{count}. A click on a count lists its samples; this list holds them.", last, "samples"),
        Step(f"{'The surest of them. ' if len(wrong) else ''}{reason}", sample, "samples"),
    ]


def _accepted(gating: Gating, view: GateView, right: bool):
    """The accepted drafts that are right, or not; those that lose a sample first, the surest of them first."""
    decided = gating.decided(view)
    is_right = decided["draft_right"].fillna(False).astype(bool)
    rows = decided[(decided["decision"] == "accepted") & (is_right == right)]
    return rows.assign(costs=rows["outcome"] == "lost").sort_values(
        ["costs", "confidence"], ascending=False, kind="stable"
    )


def _with_a_wrong_draft(gating: Gating, view: GateView) -> GateView:
    """The view, its threshold lowered just so far that an accepted draft is wrong; as it is where none can be."""
    if len(_accepted(gating, view, right=False)):
        return view
    part = gating.part(view.task, view.protocol)
    score = part.score(view.score, view.k, view.slope)
    gated = charts.gated_mask(part, view.router) & np.isfinite(score)
    wrong = score[gated & ~part.draft_right]
    if not len(wrong):
        return view
    below = score[gated & (score < wrong.max())]
    lowest = 0.0 if wrong.max() > 0 else float(wrong.max()) - 1.0
    return replace(view, threshold=float(rejecting_threshold(below.max())) if len(below) else lowest)


class Tour(w.VBox):
    """The steps with their buttons; empty until it begins, and once it is skipped.

    Attributes:
        buttons: each button, and by how many steps it moves; None leaves the tour.
    """

    def __init__(self) -> None:
        self.text = w.HTML()
        self.begin = button("take the tour", tooltip="four steps, to a wrong draft that the gate accepts")
        self.back, self.next = button("back"), button("next")
        self.skip = button("skip", tooltip="leave the tour, back to where it began")
        self.buttons = {self.begin: 0, self.back: -1, self.next: 1, self.skip: None}
        self.steps: list[Step] = []
        self.at = 0
        super().__init__([self.begin])
        self.add_class("se-tour")

    def go(self, explorer: GatingExplorer, by: int | None) -> None:
        """Begin (0), move by one step, or leave (None); after the last step the tour is over and its view stays."""
        if self.steps:
            getattr(explorer, self.steps[self.at].about).remove_class(HERE)
        if by == 0:
            self.began_at, self.steps, self.at = explorer.view, tour_steps(explorer.gating, explorer.view), 0
        elif by is None or self.at + by >= len(self.steps):
            self.children, self.steps = [self.begin], []
            if by is None:
                explorer.set(threshold=self.began_at.threshold, chosen=self.began_at.chosen)
            return
        else:
            self.at = max(0, self.at + by)
        step = self.steps[self.at]
        self.text.value = f"<p>Step {self.at + 1} of {len(self.steps)}. {html.escape(step.text)}</p>"
        self.back.disabled = self.at == 0
        self.next.description = "next" if self.at + 1 < len(self.steps) else "done"
        self.children = [self.text, row(self.back, self.next, self.skip)]
        getattr(explorer, step.about).add_class(HERE)
        explorer.set(threshold=step.view.threshold, chosen=step.view.chosen)
        if step.view.sample:
            explorer.samples.chosen = step.view.sample
