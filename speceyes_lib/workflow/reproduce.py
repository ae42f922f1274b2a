"""From one config to a finished run: checks before the first job, Snakemake, what is finished, the headline."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import yaml

from ..agents import prompt_sets
from ..demo.recorded import set_aside
from ..errors import ConfigError, StageError, UserError
from ..judging.llm import check_judge
from ..models.endpoint import parse_endpoints
from ..models.registry import backend_type
from ..params import NOTEBOOKS
from ..paths import PACKAGE, repo_root, resolve, run_dir, runs_dir, shown
from ..report.formatting import duration
from ..runs.provenance import usable_cores
from ..runs.summary_file import read_summary
from ..tasks.registry import load_task
from . import live, slurm
from .config import RunConfig
from .execute import ACCEPT_VARIABLE, check_notebook, die_with_parent, find_notebook
from .plan import Job, load_config, plan

INTERRUPTED = 130  # the shell's exit code for Ctrl-C
SUBMITTED = "submitted with SLURM jobid"  # of the messages of Snakemake's plugin
EMBEDDED = "data/demo/models"
FOLLOW_S = 1.0  # between two looks into snakemake's messages


# ------------------------------------------------------------------ checking


def check(config: RunConfig) -> None:
    """Check everything that can be known before the first job: notebooks, models, data, prompts.

    The benchmarks of unfinished jobs are read as the jobs will read them, and a picture of each is opened.

    Raises:
        ConfigError: the first thing at fault (DataError for prompts).
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
                    f"{key}: there is no folder {root}; give the folder of the benchmarks, or fetch them: "
                    "speceyes fetch vstar hr-bench pope"
                )
        _check_data(config)
    prompt_sets.load(config.prompts)
    for key in ("draft", "agent"):
        model = getattr(config.models, key)
        try:
            backend_type(model).check(model)
        except UserError as error:
            raise ConfigError(f"models.{key}: {error}") from None


def _check_data(config: RunConfig) -> None:
    keys = {config.validation.root: "validation.root", config.data.root: "data.root"}
    params = [job.params for job in plan(config) if not _finished(job)]
    needed = {
        (p.data_root, task) for p in params if getattr(p, "data_root", None) in keys for task in p.tasks
    }
    for root, task in sorted(needed):
        try:
            load_task(task, root)[0].image.open()
        except UserError as error:
            raise ConfigError(f"{keys[root]}: {task}: {error}") from None


def check_servers(config: RunConfig) -> None:
    """Send requests to each server that an unfinished job needs, and read the replies as the run will.

    A finished run needs none.

    Raises:
        ConfigError: the first server that does not answer, lacks the model, gives too few alternatives or replies with
            something that the run could not use.
    """
    unfinished = [job.params for job in plan(config) if not _finished(job)]
    for role in ("draft", "agent"):
        model = getattr(config.models, role)
        needed = any(hasattr(params, f"{role}_model") for params in unfinished)
        if not (needed and backend_type(model).served):
            continue
        pixels = {"min_pixels": config.models.min_pixels, "max_pixels": config.models.max_pixels}
        try:
            backend = backend_type(model).open(model, role, **pixels)
            backend.warm_up()
            if role == "draft":
                fewest = config.draft.k_store if config.draft.if_fewer_alternatives == "refuse" else 2
                backend.probe(fewest, required=True)
        except UserError as error:
            raise ConfigError(f"models.{role}: {error}{_how_to_serve(model)}") from None
    judging = next((params for params in unfinished if getattr(params, "judge", "")), None)
    if judging:
        try:
            check_judge(judging)
        except UserError as error:
            raise ConfigError(f"judging.judge: {error}") from None


def _how_to_serve(model: str) -> str:
    """A remedy where a server is to serve the embedded models."""
    folders = [endpoint.processor or "" for endpoint in parse_endpoints(model)]
    is_embedded = all(resolve(folder).is_relative_to(resolve(EMBEDDED)) for folder in folders)
    return "; the embedded models are served by: make serve (in another terminal)" if is_embedded else ""


# ------------------------------------------------------------------ running a config


