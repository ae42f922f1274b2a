"""The one command of the suite: `speceyes`, which is also `python -m speceyes_lib`.

A user's mistake is reported in one line, with exit code 2. A job that failed ends with exit code 1, and its executed
notebook shows the error. Every command imports only what it needs, so that `speceyes --help` starts at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..errors import JobError, UserError
from ..paths import shown

INTERRUPTED = 130  # the shell's exit code for Ctrl-C


@dataclass(frozen=True)
class NamesOf:
    """Names that an argument may have: those of a registry, imported when they are first needed."""

    module: str
    registry: str

    def __iter__(self) -> Iterator[str]:
        return iter(getattr(import_module(self.module, __package__), self.registry))


def parser() -> argparse.ArgumentParser:
    """The parser of `speceyes`, with one sub-command per task."""
    top = argparse.ArgumentParser(
        prog="speceyes",
        description="Reproduce and analyse SpecEyes: speculation for agentic multimodal models.",
        epilog="Exit codes: 0 done, 1 a job failed, 2 a mistake in input or configuration. Terms: docs/glossary.md.",
    )
    top.add_argument("--version", action="version", version=f"speceyes {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, config: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        if config:
            command.add_argument("config", metavar="CONFIG", help="a file such as configs/demo.yaml")
        return command

    command = add(
        "reproduce", "run every job of a config that is not finished, then print the headline", True
    )
    command.add_argument(
        "--cores", type=int, metavar="N", help="number of cores that jobs may use (default: all)"
    )
    command.add_argument("--profile", metavar="FOLDER", help="a Snakemake profile, such as profiles/slurm")
    add("check", "check config, notebooks, models, data and servers before anything runs", True)
    add("jobs", "list the notebook runs of a config", True)
    add("status", "show which jobs of a config are finished", True)
    add("headline", "print the result of a finished run and where its files are", True)
    add("serve-commands", "print the commands that start vLLM for the endpoints of a config", True)

    command = add("stage", "run one notebook by hand")
    command.add_argument("notebook", metavar="NOTEBOOK", help="its name or its path")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter; repeat for several"
    )
    command = add("cell", "print the parameters cell of a notebook")
    notebooks = NamesOf("..params", "ALL_NOTEBOOKS")
    command.add_argument(
        "notebook", choices=notebooks, metavar="NOTEBOOK", help="its name, such as 05_paper_figures"
    )

    command = add("index", "write index.html of a run and the pages of its notebooks")
    command.add_argument("run", nargs="?", default="demo", metavar="RUN", help="default: demo")
    command = add("publish", "copy tables and figures of a run to figures/RUN")
    command.add_argument("run", nargs="?", default="demo", metavar="RUN", help="default: demo")
    command.add_argument("--readme", action="store_true", help="also fill the headline of README.md")
    add("figures", "redraw figures/ and the README's headline from the recorded run and the reported numbers")

    command = add("recorded", "unpack the recorded embedded run, or pack the current one")
    command.add_argument(
        "action", choices=("unpack", "pack"), nargs="?", default="unpack", help="default: unpack"
    )
    command = add(
        "fetch", "fetch models and benchmarks from the hub at pinned revisions, or list and check them"
    )
    command.add_argument(
        "items", nargs="*", metavar="ITEM", help="what to fetch; without one, the list is printed"
    )
    command.add_argument("--check", action="store_true", help="do not fetch; compare every file with the hub")
    command = add("benchmark", "write the embedded benchmark and its validation set")
    command.add_argument(
        "--accept", action="store_true", help="record the checksums of this data as the right ones"
    )

    command = add(
        "serve", "serve models as an OpenAI-compatible server on 127.0.0.1 (default: the embedded pair)"
    )
    command.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="a model; repeat for several"
    )
    command.add_argument("--port", type=int, default=8765, metavar="N", help="default: 8765; 0: any free one")
    command.add_argument(
        "--max-logprobs", type=int, metavar="N", help="largest number of alternatives per token"
    )
    command.add_argument("--max-batch", type=int, metavar="N", help="largest number of requests in a batch")
    command.add_argument("--dtype", default="float32", help="as models.dtype of a config (default: float32)")
    command.add_argument("--device", default="auto", help="as models.device of a config (default: auto)")

    command = add("import", "turn result files of another program into a run")
    programs = NamesOf("..formats.importing", "READERS")
    command.add_argument(
        "source", choices=programs, metavar="PROGRAM", help="speceyes, deepeyes, lmms-eval or vlmevalkit"
    )
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="its files, or folders of them")
    command.add_argument("--run", required=True, help="name of the new run")
    command.add_argument("--data-root", metavar="FOLDER", help="the benchmarks in their official layouts")
    command.add_argument("--replace", action="store_true", help="replace an existing run of that name")
    command = add("export", "write a run as result files of the original")
    command.add_argument("run", metavar="RUN", help="name of the run")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write")
    arms = ["baseline", "gated"]
    command.add_argument(
        "--arms", nargs="+", default=arms, metavar="ARM", help="beside the drafts (default: baseline gated)"
    )
    tasks = NamesOf("..tasks.registry", "TASKS")
    command.add_argument("--tasks", nargs="+", default=[], choices=tasks, metavar="TASK", help="default: all")
    command.add_argument(
        "--data-root", metavar="FOLDER", help="the benchmarks, if the run does not record it"
    )

    command = add("train", "train one of the embedded models from scratch")
    command.add_argument("which", choices=("draft", "agent"), help="the model to train")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the training (default: 0)")
    command.add_argument(
        "--out", required=True, metavar="FOLDER", help="folder to write; replaced when the training is done"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    command.add_argument(
        "--smoke", action="store_true", help="two steps per phase, to check that everything runs"
    )

    command = commands.add_parser("job", description="one job of the Snakefile")
    command.add_argument("kind", help="notebook, or shard:I/N")
    for name in ("notebook", "executed", "blob"):
        command.add_argument(name)
    return top


def run(given: argparse.Namespace) -> int:
    """Carry out a parsed command; returns the exit code.

    Raises:
        UserError: a mistake of the user's.
        JobError: a notebook failed.
    """
    match given.command:
        case "reproduce":
            from .reproduce import run_all

            return run_all(given.config, given.cores, given.profile)
        case "check" | "jobs" | "status" | "headline" | "serve-commands":
            _about_config(given.command, given.config)
        case "job":
            from .execute import run_job, run_shard

            if given.kind == "notebook":
                return run_job(given.notebook, given.executed, given.blob)
            return run_shard(given.kind.removeprefix("shard:"), given.notebook, given.executed, given.blob)
        case "stage":
            from .execute import stage

            stage(given.notebook, given.set)
        case "cell":
            from ..params import ALL_NOTEBOOKS
            from .parameters_cell import cell

            print(cell(ALL_NOTEBOOKS[given.notebook]), end="")
        case "index":
            from ..report.site import write_index

            print(shown(write_index(given.run)))
        case "publish":
            from ..report import site

            written = [*site.publish(given.run), *([site.fill_readme(given.run)] if given.readme else [])]
            print("\n".join(map(shown, written)))
        case "figures":
            from .figures import redraw

            print(f"wrote {len(redraw())} files")
        case "recorded":
            _recorded(given.action)
        case "fetch":
            return _fetch(given.items, given.check)
        case "benchmark":
            from ..demo.benchmark import write_embedded_sets

            print("\n".join(write_embedded_sets(given.accept)))
        case "serve":
            from ..demo.server import serve

            limits = {"max_logprobs": given.max_logprobs, "max_batch": given.max_batch}
            limits = {name: value for name, value in limits.items() if value is not None}
            serve(given.model, given.port, dtype=given.dtype, device=given.device, **limits)
        case "import":
            return _import(given)
        case "export":
            from ..formats.speceyes_export import export

            written = export(given.run, given.folder, given.arms, given.tasks, given.data_root)
            print(f"run {given.run}: {len(written)} files in {shown(given.folder)}")
        case "train":
            _train(given)
    return 0


def _about_config(command: str, path: str) -> None:
    from . import reproduce, vllm_commands
    from .plan import load_config, plan

    config = load_config(path)
    match command:
        case "check":
            reproduce.check(config)
            reproduce.check_servers(config)
            print(f"{shown(path)}: run {config.name}, {len(plan(config))} jobs, no fault found")
        case "jobs":
            reproduce.list_jobs(config)
        case "status":
            reproduce.status(config)
        case "headline":
            reproduce.headline(config)
        case "serve-commands":
            print(vllm_commands.text(config), end="")


def _recorded(action: str) -> None:
    from ..demo import recorded
    from ..report.site import write_index

    if action == "pack":
        path = recorded.pack()
        print(f"wrote {shown(path)}, {path.stat().st_size / 1e6:.1f} MB")
        return
    folders = recorded.unpack()
    print("\n".join(f"unpacked {shown(f)}" for f in folders) or "nothing to unpack: the runs exist already")
    print(f"open {shown(write_index('demo'))}")


def _fetch(names: list[str], only_check: bool) -> int:
    from ..tasks import hub

    for name in names:
        hub.item_of(name)
    if not names:
        print(hub.list_downloads().to_string())
        return 0
    states = [hub.check(name, deep=True) if only_check else hub.fetch(name) for name in names]
    if only_check:
        print("\n".join(f"{state.name}: {state.state}; {state.note}" for state in states))
    return 0 if all(state.state == "complete" for state in states) else 1


def _import(given: argparse.Namespace) -> int:
    from ..formats.importing import import_files, import_report

    runs, problems = import_files(given.source, given.paths, given.run, given.data_root, given.replace)
    print("\n".join(import_report(runs)))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems; everything else was kept", file=sys.stderr)
    return 1 if problems else 0


def _train(given: argparse.Namespace) -> None:
    from ..training.pretraining import smoke_recipe, train

    extra = {"recipe": smoke_recipe(given.which), "held_out": 10} if given.smoke else {}
    report = lambda line: print(line, flush=True)  # noqa: E731 (progress as it happens)
    train(given.which, given.seed, given.out, threads=given.threads, report=report, **extra)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 a job failed, 2 a mistake of the user's."""
    given = parser().parse_args(arguments)
    try:
        return run(given)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except JobError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
