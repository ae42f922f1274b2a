"""Numbers as text: intervals, p-values, factors, durations and sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler


# ------------------------------------------------------------------ numbers as text


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; blank where there is none."""
    return "" if _missing(value) else f"{value:.{digits}f}"


def p_text(value: float | None) -> str:
    """A p-value: three digits, never "0.000"."""
    return "" if _missing(value) else f"{value:.3f}" if value >= 0.001 else "<0.001"


def times(value: float | None) -> str:
    """A speedup: "1.73x"."""
    return "" if _missing(value) else f"{value:.2f}x"


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    digits: int = 1,
    unit: str = "",
    sign: str = "",
) -> str:
    """ "96.2 [94.2, 97.5]", without the bracket where there is no interval, blank without a value."""
    if _missing(value):
        return ""
    text = f"{value:{sign}.{digits}f}{unit}"
    return (
        text
        if _missing(low) or _missing(high)
        else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    )


def plain(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """A table of numbers as text: fractions to `digits`, counts whole, blanks where there is nothing."""

    def text(value: object) -> object:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return number(value, digits) if isinstance(value, float) else value

    return table.astype(object).map(text)


# ------------------------------------------------------------------ dresses


def styled(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table for a notebook: plain text cells, right-aligned, thin rules, the caption above."""
    rules = [
        {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"},
        {"selector": "th", "props": "text-align: left; vertical-align: top; font-weight: 600"},
        {"selector": "td", "props": "text-align: right; white-space: pre; padding: 2px 8px"},
        {"selector": "thead tr:last-child th", "props": "border-bottom: 1px solid #888"},
    ]
    # no random ids: the same table gives the same HTML
    return table.style.set_uuid("t").set_table_styles(rules).set_caption(caption)


def duration(seconds: float) -> str:
    """Seconds as people read them: 0.4 s, 41 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: int) -> str:
    """Bytes as people read them: 812 B, 40 kB, 1.2 MB."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    return f"{n_bytes / 1000:.0f} kB" if n_bytes < 1_000_000 else f"{n_bytes / 1_000_000:.1f} MB"