def run_all(
    path: str, cores: int | None = None, profile: str | None = None, accept_failures: bool = False
) -> int:
    """Check, run what is not finished, write the index, print the headline; returns the exit code.

    Args:
        path: of the config.
        cores: that jobs may use; None: all.
        profile: folder of a Snakemake profile, such as profiles/slurm. It says where jobs run and how many at a time.
        accept_failures: see the parameter of that name.
    """
    config = load_config(path)
    executor = executor_of(profile) if profile else ""
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
    log = run_dir(config.name) / "workflow.log"
    print(
        f"run {config.name}: {len(jobs)} jobs; finished ones are kept; messages: {shown(log)}; "
        f"in another terminal: speceyes status {path} --watch",
        flush=True,
    )
    page = live.LivePage(config, lambda: sum(map(_finished, jobs)), len(jobs))
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_only_one(config.name))
        stack.enter_context(_ending_as_interrupted())
        if not all(map(_finished, jobs)):
            print(f"watch it: {page.path.as_uri()}", flush=True)
            stack.enter_context(page)
        if executor == "slurm":
            _cancel(config.name, "of an earlier start")
        try:
            code, ran = _snakemake(
                path, jobs, _where(config, profile, executor, cores), log, lock, accept_failures, page.note
            )
        finally:
            if executor == "slurm":
                _cancel(config.name, "that remained")
    if code:
        page.end("interrupted" if code == INTERRUPTED else "stopped")
    if code == INTERRUPTED:
        print(f"interrupted; {_kept(jobs)}; run the same command to resume", file=sys.stderr)
        return code
    if code:
        remedy = "fix what failed, then run the same command to resume"
        print(f"run {config.name} stopped; {remedy}", file=sys.stderr)
        return 1
    from ..report import site  # brings numpy: too slow to start with for each single job

    if ran or profile or not site.index_is_current(config.name):
        site.write_index(config.name)
    if ran or profile:  # on a cluster jobs write logs of their own
        spent = duration(time.monotonic() - began_s)
        print(f"run {config.name}: {f'{ran} jobs ' if ran else ''}done in {spent}")
    else:
        print(f"run {config.name}: nothing to do, everything is finished")
    headline(config)
    return 0


def executor_of(profile: str) -> str:
    """The executor of a Snakemake profile, whose plugin is installed.

    Raises:
        ConfigError: the profile cannot be read, or the plugin is missing.
    """
    files = [f for f in sorted(resolve(profile).glob("config*.yaml")) if f.is_file()]
    if not files:
        raise ConfigError(f"--profile {profile}: there is no config.yaml in this folder")
    try:
        values = yaml.safe_load(files[-1].read_text("utf-8"))  # one for a newer version comes later
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{shown(files[-1])}: cannot be read: {' '.join(str(error).split())}") from None
    executor = str((values if isinstance(values, dict) else {}).get("executor", "local"))
    module = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in ("local", "dryrun", "touch") and find_spec(module) is None:
        raise ConfigError(
            f"{shown(files[-1])}: executor: {executor!r} needs a plugin; "
            f"run: pip install snakemake-executor-plugin-{executor}"
        )
    return executor


def _where(config: RunConfig, profile: str | None, executor: str, cores: int | None) -> list[str]:
    """Snakemake's arguments that say where jobs run, and the beginning of its --config."""
    if not profile:
        n = str(cores or usable_cores())
        return ["--cores", n, "--quiet", "all", "--config", f"cores={n}"]
    named = ["--slurm-jobname-prefix", slurm.prefix(config.name)] if executor == "slurm" else []
    # what the plugin reports is the only word of a job in the queue
    return ["--profile", str(resolve(profile)), *named, "--quiet", "progress", "reason", "host", "--config"]


def _cancel(run: str, which: str) -> None:
    """Cancel a run's jobs in SLURM's queue: nothing is submitted twice, and nothing outlives its run."""
    if jobs := slurm.queued(run):
        print(f"cancelling SLURM jobs {which}: {', '.join(job.id for job in jobs)}", flush=True)
        slurm.cancel(jobs, run)


class _Terminated(KeyboardInterrupt):
    """A signal to this process alone; Ctrl-C goes to snakemake as well."""


