"""Run notebooks and whole configs from the command line.

    python -m speceyes_lib.run check CONFIG              is config, every notebook's parameters cell, every model there
    python -m speceyes_lib.run jobs CONFIG               the notebook runs that the config stands for
    python -m speceyes_lib.run all CONFIG                check, run what is not finished, print the headline
    python -m speceyes_lib.run all CONFIG --profile profiles/slurm      the same, on a cluster
    python -m speceyes_lib.run status CONFIG             what is finished
    python -m speceyes_lib.run serve-commands CONFIG     how vLLM is started for the endpoints of a config
    python -m speceyes_lib.run headline CONFIG           the result, and where everything is
    python -m speceyes_lib.run stage NOTEBOOK --set limit=6 --set 'tasks=["pope/random"]'
    python -m speceyes_lib.run cell NOTEBOOK             the parameters cell as it has to be, to paste

A mistake in what was asked for is told in one line (exit code 2); a job that failed ends with exit code 1 and
leaves its executed notebook to read.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import ctypes
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from . import prompts
from .config import Job, RunConfig, load_config, plan
from .endpoint import is_endpoint
from .errors import ConfigError, StageError, UserError, nearest
from .notebook import duration
from .params import ALL_NOTEBOOKS, NOTEBOOKS, build, cell, plain_type
from .paths import PACKAGE, Shard, repo_root, resolve, run_dir, runs_dir, shown
from .provenance import usable_cores
from .recorded import set_aside
from .summary import read_summary

INTERRUPTED = 130  # the shell's exit code for Ctrl-C
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PLAIN_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "None": None}


# ------------------------------------------------------------------ checking


def check(config: RunConfig) -> None:
    """Everything that can be known before the first job: notebooks, models, data, prompts.

    Raises ConfigError (or DataError of the prompts) for the first thing at fault.
    """
    for notebook, model in NOTEBOOKS.items():
        check_notebook(find_notebook(notebook), model)
    if config.data.kind == "check":
        roots = {"data.root": config.data.root}
        if config.validation_run:
            roots["validation.root"] = config.validation.root
        for key, root in roots.items():
            if not resolve(root).is_dir():
                raise ConfigError(
                    f"{key}: there is no folder {root}; name that of the benchmarks, or fetch them: "
                    "python -m speceyes_lib.hub fetch vstar hr-bench pope"
                )
    prompts.load(config.prompts)
    for key in ("draft", "agent"):
        _check_model(f"models.{key}", getattr(config.models, key))


def _check_model(key: str, model: str) -> None:
    from .backends.opening import check_model

    try:
        check_model(model)
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from None


def check_servers(config: RunConfig) -> None:
    """Have the servers that unfinished jobs name answer once, as the jobs will ask them; a finished run needs none.

    Raises ConfigError for the first that is not there, has not that model or gives too few alternatives.
    """
    served = [role for role in ("draft", "agent") if is_endpoint(getattr(config.models, role))]
    if not served:
        return
    from .backends.opening import open_backend, settle_evidence

    unfinished = [job.params for job in plan(config) if not _finished(job)]
    for role in served:
        if not any(hasattr(params, f"{role}_model") for params in unfinished):
            continue
        pixels = {"min_pixels": config.models.min_pixels, "max_pixels": config.models.max_pixels}
        try:
            backend = open_backend(getattr(config.models, role), role, **pixels)
            backend.warm_up()
            if role == "draft":
                fewest = config.draft.k_store if config.draft.if_fewer_alternatives == "refuse" else 2
                settle_evidence(backend, fewest, required=True)
        except UserError as error:
            raise ConfigError(f"models.{role}: {error}") from None


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

    Raises ConfigError when there is no such cell, or a line is not `name: type = literal`.
    """
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
        source = "".join(tagged[0]["source"]) if tagged else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{shown(notebook)}: not a readable notebook ({error})") from None
    if source is None:
        raise ConfigError(f"{shown(notebook)}: no cell is tagged `parameters`; tag the one that holds them")
    found: dict[str, tuple[str, Any]] = {}
    try:
        for line in ast.parse(source).body:
            if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value):
                raise ValueError(f"`{ast.unparse(line)}` is not `name: type = literal`")
            found[line.target.id] = (ast.unparse(line.annotation), ast.literal_eval(line.value))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{shown(notebook)}: parameters cell: {error}") from None
    return found


