"""Why the gate decided as it did on one sample: a sentence to copy, where its numbers come from, and its figure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anywidget
import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import traitlets as t
from matplotlib.figure import Figure

from ..errors import UserError
from ..gating.gate import accepts
from ..report.plots.style import STYLE
from ..report.sample_page import confidence_text
from . import charts
from .browser_parts import STATIC
from .browser_parts import STYLE as CSS
from .gating import Gating
from .state import GateView
from .widgets import button

LONGEST = 80  # characters of an answer in a sentence
# an outcome of `outcomes.OUTCOMES`, or none -> what the decision does to the accuracy
MEANS = {
    "gained": "Accepting it gains this sample.",
    "lost": "Accepting it loses this sample.",
    "both right": "Accepting it costs no accuracy.",
    "both wrong": "Accepting it costs no accuracy: both are wrong.",
    "unknown": "What accepting it does to the accuracy is not known.",
    "missed": "A right draft is not used.",
    "": "No right draft is lost.",
}


def explanation(gating: Gating, view: GateView) -> str:
    """What the gate does with `view.sample` and why, in sentences, then in brackets where the numbers come from.

    Raises:
        UserError: no sample is chosen.
        NotRecorded: the run lacks what the setting needs.
    """
    if not view.sample:
        raise UserError("choose a sample in the list first; then its decision can be explained")
    decided = gating.decided(view)
    row = decided[decided["id"] == view.sample].iloc[0]
    return f"{reason(row, answers_of(gating, view.sample), view)} [{provenance(gating, view)}]"


def reason(row: Mapping[str, Any] | pd.Series, answers: Mapping[str, str], view: GateView) -> str:
    """The sentences on one decision.

    Args:
        row: of `outcomes.decisions`.
        answers: texts of "draft", "agent" and "standard" (the right answer); "" where there is none.
        view: the setting.
    """
    draft, agent, right = (_quoted(answers[name]) for name in ("draft", "agent", "standard"))
    confidence, threshold = float(row["confidence"]), view.threshold
    if row["decision"] == "routed":
        first = "The router sends this sample to the agent, so no draft is used."
    elif row["decision"] == "draft_failed":
        first = "The draft failed, so the agent answers."
    elif not np.isfinite(confidence):
        first = f"The gate rejects the draft{draft}, because it has no confidence."
    else:
        distance, accepted = abs(confidence - threshold), bool(accepts(confidence, threshold))
        gap = f"{distance:.4f}" if distance >= 1e-3 else f"{distance:.1e}"
        place = f"{gap} {'above' if accepted else 'below'}" if distance else "exactly at"
        first = (
            f"The gate {'accepts' if accepted else 'rejects'} the draft{draft}, because its confidence "
            f"{confidence_text(confidence)} ({view.score}) is {place} the threshold {threshold:.6g}."
        )
    verdicts = [_verdict(row["draft_right"], "not judged"), _verdict(row["agent_right"], "not recorded")]
    second = f"The right answer is{right}. " if right else ""
    second += f"The draft is {verdicts[0]}, and the agent's answer{agent} is {verdicts[1]}."
    times = [1000 * float(row[name]) for name in ("wall_s", "baseline_wall_s")]
    third = "Predicted: {:.1f} ms, with the agent alone {:.1f} ms.".format(*times)
    return " ".join([first, second, MEANS[row["outcome"]], *([third] if np.isfinite(times).all() else [])])


def answers_of(gating: Gating, id_: str) -> dict[str, str]:
    """Texts of "draft", "agent" and "standard" (the right answer) of a sample; "" where there is none."""
    record, judged = (
        gating.run.records(gating.instrumented).get(id_),
        gating.run.judged(gating.instrumented).get(id_),
    )
    draft = gating.run.drafts().get(id_) or (record.draft if record else None)
    path = record.trajectory if record else None
    standard = next((v.standard for v in judged.verdicts if v.standard), "") if judged else ""
    return {
        "draft": (draft.answer if draft else None) or "",
        "agent": (path.answer if path else None) or "",
        "standard": standard,
    }


def provenance(gating: Gating, view: GateView) -> str:
    """Run, commit and setting that numbers of a view come from, and its sample."""
    parts = [f"run {gating.run.name}", *origin(gating, view), f"threshold {view.threshold!r}"]
    return ", ".join([*parts, *([f"sample {view.sample}"] if view.sample else [])])


def origin(gating: Gating, view: GateView) -> list[str]:
    """Commit that recorded the run, judging protocol and gate of a view, but for its threshold."""
    commit = commit_of(gating)
    parts = [f"commit {commit[:10]}"] if commit else ["commit not recorded"]
    parts += [f"judged {gating.part(view.task, view.protocol).protocol}"]
    if gating.part(view.task, view.protocol).k_stored:
        parts += [f"K {view.k}", f"slope {view.slope:g}"]
    return [*parts, f"router {view.router}", f"score {view.score}"]


def commit_of(gating: Gating) -> str:
    """The commit that recorded the run; "" where none is known, as for imported runs."""
    tasks = gating.usable_tasks()
    manifest = gating.run.manifest(f"02_{gating.instrumented}", tasks[0]) if tasks else None
    return str(manifest.environment.get("commit") or "") if manifest else ""


def explained_figure(gating: Gating, view: GateView) -> Figure:
    """The drafts that reach the gate, the threshold as a line, and the confidence of `view.sample` as a ring."""
    decided = gating.decided(view)
    confidence = float(decided.loc[decided["id"] == view.sample, "confidence"].iloc[0])
    chart = charts.distribution(gating.part(view.task, view.protocol), replace(view, sample=""))
    scale = gating.scale(view)
    dot = [float(scale.place(confidence)), 0.0] if np.isfinite(confidence) else None
    return charts.figure([chart], [float(scale.place(view.threshold))], [dot])


class Explained(w.VBox):
    """A button and, once it is pressed, the explanation of the decision in view with its figure, both to copy."""

    def __init__(self) -> None:
        self.button = button(
            "explain this decision", "quote-left", "a sentence to copy, its figure and its origin"
        )
        self.clipping = Clipping()
        super().__init__([self.button, self.clipping])

    def show(self, gating: Gating | None, view: GateView) -> None:
        """Explain the view's sample; without `gating` nothing is explained."""
        picture = io.BytesIO()
        if gating is not None:
            text = explanation(gating, view)
            with plt.style.context(STYLE):
                explained_figure(gating, view).savefig(picture, format="png", metadata={"Software": None})
        with self.clipping.hold_sync():
            self.clipping.figure = picture.getvalue()
            self.clipping.text = text if gating is not None else ""


class Clipping(anywidget.AnyWidget):
    """A text and a figure to copy."""

    _esm, _css = STATIC / "explained.js", CSS
    text = t.Unicode().tag(sync=True)
    figure = t.Bytes().tag(sync=True)  # a PNG


def _quoted(text: str) -> str:
    """An answer in quotes, on one line and not too long, after a space; "" stays empty."""
    line = " ".join(text.split())
    return f' "{line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"}"' if line else ""


def _verdict(right: Any, missing: str) -> str:
    return missing if pd.isna(right) else "right" if right else "wrong"
