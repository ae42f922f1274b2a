"""The explorers' own widgets: a chart to drag and click, a picture to look into, coloured tokens, a list of samples.

Each is a few traits and a readable script in `static/`; no build step, nothing from the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

from ..report.rendering import TEMPLATES

STATIC = Path(str(resources.files(__package__) / "static"))
STYLE = TEMPLATES / "explore.css"
PAGE = 100  # rows of a list in the browser


class Chart(anywidget.AnyWidget):
    """A chart of `charts.py`. Its messages are {"clicked": id} and {"step": +-1 or +-10}."""

    _esm, _css = STATIC / "chart.js", STYLE
    spec = t.Dict().tag(sync=True)
    marker = t.Float(None, allow_none=True).tag(sync=True)  # x of the line to drag
    marker_label = t.Unicode().tag(sync=True)
    dot = t.List(default_value=None, allow_none=True).tag(sync=True)  # [x, y] of the current point


class PictureView(anywidget.AnyWidget):
    """A picture with boxes over it and its crops beside it; `message` where there is none (width 0)."""

    _esm, _css = STATIC / "picture.js", STYLE
    data = t.Bytes().tag(sync=True)
    mime = t.Unicode("image/jpeg").tag(sync=True)
    width = t.Int().tag(sync=True)
    height = t.Int().tag(sync=True)
    boxes = t.List().tag(sync=True)
    label = t.Unicode().tag(sync=True)
    message = t.Unicode().tag(sync=True)


class TokenStrip(anywidget.AnyWidget):
    """The tokens of a draft and their alternatives; see `sample_page.token_strip`."""

    _esm, _css = STATIC / "tokens.js", STYLE
    tokens = t.List().tag(sync=True)
    message = t.Unicode().tag(sync=True)


class CountTable(anywidget.AnyWidget):
    """A table of counts, each a button. Its message is {"clicked": the `key` of a cell}."""

    _esm, _css = STATIC / "counts.js", STYLE
    title = t.Unicode().tag(sync=True)
    head = t.List().tag(sync=True)
    rows = t.List().tag(sync=True)  # {name, note, cells: [{key, text, off}]}
    on = t.Unicode().tag(sync=True)  # key of the chosen cell


class Page(anywidget.AnyWidget):
    """The view in the page's address, as `fragment`, a button that copies its link, and files for the browser to save.

    Its message is {"open": fragment}: a link was opened, or the browser went back or forward.
    """

    _esm, _css = STATIC / "page.js", STYLE
    fragment = t.Unicode().tag(sync=True)

    def save(self, name: str, mime: str, data: bytes) -> None:
        """Let the browser save a file of this name."""
        self.send({"download": name, "mime": mime}, [data])


class SampleList(anywidget.AnyWidget):
    """Rows to walk through, a page at a time; the browser holds the rows of one page only.

    Its messages are {"key": a key of `shortcuts`}, {"sort": the `key` of a column} and, while `thumbnails` is set,
    {"thumbs": ids} of rows in view, which `send_thumbnails` answers. It turns its pages itself.

    Attributes:
        ids: of all rows, on every page.
    """

    _esm, _css = STATIC / "samples.js", STYLE
    columns = t.List().tag(sync=True)
    rows = t.List().tag(sync=True)
    chosen = t.Unicode().tag(sync=True)
    caption = t.Unicode().tag(sync=True)
    shortcuts = t.Dict().tag(sync=True)
    order = t.Unicode().tag(
        sync=True
    )  # key of the column that the rows are sorted by, after "-" if downwards
    page = t.Int().tag(sync=True)
    n_pages = t.Int(1).tag(sync=True)
    thumbnails = t.Bool().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.ids: list[str] = []
        self._rows_of: Callable[[int, int], list[dict]] = lambda start, stop: []
        self.on_msg(lambda _, message, __: self._turn(message))

    def fill(
        self, ids: Sequence[str], rows_of: Callable[[int, int], list[dict]], chosen: str, **traits: Any
    ) -> None:
        """Show the page that holds the chosen row, or the first one.

        Args:
            ids: of all rows, in order.
            rows_of: (start, stop) -> the rows at these places.
            chosen: id of the chosen row.
            traits: others to set in the same message.
        """
        self.ids, self._rows_of = list(ids), rows_of
        self._show(self._place(chosen), chosen, **traits)

    def walk(self, by: int) -> None:
        """Choose the row that is `by` places further down, on whatever page it is."""
        at = self._place(self.chosen)
        if at is None:
            at = -1 if by > 0 else 0
        self._choose(at + by)

    def send_thumbnails(self, pictures: Mapping[str, bytes]) -> None:
        """Small pictures by id, encoded; b"" where there is none."""
        self.send({"thumbs": list(pictures)}, list(pictures.values()))

    def _place(self, id_: str) -> int | None:
        return self.ids.index(id_) if id_ in self.ids else None

    def _turn(self, message: Mapping[str, Any]) -> None:
        if "page" in message:
            self._choose(PAGE * int(message["page"]))
        elif "walk" in message:
            self.walk(int(message["walk"]))

    def _choose(self, place: int) -> None:
        if self.ids:
            place = min(max(place, 0), len(self.ids) - 1)
            if place // PAGE == self.page:
                self.chosen = self.ids[place]
            else:
                self._show(place, self.ids[place])

    def _show(self, place: int | None, chosen: str, **traits: Any) -> None:
        page, n_pages = (place or 0) // PAGE, max(1, -(-len(self.ids) // PAGE))
        start = PAGE * page
        rows = self._rows_of(start, min(start + PAGE, len(self.ids)))
        with self.hold_sync():
            for name, value in {
                "rows": rows,
                "page": page,
                "n_pages": n_pages,
                **traits,
                "chosen": chosen,
            }.items():
                setattr(self, name, value)
