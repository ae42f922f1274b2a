"""The text of a parameters cell, written from the parameter model of the notebook."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

# ------------------------------------------------------------------ the parameters cell


def plain_type(annotation: Any) -> str:
    """A field's type as a parameters cell writes it: `Literal["a", "b"]` is `str`, the rest is itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_type(get_args(annotation)[0])
    if origin is Literal:
        return type(get_args(annotation)[0]).__name__
    if origin in (Union, types.UnionType):
        return " | ".join(plain_type(part) for part in get_args(annotation))
    if annotation is type(None):
        return "None"
    return annotation.__name__ if origin is None else str(annotation)


LINE_LENGTH = 110  # the formatter's, which lists longer than that are broken by


def cell(model: type[BaseModel]) -> str:
    """The parameters cell of a notebook, ready to paste: one typed literal a line, described."""
    lines = []
    for name, field in model.model_fields.items():
        start = f"{name}: {plain_type(field.annotation)} = "
        value = field.get_default()
        if isinstance(value, list) and len(f"{start}{_literal(value)}  # {field.description}") > LINE_LENGTH:
            items = "".join(f"    {_literal(item)},\n" for item in value)
            lines.append(f"{start}[  # {field.description}\n{items}]")
        else:
            lines.append(f"{start}{_literal(value)}  # {field.description}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    """Python source in the formatter's style: double quotes."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
