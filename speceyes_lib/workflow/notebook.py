"""What every notebook needs around its science: checked parameters, provenance, one progress line, hand-over.

Nothing here computes a result. Each function also works in a plain script, where it prints one line instead
of displaying it. A `UserError` raised in a cell shows as its message alone (`errors.UserError`), the cell
still fails, and so does the papermill run.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import build
from ..params import ALL_NOTEBOOKS, Params
from ..paths import resolve, shown
from ..report.formatting import duration, size
from .parameters_cell import given_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..runs.records import Manifest

P = TypeVar("P", bound=Params)
PACKAGES_SHOWN = ("torch", "transformers", "numpy", "pandas")
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

    if isinstance(model, str):
        model = ALL_NOTEBOOKS[model]
    # in a plain script there is no history of cells: any global of a parameter's name is taken
    history = namespace.get("_ih")
    names = model.model_fields if history is None else given_names(history)
    values = {name: namespace[name] for name in names if name in namespace}
    params = build(model, values, "this notebook's parameters")
    _display_markdown(provenance(params, environment()))
    return params


def provenance(params: Params, environment: Mapping[str, Any]) -> str:
    """The header's text (Markdown): one line of provenance, the resolved parameters folded below it."""
    packages = environment["packages"]
    versions = [f"{name} {packages[name]}" for name in PACKAGES_SHOWN if name in packages]
    commit = f"commit {environment['commit'][:10] or 'unknown'}"
    hardware = [environment["gpu"], environment["cpu"], f"{environment['cores']} cores"]
    parts = [
        f"run **{params.run}**",
        commit + (" with uncommitted changes" if environment["dirty"] else ""),
        ", ".join([f"Python {environment['python']}", *versions]),
        ", ".join(part for part in hardware if part),
    ]
    rows = "\n".join(f"| {name} | `{value!r}` |" for name, value in params.model_dump().items())
    table = f"| parameter | value |\n| --- | --- |\n{rows}"
    return f"{' · '.join(parts)}\n\n<details><summary>parameters</summary>\n\n{table}\n\n</details>"


class Progress:
    """One line, updated in place, that stays as one clean line when the work is over.

    Call it as `progress(done, total, text)`: first before the work starts (`done` = 0, or what was taken over
    from an earlier session, so that rate and time left are right), then after every sample or batch. `text`
    names the leg, such as the task; a new text or a smaller `done` opens a new leg, and totals add up.

    >>> with Progress("drafted") as progress:
    ...     progress(0, 2, "vstar/direct_attributes")
    ...     progress(2, 2, "vstar/direct_attributes")
    """

    def __init__(self, verb: str, unit: str = "samples") -> None:
        self.verb, self.unit = verb, unit
        self.text = ""
        self.done = self.total = self.start = 0  # of this leg; `start` was done before this session
        self._before = (0, 0, 0)  # the same three, summed over the finished legs
        self._line = _Line()
        self._began_s = self._leg_began_s = time.perf_counter()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        if text != self.text or done < self.done or self.total == 0:
            self._before = self._sums()
            self.text, self.start = text, done
            self._leg_began_s = time.perf_counter()
        self.done, self.total = done, total
        self._line.update(self._running(), force=done >= total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._line.close(self._final(stopped=kind is not None))

    def _sums(self) -> tuple[int, int, int]:
        now = (self.done, self.total, self.start)
        return tuple(a + b for a, b in zip(self._before, now, strict=True))

    def _running(self) -> str:
        parts = [f"{self.verb} {self.done} of {self.total}"]
        if self.text:
            parts.append(self.text)
        spent_s = time.perf_counter() - self._leg_began_s
        if self.done > self.start and spent_s > 0:
            rate = (self.done - self.start) / spent_s
            parts += [f"{rate:.3g}/s", f"{duration((self.total - self.done) / rate)} left"]
        return " · ".join(parts)

    def _final(self, stopped: bool) -> str:
        done, total, resumed = self._sums()
        spent_s = time.perf_counter() - self._began_s
        line = f"{'stopped: ' if stopped else ''}{self.verb} {done} of {total} {self.unit}"
        if resumed and resumed == done:
            return f"{line}, all from an earlier session"
        line += f" in {duration(spent_s)}"
        if done > resumed and spent_s > 0:
            line += f" ({(done - resumed) / spent_s:.3g}/s)"
        return f"{line}, {resumed} of them from an earlier session" if resumed else line


class _Line:
    """Where the line is shown: a display updated in place in a notebook, a terminal line, or the log."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_s = 0.0

    def update(self, text: str, force: bool = False) -> None:
        now_s = time.perf_counter()
        if not force and now_s - self._shown_s < SECONDS_BETWEEN_UPDATES:
            return
        self._shown_s = now_s
        if in_notebook():
            self._show(text)
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)

    def close(self, text: str) -> None:
        if in_notebook():
            self._show(text)
        else:
            print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, flush=True)

    def _show(self, text: str) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


def counts(verb: str, kept: int, total: int, **others: int) -> None:
    """Print what a filter or a stage did: `counts("kept", 188, 191, unparsed=3)`; zero counts are left out."""
    told = [f"{verb} {kept} of {total}"]
    told += [f"{number} {name.replace('_', ' ')}" for name, number in others.items() if number]
    print(", ".join(told))


def counts_of(manifests: Iterable[Manifest], verb: str = "finished") -> None:
    """Print what finished stages did in one line, summed over their manifests."""
    stages = [manifest.counts for manifest in manifests]
    total, done, failed, resumed = (
        sum(getattr(stage, name) for stage in stages) for name in ("expected", "done", "failed", "resumed")
    )
    counts(verb, done, total, failed=failed, taken_over_from_an_earlier_session=resumed)


def show_figure(figure: Figure | Path, dpi: int = 144) -> None:
    """Display a matplotlib figure exactly once, whatever the backend, and release it; or a picture that is saved.

    Either is as wide as it is in print, 96 of the page's pixels an inch: sharp on dense screens, still as wide as
    text on others. `dpi` is that of a figure; a file has its own.
    """
    from IPython.display import Image, display
    from PIL.Image import open as open_image

    png = figure.read_bytes() if isinstance(figure, Path) else _drawn(figure, dpi)
    with open_image(io.BytesIO(png)) as image:
        width_in = image.width / image.info["dpi"][0]
    display(Image(png, width=round(96 * width_in)))


def _drawn(figure: Figure, dpi: int) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, bbox_inches="tight")
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return png.getvalue()


def handover(written: Sequence[Path | str], next_notebook: str | None = None) -> None:
    """Display what was written (a line per folder, its files with their sizes) and which notebook comes next.

    `written` holds folders or files, from the repository or absolute; paths are shown relative to the repository.
    """
    lines = [_written_line(resolve(path)) for path in written]
    if next_notebook:
        lines.append(f"Next: `{next_notebook}.ipynb`")
    _display_markdown("\n".join(f"- {line}" for line in lines))


def _written_line(path: Path) -> str:
    if not path.exists():
        return f"`{shown(path)}`: nothing was written"
    if not path.is_dir():
        return f"`{shown(path)}` ({size(path.stat().st_size)})"
    files = [
        f"{file.name} ({size(file.stat().st_size)})" for file in sorted(path.iterdir()) if file.is_file()
    ]
    return f"`{shown(path)}/`: {', '.join(files) or 'empty'}"


def in_notebook() -> bool:
    """True inside a Jupyter kernel; False in a script, a test and a terminal IPython."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _display_markdown(text: str) -> None:
    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(text))
    else:
        print(text)
