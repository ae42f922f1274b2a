"""The trace explorer: browse and search what the agent did, and compare two runs on the same sample."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import ipywidgets as w
import pandas as pd

from ..errors import UserError
from ..params import TraceExplorerParams
from ..report.sample_page import no_sample, recorded_sample
from ..runs import recorded_run
from . import stills, traces
from .browser_parts import PictureView, SampleList
from .state import ALL, TraceView
from .widgets import Explorer, columns, control, row, show_picture, task_options

if TYPE_CHECKING:
    from IPython.display import HTML


class TraceExplorer(Explorer):
    """Browse and search what the agent did, and compare two runs (or two arms) on the same sample.

    Args:
        run: a run, finished or not.
        view: where to begin.
        other: run and arm shown beside it.
    """

    def __init__(
        self, run: str = "demo", view: TraceView | None = None, *, other: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(view or TraceView())
        self._make_controls(run, other)
        self._start(run)

    @classmethod
    def of(cls, params: TraceExplorerParams) -> Self:
        """The explorer that the parameters describe."""
        view = TraceView(arm=params.arm, text=params.text)
        return cls(params.run, view, other=(params.other_run, params.other_arm))

    def still(self, **changes: Any) -> HTML:
        """The first trajectory listed in this view, with `changes`, and the same sample of the run and arm beside."""
        view = replace(self.view, **changes)
        return stills.trace_still(self.data, view, self.other, self.other_arm.value)

    @property
    def other_table(self) -> pd.DataFrame:
        """As `table`, of the run and arm beside; without rows where there is none."""
        return traces.trace_table(self.other, self.other_arm.value) if self.other else traces.NO_TRACES

    def _make_controls(self, run: str, other: tuple[str, str]) -> None:
        names, view = recorded_run.list_runs(), self.view
        names = names if run in names else [run, *names]
        self.run = control(w.Dropdown, "run", options=names, value=run)
        self.arm = control(w.Dropdown, "arm", options=[view.arm])
        self.task = control(w.Dropdown, "split", options=[ALL])
        self.verdict = control(w.Dropdown, "verdict", options=[ALL])
        at_rest = {"continuous_update": False}  # act when a person stops typing or dragging
        self.turns = control(w.IntRangeSlider, "turns", min=0, max=6, value=(0, 6), **at_rest)
        self.least_ms = control(w.FloatText, "at least ms", 190, value=view.least_ms)
        self.tool_errors = w.Checkbox(description="with a tool error", value=view.tool_errors, indent=False)
        hint = "in questions, answers and turns"
        self.text = control(w.Text, "search", 400, value=view.text, placeholder=hint, **at_rest)
        self.order = control(w.Dropdown, "order", options=list(traces.ORDERS), value=view.order)
        beside, first = (
            [("nothing", ""), *zip(names, names, strict=True)],
            other[0] if other[0] in names else "",
        )
        self.other_run = control(w.Dropdown, "beside", options=beside, value=first)
        self.other_arm = control(w.Dropdown, "its arm", options=[other[1]])
        self.samples = SampleList(columns=list(traces.LIST_COLUMNS))
        self.picture = PictureView()
        self.question, self.left, self.right, self.difference = (w.HTML() for _ in range(4))

    def _layout(self) -> list[w.Widget]:
        self.left.layout = self.right.layout = w.Layout(flex="1 1 240px", min_width="220px")
        sample = [self.question, self.picture, self.difference, columns(self.left, self.right)]
        return [
            row(self.run, self.arm, self.task, self.verdict),
            row(self.turns, self.least_ms, self.tool_errors, self.order),
            row(self.text, self.other_run, self.other_arm),
            self.message,
            columns(
                w.VBox([self.samples], layout=w.Layout(width="445px")),
                w.VBox(sample, layout=w.Layout(flex="1 1 340px", min_width="320px")),
            ),
        ]

    def _connect(self) -> None:
        self._on(self.run, self._open)
        self._on(self.arm, self._choose_arm)
        for name in ("task", "verdict", "tool_errors", "text", "order", "least_ms", "turns"):
            self._on(getattr(self, name), lambda value, name=name: self.set(**{name: value}))
        self._on(self.other_run, lambda _: self._open_other())
        self._on(self.other_arm, lambda _: self._show_sample())
        self._on(self.samples, lambda id_: self.set(sample=id_), "chosen")

    def _open(self, run: str) -> None:
        self.data, self.other = recorded_run.open(run, strict=False), None
        arms = list(self.data.arms)
        if not arms:
            self.table = traces.NO_TRACES
            self._show()
            raise UserError(
                f"run {run} holds no answers of an agent; run notebooks/02_gated_agent_eval.ipynb first"
            )
        self._set(self.arm, options=arms, value=self.view.arm if self.view.arm in arms else arms[0])
        self._set(self.task, options=task_options(self.data.tasks), value=ALL)
        self.view = replace(self.view, task=ALL)
        self._choose_arm(self.arm.value)
        self._open_other()

    def _choose_arm(self, arm: str) -> None:
        self.table = traces.trace_table(self.data, arm)
        most = max(1, int(self.table["turns"].max())) if len(self.table) else 1
        verdicts = sorted(self.table["verdict"].fillna(traces.NOT_JUDGED).unique())
        verdict = self.view.verdict if self.view.verdict in verdicts else ALL
        low, high = self.view.turns
        # a range up to the end stays one, however many turns this arm takes
        turns = (min(low, most), most if high >= self.turns.max else min(high, most))
        self._set(self.turns, max=most, value=turns)
        self._set(self.verdict, options=[ALL, *verdicts], value=verdict)
        self.view = replace(self.view, arm=arm, verdict=verdict, turns=turns)
        self._show()
        self._tell(self.data.notes((f"02_{arm}", f"03_judging/{arm}")))

    def _open_other(self) -> None:
        name = self.other_run.value
        self.other = recorded_run.open(name, strict=False) if name else None
        arms = list(self.other.arms if self.other else ()) or [""]
        arm = next((a for a in (self.other_arm.value, self.view.arm) if a in arms), arms[0])
        self._set(self.other_arm, options=arms, value=arm)
        self._show_sample()

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        before, self.view = self.view, replace(self.view, **changes)
        if replace(before, sample="") != replace(self.view, sample=""):
            self._show()
        elif before.sample != self.view.sample:
            self._show_sample()

    def _show(self) -> None:
        listed = traces.sift(self.table, self.view)
        ids = listed["id"].tolist()
        if self.view.sample not in ids:
            self.view = replace(self.view, sample=ids[0] if ids else "")
        caption = traces.shape_of(listed, self.table)
        with self._quiet():
            self.samples.fill(
                ids,
                lambda start, stop: traces.list_rows(listed.iloc[start:stop]),
                self.view.sample,
                caption=caption,
            )
        self._show_sample()

    def _show_sample(self) -> None:
        id_, arm, other_arm = self.view.sample, self.view.arm, self.other_arm.value
        page = recorded_sample(self.data, arm, id_) if id_ else no_sample()
        show_picture(self.picture, page.picture)
        self.question.value = self.left.value = self.right.value = self.difference.value = ""
        if not id_:
            return
        self.question.value = page.part("question")
        self.left.value = traces.trace_html(self.data, arm, id_, self.view.text)
        if self.other is not None and other_arm:
            self.right.value = traces.trace_html(self.other, other_arm, id_, self.view.text)
            difference = traces.difference_line((self.data, arm), (self.other, other_arm), id_)
            self.difference.value = f"<p>{html.escape(difference)}</p>"
