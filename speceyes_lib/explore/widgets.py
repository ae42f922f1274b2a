"""What the explorers are made of: a view that changes as a whole, controls, and the microscope.

Everything shown comes from a plain call (`gating`, `charts`, `microscope`, `traces`) with the explorer's `view`;
every control is an attribute, so an explorer can be driven, and tested, without a browser.
"""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as w

from ..errors import UserError
from ..report.labels import split_label
from ..report.sample_page import NO_PICTURE, MarkedPicture, SampleView, no_sample
from ..tasks.registry import BENCHMARKS
from .browser_parts import PictureView, TokenStrip
from .state import ALL

PARTS = ("question", "gate", "verdicts", "costs", "agent")  # parts of a sample that are plain HTML
ROW = {"flex_flow": "row wrap", "align_items": "center"}
COLUMNS = {"flex_flow": "row wrap", "align_items": "flex-start", "grid_gap": "12px"}


class Explorer(w.VBox):
    """A view (`view`, frozen) and what follows from it. Mistakes and gaps are told in `message`, above the views."""

    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view
        self._setting = False
        self.message = w.HTML()
        self.message.add_class("se-message")
        self.add_class("se-explorer")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: works in JupyterLab and in the app; the still views below need no kernel"
        )

    def _on(self, control: w.Widget, act: Callable[[Any], None], trait: str = "value") -> None:
        """Act on what a person does to a control, not on what this code sets it to."""
        control.observe(lambda change: None if self._setting else self._try(act, change["new"]), trait)

    def _on_click(self, button: w.Button, act: Callable[..., None], *given: Any) -> None:
        button.on_click(lambda _: self._try(act, *given))

    def _try(self, act: Callable[..., None], *given: Any) -> None:
        try:
            self.message.value = ""
            act(*given)
        except UserError as error:
            self.message.value = f"<p>{html.escape(str(error))}</p>"

    def _tell(self, notes: Sequence[str]) -> None:
        self.message.value = "".join(f"<p>{html.escape(note)}</p>" for note in notes)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        before, self._setting = self._setting, True
        try:
            yield
        finally:
            self._setting = before

    def _set(self, control: w.Widget, **values: Any) -> None:
        """Set traits of a control in this order, in one message, without acting on it."""
        with self._quiet(), control.hold_sync():
            for name, value in values.items():
                setattr(control, name, value)


class Microscope:
    """One sample in full: the parts of a `SampleView` for an explorer to place."""

    def __init__(self) -> None:
        self.picture, self.tokens = PictureView(), TokenStrip()
        self.question, self.gate, self.verdicts, self.costs, self.agent = (w.HTML() for _ in PARTS)

    def show(self, view: SampleView | None) -> None:
        """Show a sample; None: no sample is chosen."""
        for name in PARTS:
            getattr(self, name).value = view.part(name) if view else ""
        shown = view or no_sample()
        with self.tokens.hold_sync():
            self.tokens.message, self.tokens.tokens = shown.tokens.message, list(shown.tokens.tokens)
        show_picture(self.picture, shown.picture)


def show_picture(view: PictureView, marked: MarkedPicture) -> None:
    """Hand a picture to its view in one message."""
    shown = marked.picture or NO_PICTURE
    with view.hold_sync():
        view.message, view.label, view.boxes = marked.message, marked.label, list(marked.boxes)
        view.width, view.height, view.mime, view.data = shown.width, shown.height, shown.mime, shown.data


# ------------------------------------------------------------------ controls


def control(kind: type[w.Widget], label: str, width_px: int = 265, **traits: Any) -> w.Widget:
    """A labelled control."""
    style = {"description_width": "75px"}
    return kind(description=label, layout=w.Layout(width=f"{width_px}px"), style=style, **traits)


def button(label: str, icon: str = "", tooltip: str = "") -> w.Button:
    return w.Button(description=label, icon=icon, tooltip=tooltip, layout=w.Layout(width="auto"))


def count_button() -> w.Button:
    """A cell of a table that lists what it counts."""
    made = w.Button(tooltip="list these samples", layout=w.Layout(width="100%"))
    made.add_class("se-table-button")
    return made


def lit(made: w.Button, on: bool) -> None:
    """Show whether this is the button whose samples are listed."""
    (made.add_class if on else made.remove_class)("se-on")


def heading(text: str) -> w.HTML:
    return w.HTML(f"<h3>{html.escape(text)}</h3>")


def text_cell(text: str) -> w.HTML:
    return w.HTML(f"<span>{html.escape(text)}</span>")


def task_options(tasks: Sequence[str]) -> list[tuple[str, str]]:
    """All, each benchmark with several splits here, each split."""
    groups = [b for b in BENCHMARKS if sum(t.startswith(f"{b}/") for t in tasks) > 1]
    titles = [(f"{BENCHMARKS[b].title}, all splits", b) for b in groups]
    return [("all", ALL), *titles, *((split_label(t), t) for t in tasks)]
