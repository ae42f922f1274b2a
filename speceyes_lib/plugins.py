"""What other people's code adds: scores, benchmarks, agents, tools, backends and figures, without a change here.

A plugin is a Python module with one or more of these names, each a dict (`BACKENDS`: a list):

    SCORES      name -> function(top_logprobs [tokens, K]) -> float, or a `gating.score.Score`
    BENCHMARKS  name -> `tasks.benchmark.Benchmark`
    AGENTS      name -> `agents.base.AgentType`
    TOOLS       name -> `tools.agent_tool.AgentTool`
    BACKENDS    `models.base.BackendType`, asked before those of the suite
    FIGURES     name -> `report.listed_figure.ListedFigure`

Installed packages name their module as an entry point of the group `speceyes.plugins`. Other modules, or paths of
Python files, are listed under `plugins:` in a config or in SPECEYES_PLUGINS. While plugins are loaded, the registries
of the suite are not complete, so a plugin imports the types named above and no registry. docs/extending.md has
examples.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ConfigError
from .paths import resolve, shown

VARIABLE, GROUP = "SPECEYES_PLUGINS", "speceyes.plugins"
KINDS = ("SCORES", "BENCHMARKS", "AGENTS", "TOOLS", "BACKENDS", "FIGURES")


def use(plugins: Iterable[str], where: str) -> None:
    """Make modules, or paths of Python files, the plugins of this process and of those that it starts.

    Args:
        plugins: in addition to installed ones. Empty: what the variable holds stays.
        where: the file that lists them, for errors.

    Raises:
        ConfigError: a plugin cannot be loaded, or the registries were already built with others.
    """
    wanted = os.pathsep.join(plugins)
    if not wanted or wanted == os.environ.get(VARIABLE):
        return
    if modules.cache_info().currsize:
        raise ConfigError(
            f"{where}: plugins were loaded already; set {VARIABLE}={wanted} before the library is imported"
        )
    os.environ[VARIABLE] = wanted
    modules()


def contributed(kind: str, present: Iterable[str]) -> dict[str, Any]:
    """What the plugins add to a registry, by name.

    Args:
        kind: one of `KINDS`, except BACKENDS.
        present: names that the registry has.

    Raises:
        ConfigError: a name is taken, or the plugin's list is not a dict with names.
    """
    added: dict[str, Any] = {}
    for module in modules():
        entries = getattr(module, kind, {})
        if not isinstance(entries, dict) or not all(isinstance(name, str) and name for name in entries):
            raise ConfigError(f"{_place(module)}: {kind} must be a dict from names to entries")
        if taken := entries.keys() & {*present, *added}:
            raise ConfigError(
                f"{_place(module)}: {kind} holds {sorted(taken)[0]!r}, a name that exists already; choose another"
            )
        added |= entries
    return added


def backends() -> list[Any]:
    """The backends of all plugins."""
    return [backend for module in modules() for backend in getattr(module, "BACKENDS", ())]


def sources() -> list[Path]:
    """The files of all plugins, which results depend on."""
    return [Path(module.__file__) for module in modules() if module.__file__]


_loading: list[str] = []  # the plugin that is being imported


@cache
def modules() -> tuple[ModuleType, ...]:
    """The plugins, loaded once.

    Raises:
        ConfigError: one cannot be found or fails while it is imported.
    """
    if _loading:
        raise ConfigError(
            f"plugin {_loading[0]!r} imports a registry of the suite while it is loaded; import types of agents.base, "
            "tasks.benchmark, tools.agent_tool, gating.score and report.listed_figure, and the rest inside functions"
        )
    names = [point.value for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name)]
    names += [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    loaded = tuple(map(_load, dict.fromkeys(names)))
    for module in loaded:
        if not any(hasattr(module, kind) for kind in KINDS):
            raise ConfigError(f"plugin {_place(module)} adds nothing; expected one of {', '.join(KINDS)}")
    return loaded


def _load(name: str) -> ModuleType:
    _loading.append(name)
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = resolve(name)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules.setdefault(path.stem, importlib.util.module_from_spec(spec))
        if Path(module.__file__ or "") != path:
            raise ImportError(f"another module is called {path.stem!r}; rename the file")
        spec.loader.exec_module(module)
        return module
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"plugin {name!r} cannot be loaded ({type(error).__name__}: {error})") from error
    finally:
        _loading.remove(name)


def _place(module: ModuleType) -> str:
    return shown(module.__file__) if module.__file__ else module.__name__
