"""Public names of a wing, imported when they are first used.

A wing's `__init__.py` lists its public names by the file that defines them. Importing the wing loads none of these
files, so that a command that needs one name does not wait for the libraries of all the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

EXPORTED: dict[str, dict[str, str]] = {}  # package -> public name -> file, of the packages imported so far


def exports(
    wing: str, names_by_file: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Module-level `__getattr__`, `__dir__` and `__all__` of a wing.

    Args:
        wing: name of the package, its `__name__`.
        names_by_file: file (without .py) -> the public names that it defines. No name may equal a file's name.
    """
    home = {name: file for file, names in names_by_file.items() for name in names}
    EXPORTED[wing] = home

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {wing!r} has no attribute {name!r}")
        value = getattr(import_module(f"{wing}.{home[name]}"), name)
        setattr(sys.modules[wing], name, value)  # found directly the next time
        return value

    return get, lambda: sorted(home), sorted(home)
