"""Texts from outside: replies of models and judges, what tools print, benchmarks, files of other programs."""

from __future__ import annotations

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
