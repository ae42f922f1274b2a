"""Texts from outside: replies of models and judges, what tools print, benchmarks, files of other programs."""

from __future__ import annotations

import re
from typing import Any, TypeVar

T = TypeVar("T")


def storable(value: T) -> T:
    """The value with texts that every file and database of a run can hold: half of a surrogate pair becomes U+FFFD.

    JSON and Python can name half of a character beyond U+FFFF, which UTF-8 cannot hold. Two halves that follow each
    other become their character. Everything else stays as it is.

    Args:
        value: a text, or dicts, lists and tuples that hold texts (keys too) at any depth.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items: Any = [storable(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def to_cell(text: str) -> str:
    """The text as a cell of a CSV file that no spreadsheet computes: an apostrophe before a formula. Numbers stay."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """The text of which `to_cell` made this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
