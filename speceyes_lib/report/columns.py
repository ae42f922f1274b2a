"""Tables for people: a numeric frame, and a declaration of how each of its columns is shown.

Frames stay numeric until `show` or `as_text` turns them into text. Everything is escaped: cells, index, header and
caption may hold words of models and of benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from .formatting import clock_line, interval
from .labels import method_label

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from ..runs.recorded_run import RecordedRun

RULES = [
    {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"},
    {"selector": "th", "props": "text-align: left; vertical-align: top; font-weight: 600"},
    {"selector": "td", "props": "text-align: right; white-space: pre; padding: 2px 8px"},
    {"selector": "thead tr:last-child th", "props": "border-bottom: 1px solid #888"},
]


@dataclass(frozen=True)
class Column:
    """How one column of a frame is shown.

    Attributes:
        name: the column, or the level of the index.
        label: its header; empty: the name.
        format: a format specification such as ".1f", or a function from a value to text. A missing value is blank.
        interval: the columns with the two ends of the value's interval.
        n: the column with the value's own denominator, shown below it.
        unit: follows the value, before its interval.
    """

    name: str
    label: str = ""
    format: str | Callable[[Any], str] = ""
    interval: tuple[str, str] | None = None
    n: str | None = None
    unit: str = ""

    def texts(self, frame: pd.DataFrame) -> list[str]:
        """The cells of this column, one per row of the frame.

        Raises:
            KeyError: the frame has rows and no such column.
        """
        if not len(frame):
            return []
        values = self._of(frame, self.name)
        if self.interval:
            digits, sign = int(self.format.strip("+.f")), self.format[:1].strip(".")
            ends = (self._of(frame, name) for name in self.interval)
            cells = [interval(row, digits, self.unit, sign) for row in zip(values, *ends, strict=True)]
        else:
            write = self.format if callable(self.format) else lambda value: format(value, self.format)
            blank = [pd.api.types.is_scalar(value) and pd.isna(value) for value in values]
            cells = [
                "" if none else write(value) + self.unit for value, none in zip(values, blank, strict=True)
            ]
        if self.n is None:
            return cells
        counts = self._of(frame, self.n)
        return [
            f"{cell}\nn={n:.0f}".lstrip() if n == n else cell for cell, n in zip(cells, counts, strict=True)
        ]

    def _of(self, frame: pd.DataFrame, name: str) -> list:
        return list(frame.index.get_level_values(name) if name in frame.index.names else frame[name])


def as_text(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The frame as text cells under the labels of `columns`; columns that name index levels become the index."""
    texts = {column.label or column.name: column.texts(frame) for column in columns}
    levels = [column.label or column.name for column in columns if column.name in frame.index.names]
    table = pd.DataFrame(texts, dtype=object)
    return table.set_index(levels) if levels else table


def show(
    frame: pd.DataFrame,
    columns: Sequence[Column] | str | None = None,
    caption: str = "",
    digits: int = 1,
    clock: Mapping[str, Any] | RecordedRun | None = None,
) -> Styler:
    """A table for a notebook.

    Args:
        frame: the numbers, a row per line of the table.
        columns: what to show, in this order, or the name of a list in `tables.TABLES`; None: every column under its
            own name.
        caption: stands above the table.
        digits: of floats where no columns are given.
        clock: of a table with speedups: the run, or what is known of its clock (`formatting.clock_line`).

    Returns:
        A pandas Styler. Equal input gives equal HTML. A frame without rows is its caption and "none". Where no columns
        are given, the arms of a run have the labels of `method_label`.
    """
    if isinstance(columns, str):
        from .tables import TABLES  # the lists are made of the columns of this file

        listed = TABLES[columns]
        columns = listed(frame) if callable(listed) else listed
    table = _with_arms_labelled(frame) if columns is None else as_text(frame, columns)
    # pandas escapes nothing by default, and on request only what is a str: a list of options is none
    write = partial(_escaped, digits=digits)
    styler = table.style.format(write, na_rep="")
    for axis in (0, 1):
        styler.format_index(write, axis=axis, na_rep="").format_index_names(write, axis=axis)
    if table.index.names == [None] and isinstance(table.index, pd.RangeIndex):
        styler.hide(axis="index")
    if not len(table):
        styler.hide(axis="columns")
        caption = f"{caption.rstrip('.')}: none".removeprefix(": ")
    if clock is not None:
        caption = f"{caption.rstrip('.')}. {clock_line(clock)}"
    # its table ids are random by default
    return styler.set_uuid("t").set_table_styles(RULES).set_caption(escape(caption))


def _with_arms_labelled(frame: pd.DataFrame) -> pd.DataFrame:
    if "arm" in frame:
        frame = frame.assign(arm=frame["arm"].map(method_label))
    return frame.rename(index=method_label, level="arm") if "arm" in frame.index.names else frame


def _escaped(value: object, digits: int) -> str:
    """A value as text that HTML shows as it is; floats with so many digits."""
    return escape(f"{value:.{digits}f}" if isinstance(value, float) else str(value))


def words(name: str) -> str:
    """A name as words: "draft_failed" -> "draft failed"."""
    return str(name).replace("_", " ")
