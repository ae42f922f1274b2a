"""The gate explorer: see why the gate accepted, and what any other setting would have done."""

from __future__ import annotations

import gc
import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w
import pandas as pd

from ..errors import UserError
from ..judging import human
from ..paths import shown
from ..replay.outcomes import OUTCOMES
from ..report.sample_page import recorded_sample
from ..runs import recorded_run
from ..runs.arms import ROUTERS
from ..runs.records import Verdict
from . import charts, gating
from .browser_parts import Chart, SampleList
from .gating import Gating
from .state import ALL, Chosen, GateView
from .widgets import (
    COLUMNS,
    ROW,
    Explorer,
    Microscope,
    button,
    control,
    count_button,
    heading,
    lit,
    task_options,
    text_cell,
)

KEYS = {"s": "sound", "u": "unsound", "z": human.WITHDRAWN}
KEY_HELP = "↑ ↓ or j k: previous, next · s sound · u unsound · z take back"
USUAL_K = (2, 8, 16, 20, 32, 48, 64, 80, 96, 128)
QUEUES = {
    "choose a queue": "",
    "draft and agent disagree": "disagree",
    "nearest to the threshold": "borderline",
    "random sample": "random",
}
SETTING = ("task", "score", "k", "router", "protocol")


class GatingExplorer(Explorer):
    """See why the gate accepted, and what any other setting would have done.

    Args:
        run: a finished run, or one in progress as far as it has come.
        view: where to begin; its threshold is what "operating point" goes back to.
        author: written with every mark.
        review_n, seed: size and seed of the random sample for review.
    """

    def __init__(
        self,
        run: str = "demo",
        view: GateView | None = None,
        *,
        author: str = "",
        review_n: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(view or GateView())
        self.operating_point = self.view.threshold
        self.gating: Gating | None = None  # until a run is open
        self._make_controls(run, author, review_n, seed)
        self.children = self._layout()
        self._connect()
        self._try(lambda: self._open(run))

    # ------------------------------------------------------------------ making

    def _make_controls(self, run: str, author: str, review_n: int, seed: int) -> None:
        self._agents = {
            name: recorded_run.open(name, strict=False).agent for name in recorded_run.list_runs()
        }
        names = list(self._agents) if run in self._agents else [run, *self._agents]
        view, agents = self.view, [ALL, *dict.fromkeys(self._agents.values())]
        self.run = control(w.Dropdown, "run", options=names, value=run)
        self.agent = control(w.Dropdown, "agent", options=agents)
        self.task = control(w.Dropdown, "split", options=[ALL])
        self.protocol = control(w.Dropdown, "judging", options=[("as judged", "")])
        self.score = control(w.Dropdown, "score", 170, options=[view.score])
        self.k = control(w.Dropdown, "K", 170, options=[view.k])
        self.router = control(w.Dropdown, "router", 170, options=[view.router])
        self.threshold = control(
            w.BoundedFloatText, "threshold", 190, min=0, max=1, step=0.0005, value=view.threshold
        )
        self.back = button("operating point", tooltip="go back to the threshold of the run")
        self.numbers = w.HTML()
        self.distribution, self.trade_off = Chart(), Chart()
        self.decisions = {(d, v): count_button() for d in gating.DECISIONS for v in ("right", "wrong")}
        self.ledger = {name: count_button() for name in OUTCOMES}
        self.show_all = button("show all samples")
        self.queue = control(w.Dropdown, "review", options=list(QUEUES.items()), value="")
        self.review_n = control(w.BoundedIntText, "n", 150, min=1, max=10**6, value=review_n)
        self.half_width = control(w.BoundedFloatText, "for ±, pp", 150, min=0.5, max=50, step=0.5, value=10)
        self.size_note = w.HTML()
        self.order = control(w.Dropdown, "order", 200, options=["nearest", "confidence", "id"])
        self.seed = seed
        self.samples = SampleList(columns=list(gating.LIST_COLUMNS), shortcuts=KEYS)
        self.microscope = Microscope()
        self.author = control(w.Text, "author", value=author, placeholder="your name")
        self.note = control(w.Text, "note", 400, placeholder="why (kept with the mark)")
        self.mark = {
            "sound": button("sound", "check", "the decision was sound (s)"),
            "unsound": button("unsound", "times", "the decision was unsound (u)"),
            human.WITHDRAWN: button("take back", "undo", "withdraw the mark (z)"),
        }
        self.previous = button("previous", "arrow-up", "previous sample (k)")
        self.next = button("next", "arrow-down", "next sample (j)")
        self.overruled = control(w.Dropdown, "answer of", 170, options=["draft", "agent", "final"])
        self.verdict = control(w.Dropdown, "is", 190, options=list(human.MARKS["answer"]))
        self.overrule = button("overrule verdict", "gavel", "needs a note that says why")
        self.export = button("export marks", "download", "all marks with the decisions they are on")
        self.review_note = w.HTML()

    def _layout(self) -> list[w.Widget]:
        row, columns = w.Layout(**ROW), w.Layout(**COLUMNS)
        see = self.microscope
        left = [self.samples, *self._review(), heading("Cost"), see.costs]
        right = [
            *(see.question, see.picture, heading("Draft, token by token"), see.tokens, see.gate),
            *(heading("Verdicts"), see.verdicts, heading("The agent, turn by turn"), see.agent),
        ]
        queue = [self.queue, self.review_n, self.half_width, self.size_note, self.order, self.show_all]
        return [
            w.Box([self.run, self.agent, self.task, self.protocol], layout=row),
            w.Box([self.score, self.k, self.router, self.threshold, self.back], layout=row),
            self.message,
            self.numbers,
            w.Box([self.distribution, self.trade_off], layout=columns),
            w.Box([self._decision_table(), self._ledger_table()], layout=columns),
            heading("Samples"),
            w.Box(queue, layout=row),
            w.Box(
                [
                    w.VBox(left, layout=w.Layout(width="445px")),
                    w.VBox(right, layout=w.Layout(flex="1 1 340px", min_width="320px")),
                ],
                layout=columns,
            ),
        ]

    def _decision_table(self) -> w.Widget:
        cells = [text_cell(text) for text in ("decision", "draft right", "draft wrong")]
        for decision in gating.DECISIONS:
            cells += [text_cell(decision.replace("_", " "))]
            cells += [self.decisions[decision, verdict] for verdict in ("right", "wrong")]
        grid = w.Layout(grid_template_columns="110px 110px 110px", grid_gap="3px 6px", align_items="center")
        return w.VBox([heading("What became of the drafts"), w.GridBox(cells, layout=grid)])

    def _ledger_table(self) -> w.Widget:
        cells = []
        for name, what in OUTCOMES.items():
            cells += [self.ledger[name], text_cell(f"{name}: {what}")]
        grid = w.Layout(grid_template_columns="140px 1fr", grid_gap="3px 8px", align_items="center")
        title = heading("Regret ledger: samples and seconds saved, against the agent alone")
        return w.VBox([title, w.GridBox(cells, layout=grid)], layout=w.Layout(flex="1 1 420px"))

    def _review(self) -> list[w.Widget]:
        row = w.Layout(**ROW)
        return [
            w.HTML(f"<p class='se-note'>{KEY_HELP}</p>"),
            w.Box([self.previous, self.next, *self.mark.values()], layout=row),
            self.author,
            self.note,
            w.Box([self.overruled, self.verdict, self.overrule, self.export], layout=row),
            self.review_note,
        ]

    def _connect(self) -> None:
        self._on(self.agent, self._choose_agent)
        self._on(self.run, self._open)
        for name in SETTING:
            self._on(getattr(self, name), lambda value, name=name: self.set(**{name: value}, chosen=Chosen()))
        self._on(self.threshold, lambda value: self.set(threshold=value))
        self._on_click(self.back, lambda: self.set(threshold=self.operating_point))
        self._on(self.distribution, self._dragged, "marker")
        for chart in (self.distribution, self.trade_off):
            chart.on_msg(lambda _, told, __: self._try(self._chart_says, told))
        for (decision, verdict), made in self.decisions.items():
            self._on_click(made, self.choose, Chosen("decision", f"{decision} {verdict}"))
        for name, made in self.ledger.items():
            self._on_click(made, self.choose, Chosen("outcome", name))
        self._on_click(self.show_all, self.choose, Chosen())
        self._on(self.queue, self._choose_queue)
        self._on(self.review_n, lambda _: self._choose_queue(self.queue.value) if self.queue.value else None)
        self._on(self.half_width, self._size_for)
        self._on(self.order, lambda _: self._show_list())
        self._on(self.samples, self.open_sample, "chosen")
        self.samples.on_msg(lambda _, told, __: self._try(self.say, KEYS[told["key"]]))
        self._on_click(self.previous, self.step, -1)
        self._on_click(self.next, self.step, 1)
        for mark, made in self.mark.items():
            self._on_click(made, self.say, mark)
        self._on_click(self.overrule, self._overrule)
        self._on_click(self.export, self._export)

    # ------------------------------------------------------------------ what people do

    def _choose_agent(self, agent: str) -> None:
        names = [name for name, its in self._agents.items() if agent in (ALL, its)]
        keep = self.run.value if self.run.value in names else names[0]
        changed = keep != self.run.value
        self._set(self.run, options=names, value=keep)
        if changed:
            self._open(keep)

    def _open(self, run: str) -> None:
        """Another run, or the same one anew: controls offer what it holds, then everything is shown."""
        another = self.gating is not None and self.gating.run.name != run
        self.gating = Gating(recorded_run.open(run, strict=False))
        self._set(self.agent, value=self._agents.get(run, ALL) if self.agent.value != ALL else ALL)
        try:
            data = self.gating.data("")
        except UserError:
            self._clear()
            raise
        tasks = data.task_names
        options = task_options(tasks)
        values = [value for _, value in options]
        self._set(self.task, options=options, value=self.view.task if self.view.task in values else ALL)
        self._offer(self.score, data.score_names or ("min",), self.view.score)
        stored = data.k_stored or data.recorded_k or self.view.k
        k = min(self.view.k, stored) if data.k_stored else stored
        usual = [k for k in USUAL_K if k <= data.k_stored]
        self._offer(self.k, sorted({*usual, k, stored}), k)
        routers = [r for r in ROUTERS if r in data.routed or r == "none"]
        self._offer(self.router, routers, self.view.router)
        others = [p for p in ("strict", "paper") if p != data.protocol]
        judged = [(f"{data.protocol}, as judged", ""), *((f"{p}, by rule", p) for p in others)]
        self._set(self.protocol, options=judged, value="")
        if another:
            self.operating_point = self.gating.own_threshold(self.operating_point)
        self.view = replace(
            self.view,
            task=self.task.value,
            score=self.score.value,
            k=self.k.value,
            slope=self.view.slope if data.k_stored else data.recorded_slope or self.view.slope,
            router=self.router.value,
            threshold=self.operating_point if another else self.view.threshold,
            protocol="",
            chosen=Chosen(),
            sample="",
        )
        self._show()
        self._tell(self.gating.notes())
        gc.collect()  # what opening left would stop a drag for as long; the run before goes with it

    def _offer(self, control: w.Dropdown, options: Sequence[Any], value: Any) -> None:
        self._set(control, options=list(options), value=value if value in options else options[0])

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        before = self.view
        self.view = replace(before, **changes)
        if not self.distribution.spec or any(getattr(before, n) != getattr(self.view, n) for n in SETTING):
            self._show()
        elif before.threshold != self.view.threshold:
            self._show_threshold()
        elif before.chosen != self.view.chosen:
            self._show_list()

    def choose(self, chosen: Chosen) -> None:
        """List these samples."""
        if chosen.kind not in QUEUES.values():
            self._set(self.queue, value="")
        self.set(chosen=chosen)

    def _choose_queue(self, kind: str) -> None:
        self.choose(Chosen(kind, n=self.review_n.value, seed=self.seed) if kind else Chosen())

    def _size_for(self, half_width_pp: float) -> None:
        n = self.gating.part(self.view.task, self.view.protocol).n
        wanted = gating.sample_size(half_width_pp, n)
        self.size_note.value = f"<span class='se-note'>takes n = {wanted} of {n}</span>"
        self.review_n.value = max(1, wanted)

    def _dragged(self, marker: float | None) -> None:
        if marker is not None:
            axis = self.distribution.spec["x"]
            at_end = {axis["low"]: 0.0, axis["high"]: 1.0}
            self.set(threshold=at_end.get(marker, charts.confidence_at(marker)))

    def _chart_says(self, told: dict) -> None:
        if step := told.get("step"):
            part = self.gating.part(self.view.task, self.view.protocol)
            self.set(threshold=charts.stepped(part, self.view, int(step)))
        elif clicked := told.get("clicked"):
            if "bar" in clicked:
                self.choose(Chosen("bar", clicked["bar"], clicked["low"], clicked["high"]))
            else:
                moved = Chosen("moved", "", self.view.threshold, clicked["threshold"])
                self._set(self.queue, value="")
                self.set(threshold=clicked["threshold"], chosen=moved)

    def open_sample(self, id_: str) -> None:
        """Look at one sample."""
        self.view = replace(self.view, sample=id_)
        self._show_sample()

    def step(self, by: int) -> None:
        """The sample `by` places further down the list."""
        ids = [row["id"] for row in self.samples.rows]
        if not ids:
            return
        here = ids.index(self.view.sample) if self.view.sample in ids else -1
        self.samples.chosen = ids[min(max(here + by, 0), len(ids) - 1)]

    def say(self, mark: str) -> None:
        """Mark the decision on the sample in view, save it, go to the next."""
        if not self.view.sample:
            return
        human.append_gating_mark(
            self.gating.run.name,
            id=self.view.sample,
            mark=mark,
            author=self.author.value,
            note=self.note.value,
            arm=self.gating.instrumented,
        )
        self._set(self.note, value="")
        here = self.view.sample
        self._show_list()
        if mark != human.WITHDRAWN and self.view.sample == here:
            self.step(1)

    def _overrule(self) -> None:
        """Put a person's verdict on one answer to the sample in view."""
        id_, source = self.view.sample, self.overruled.value
        verdict = self._verdict_on(id_, source)
        if verdict is None or not verdict.answer:
            raise UserError(f"{id_ or 'no sample'}: there is no answer of the {source} to judge")
        human.append_override(
            self.gating.run.name,
            id=id_,
            answer=verdict.answer,
            verdict=self.verdict.value,
            reason=self.note.value,
            author=self.author.value,
            arm=self.gating.instrumented,
            source=source,
        )
        self._set(self.note, value="")
        self.gating.read_checks()
        self._show_threshold()

    def _verdict_on(self, id_: str, source: str) -> Verdict | None:
        judged = self.gating.run.judged(self.gating.instrumented).get(id_)
        return next((v for v in judged.verdicts if v.source == source), None) if judged else None

    def _export(self) -> None:
        path = gating.export_review(self.gating, self.view)
        self.review_note.value = f"<p>exported to <code>{html.escape(shown(path))}</code></p>"

    # ------------------------------------------------------------------ showing

    def _clear(self, charts_too: bool = True) -> None:
        """Nothing to show: no view may speak of a run or a setting that is not the one chosen."""
        self.numbers.value = self.review_note.value = ""
        if charts_too:
            self._set(self.distribution, spec={}, marker=None)
            self._set(self.trade_off, spec={})
        self._set(self.trade_off, dot=None)
        for made in (*self.decisions.values(), *self.ledger.values()):
            made.description, made.disabled = "–", True
        self._set(self.samples, rows=[], chosen="", caption="")
        self.microscope.show(None)

    def _show(self) -> None:
        """Everything, after the setting or the part of the run has changed."""
        try:
            part = self.gating.part(self.view.task, self.view.protocol)
            distribution = charts.distribution(part, self.view)
            trade_off = charts.trade_off(self.gating.curve_of(self.view))
        except UserError:  # the run cannot have such a score, router or protocol
            self._clear()
            raise
        self._set(self.distribution, marker=None, spec=distribution)
        self._set(self.trade_off, dot=None, spec=trade_off)
        self._show_threshold()

    def _show_threshold(self) -> None:
        view = self.view
        self._set(self.threshold, value=round(view.threshold, 7))
        axis = self.distribution.spec["x"]
        place = min(max(float(charts.log_odds(view.threshold)), axis["low"]), axis["high"])
        self._set(self.distribution, marker=place, marker_label=f"{view.threshold:.4f}")
        try:
            told = gating.outcome(self.gating, view)
        except UserError:  # the run lacks an answer that this threshold would need; others may do
            self._clear(charts_too=False)
            raise
        reviewed = gating.outcome(self.gating, view, reviewed=True) if self.gating.overrides else None
        protocol = self.gating.part(view.task, view.protocol).protocol
        self.numbers.value = gating.outcome_html(told, protocol, reviewed, len(self.gating.overrides))
        self._set(self.trade_off, dot=gating.current_dot(told))
        decided = self.gating.decided(view)
        counts = gating.decisions_of(decided)
        for (decision, verdict), made in self.decisions.items():
            n = int(counts.loc[decision, verdict])
            made.description, made.disabled = str(n), not n
        for name, row in gating.ledger_totals(decided).iterrows():
            saved = "" if pd.isna(row["saved_s"]) else f" · {row['saved_s']:+.1f} s"
            made = self.ledger[name]
            made.description, made.disabled = f"{row['n']}{saved}", not row["n"]
        self._show_list(decided)

    def _show_list(self, decided: pd.DataFrame | None = None) -> None:
        decided = self.gating.decided(self.view) if decided is None else decided
        found = gating.listed(decided, self.view, self.order.value)
        marks = self.gating.marks(self.view)
        rows = gating.list_rows(found, marks)
        what = gating.chosen_text(self.view.chosen)
        shown_n = f", the first {len(rows)} shown" if len(rows) < len(found) else ""
        caption = f"{what}: {len(found)} of {len(decided)}{shown_n}"
        ids = [row["id"] for row in rows]
        if self.view.sample not in ids:  # where one left off: the first that is not marked yet
            done = set(marks["id"])
            first = next((i for i in ids if i not in done), ids[0] if ids else "")
            self.view = replace(self.view, sample=first)
        self._set(self.samples, rows=rows, chosen=self.view.sample, caption=caption)
        for name, made in self.ledger.items():
            lit(made, self.view.chosen == Chosen("outcome", name))
        for (decision, verdict), made in self.decisions.items():
            lit(made, self.view.chosen == Chosen("decision", f"{decision} {verdict}"))
        progress = gating.marks_text(marks, found["id"].tolist(), what)
        saved = f"saved in <code>{html.escape(shown(human.checks_path(self.gating.run.name)))}</code>"
        self.review_note.value = f"<p class='se-note'>{html.escape(progress)}<br>{saved}</p>"
        self._show_sample(decided)

    def _show_sample(self, decided: pd.DataFrame | None = None) -> None:
        view = self.view
        if not view.sample:
            self.microscope.show(None)
            return
        decided = self.gating.decided(view) if decided is None else decided
        row = decided[decided["id"] == view.sample].iloc[0]
        shown = recorded_sample(
            self.gating.run,
            self.gating.instrumented,
            view.sample,
            row,
            threshold=view.threshold,
            k=view.k,
            overrides=self.gating.overrides,
        )
        self.microscope.show(shown)
