"""The explorer of tool runs: a task over time, and what actor, speculator and tools did in each step."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from ..analysis.tool_arms import run_frame
from ..analysis.tool_timeline import call_label, timeline
from ..errors import UserError
from ..report import plots
from ..report.sample_page import styled_page
from ..tool_speculation.records import Guess, MadeCall, Step, TaskRun
from .browser_parts import SampleList
from .widgets import Explorer, columns, control, row

if TYPE_CHECKING:
    from IPython.display import HTML

COLUMNS = ("task", "level", "right", "hits", "seconds")
ORDERS = {"as run": None, "slowest": "seconds", "most hits": "hits", "most guesses": "guesses"}
LONGEST_TEXT = 600


@dataclass(frozen=True, slots=True)
class ToolView:
    """An arm, and the task looked at; empty: the first one."""

    arm: str = ""
    task: str = ""
    order: str = "as run"


class ToolExplorer(Explorer):
    """Browse the tasks of recorded tool runs, arm by arm.

    Args:
        runs: of one or several arms, as `read_runs` or `tool_run_of` give them.
        view: where to begin.
    """

    def __init__(self, runs: Sequence[TaskRun], view: ToolView | None = None) -> None:
        super().__init__(view or ToolView())
        self.runs: dict[str, dict[str, TaskRun]] = {}
        for run in runs:
            self.runs.setdefault(run.arm or "runs", {})[run.task_id] = run
        self.arm = control(w.Dropdown, "arm", options=["none"])
        self.order = control(w.Dropdown, "order", options=list(ORDERS))
        self.samples = SampleList(columns=list(COLUMNS))
        self.picture = w.Image(format="png", layout=w.Layout(width="100%", object_fit="contain"))
        self.question, self.steps = w.HTML(), w.HTML()
        self._start("")

    def still(self, **changes: Any) -> HTML:
        """The task of this view, with `changes`, without a kernel."""
        from IPython.display import HTML

        view = replace(self.view, **changes)
        run = self.runs.get(view.arm, {}).get(view.task)
        if run is None:
            return HTML(styled_page("<p>No task is listed.</p>"))
        data = base64.b64encode(timeline_png(run)).decode()
        picture = f"<img style='max-width: 100%' src='data:image/png;base64,{data}' alt='timeline'>"
        return HTML(styled_page(question_html(run), picture, *map(step_html, run.steps)))

    def _layout(self) -> list[w.Widget]:
        task = [self.question, self.picture, self.steps]
        return [
            row(self.arm, self.order),
            self.message,
            columns(
                w.VBox([self.samples], layout=w.Layout(width="445px")),
                w.VBox(task, layout=w.Layout(flex="1 1 340px", min_width="320px")),
            ),
        ]

    def _connect(self) -> None:
        for name in ("arm", "order"):
            self._on(getattr(self, name), lambda value, name=name: self.set(**{name: value}))
        self._on(self.samples, lambda id_: self.set(task=id_), "chosen")

    def _open(self, _: str) -> None:
        if not self.runs:
            raise UserError("there is no recorded run; give those of a file (tool_speculation.read_runs)")
        arm = self.view.arm if self.view.arm in self.runs else next(iter(self.runs))
        self._set(self.arm, options=list(self.runs), value=arm)
        self._set(self.order, value=self.view.order)
        self.set(arm=arm)

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        self.view = view = replace(self.view, **changes)
        runs = self.runs[view.arm]
        self.table = run_frame(runs.values())
        if by := ORDERS[view.order]:
            self.table = self.table.sort_values(by, ascending=False, kind="stable")
        task = view.task if view.task in runs else str(self.table.index[0])
        self.view = replace(view, task=task)
        rows = [
            {"id": str(task_id), "cells": _cells(task_id, entry)} for task_id, entry in self.table.iterrows()
        ]
        hits, calls = int(self.table["hits"].sum()), int(self.table["calls"].sum())
        caption = f"{len(rows)} tasks, {hits} of {calls} calls served by a guess"
        self._set(self.samples, rows=rows, chosen=task, caption=caption)
        run = runs[task]
        self.question.value = question_html(run)
        self.picture.value = timeline_png(run)
        self.steps.value = "".join(map(step_html, run.steps))


def _cells(task_id: object, entry: Any) -> list[str]:
    right = {True: "right", False: "wrong"}.get(entry["right_official"], "withheld")
    return [
        str(task_id),
        str(entry["level"]),
        right,
        f"{entry['hits']}/{entry['calls']}",
        f"{entry['seconds']:.2f}",
    ]


def timeline_png(run: TaskRun) -> bytes:
    """The timeline of a task as PNG."""
    target = io.BytesIO()
    plots.task_timeline(timeline(run), f"{run.task_id}, {run.arm}").savefig(target, format="png", dpi=130)
    return target.getvalue()


def question_html(run: TaskRun) -> str:
    """Question, answer and end of a run."""
    facts = {
        "question": run.question,
        "answer": run.answer or "none",
        "right answer": run.truth,
        "error": run.error,
    }
    lines = [f"<b>{name}</b>: {_text(value)}" for name, value in facts.items() if value]
    return f"<p>{'<br>'.join(lines)}</p>"


def step_html(step: Step) -> str:
    """One step: the thought, the calls with where their results came from, and the guesses."""
    took = step.actor_end_s - step.actor_start_s
    parts = [f"<h4>step {step.index}: {took:.2f} s, {step.actor_tokens} tokens</h4>"]
    if step.text:
        parts.append(f"<p>{_text(step.text)}</p>")
    parts += [_call_html(call) for call in step.calls]
    parts += [_guess_html(guess) for guess in step.guesses]
    if step.speculator_error:
        parts.append(f"<p>speculator failed: {_text(step.speculator_error)}</p>")
    return "".join(parts)


def _call_html(call: MadeCall) -> str:
    waited = call.end_s - call.start_s
    line = f"<code>{_text(call_label(call))}</code> {call.source}, waited {waited:.2f} of {call.tool_s:.2f} s"
    return f"<p>{line}<br>{_text(call.error or call.result)}</p>"


def _guess_html(guess: Guess) -> str:
    scores = ", ".join(
        f"{name.replace('_', ' ')} {value:.2f}"
        for name, value in guess.scores.items()
        if isinstance(value, float)
    )
    reason = f": {_text(guess.refused or guess.result_error)}" if guess.refused or guess.result_error else ""
    line = f"guess {guess.rank + 1} at {guess.end_s:.2f} s: <code>{_text(call_label(guess))}</code> {guess.outcome}"
    return f"<p>{line}{reason} {html.escape(scores)}</p>"


def _text(text: str) -> str:
    """Text of models and tools, shortened and escaped."""
    short = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
    return html.escape(short).replace("\n", "<br>")
