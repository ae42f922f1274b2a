"""The parameters cell of a notebook: written from its parameter model, and read back."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ..errors import ConfigError
from ..params import Params
from ..paths import shown

LINE_LENGTH = 110  # the formatter's, which lists longer than that are broken by


def shown_fields(model: type[Params]) -> tuple[str, ...]:
    """Names of the parameters that a notebook's cell shows, in order."""
    return model.shown or tuple(model.model_fields)


def cell(model: type[Params]) -> str:
    """The parameters cell of a notebook, ready to paste: one typed literal a line, described."""
    lines = []
    for name in shown_fields(model):
        field = model.model_fields[name]
        start = f"{name}: {plain_type(field.annotation)} = "
        value = field.get_default()
        if isinstance(value, list) and len(f"{start}{_literal(value)}  # {field.description}") > LINE_LENGTH:
            items = "".join(f"    {_literal(item)},\n" for item in value)
            lines.append(f"{start}[  # {field.description}\n{items}]")
        else:
            lines.append(f"{start}{_literal(value)}  # {field.description}")
    return "\n".join(lines) + "\n"


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


def _literal(value: Any) -> str:
    """Python source in the formatter's style: double quotes."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def read_cell(source: str) -> dict[str, tuple[str, Any]]:
    """Name -> (type as written, value) of a parameters cell.

    Raises:
        ValueError: a line is not `name: type = literal` (SyntaxError: not Python).
    """
    written = {}
    for line in ast.parse(source).body:
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value):
            raise ValueError(f"`{ast.unparse(line)}` is not `name: type = literal`")
        written[line.target.id] = (ast.unparse(line.annotation), ast.literal_eval(line.value))
    return written


def cells_of(notebook: Path) -> list[dict]:
    """The cells of a notebook file.

    Raises:
        ConfigError: it is not a readable notebook.
    """
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{shown(notebook)}: not a readable notebook ({error})") from None


def given_names(cells: Iterable[str]) -> list[str]:
    """Names of the parameters that the executed cells of a notebook give.

    They stand in the cell of typed literals, or in the one that papermill injects after it, whose first line is
    "# Parameters". An untyped line that a reader adds to the first of the two counts as well.
    """
    names: list[str] = []
    for source in cells:
        try:
            body = ast.parse(source).body
            typed = [isinstance(line, ast.AnnAssign) for line in body]
            targets = [line.target if t else line.targets[0] for line, t in zip(body, typed, strict=True)]
            literals = [ast.literal_eval(line.value) for line in body]
        except (SyntaxError, AttributeError, ValueError, TypeError):
            continue  # any other cell
        if literals and (any(typed) or source.startswith("# Parameters\n")):
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return list(dict.fromkeys(names))
