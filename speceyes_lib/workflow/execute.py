"""Executing one notebook with papermill, after its parameters are checked."""

from __future__ import annotations

import ast
import base64
import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from pydantic import ConfigDict, create_model

from ..errors import ConfigError, JobError, UserError, build, nearest
from ..params import ALL_NOTEBOOKS, NOTEBOOKS, Params
from ..paths import repo_root, resolve, run_dir, shown
from ..report.formatting import duration
from ..runs.shards import Shard
from . import live
from .parameters_cell import cells_of, plain_type, read_cell, shown_fields

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ACCEPT_VARIABLE = "SPECEYES_ACCEPT_FAILURES"  # set: jobs run with accept_failures
PLAIN_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "None": None}


def find_notebook(name: str | Path) -> Path:
    """A notebook by its name, or by its path. Raises ConfigError with the nearest name."""
    folder = repo_root() / "notebooks"
    for path in (resolve(name), folder / f"{Path(name).name.removesuffix('.ipynb')}.ipynb"):
        if path.suffix == ".ipynb" and path.is_file():
            return path
    known = sorted(p.stem for p in folder.glob("*.ipynb"))
    hint = nearest(Path(name).stem, known)
    raise ConfigError(f"{name}: no such notebook{hint}; there are {', '.join(known) or 'none'}")


def parameters_of(notebook: Path) -> dict[str, tuple[str, Any]]:
    """Name -> (type as written, value) of a notebook's `parameters` cell.

    Raises:
        ConfigError: there is no such cell, or a line is not `name: type = literal`.
    """
    tagged = [c for c in cells_of(notebook) if "parameters" in c["metadata"].get("tags", ())]
    if not tagged:
        remedy = "add it to the cell that holds them"
        raise ConfigError(f"{shown(notebook)}: no cell has the tag `parameters`; {remedy}")
    try:
        return read_cell("".join(tagged[0]["source"]))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{shown(notebook)}: parameters cell: {error}") from None


def check_notebook(notebook: Path, model: type[Params]) -> None:
    """Refuse a parameters cell whose names, types or defaults are not those of its model, or that lacks a shown one.

    Raises:
        ConfigError: names every fault.
    """
    written = parameters_of(notebook)
    fields = model.model_fields
    faults = [f"{name} is not a parameter{nearest(name, fields)}" for name in written if name not in fields]
    faults += [f"{name} is missing" for name in shown_fields(model) if name not in written]
    for name in [name for name in written if name in fields]:
        value = "{} = {!r}".format(*written[name])  # as text, because 1 == True == 1.0
        expected = f"{plain_type(fields[name].annotation)} = {fields[name].get_default()!r}"
        if value != expected:
            faults.append(f"{name} is {value}, expected {expected}")
    if faults:
        raise ConfigError(
            f"{shown(notebook)}: parameters cell: {'; '.join(faults)}. "
            f"`speceyes cell {notebook.stem}` prints the expected cell"
        )


