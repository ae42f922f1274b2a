"""The explorers' own widgets: a chart to drag and click, a picture to look into, coloured tokens, a list of samples.

Each is a few traits and a readable script in `static/`; no build step, nothing from the network.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import anywidget
import traitlets as t

from ..report.rendering import TEMPLATES

STATIC = Path(str(resources.files(__package__) / "static"))
STYLE = TEMPLATES / "explore.css"


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
    """Rows to walk through. A key of `shortcuts` (key -> meaning) comes back as the message {"key": key}."""

    _esm, _css = STATIC / "samples.js", STYLE
    columns = t.List().tag(sync=True)
    rows = t.List().tag(sync=True)
    chosen = t.Unicode().tag(sync=True)
    caption = t.Unicode().tag(sync=True)
    shortcuts = t.Dict().tag(sync=True)
