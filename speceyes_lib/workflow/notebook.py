"""What every notebook needs around its science: checked parameters, provenance, one progress line, hand-over.

This module computes no result. Each function also works in a plain script, where it prints its text. A `UserError` in
a cell shows as its message alone (`errors.UserError`); the cell still fails, and so does the papermill run.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import build
from ..params import ALL_NOTEBOOKS, Params
from ..paths import resolve, shown
from ..report import rendering
from ..report.formatting import duration, made_with, size
from ..runs.files import HEADER, MANIFEST, SUMS
from . import live
from .parameters_cell import given_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = TypeVar("P", bound=Params)
OF_THE_SUITE = {HEADER, MANIFEST, SUMS}  # files of a stage that no person opens
SECONDS_BETWEEN_UPDATES = 0.25  # often enough for the eye, cheap for kernel and file


def start(model: str | type[P], namespace: Mapping[str, Any]) -> P:
    """The checked parameters of a notebook; displays where its numbers come from.

    Args:
        model: the notebook's name, or its parameter model.
        namespace: the notebook's `globals()`.

    Returns:
        The parameters: those of the parameters cell, those that papermill injected (whether the cell has them or not),
        and the model's defaults for all others.

    Raises:
        ConfigError: names every parameter at fault, what was expected, and the nearest valid name.
    """
    from ..runs.provenance import environment

    if in_notebook():
        import pandas as pd

        # text in tables is text: a dollar sign begins no formula
        pd.options.display.html.use_mathjax = pd.options.styler.html.mathjax = False
    if isinstance(model, str):
        model = ALL_NOTEBOOKS[model]
    # in a plain script there is no history of cells: any global of a parameter's name is taken
    history = namespace.get("_ih")
    names = model.model_fields if history is None else given_names(history)
    values = {name: namespace[name] for name in names if name in namespace}
    params = build(model, values, "this notebook's parameters")
    facts = made_with(environment())
    values = {name: repr(value) for name, value in params.model_dump().items()}
    _display(f"run {params.run} · {facts}", "header", params.run, facts, values)
    return params


class Progress:
    """One line, updated in place, that stays as one clean line when the work is over.

    Call it as `progress(done, total, text)`: first before the work starts (`done` = 0, or what an earlier session left,
    so that rate and time left are right), then after every sample or batch. `text` names the leg, such as the task; a
    new text or a smaller `done` opens a new leg, and totals add up.

    >>> with Progress("drafted") as progress:
    ...     progress(0, 2, "vstar/direct_attributes")
    ...     progress(2, 2, "vstar/direct_attributes")
    """

    def __init__(self, verb: str, unit: str = "samples") -> None:
        self.verb, self.unit, self.text = verb, unit, ""
        self.done = self.total = self.start = 0  # of this leg; `start` was done before this session
        self._before = (0, 0, 0)  # the same three, summed over the finished legs
        self._began_s = self._leg_began_s = time.perf_counter()
        self._shown_s = 0.0
        self._handle: Any = None  # of the display that is updated in a notebook

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show that `done` of `total` are done in the leg `text`."""
        now_s = time.perf_counter()
        if text != self.text or done < self.done or self.total == 0:
            self._before, self.text, self.start, self._leg_began_s = self._sums(), text, done, now_s
        self.done, self.total = done, total
        if done < total and now_s - self._shown_s < SECONDS_BETWEEN_UPDATES:
            return
        self._shown_s, spent_s = now_s, now_s - self._leg_began_s
        live.write(self.verb, done, total, self.start, text, spent_s)
        parts = [f"{self.verb} {done} of {total}", *filter(None, [text])]
        if done > self.start and spent_s > 0:
            rate = (done - self.start) / spent_s
            parts += [f"{rate:.3g}/s", f"{duration((total - done) / rate)} left"]
        self._show(" · ".join(parts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        done, total, resumed = self._sums()
        spent_s = time.perf_counter() - self._began_s
        line = f"{'stopped: ' if kind else ''}{self.verb} {done} of {total} {self.unit}"
        if resumed and resumed == done:
            self._show(f"{line}, all from an earlier session", last=True)
            return
        line += f" in {duration(spent_s)}"
        if done > resumed and spent_s > 0:
            line += f" ({(done - resumed) / spent_s:.3g}/s)"
        self._show(f"{line}, {resumed} of them from an earlier session" if resumed else line, last=True)

    def _sums(self) -> tuple[int, int, int]:
        now = (self.done, self.total, self.start)
        return tuple(a + b for a, b in zip(self._before, now, strict=True))

    def _show(self, text: str, last: bool = False) -> None:
        """In a notebook as a display that is updated, in a terminal as its last line, in a log only when it is over."""
        if in_notebook():
            from IPython.display import display

            content = {"text/plain": text}
            if self._handle is None:
                self._handle = display(content, raw=True, display_id=True)
            else:
                self._handle.update(content, raw=True)
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
        elif last:
            print(text, flush=True)


def show_figure(figure: Figure | Path, dpi: int = 144) -> None:
    """Display a matplotlib figure exactly once, whatever the backend, and release it; or a picture that is saved.

    Args:
        figure: the figure, or a PNG file. It is shown as wide as in print, 96 pixels of the page an inch.
        dpi: pixels per inch of a figure; a file has its own.
    """
    from IPython.display import Image, display
    from PIL.Image import open as open_image

    png = figure if isinstance(figure, Path) else io.BytesIO()
    if not isinstance(figure, Path):
        figure.savefig(png, format="png", dpi=dpi, bbox_inches="tight")
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(figure)
    with open_image(png) as image:
        width_in = image.width / image.info["dpi"][0]
    data = png.read_bytes() if isinstance(png, Path) else png.getvalue()
    display(Image(data, width=round(96 * width_in)))


def handover(written: Sequence[Path | str], next_notebook: str | None = None) -> None:
    """Display what was written and which notebook comes next.

    Args:
        written: folders (a line each, with the files that a person opens: formats of one thing together) or files,
            from the repository or absolute.
        next_notebook: its name.
    """
    lines = [_written_line(resolve(path)) for path in written]
    if next_notebook:
        lines.append((f"{next_notebook}.ipynb", "", "Next: "))
    _display("\n".join(f"- {before}`{code}`{rest}" for code, rest, before in lines), "handover", lines)


def _written_line(path: Path) -> tuple[str, str, str]:
    """A path, what stands behind it, and what stands before it."""
    if not path.is_dir():
        content = f" ({size(path.stat().st_size)})" if path.exists() else ": nothing was written"
        return shown(path), content, ""
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(path.glob("[!.]*")):
        if file.is_file() and file.name not in OF_THE_SUITE:
            by_stem.setdefault(file.stem, []).append(file)
    shown_files = [
        f"{stem} ({', '.join(file.suffix[1:] for file in files)})"
        if len(files) > 1
        else f"{files[0].name} ({size(files[0].stat().st_size)})"
        for stem, files in by_stem.items()
    ]
    return f"{shown(path)}/", f": {', '.join(shown_files) or 'nothing to open'}", ""


def in_notebook() -> bool:
    """True inside a Jupyter kernel; False in a script, a test and a terminal IPython."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _display(text: str, macro: str, *values: Any) -> None:
    """Print a text; in a notebook show a macro of templates/notebook.html, which escapes the values, in its place."""
    if not in_notebook():
        print(text)
        return
    from IPython.display import display

    html = str(getattr(rendering.environment().get_template("notebook.html").module, macro)(*values))
    display({"text/html": html, "text/plain": text}, raw=True)