def check_notebook(notebook: Path, model: type[BaseModel]) -> None:
    """Refuse a parameters cell that differs from its model in names, types or defaults."""
    written = parameters_of(notebook)
    fields = model.model_fields
    faults = [f"{name} is not a parameter{nearest(name, fields)}" for name in written if name not in fields]
    for name, field in fields.items():
        expected = (plain_type(field.annotation), field.get_default())
        if name not in written:
            faults.append(f"{name} is missing")
        elif repr(written[name]) != repr(expected):  # repr tells 1 from True and 1.0
            faults.append(
                f"{name} is {written[name][0]} = {written[name][1]!r}, expected {expected[0]} = {expected[1]!r}"
            )
    if faults:
        raise ConfigError(
            f"{shown(notebook)}: parameters cell: {'; '.join(faults)}. "
            f"`python -m speceyes_lib.run cell {notebook.stem}` prints it as it has to be"
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
        raise ConfigError(f"a parameter of type {annotation}: use {', '.join(PLAIN_TYPES)} and | ") from None


# ------------------------------------------------------------------ running one notebook


def _papermill() -> ModuleType:
    """papermill, without two optional imports that cost every job a good second of start-up.

    A grammar of URLs that jsonschema compiles for formats no notebook uses, and a client of remote file systems.
    """
    unneeded = {"rfc3987_syntax", "pyarrow"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(unneeded))  # None: an import of it fails, and its importer does without
    try:
        import papermill
    finally:
        for name in unneeded:
            del sys.modules[name]
    # it reads parameters line by line and complains of lists that span several; they are checked by now
    logging.getLogger("papermill").setLevel(logging.ERROR)
    return papermill


class JobError(Exception):
    """A notebook that failed; its executed copy holds the error."""


def execute(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> float:
    """Run a notebook by papermill with checked parameters; returns the seconds it took.

    The kernel is this interpreter's and works in the repository's folder.

    Raises:
        ConfigError: parameters that the notebook does not take.
        JobError: a cell failed; `executed` is there to be read.
    """
    values = checked_parameters(notebook, parameters)
    # the environment's kernel and no other; no debugger notes among the outputs
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    papermill = _papermill()
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
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no notes on how it talks within this machine
            # all is on disk when the last cell has ended, and torch takes seconds to leave of itself
            shutdown_kernel="immediate",
        )
    except papermill.PapermillExecutionError as error:
        raise JobError(f"{error.ename}: {error.evalue}") from None
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
        except (ValueError, SyntaxError):
            values[key.strip()] = text.strip()  # a plain word is a text
    values = checked_parameters(notebook, values)
    run = values.get("run") or parameters_of(notebook).get("run", ("str", "by_hand"))[1]
    executed = run_dir(run) / "notebooks" / notebook.name
    _die_with_parent(signal.SIGTERM)
    seconds = execute(notebook, executed, values)
    print(f"{notebook.stem}: done in {duration(seconds)}, read it in {shown(executed)}")
    return executed


def run_job(notebook: str, executed: str, blob: str) -> int:
    """What the Snakefile runs for one job: one line when it is over."""
    _as_a_job()
    label = f"{resolve(executed).parents[1].name}: {Path(executed).stem}"
    began_s = time.monotonic()
    try:
        seconds = execute(resolve(notebook), resolve(executed), json.loads(base64.b64decode(blob)))
    except JobError as error:
        spent = duration(time.monotonic() - began_s)
        print(f"{label}: failed after {spent}: {error} (executed notebook: {shown(executed)})", flush=True)
        return 1
    print(f"{label}: done in {duration(seconds)}", flush=True)
    return 0


def run_shard(shard: str, notebook: str, log: str, blob: str) -> int:
    """A shard's job: the models' work of one notebook on its part of the samples; the log is text."""
    _as_a_job()  # before the model libraries are there: they look at their threads once
    from . import stages

    stage = {
        "01_small_model_inference": stages.run_draft_stage,
        "02_gated_agent_eval": stages.run_agent_stage,
    }
    name, part = Path(notebook).stem, Shard.parse(shard)
    params = build(NOTEBOOKS[name], json.loads(base64.b64decode(blob)), name)
    label = f"{params.run}: {name} {part}"
    began_s = time.monotonic()
    with resolve(log).open("w") as told:
        try:
            folders = stage[name](params, lambda *seen: print(*seen, file=told, flush=True), shard=part)
        except UserError as error:
            print(f"{type(error).__name__}: {error}", file=told)
            print(f"{label}: failed: {error}", flush=True)
            return 1
        print("finished:", *map(shown, folders), file=told)
    print(f"{label}: done in {duration(time.monotonic() - began_s)}", flush=True)
    return 0


def _as_a_job() -> None:
    """End when snakemake does, and compute with the threads that were asked for.

    Snakemake sets the threads to the cores a job holds, but a job that has the machine to itself need not use it all.
    """
    _die_with_parent(signal.SIGKILL)
    os.environ |= dict.fromkeys(THREADS, os.environ.get("SPECEYES_THREADS", "1"))


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# ------------------------------------------------------------------ running a config


def run_all(path: str, cores: int | None = None, profile: str | None = None) -> int:
    """Check, run what is not finished, write the index, print the headline. Returns the exit code.

    profile: folder of a Snakemake profile, such as profiles/slurm: it says where jobs run and how many at a time.
    """
    config = load_config(path)
    check(config)
    if not profile:  # a cluster's jobs may reach servers that this machine does not
        check_servers(config)
    for folder in set_aside([config.name, *filter(None, [config.validation_run])]):
        print(f"a recorded run was set aside as {shown(folder)}", flush=True)
    jobs = plan(config)
    for job in jobs:
        for file in (*job.outputs, job.executed):
            resolve(file).parent.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    print(f"run {config.name}: {len(jobs)} jobs, those that are finished are kept", flush=True)
    with _only_one() as lock:
        where = ["--profile", str(resolve(profile))] if profile else ["--cores", str(cores or usable_cores())]
        code, ran = _snakemake(path, config, where, lock)
    if code == INTERRUPTED:
        print("interrupted; the same command continues", file=sys.stderr)
        return code
    if code:
        print(f"run {config.name} stopped: mend what failed, the same command continues", file=sys.stderr)
        return 1
    if ran or profile:  # on a cluster jobs tell their own logs
        from . import report  # brings numpy: too slow to start with for each single job

        report.write_index(config.name)
        print(
            f"run {config.name}: {f'{ran} jobs ' if ran else ''}done in {duration(time.monotonic() - began_s)}"
        )
    else:
        print(f"run {config.name}: nothing to do, everything is finished")
    headline(config)
    return 0


def _snakemake(path: str, config: RunConfig, where: list[str], lock: int) -> tuple[int, int]:
    """Let snakemake do the jobs, their lines passed on; returns its exit code and how many jobs ended.

    Its own messages go to workflow.log. It dies with this process, and holds our lock until then, so its
    own locking, which a kill would leave behind, is not needed.
    """
    log = run_dir(config.name) / "workflow.log"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGE.parent / "Snakefile")]
    command += ["--directory", str(repo_root()), *where, "--scheduler", "greedy"]
    command += ["--rerun-incomplete", "--nolock", "--quiet", "all", "--config", f"run_config={path}"]
    ours = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as messages:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            pass_fds=[lock],
            env=os.environ
            | {
                "SPECEYES_PYTHON": sys.executable,
                "SPECEYES_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                "PYTHONPATH": ours,
            },
            preexec_fn=lambda: _die_with_parent(signal.SIGKILL),
        )
        ended = 0
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                ended += 1
            code = process.wait()
        except KeyboardInterrupt:  # snakemake and its jobs got the same signal
            process.wait()
            return INTERRUPTED, ended
    if code and not ended:  # no job told anything: snakemake itself failed
        print(log.read_text("utf-8", "replace").strip(), file=sys.stderr)
    return code, ended


