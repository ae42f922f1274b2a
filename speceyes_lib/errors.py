"""Errors that users can correct. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import category

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


def printable(text: str) -> str:
    r"""A text with its control characters, and halves of surrogate pairs, as escapes such as \x1b."""
    kept = (c if category(c)[0] != "C" or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return text if text.isprintable() else "".join(kept)


class _Sentence(Exception):
    """An error whose message people read: what it quotes from outside cannot control their terminal."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UserError(_Sentence):
    """A mistake in input, configuration or order of work, shown as one sentence without a traceback.

    The message names the file and field, what was expected, and how to mend it.
    """

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a notebook shows this instead of a stack trace, and the cell still counts as failed
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """A config or notebook parameter that is unknown, of the wrong type or impossible."""


class DataError(UserError):
    """A benchmark file, image or record that cannot be read as what it claims to be."""


class MeansError(UserError):
    """A fault of what a run works with (server, memory, disk, sandbox), and no result of the sample concerned.

    Such a sample gets no record. The stage stays unfinished and does the sample again when it is resumed.

    Args:
        kind: what failed, as it is counted: "unreachable", "out_of_memory", "disk".
        message: a sentence for people.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# how a person makes faults of the means results all the same
ACCEPT = (
    "to record these faults as results instead, add --accept-failures (in a notebook: accept_failures = True)"
)


class StageError(UserError):
    """A stage whose predecessor is missing, unfinished or from another schema version."""


class ContradictionError(UserError):
    """Numbers of one result that cannot all be right: a fault of the program, which no user can mend.

    It stops the notebook that would have shown them.
    """


class JobError(_Sentence):
    """A notebook that failed. Its executed copy holds the error."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the valid name closest to `name`, or an empty string."""
    found = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def build(model: type[M], values: Mapping[str, Any], source: str) -> M:
    """A checked model of `values` that came from `source` (a file or notebook, named in the error).

    Raises:
        ConfigError: the message names every key at fault, what was expected there, and the nearest valid name.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(item, model) for item in error.errors())
        raise ConfigError(f"{source}: {faults}") from None


_SHORT = reprlib.Repr()  # an input may be endless
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxdict = 20


def _fault(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        for part in item["loc"][:-1]:
            model = model.model_fields[part].annotation
        hint = nearest(item["loc"][-1], model.model_fields)
        return f"{where}: there is no such key{hint}; valid are {', '.join(model.model_fields)}"
    reason = item["msg"].removeprefix("Value error, ")
    return (
        f"{where}: {reason}, got {_SHORT.repr(item['input'])}"
        if where and item["type"] != "missing"
        else f"{where}: {reason}"
    )
