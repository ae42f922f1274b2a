"""What the explorers are made of: a view that changes as a whole, controls, and the microscope.

Everything shown comes from a plain call (`gating`, `charts`, `traces`) with the explorer's `view`; every control is an
attribute, so an explorer can be driven, and tested, without a browser.
"""

from __future__ import annotations

import gc
import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as w

from ..errors import UserError
from ..report.labels import split_label
from ..report.sample_page import NO_PICTURE, MarkedPicture, SampleView, no_sample
from ..tasks.registry import BENCHMARKS
from .browser_parts import PictureView, TokenStrip
from .state import ALL

PARTS = ("question", "gate", "verdicts", "costs", "agent")  # parts of a sample that are plain HTML


@contextmanager
def loading() -> Iterator[None]:
    """Load a run inside: its objects are many and stay, so the garbage collector leaves them alone, now and later.

    Looking at all of them again and again is two thirds of the time that loading takes, and would interrupt a drag.
    What was loaded before and is no longer in use is freed first.
    """
    before = gc.isenabled()
    gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


class Explorer(w.VBox):
    """A view (`view`, frozen) and what follows from it. `message`, above the views, reports mistakes and gaps."""

    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view
        self._setting = False
        self.message = w.HTML()
        self.message.add_class("se-message")
        self.add_class("se-explorer")

    def _start(self, run: str) -> None:
        """Place and connect the controls, which are made by now, and open a run."""
        self.children = self._layout()
        self._connect()
        self._try(self._open, run)

    def __repr__(self) -> str:
        places = "works in JupyterLab and in the app"
        return f"{type(self).__name__}: {places}; the still views below need no kernel"

    def _on(self, control: w.Widget, act: Callable[[Any], None], trait: str = "value") -> None:
        """Act on what a person does to a control, not on what this code sets it to."""
        control.observe(lambda change: None if self._setting else self._try(act, change["new"]), trait)

    def _on_click(self, button: w.Button, act: Callable[..., None], *arguments: Any) -> None:
        button.on_click(lambda _: self._try(act, *arguments))

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            self.message.value = ""
            act(*arguments)
        except UserError as error:
            self._tell([str(error)])

    def _tell(self, notes: Sequence[str]) -> None:
        self.message.value = "".join(f"<p>{html.escape(note)}</p>" for note in notes)

    def _set(self, control: w.Widget, **values: Any) -> None:
        """Set traits of a control in this order, in one message, without acting on it."""
        with self._quiet(), control.hold_sync():
            for name, value in values.items():
                setattr(control, name, value)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """What is set to controls inside is no act of a person."""
        before, self._setting = self._setting, True
        try:
            yield
        finally:
            self._setting = before


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


# ------------------------------------------------------------------ controls and their places


def control(
    kind: type[w.Widget], label: str, width_px: int = 265, label_px: int = 75, **traits: Any
) -> w.Widget:
    """A labelled control."""
    style = {"description_width": f"{label_px}px"}
    return kind(description=label, layout=w.Layout(width=f"{width_px}px"), style=style, **traits)


def button(label: str, icon: str = "", tooltip: str = "", width: str = "auto") -> w.Button:
    """A button as wide as its label, unless `width` is another CSS width."""
    return w.Button(description=label, icon=icon, tooltip=tooltip, layout=w.Layout(width=width))


def heading(text: str) -> w.HTML:
    """A heading between the parts of an explorer."""
    return w.HTML(f"<h3>{html.escape(text)}</h3>")


def row(*children: w.Widget) -> w.Box:
    """Widgets side by side; those that do not fit go to the next line."""
    return w.Box(children, layout=w.Layout(flex_flow="row wrap", align_items="center"))


def columns(*children: w.Widget) -> w.Box:
    """Taller widgets side by side, aligned at the top."""
    return w.Box(children, layout=w.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="12px"))


def areas(**children: Sequence[w.Widget]) -> w.Box:
    """Columns by name, placed by the style sheet as the window is wide (`se-area-NAME` in `explore.css`)."""
    boxes = []
    for name, widgets in children.items():
        box = w.VBox(list(widgets))
        box.add_class(f"se-area-{name}")
        boxes.append(box)
    body = w.Box(boxes)
    body.add_class("se-areas")
    return body


def task_options(tasks: Sequence[str]) -> list[tuple[str, str]]:
    """All, each benchmark with several splits among the tasks, each split."""
    groups = [b for b in BENCHMARKS if sum(t.startswith(f"{b}/") for t in tasks) > 1]
    titles = [(f"{BENCHMARKS[b].title}, all splits", b) for b in groups]
    return [("all", ALL), *titles, *((split_label(t), t) for t in tasks)]
