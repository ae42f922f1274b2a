"""The gate explorer: see why the gate accepted, and what any other setting would have done.

It is one file of more than 500 lines because its controls and what follows from each are one class; whatever can be
computed without a control is in `gating`, `comparing`, `charts`, `links` and `contact_sheet`.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import ipywidgets as w
import pandas as pd

from ..errors import UserError
from ..gating.threshold import read_operating_point
from ..judging import human
from ..params import GatingExplorerParams
from ..paths import shown
from ..report.formatting import apart
from ..report.sample_page import SampleView, recorded_sample, thumbnail, whole_page
from ..runs import recorded_run
from ..runs.arms import ROUTERS
from . import charts, comparing, gate_page, gating, links, stills
from .browser_parts import Chart, CountTable, Page, SampleList
from .contact_sheet import contact_sheet
from .explain import Explained
from .gating import Gating
from .state import ALL, Chosen, GateView
from .tour import Tour
from .widgets import Explorer, Microscope, areas, button, control, heading, loading, row, task_options

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure

KEYS = {"s": "sound", "u": "unsound", "z": human.WITHDRAWN}
USUAL_K = (2, 8, 16, 20, 32, 48, 64, 80, 96, 128)
QUEUES = {
    "choose a queue": "",
    "draft and agent disagree": "disagree",
    "nearest to the threshold": "borderline",
    "random sample": "random",
}
FILES = {
    "list (CSV)": ("csv", "text/csv"),
    "charts (SVG)": ("svg", "image/svg+xml"),
    "charts (PNG)": ("png", "image/png"),
    "sample (HTML)": ("html", "text/html"),
    "contact sheet of the list (PNG)": ("png", "image/png"),
    "gate, to send (interactive HTML)": ("html", "text/html"),
}
FLIPPED = {"": "all that flipped", **comparing.FLIPS}
SETTING = ("task", "score", "k", "router", "protocol")


class GatingExplorer(Explorer):
    """See why the gate accepted, and what any other setting would have done.

    Args:
        run: a finished run, or one in progress as far as it has come.
        view: where to begin; its threshold is what "operating point" goes back to.
        author: written with every mark; empty: git's user name, where there is one.
        review_n: size of the random sample for review.
        seed: of that sample.
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
        self.operating_point, self.seed = self.view.threshold, seed
        self.gating: Gating | None = None  # until a run is open
        self._pinned: Gating | None = None  # the run of the pinned setting, where it is another one
        self._pin_fault = ""
        self.decided: pd.DataFrame | None = None  # what is shown of every sample; None: to be computed
        self.comparison: comparing.Comparison | None = None
        self._make_controls(run, author, review_n)
        self._start(run)

    @classmethod
    def of(cls, params: GatingExplorerParams) -> Self:
        """The explorer that the parameters describe. The threshold is read from a file where none is given."""
        threshold = params.threshold
        if threshold is None:
            threshold = read_operating_point(params.threshold_from)["threshold"]
        view = GateView(
            score=params.score, k=params.k, slope=params.slope, router=params.router, threshold=threshold
        )
        explorer = cls(params.run, view, author=params.author, review_n=params.review_n, seed=params.seed)
        if params.link:
            explorer._try(explorer.open_link, params.link)
        return explorer

    def overview(self) -> Figure:
        """Both charts as they are shown now."""
        return charts.figure(
            [self.distribution.spec, self.trade_off.spec],
            markers=[float(self.gating.scale(self.view).place(self.view.threshold)), None],
            dots=[None, self.trade_off.dot],
        )

    def still(self) -> HTML:
        """Numbers, decisions and ledger of the setting that is shown now."""
        return stills.gate_still(self.gating, self.view)

    def sample_still(self) -> SampleView:
        """The sample that is shown now, in full."""
        return stills.sample_still(self.gating, self.view)

    # ------------------------------------------------------------------ making

    def _make_controls(self, run: str, author: str, review_n: int) -> None:
        runs = [recorded_run.open(name, strict=False) for name in recorded_run.list_runs()]
        self._agents = {each.name: each.agent for each in runs}
        names = list(self._agents) if run in self._agents else [run, *self._agents]
        view, agents = self.view, [ALL, *dict.fromkeys(self._agents.values())]
        self.run = control(w.Dropdown, "run", options=names, value=run)
        self.agent = control(w.Dropdown, "agent", options=agents)
        self.task = control(w.Dropdown, "split", options=[ALL])
        self.protocol = control(w.Dropdown, "judging", options=[("as judged", "")])
        self.score = control(w.Dropdown, "score", 170, options=[view.score])
        self.k = control(w.Dropdown, "K", 170, options=[view.k])
        self.router = control(w.Dropdown, "router", 170, options=[view.router])
        self.threshold = control(w.FloatText, "threshold", 190, step=0.0005, value=view.threshold)
        self.page = Page()
        self.back = button("operating point", tooltip="go back to the threshold of the run")
        self.pin = button("pin", tooltip="keep this setting in sight while another, or another run, is shown")
        self.unpin = button("unpin", tooltip="forget the pinned setting")
        self.flips = {name: button("", tooltip=f"list these samples: {FLIPPED[name]}") for name in FLIPPED}
        self.pin_note = w.HTML()
        self.numbers = w.HTML()
        self.distribution, self.trade_off = Chart(), Chart()
        self.decisions = CountTable(
            title="What became of the drafts", head=["decision", "draft right", "draft wrong"]
        )
        self.ledger = CountTable(
            title="Regret ledger: samples and seconds saved, against the agent alone",
            head=["outcome", "samples", "what it is"],
        )
        self.show_all = button("show all samples")
        self.queue = control(w.Dropdown, "review", 240, 45, options=list(QUEUES.items()), value="")
        self.review_n = control(w.BoundedIntText, "n", 90, 15, min=1, max=10**6, value=review_n)
        self.half_width = control(
            w.BoundedFloatText, "for ±, pp", 115, 55, min=0.5, max=50, step=0.5, value=10
        )
        self.size_note = w.HTML()
        at_rest = {"continuous_update": False, "placeholder": "in questions, options and answers"}
        self.search = control(w.Text, "search", 240, 45, value=view.search, **at_rest)
        orders = [("nearest to the threshold", gating.NEAREST)]
        orders += [
            (f"{key} {sign}", f"{down}{key}")
            for key in gating.ORDERS
            for sign, down in (("▲", ""), ("▼", "-"))
        ]
        self.order = control(w.Dropdown, "order", 210, 45, options=orders, value=view.order)
        self.thumbnails = w.ToggleButton(description="thumbnails", layout=w.Layout(width="auto"))
        self.file = control(w.Dropdown, "file", 240, 45, options=list(FILES))
        self.save = button("save", "download", "keep a file of what is shown now")
        self.samples = SampleList(columns=list(gating.LIST_COLUMNS), shortcuts=KEYS)
        self.microscope = Microscope()
        self.tour, self.explained = Tour(), Explained()
        self.author = control(
            w.Text, "author", 200, 45, value=author or human.git_user(), placeholder="your name"
        )
        self.note = control(w.Text, "note", 245, 35, placeholder="why (kept with the mark)")
        self.mark = {
            "sound": button("sound", "check", "the decision was sound (s)"),
            "unsound": button("unsound", "times", "the decision was unsound (u)"),
            human.WITHDRAWN: button("take back", "undo", "withdraw the mark (z)"),
        }
        self.previous = button("previous", "arrow-up", "previous sample (k)")
        self.next = button("next", "arrow-down", "next sample (j)")
        self.overruled = control(w.Dropdown, "answer of", 145, 65, options=["draft", "agent", "final"])
        self.verdict = control(w.Dropdown, "is", 120, 15, options=list(human.MARKS["answer"]))
        self.overrule = button("overrule verdict", "gavel", "needs a note that says why")
        self.export = button("export marks", "download", "all marks with the decisions they are on")
        self.mark_note, self.review_note = w.HTML(), w.HTML()
        self.mark_note.add_class("se-message")

    def _layout(self) -> list[w.Widget]:
        see = self.microscope
        key_help = "↑ ↓ or j k: previous, next · s sound · u unsound · z take back"
        charts_and_counts = [self.distribution, self.trade_off, self.decisions, self.ledger]
        left = [
            row(self.search, self.order),
            row(self.thumbnails, self.show_all, self.file, self.save),
            *(self.samples, row(self.queue, self.review_n, self.half_width, self.size_note)),
            row(self.author, self.note),
            row(self.previous, self.next, *self.mark.values()),
            *(self.mark_note, w.HTML(f"<p class='se-note'>{key_help}</p>")),
            *(row(self.overruled, self.verdict, self.overrule, self.export), self.review_note),
        ]
        right = [
            *(see.question, see.picture, heading("Draft, token by token"), see.tokens, see.gate),
            self.explained,
            *(heading("Verdicts"), see.verdicts, heading("Cost"), see.costs),
            *(heading("The agent, turn by turn"), see.agent),
        ]
        return [
            row(self.run, self.agent, self.task, self.protocol, self.page),
            row(self.score, self.k, self.router, self.threshold, self.back, self.pin, self.tour),
            row(self.pin_note, *self.flips.values(), self.unpin),
            self.message,
            self.numbers,
            areas(charts=charts_and_counts, list=left, sample=right),
        ]

    def _connect(self) -> None:
        for tour_button, by in self.tour.buttons.items():
            self._on_click(tour_button, self.tour.go, self, by)
        self._on_click(self.explained.button, lambda: self.explained.show(self.gating, self.view))
        self.page.on_msg(lambda _, message, __: self._try(self.open_link, str(message["open"])))
        self._on(self.agent, self._choose_agent)
        self._on(self.run, self._open)
        for name in SETTING:
            self._on(
                getattr(self, name),
                lambda value, name=name: self.set(**{name: value}, chosen=self._first_list()),
            )
        self._on(self.threshold, self._type_threshold)
        self._on_click(self.back, lambda: self.set(threshold=self.operating_point))
        self._on_click(self.pin, self.put_pin)
        self._on_click(self.unpin, lambda: self.set(pin=None, chosen=Chosen()))
        for name, flip_button in self.flips.items():
            self._on_click(flip_button, self.choose, Chosen("flipped", name))
        self._on(self.distribution, self._dragged, "marker")
        for chart in (self.distribution, self.trade_off):
            chart.on_msg(lambda _, message, __: self._try(self.follow, message))
        for table in (self.decisions, self.ledger):
            table.on_msg(
                lambda _, message, __: self._try(self.choose, Chosen(*message["clicked"].split(":")))
            )
        self._on_click(self.show_all, self.choose, Chosen())
        self._on(self.queue, self._choose_queue)
        self._on(self.review_n, lambda _: self._choose_queue(self.queue.value) if self.queue.value else None)
        self._on(self.half_width, self._size_for)
        self._on(self.order, lambda order: self.set(order=order))
        self._on(self.samples, self.open_sample, "chosen")
        self.samples.on_msg(lambda _, message, __: self._try(self.follow_list, message))
        self._on(self.search, lambda words: self.set(search=words))
        self._on(self.thumbnails, lambda on: self._set(self.samples, thumbnails=on))
        self._on_click(self.save, self.keep)
        self._on_click(self.previous, self.step, -1)
        self._on_click(self.next, self.step, 1)
        for mark, mark_button in self.mark.items():
            self._on_click(mark_button, self.put_mark, mark)
        self._on_click(self.overrule, self._overrule)
        self._on_click(self.export, self._export)

    # ------------------------------------------------------------------ what people do

    def _choose_agent(self, agent: str) -> None:
        names = [name for name, its_agent in self._agents.items() if agent in (ALL, its_agent)]
        before = self.run.value
        self._set(self.run, options=names, value=before if before in names else names[0])
        if self.run.value != before:
            self._open(self.run.value)

    def open_link(self, link: str) -> None:
        """Show the view of a link, or of its fragment alone.

        Raises:
            UserError: a field of the link has no such value, or there is no such run. Nothing changes then.
        """
        run, view = links.view_of(link, self.view)
        if run not in self._agents:
            here = ", ".join(self._agents) or "none"
            raise UserError(
                f"the link opens the run {run[:80]!r}, which is not on this machine; there are {here}"
            )
        if view.pin and view.pin.run not in self._agents:
            raise UserError(f"the link pins the run {view.pin.run[:80]!r}, which is not on this machine")
        if run not in self.run.options:  # hidden by the choice of an agent
            self._set(self.agent, value=ALL)
            self._set(self.run, options=list(self._agents))
        self._set(self.run, value=run)
        self._open(run, view)
        unlike = [n for n in (*SETTING, "slope", "threshold") if getattr(view, n) != getattr(self.view, n)]
        notes = [f"the link has {n} {getattr(view, n)!r}, which run {run} cannot show" for n in unlike]
        if view.sample not in ("", self.view.sample):
            notes.append(f"the link's sample {view.sample!r} is not in its list")
        self._tell([*notes, *self.gating.notes(), *self.gating.gaps()])

    def _open(self, run: str, view: GateView | None = None) -> None:
        """Open another run, or the same one again: controls offer what it holds, then everything is shown.

        `view` is shown as far as the run can have it; None: the present setting, at the threshold of the run.
        """
        with loading():
            self._show_run(run, view)

    def _show_run(self, run: str, view: GateView | None) -> None:
        another = self.gating is not None and self.gating.run.name != run
        if another and self._pinned is not None and self._pinned.run.name == run:
            self.gating, self._pinned = self._pinned, self.gating
        elif another or self.gating is None or view is None:
            self._pinned = self.gating if another and self.view.pin else self._pinned
            self.gating = Gating(recorded_run.open(run, strict=False))
        self._set(self.agent, value=self._agents.get(run, ALL) if self.agent.value != ALL else ALL)
        try:
            data = self.gating.data("")
        except UserError:
            self._clear()
            raise
        linked, view, options = view is not None, view or self.view, task_options(data.task_names)
        task = view.task if view.task in [value for _, value in options] else ALL
        self._set(self.task, options=options, value=task)
        self._offer(self.score, data.score_names or ("min",), view.score)
        stored = data.k_stored or data.recorded_k or view.k
        k = min(view.k, stored) if data.k_stored else stored
        self._offer(self.k, sorted({*(usual for usual in USUAL_K if usual <= data.k_stored), k, stored}), k)
        self._offer(self.router, [r for r in ROUTERS if r in data.routed or r == "none"], view.router)
        others = [(f"{p}, by rule", p) for p in ("strict", "paper") if p != data.protocol]
        protocol = view.protocol if linked and view.protocol in dict(others).values() else ""
        self._set(self.protocol, options=[(f"{data.protocol}, as judged", ""), *others], value=protocol)
        setting = GateView(
            task=task,
            score=self.score.value,
            k=self.k.value,
            slope=view.slope if data.k_stored else data.recorded_slope or view.slope,
            router=self.router.value,
            threshold=view.threshold,
            protocol=protocol,
            chosen=view.chosen if linked else self._first_list(),
            sample=view.sample if linked else "",
            pin=view.pin,
            search=view.search,
            order=view.order,
        )
        if another:
            self.operating_point = self.gating.own_threshold(self.operating_point, setting)
        possible = linked or not another
        if self.gating.scale(setting).shares:  # a link may hold a threshold of a score on another scale
            possible = possible and 0 <= view.threshold <= 1
        self.view = setting if possible else replace(setting, threshold=self.operating_point)
        self._set(self.search, value=view.search)
        self._set(self.queue, value=self.view.chosen.kind if self.view.chosen.kind in QUEUES.values() else "")
        self._show()
        self._tell([*self.gating.notes(), *self.gating.gaps()])

    def _offer(self, control: w.Dropdown, options: Sequence[Any], value: Any) -> None:
        self._set(control, options=list(options), value=value if value in options else options[0])

    def _first_list(self) -> Chosen:
        """What the list holds after another setting was chosen: what flips against the pinned one, if there is one."""
        return Chosen("flipped") if self.view.pin else Chosen()

    def put_pin(self) -> None:
        """Keep the present setting in sight; the list then holds what flips against it."""
        self._set(self.queue, value="")
        self.set(pin=self.view.pinned(self.gating.run.name), chosen=Chosen("flipped"))

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        before = self.view
        self.view = replace(before, **changes)
        if not self.distribution.spec or any(
            getattr(before, n) != getattr(self.view, n) for n in (*SETTING, "pin")
        ):
            self._show()
        elif before.threshold != self.view.threshold:
            self._show_threshold()
        elif before != replace(self.view, sample=before.sample):
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
        size = gating.sample_size(half_width_pp, n)
        self.size_note.value = f"<span class='se-note'>takes n = {size} of {n}</span>"
        self.review_n.value = max(1, size)

    def _type_threshold(self, value: float) -> None:
        if not (0 <= value <= 1 if self.gating.scale(self.view).shares else math.isfinite(value)):
            self._set(self.threshold, value=round(self.view.threshold, 7))
            raise UserError(
                f"a threshold of {value:g} is refused: confidences lie between 0 and 1. 1 accepts nothing, 0 accepts "
                f"every draft; {self.view.threshold:.4f} stays."
            )
        self.set(threshold=value)

    def _dragged(self, marker: float | None) -> None:
        if marker is not None:
            axis, scale = self.distribution.spec["x"], self.gating.scale(self.view)
            at_end = {axis["low"]: scale.lowest, axis["high"]: scale.highest}
            self.set(threshold=at_end.get(marker, scale.back(marker)))

    def follow(self, message: dict) -> None:
        """Do what a message of a chart asks for: {"step": decisions} or {"clicked": the `id` of a mark}."""
        if step := message.get("step"):
            part = self.gating.part(self.view.task, self.view.protocol)
            self.set(threshold=charts.stepped(part, self.view, int(step)))
        elif clicked := message.get("clicked"):
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
        """Look at the sample `by` places further down the list."""
        self.samples.walk(by)

    def follow_list(self, message: dict) -> None:
        """Do what a message of the list asks for: a key marks, a header sorts, and rows in view get their pictures."""
        if "key" in message:
            self.put_mark(KEYS[message["key"]])
        elif (key := message.get("sort")) in gating.ORDERS:
            again = {key: f"-{key}", f"-{key}": gating.NEAREST}
            self.set(order=again.get(self.view.order, key))
        elif ids := message.get("thumbs"):
            self.samples.send_thumbnails({str(id_): self._thumbnail(str(id_)) for id_ in ids[:50]})

    def _thumbnail(self, id_: str) -> bytes:
        sample = self.gating.run.sample(id_)
        return thumbnail(sample.image) if sample else b""

    def keep(self) -> None:
        """Let the browser save the file that is chosen: list, charts, sample, or contact sheet."""
        kind, mime = FILES[self.file.value]
        name = f"{self.gating.run.name}_{self.file.value.split()[0]}.{kind}"
        self.page.save(name, mime, self.file_of(self.file.value))

    def file_of(self, what: str) -> bytes:
        """The content of a file to keep; `what` is a key of `FILES`.

        Raises:
            UserError: nothing of this kind is shown.
        """
        if what.startswith("charts"):
            if not self.distribution.spec:
                raise UserError("no chart is shown, so there is none to keep")
            data = io.BytesIO()
            self.overview().savefig(data, format=FILES[what][0], dpi=200, bbox_inches="tight")
            return data.getvalue()
        if what.startswith("gate"):
            pin = self.view.pin
            other = pin.threshold if pin and pin.run == self.gating.run.name else None
            return gate_page.page_html(gate_page.page_data(self.gating, self.view, other))
        if not self.view.sample:
            raise UserError("the list is empty, so there is nothing to keep")
        if what.startswith("sample"):
            setting = [*self._setting_lines(), *(f"link: #{self.page.fragment}",)]
            lines = "".join(f"<p class='se-note'>{html.escape(line)}</p>" for line in setting)
            return whole_page(self.view.sample, lines, self.sample_still().part("page")).encode()
        rows = gating.listed(self.decided, self.view, self.gating.marks(self.view), self._texts())
        if what.startswith("list"):
            return gating.list_csv(rows, self.view).encode()
        judged = self.gating.run.judged(self.gating.instrumented)
        title = [rows.attrs["what"], *self._setting_lines()]
        return contact_sheet(rows, title, self._thumbnail, lambda id_: judged[id_].question)

    def _setting_lines(self) -> list[str]:
        """The setting in words, and the pinned one."""
        view, run = self.view, self.gating.run.name
        pins = [view.pinned(run), *([view.pin] if view.pin else [])]
        lines = [f"{p.run} · {p.score} > {p.threshold:.4f} · K {p.k} · router {p.router}" for p in pins]
        return [lines[0] + f" · {view.task}", *(f"pinned: {line}" for line in lines[1:])]

    def _texts(self) -> dict[str, str]:
        return self.gating.texts if self.view.search.strip() else {}

    def put_mark(self, mark: str) -> None:
        """Mark the decision on the sample in view, save the mark, go to the next sample."""
        marked = self.view.sample
        if not marked:
            return
        run, arm = self.gating.run.name, self.gating.instrumented
        if not self.author.value.strip():
            self._say("write your name first: every mark is kept with it. Nothing was marked.")
            self.author.focus()
            return
        fields = {"author": self.author.value, "note": self.note.value, "arm": arm}
        human.append_gating_mark(run, id=marked, mark=mark, **fields)
        self._set(self.note, value="")
        self._show_list()
        if mark != human.WITHDRAWN and self.view.sample == marked:
            self.step(1)

    def _say(self, text: str) -> None:
        """A sentence beside the buttons of the review."""
        self.mark_note.value = f"<p role='alert'>{html.escape(text)}</p>"

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        self.mark_note.value = ""
        super()._try(act, *arguments)

    def _overrule(self) -> None:
        """Put a person's verdict on one answer to the sample in view."""
        id_, source, arm = self.view.sample, self.overruled.value, self.gating.instrumented
        judged = self.gating.run.judged(arm).get(id_)
        answers = {v.source: v.answer for v in judged.verdicts} if judged else {}
        if not answers.get(source):
            raise UserError(f"{id_ or 'no sample'}: there is no answer of the {source} to judge")
        answer = {"id": id_, "answer": answers[source], "arm": arm, "source": source}
        check = {"verdict": self.verdict.value, "reason": self.note.value, "author": self.author.value}
        human.append_override(self.gating.run.name, **answer, **check)
        self._set(self.note, value="")
        self.gating.read_checks()
        self._show_threshold()

    def _export(self) -> None:
        if not len(self.gating.marks(self.view)):
            self._say("nothing is marked here, so nothing was exported.")
            return
        path = gating.export_review(self.gating, self.view)
        self.review_note.value = f"<p>exported to <code>{html.escape(shown(path))}</code></p>"

    # ------------------------------------------------------------------ showing

    def _clear(self, charts_too: bool = True) -> None:
        """Show nothing, so that no view shows another run or setting than the chosen one."""
        self.numbers.value = self.review_note.value = ""
        if charts_too:
            self._set(self.distribution, spec={}, marker=None)
            self._set(self.trade_off, spec={})
        self._set(self.trade_off, dot=None)
        for table in (self.decisions, self.ledger):
            table.rows = []
        with self._quiet():
            self.samples.fill([], lambda start, stop: [], "", caption="")
        self.microscope.show(None)

    def _show(self) -> None:
        """Show everything, after the setting or the part of the run has changed."""
        try:
            part = self.gating.part(self.view.task, self.view.protocol)
            distribution = charts.distribution(part, self.view)
            trade_off = charts.trade_off(self.gating.curve_of(self.view), *self._ghost())
        except UserError:  # the run cannot have such a score, router or protocol
            self._clear()
            raise
        self._set(self.distribution, marker=None, spec=distribution)
        self._set(self.trade_off, dot=None, spec=trade_off)
        self._show_threshold()

    def _pinned_gating(self) -> Gating:
        """The run of the pinned setting."""
        run = self.view.pin.run
        if run == self.gating.run.name:
            return self.gating
        if self._pinned is None or self._pinned.run.name != run:
            self._pinned = Gating(recorded_run.open(run, strict=False))
        return self._pinned

    def _ghost(self) -> tuple[pd.DataFrame | None, list[float] | None]:
        """The pinned setting's curve, where it is another one, and its point; None where there is none to show."""
        if not self.view.pin:
            return None, None
        try:
            data, view = self._pinned_gating(), self.view.of_pin()
            curve = data.curve_of(view)
            ring = gating.current_dot(gating.gate_summary(data, view), charts.of_drafts(curve))
        except UserError as error:
            self._pin_fault = f" · not compared: {error}"
            return None, None
        same = data is self.gating and replace(view, threshold=0.5) == replace(
            self.view.gate(), threshold=0.5
        )
        return (None if same else curve), ring

    def _beside_pin(self) -> tuple[pd.DataFrame, comparing.Comparison | None]:
        """The decisions on every sample, beside the pinned ones where a setting is pinned, and the comparison."""
        decided = self.gating.decided(self.view)
        if not self.view.pin:
            return decided, None
        try:
            pinned = self._pinned_gating().decided_pinned(self.view)
        except UserError as error:
            self._pin_fault = f" · not compared: {error}"
            return decided, None
        both = comparing.beside(decided, pinned)
        complete = decided["right"].notna().all() and pinned["right"].notna().all()
        return both, comparing.compare(both, pinned, complete)

    def _show_pin(self, comparison: comparing.Comparison | None) -> None:
        pin, flips = self.view.pin, comparison.flips if comparison else {}
        counts = {"": sum(flips.values()), **flips}
        for name, flip_button in self.flips.items():
            flip_button.layout.display = "" if comparison else "none"
            flip_button.description = f"{counts.get(name, 0)} {name or 'flipped'}"
            on = self.view.chosen == Chosen("flipped", name)
            (flip_button.add_class if on else flip_button.remove_class)("se-on")
        self.unpin.layout.display = "" if pin else "none"
        if pin:
            setting = f"{pin.run} · {pin.score} > {pin.threshold:.4f} · K {pin.k} · router {pin.router}"
            setting += f" · {pin.protocol}" * bool(pin.protocol)
            setting += f" · on {comparison.n} samples of both" if comparison else self._pin_fault
            self.pin_note.value = f"<span class='se-note'>pinned: {html.escape(setting)}</span>"
        else:
            self.pin_note.value = ""

    def _show_threshold(self) -> None:
        view = self.view
        self._set(self.threshold, value=round(view.threshold, 7))
        axis = self.distribution.spec["x"]
        place = float(self.gating.scale(view).place(view.threshold))
        place = min(max(place, axis["low"]), axis["high"])
        label, _ = apart(view.threshold, view.pin.threshold if view.pin else view.threshold)
        self._set(self.distribution, marker=place, marker_label=label)
        self.decided = None
        try:
            summary = gating.gate_summary(self.gating, view)
        except UserError:  # this threshold needs an answer that the run lacks; another one may not
            self._clear(charts_too=False)
            raise
        overrides = self.gating.overrides
        reviewed = gating.gate_summary(self.gating, view, reviewed=True) if overrides else None
        protocol = self.gating.part(view.task, view.protocol).protocol
        self.decided, self.comparison = self._beside_pin()
        self.numbers.value = gating.summary_html(summary, protocol, reviewed, len(overrides), self.comparison)
        drafts_alone = charts.of_drafts(self.gating.curve_of(view))
        self._set(self.trade_off, dot=gating.current_dot(summary, drafts_alone))
        decided = self.decided
        counts, totals = gating.decisions_of(decided), gating.ledger_totals(decided)
        self.decisions.rows = [
            _counted(name.replace("_", " "), *(_cell(f"decision:{name} {v}", n) for v, n in row.items()))
            for name, row in counts.iterrows()
        ]
        self.ledger.rows = [
            _counted(row.Index, _cell(f"outcome:{row.Index}", row.n, row.saved_s), note=row.what)
            for row in totals.itertuples()
        ]
        self._show_list()

    def _show_list(self) -> None:
        if self.decided is None:
            self.decided, self.comparison = self._beside_pin()
        decided = self.decided
        marks = self.gating.marks(self.view)
        listed = gating.listed(decided, self.view, marks, self._texts())
        what, ids = listed.attrs["what"], listed["id"].tolist()
        if self.view.sample not in ids:  # resume with the first sample that has no mark yet
            marked = set(marks["id"])
            self.view = replace(
                self.view, sample=next((i for i in ids if i not in marked), ids[0] if ids else "")
            )
        caption = f"{what}: {len(listed)} of {len(decided)}"
        pinned = [gating.PINNED_COLUMN] * ("there" in decided)
        traits = {
            "columns": [*gating.LIST_COLUMNS[:3], *pinned, *gating.LIST_COLUMNS[3:]],
            "caption": caption,
            "order": self.view.order,
        }
        self._set(self.order, value=self.view.order)
        with self._quiet():
            self.samples.fill(
                ids, lambda start, stop: gating.list_rows(listed.iloc[start:stop]), self.view.sample, **traits
            )
        self._show_pin(self.comparison)
        for table in (self.decisions, self.ledger):
            table.on = f"{self.view.chosen.kind}:{self.view.chosen.name}"
        progress = gating.marks_text(marks, ids, what)
        saved = f"saved in <code>{html.escape(shown(human.checks_path(self.gating.run.name)))}</code>"
        self.review_note.value = f"<p class='se-note'>{html.escape(progress)}<br>{saved}</p>"
        self._show_sample()

    def _show_sample(self) -> None:
        view, data = self.view, self.gating
        self._set(self.page, fragment=links.fragment_of(data.run.name, view))
        self.explained.show(None, view)
        if not view.sample:
            self.microscope.show(None)
            return
        decided = data.decided(view)
        decision = decided[decided["id"] == view.sample].iloc[0]
        setting = {"threshold": view.threshold, "k": view.k, "overrides": data.overrides}
        page = recorded_sample(data.run, data.instrumented, view.sample, decision, **setting)
        self.microscope.show(page)


def _counted(name: str, *cells: dict, note: str = "") -> dict[str, Any]:
    return {"name": name, "note": note, "cells": cells}


def _cell(key: str, n: int, saved_s: float = math.nan) -> dict[str, Any]:
    saved = f" · {saved_s:+.1f} s" if math.isfinite(saved_s) else ""
    return {"key": key, "text": f"{n}{saved}", "off": not n}