def checked_parameters(notebook: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a notebook, by its model, or by the types in its parameters cell where it has none.

    papermill itself only warns about an unknown name and passes any type through.
    """
    written = parameters_of(notebook)
    model = ALL_NOTEBOOKS.get(notebook.stem)
    if model is None:
        fields = {name: (_type(annotation), default) for name, (annotation, default) in written.items()}
        model = create_model(notebook.stem, __config__=ConfigDict(strict=True, extra="forbid"), **fields)
    params = build(model, values, shown(notebook))
    return {name: value for name, value in params.model_dump().items() if name in values}


def _type(annotation: str) -> Any:
    try:
        return eval(annotation, {"__builtins__": {}}, PLAIN_TYPES)
    except (NameError, SyntaxError, TypeError):
        known = ", ".join(PLAIN_TYPES)
        raise ConfigError(f"a parameter cannot have the type {annotation}; use {known} and |") from None


# ------------------------------------------------------------------ running one notebook


# for a kernel: `die_with_parent` without an import that costs a second
_DIE_WITH_PARENT = (
    "__import__('sys').platform == 'linux' and (__import__('ctypes').CDLL(None).prctl(1, 9), "
    "__import__('os').getppid() == int(__import__('os').environ['JPY_PARENT_PID']) or __import__('os')._exit(1))"
)


def _papermill() -> ModuleType:
    """papermill, without two optional imports (a grammar of URLs, remote files) that cost every job a second."""
    unneeded = {"rfc3987_syntax", "pyarrow"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(unneeded))  # None: an import of it fails, and its importer does without
    try:
        import papermill
    finally:
        for name in unneeded:
            del sys.modules[name]
    # it reads parameters line by line and warns about lists that span several; they are checked by now
    logging.getLogger("papermill").setLevel(logging.ERROR)
    return papermill


def execute(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> float:
    """Run a notebook by papermill with checked parameters; returns the seconds it took.

    The kernel is this interpreter's and works in the repository's folder.

    Raises:
        ConfigError: parameters that the notebook does not take.
        JobError: a cell failed; `executed` shows the error.
    """
    values = checked_parameters(notebook, parameters)
    # the environment's kernel and no other; no debugger notes among the outputs
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    papermill = _papermill()
    from nbclient.exceptions import DeadKernelError

    executed.parent.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    try:
        papermill.execute_notebook(
            _relative(notebook),  # papermill writes both paths into the executed notebook
            _relative(executed),
            parameters=values,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(repo_root()),
            # no notes on its connections; no kernel that works on when this process was killed
            extra_arguments=["--IPKernelApp.log_level=ERROR", f"--IPKernelApp.exec_lines={_DIE_WITH_PARENT}"],
            # everything is on disk when the last cell has ended, and torch takes seconds to shut down by itself
            shutdown_kernel="immediate",
        )
    except papermill.PapermillExecutionError as error:
        raise JobError(f"{error.ename}: {error.evalue}") from None
    except DeadKernelError:
        remedy = "what is done is kept; give it more memory if that was short, then run it again to resume"
        raise JobError(f"the notebook's kernel was ended from outside; {remedy}") from None
    return time.monotonic() - began_s


def stage(name: str, settings: list[str]) -> Path:
    """Run one notebook by hand with `name=value` settings; returns the executed copy."""
    notebook = find_notebook(name)
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write name=value")
        try:
            values[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: brackets without end
            values[key.strip()] = text.strip()  # a plain word is a text
    values = checked_parameters(notebook, values)
    run = values.get("run") or parameters_of(notebook).get("run", ("str", "by_hand"))[1]
    executed = run_dir(run) / "notebooks" / notebook.name
    die_with_parent(signal.SIGTERM)
    seconds = execute(notebook, executed, values)
    print(f"{notebook.stem}: done in {duration(seconds)}, read it in {shown(executed)}")
    return executed


def run_job(notebook: str, executed: str, blob: str) -> int:
    """What the Snakefile runs for one job: one line when it is over."""
    _as_a_job()
    label = f"{resolve(executed).parents[1].name}: {Path(executed).stem}"
    began_s = time.monotonic()
    try:
        with live.as_job(resolve(executed).parents[1].name, Path(executed).stem):
            seconds = execute(resolve(notebook), resolve(executed), _values(Path(notebook).stem, blob))
    except JobError as error:
        spent = duration(time.monotonic() - began_s)
        print(f"{label}: failed after {spent}: {error} (executed notebook: {shown(executed)})", flush=True)
        return 1
    print(f"{label}: done in {duration(seconds)}", flush=True)
    return 0


def run_shard(shard: str, notebook: str, log: str, blob: str) -> int:
    """A shard's job: the models' work of one notebook on its part of the samples; the log is text."""
    _as_a_job()  # before the model libraries are imported: they read the number of threads once
    from ..inference import stages

    name, part = Path(notebook).stem, Shard.parse(shard)
    work = stages.run_draft_stage if name == "01_small_model_inference" else stages.run_agent_stage
    params = build(NOTEBOOKS[name], _values(name, blob), name)
    label = f"{params.run}: {name} {part}"
    began_s = time.monotonic()
    with resolve(log).open("w") as file, live.as_job(params.run, Path(log).stem):
        leg = _Leg(file)
        try:
            folders = work(params, leg, shard=part)
        except UserError as error:
            print(f"{type(error).__name__}: {error}", file=file)
            print(f"{label}: failed: {error}", flush=True)
            return 1
        print("finished:", *map(shown, folders), file=file)
    print(f"{label}: done in {duration(time.monotonic() - began_s)}", flush=True)
    return 0


class _Leg:
    """The progress of a shard: a line of its log, and its file for those who watch."""

    def __init__(self, log: TextIO) -> None:
        self.log, self.text, self.start, self.began_s = log, "", 0, time.monotonic()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        print(done, total, text, file=self.log, flush=True)
        if text != self.text:
            self.text, self.start, self.began_s = text, done, time.monotonic()
        live.write("did", done, total, self.start, text, time.monotonic() - self.began_s)


def _values(notebook: str, blob: str) -> dict[str, Any]:
    """The parameters of a job."""
    values = json.loads(base64.b64decode(blob))
    model = NOTEBOOKS.get(notebook)
    if os.environ.get(ACCEPT_VARIABLE) and model and "accept_failures" in model.model_fields:
        values["accept_failures"] = True
    return values


def _as_a_job() -> None:
    """End when snakemake ends, and compute with the threads that the user set, not with one per core of the job."""
    parent = os.environ.get("SPECEYES_PARENT")
    die_with_parent(signal.SIGKILL, int(parent) if parent else None)
    os.environ |= dict.fromkeys(THREADS, os.environ.get("SPECEYES_THREADS", "1"))


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def die_with_parent(signum: int, parent: int | None = None) -> None:
    """Ask the kernel for a signal when the parent ends, however it ends: no orphan continues to write (Linux).

    Args:
        signum: the signal.
        parent: its process id, if known. Where it has ended already, the signal comes at once.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signum))
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signum)