@contextlib.contextmanager
def _ending_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does, with its jobs."""

    def end(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # one is enough: the jobs are being ended
        raise _Terminated

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _snakemake(
    path: str,
    jobs: Sequence[Job],
    where: list[str],
    log: Path,
    lock: int,
    accept_failures: bool,
    note: Callable[[str], None],
) -> tuple[int, int]:
    """Let snakemake do the jobs, and print and note their lines; returns its exit code and how many jobs ended.

    Its messages go to `log`. It dies with this process and holds the lock until then. So it needs no lock of its
    own, which would outlast a kill.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGE.parent / "Snakefile")]
    command += ["--directory", str(repo_root()), "--scheduler", "greedy", "--rerun-incomplete", "--nolock"]
    command += [*where, f"run_config={path}"]
    environment = {
        "SPECEYES_PYTHON": sys.executable,
        "SPECEYES_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # not among the parameters of the jobs: snakemake would repeat those that are finished
        ACCEPT_VARIABLE: "1" if accept_failures else "",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    elsewhere = "--profile" in where
    with log.open("wb") as messages:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            pass_fds=[lock],
            env=os.environ | environment,
            preexec_fn=partial(_interrupted_with if elsewhere else _killed_with, os.getpid()),
        )
        ended = 0
        runs = list(dict.fromkeys(job.params.run for job in jobs))
        follower = None
        try:
            with live.LiveLine(lambda: live.line(runs, sum(map(_finished, jobs)), len(jobs))) as shown_line:
                follower = _Follower(log, process, shown_line.print) if elsewhere else None
                for line in process.stdout:
                    shown_line.print(line.rstrip("\n"))
                    note(line.rstrip("\n"))
                    ended += 1
            code = process.wait()
        except KeyboardInterrupt as error:  # of Ctrl-C, snakemake and its jobs got the same signal
            if isinstance(error, _Terminated):
                process.send_signal(signal.SIGINT)
            process.wait()
            return INTERRUPTED, ended
        finally:
            if follower:
                follower.join()
    if code and not ended and not (follower and follower.n_printed):  # snakemake itself failed
        print(log.read_text("utf-8", "replace").strip(), file=sys.stderr)
    return code, ended


def _killed_with(parent: int) -> None:
    """Before snakemake begins: it and its jobs end with this process."""
    die_with_parent(signal.SIGKILL, parent)


def _interrupted_with(parent: int) -> None:
    """Before a snakemake begins whose jobs run elsewhere: an interrupted one cancels them, a killed one does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what it starts in the background
    die_with_parent(signal.SIGINT, parent)


class _Follower(threading.Thread):
    """Prints what snakemake writes of jobs that run elsewhere: submitted, done, and the reasons of failures."""

    def __init__(self, log: Path, process: subprocess.Popen, show: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.log, self.process, self.show, self.n_printed = log, process, show, 0
        self.start()

    def run(self) -> None:
        reader = cluster_lines()
        with self.log.open(encoding="utf-8", errors="replace") as file:
            ended, rest = False, ""
            while not ended:
                ended = self.process.poll() is not None
                *lines, rest = (rest + file.read()).split("\n")
                for line in lines:
                    if text := reader(line):
                        self.show(text)
                        self.n_printed += 1
                if not ended:
                    time.sleep(FOLLOW_S)


def cluster_lines() -> Callable[[str], str]:
    """A function from a line of snakemake's messages to what a user sees of it, "" where that is nothing."""
    in_error = is_heading = False

    def shorten(line: str) -> str:
        nonlocal in_error, is_heading
        if job := re.search(rf"{SUBMITTED} (\S+) \(log: .*/rule_([^/]+)/", line):
            return f"{job[2]}: SLURM job {job[1]}"
        if done := re.match(r"Finished jobid: \d+ \(Rule: (.*)\)", line):
            return f"{done[1]}: done"
        if re.match(r"(\w*Error|Error|Exception|SLURM sbatch failed)\b", line):
            in_error = True
        elif in_error and not line.startswith((" ", "\t")) and not is_heading:
            in_error = False
        is_heading = line.endswith(":")
        is_wanted = in_error and not re.match(r"\s*(jobid|input|output|shell|params|\()", line)
        return line.rstrip() if is_wanted else ""

    return shorten


