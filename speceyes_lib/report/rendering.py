"""The library's HTML: jinja2 templates that escape whatever is put into them."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from .formatting import apart

TEMPLATES = Path(str(resources.files(__package__) / "templates"))


@cache
def environment() -> jinja2.Environment:
    """The environment of all templates. A name that a template does not know is an error, not a blank."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["apart"] = apart
    return made


def render(name: str, **values: Any) -> str:
    """The template of this file name, filled with values."""
    return environment().get_template(name).render(**values)
