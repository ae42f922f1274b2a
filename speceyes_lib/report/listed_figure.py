"""What the list of figures holds about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class ListedFigure(NamedTuple):
    """A figure of a stage's notebook: the function that draws it, and its caption.

    The function is named as "file.function" of `plots/`; a plugin gives the function itself.
    """

    stage: str
    draw: str | Callable
    caption: str