@contextlib.contextmanager
def _only_one() -> Iterator[int]:
    """A lock over all runs of this checkout, since timing needs the machine; it goes with its holders."""
    runs_dir().mkdir(parents=True, exist_ok=True)
    lock = os.open(runs_dir() / ".lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError("another run is at work in this checkout; wait for it or stop it") from None
        yield lock
    finally:
        os.close(lock)


def _die_with_parent(signum: int) -> None:
    """Ask the kernel for a signal when the parent ends, however it ends: no orphans go on writing (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signum))


# ------------------------------------------------------------------ telling


def status(config: RunConfig) -> None:
    """Print each job and whether its outputs are there."""
    jobs = plan(config)
    width = max(len(_label(job)) for job in jobs)
    finished = 0
    for job in jobs:
        there = sum(resolve(output).is_file() for output in job.outputs)
        finished += _finished(job)
        state = "finished" if _finished(job) else f"{there} of {len(job.outputs)} outputs"
        print(f"{_label(job):{width}}  {state}")
    print(f"{finished} of {len(jobs)} jobs finished")


def list_jobs(config: RunConfig) -> None:
    """Print each job with what is special about its parameters."""
    for job in plan(config):
        default = type(job.params)().model_dump()
        changed = {k: v for k, v in job.params.model_dump().items() if v != default[k] and k != "if_changed"}
        told = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        print(f"{_label(job)}{' (alone)' if job.exclusive else ''}: {told or 'defaults'}")


def _finished(job: Job) -> bool:
    return all(resolve(output).is_file() for output in job.outputs)


def _label(job: Job) -> str:
    return f"{job.params.run}: {Path(job.executed).stem}"


def headline(config: RunConfig) -> None:
    """Print the summary of a finished run and where to look at it."""
    from . import report

    summary = read_summary(config.name)
    print(f"\n{report.headline_text(summary)}\n")
    if clock := summary.get("clock"):
        print(f"wall-clock: {clock}")
    folder = run_dir(config.name)
    for what, place in (
        ("figures", folder / "figures"),
        ("notebooks", folder / "notebooks"),
        ("index", folder / "index.html"),
    ):
        if place.exists():
            print(f"{what + ':':10} {shown(place)}")


# ------------------------------------------------------------------ command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speceyes_lib.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "jobs", "all", "status", "headline", "serve-commands"):
        command = commands.add_parser(name)
        command.add_argument("config")
    commands.choices["all"].add_argument("--cores", type=int, help="how many cores jobs may use (all)")
    commands.choices["all"].add_argument("--profile", help="a Snakemake profile, such as profiles/slurm")
    command = commands.add_parser("stage")
    command.add_argument("notebook")
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    commands.add_parser("cell").add_argument("notebook", choices=ALL_NOTEBOOKS)
    command = commands.add_parser("execute", description="one job of the Snakefile")
    for name in ("notebook", "executed", "blob"):
        command.add_argument(name)
    command = commands.add_parser(
        "shard", description="one job of the Snakefile: a part of a notebook's work"
    )
    for name in ("shard", "notebook", "log", "blob"):
        command.add_argument(name)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        match asked.command:
            case "all":
                return run_all(asked.config, asked.cores, asked.profile)
            case "execute":
                return run_job(asked.notebook, asked.executed, asked.blob)
            case "shard":
                return run_shard(asked.shard, asked.notebook, asked.log, asked.blob)
            case "stage":
                stage(asked.notebook, asked.set)
            case "cell":
                print(cell(ALL_NOTEBOOKS[asked.notebook]), end="")
            case "check":
                check(config := load_config(asked.config))
                check_servers(config)
                print(
                    f"{shown(asked.config)}: run {config.name}, {len(plan(config))} jobs, nothing to object to"
                )
            case "jobs":
                list_jobs(load_config(asked.config))
            case "serve-commands":
                from . import vllm

                print(vllm.text(load_config(asked.config)), end="")
            case "status":
                status(load_config(asked.config))
            case "headline":
                headline(load_config(asked.config))
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except JobError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
