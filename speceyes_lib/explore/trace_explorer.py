"""The trace explorer: browse and search what the agent did, and compare two runs on the same sample."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import ipywidgets as w

from ..errors import UserError
from ..report.sample_page import no_sample, recorded_sample
from ..runs import recorded_run
from . import traces
from .browser_parts import PictureView, SampleList
from .state import ALL, TraceView
from .widgets import COLUMNS, ROW, Explorer, control, show_picture, task_options


class TraceExplorer(Explorer):
    """Browse and search what the agent did, and compare two runs (or two arms) on the same sample."""

    def __init__(
        self, run: str = "demo", view: TraceView | None = None, *, other: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(view or TraceView())
        self._make_controls(run, other)
        self.children = self._layout()
        self._connect()
        self._try(lambda: self._open(run))

    def _make_controls(self, run: str, other: tuple[str, str]) -> None:
        names, view = recorded_run.list_runs(), self.view
        names = names if run in names else [run, *names]
        self.run = control(w.Dropdown, "run", options=names, value=run)
        self.arm = control(w.Dropdown, "arm", options=[view.arm])
        self.task = control(w.Dropdown, "split", options=[ALL])
        self.verdict = control(w.Dropdown, "verdict", options=[ALL])
        self.turns = control(w.IntRangeSlider, "turns", min=0, max=6, value=(0, 6), continuous_update=False)
        self.least_ms = control(w.FloatText, "at least ms", 190, value=view.least_ms)
        self.tool_errors = w.Checkbox(description="with a tool error", value=view.tool_errors, indent=False)
        self.text = control(
            w.Text,
            *("search", 400),
            value=view.text,
            placeholder="in questions, answers and turns",
            continuous_update=False,
        )
        self.order = control(w.Dropdown, "order", options=list(traces.ORDERS), value=view.order)
        beside = [("nothing", ""), *((name, name) for name in names)]
        self.other_run = control(
            w.Dropdown, "beside", options=beside, value=other[0] if other[0] in names else ""
        )
        self.other_arm = control(w.Dropdown, "its arm", options=[other[1]])
        self.samples = SampleList(columns=list(traces.LIST_COLUMNS))
        self.picture = PictureView()
        self.asked, self.left, self.right, self.difference = (w.HTML() for _ in range(4))

    def _layout(self) -> list[w.Widget]:
        row = w.Layout(**ROW)
        wrap = w.Layout(**COLUMNS)
        half = w.Layout(flex="1 1 240px", min_width="220px")
        self.left.layout = self.right.layout = half
        return [
            w.Box([self.run, self.arm, self.task, self.verdict], layout=row),
            w.Box([self.turns, self.least_ms, self.tool_errors, self.order], layout=row),
            w.Box([self.text, self.other_run, self.other_arm], layout=row),
            self.message,
            w.Box(
                [
                    w.VBox([self.samples], layout=w.Layout(width="445px")),
                    w.VBox(
                        [
                            self.asked,
                            self.picture,
                            self.difference,
                            w.Box([self.left, self.right], layout=wrap),
                        ],
                        layout=w.Layout(flex="1 1 340px", min_width="320px"),
                    ),
                ],
                layout=wrap,
            ),
        ]

    def _connect(self) -> None:
        self._on(self.run, self._open)
        self._on(self.arm, self._choose_arm)
        for name in ("task", "verdict", "tool_errors", "text", "order"):
            self._on(getattr(self, name), lambda value, name=name: self.set(**{name: value}))
        self._on(self.least_ms, lambda value: self.set(least_ms=value))
        self._on(self.turns, lambda value: self.set(turns=tuple(value)))
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
        keep = self.view.verdict if self.view.verdict in verdicts else ALL
        low, high = self.view.turns
        up_to_the_end = high >= self.turns.max  # and so it stays, however many turns this arm takes
        turns = (min(low, most), most if up_to_the_end else min(high, most))
        self._set(self.turns, max=most, value=turns)
        self._set(self.verdict, options=[ALL, *verdicts], value=keep)
        self.view = replace(self.view, arm=arm, verdict=keep, turns=turns)
        self._show()
        stages = (f"02_{arm}", f"03_judging/{arm}")
        self._tell(self.data.notes(stages))

    def _open_other(self) -> None:
        name = self.other_run.value
        self.other = recorded_run.open(name, strict=False) if name else None
        arms = list(self.other.arms) if self.other else [""]
        keep = next((a for a in (self.other_arm.value, self.view.arm) if a in arms), arms[0] if arms else "")
        self._set(self.other_arm, options=arms or [""], value=keep)
        self._show_sample()

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        before, self.view = self.view, replace(self.view, **changes)
        if replace(before, sample="") != replace(self.view, sample=""):
            self._show()
        elif before.sample != self.view.sample:
            self._show_sample()

    def _show(self) -> None:
        found = traces.sift(self.table, self.view)
        rows = traces.list_rows(found)
        ids = [row["id"] for row in rows]
        if self.view.sample not in ids:
            self.view = replace(self.view, sample=ids[0] if ids else "")
        caption = traces.shape_of(found, self.table)
        if len(rows) < len(found):
            caption += f" · the first {len(rows)} shown"
        self._set(self.samples, rows=rows, chosen=self.view.sample, caption=caption)
        self._show_sample()

    def _show_sample(self) -> None:
        id_, arm = self.view.sample, self.view.arm
        self.left.value = traces.trace_html(self.data, arm, id_, self.view.text) if id_ else ""
        other = self.other if id_ else None
        both = other is not None and self.other_arm.value
        self.right.value = traces.trace_html(other, self.other_arm.value, id_, self.view.text) if both else ""
        pair = ((self.data, arm), (other, self.other_arm.value))
        self.difference.value = f"<p>{html.escape(traces.difference_line(*pair, id_))}</p>" if both else ""
        shown = recorded_sample(self.data, arm, id_) if id_ else no_sample()
        self.asked.value = shown.part("question") if id_ else ""
        show_picture(self.picture, shown.picture)