@contextlib.contextmanager
def _only_one(run: str) -> Iterator[int]:
    """A lock over all runs of this checkout, since timing needs the machine; it goes with its holders.

    It holds the run's name, and process and machine of the first holder.
    """
    runs_dir().mkdir(parents=True, exist_ok=True)
    with (runs_dir() / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "another `speceyes reproduce` works in this checkout; wait for it or stop it"
            raise StageError(message) from None
        lock.truncate(0)
        lock.write(json.dumps({"run": run, "pid": os.getpid(), "host": socket.gethostname()}))
        lock.flush()
        yield lock.fileno()


def stop(config: RunConfig) -> None:
    """End a run that works in this checkout, and its jobs in SLURM's queue; returns when all is quiet.

    Raises:
        StageError: another run holds the checkout, or the run works on another machine.
    """
    path = runs_dir() / ".lock"
    holder = None
    if path.is_file():
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = json.loads(lock.read() or "{}")
                if holder.get("run") != config.name:
                    raise StageError(
                        f"run {holder.get('run')} works in this checkout, not {config.name}"
                    ) from None
                if holder["host"] != socket.gethostname():
                    raise StageError(f"run {config.name} works on {holder['host']}: stop it there") from None
                with contextlib.suppress(ProcessLookupError):  # snakemake may hold the lock a little longer
                    os.kill(holder["pid"], signal.SIGTERM)
                fcntl.flock(lock, fcntl.LOCK_EX)
    jobs = _queue_if_known(config.name)
    slurm.cancel(jobs, config.name)
    cancelled = f"; cancelled SLURM jobs {', '.join(job.id for job in jobs)}" if jobs else ""
    print(f"run {config.name}: {'stopped' if holder else 'nothing was at work'}{cancelled}")


# ------------------------------------------------------------------ reporting


def _kept(jobs: Sequence[Job]) -> str:
    """What an interrupted run keeps."""
    runs = dict.fromkeys(job.params.run for job in jobs)
    unfinished = [
        path
        for run in runs
        for path in run_dir(run).glob("0[12]_*/*/*/records.jsonl")
        if not path.with_name("manifest.json").exists()
    ]
    records = sum(path.read_bytes().count(b"\n") for path in unfinished)
    finished = f"{sum(map(_finished, jobs))} of {len(jobs)} jobs are finished"
    return f"{finished}, and {records} samples of unfinished ones are kept" if records else finished


def watch(config: RunConfig) -> None:
    """Show what the jobs of a config are doing until all are finished; Ctrl-C ends the watching only."""
    jobs = plan(config)
    runs = list(dict.fromkeys(job.params.run for job in jobs))
    with live.LiveLine(lambda: live.line(runs, sum(map(_finished, jobs)), len(jobs)), every_s=5.0):
        while not all(map(_finished, jobs)):
            time.sleep(live.SECONDS_BETWEEN_UPDATES)
    status(config)


def _queue_if_known(run: str) -> list[slurm.QueuedJob]:
    """A run's jobs in SLURM's queue; where it cannot be read, a note for a run that has submitted jobs."""
    try:
        return slurm.queued(run)
    except StageError as error:
        log = run_dir(run) / "workflow.log"
        if log.is_file() and SUBMITTED in log.read_text("utf-8", "replace"):
            print(f"SLURM's queue is unknown: {error}", file=sys.stderr)
        return []


def status(config: RunConfig) -> None:
    """Print each job and whether its outputs exist."""
    jobs = plan(config)
    width = max(len(_label(job)) for job in jobs)
    for job in jobs:
        n_written = sum(resolve(output).is_file() for output in job.outputs)
        state = "finished" if _finished(job) else f"{n_written} of {len(job.outputs)} outputs"
        print(f"{_label(job):{width}}  {state}")
    print(f"{sum(map(_finished, jobs))} of {len(jobs)} jobs finished")
    for queued in _queue_if_known(config.name):
        print(f"SLURM job {queued.id}: {queued.rule}, {queued.state.lower()} {queued.where}, {queued.time}")


def list_jobs(config: RunConfig) -> None:
    """Print each job with what is special about its parameters."""
    for job in plan(config):
        default = type(job.params)().model_dump()
        changed = {k: v for k, v in job.params.model_dump().items() if v != default[k] and k != "if_changed"}
        parameters = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        print(f"{_label(job)}{' (alone)' if job.exclusive else ''}: {parameters or 'defaults'}")


def _finished(job: Job) -> bool:
    return all(resolve(output).is_file() for output in job.outputs)


def _label(job: Job) -> str:
    return f"{job.params.run}: {Path(job.executed).stem}"


def headline(config: RunConfig) -> None:
    """Print the summary of a finished run and where to look at it."""
    from ..report import site

    summary = read_summary(config.name)
    print(f"\nrun {config.name}\n{site.headline_text(summary)}\n")
    print("\n".join(site.headline_notes(summary)))
    for name in ("figures", "notebooks"):
        if (path := run_dir(config.name) / name).exists():
            print(f"{path.stem + ':':10} {shown(path)}")
    if (index := run_dir(config.name) / "index.html").exists():
        print(f"{'open:':10} {index.as_uri()}")
