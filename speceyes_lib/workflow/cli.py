"""The one command of the suite: `speceyes`, which is also `python -m speceyes_lib`.

A user's mistake is reported in one line, with exit code 2. A job that failed ends with exit code 1, and its executed
notebook shows the error. Every command imports only what it needs, so that `speceyes --help` starts at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from .. import __version__, plugins
from ..errors import JobError, UserError, printable
from ..paths import resolve, shown

INTERRUPTED = 130  # the shell's exit code for Ctrl-C
ACCEPTED = (
    "record faults of server, memory, disk or sandbox as results of their samples instead of asking again"
)


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

    def add(name: str, help: str) -> Callable[..., object]:
        """Add a command; returns the function that adds an argument to it."""
        command = commands.add_parser(name, help=help, description=help)
        return lambda argument, help, **options: command.add_argument(argument, help=help, **options)

    config = {"metavar": "CONFIG", "help": "a file such as configs/demo.yaml"}
    arg = add("reproduce", "run every job of a config that is not finished, then print the headline")
    arg("config", **config)
    arg("--cores", "number of cores that jobs may use (default: all)", type=_whole(1), metavar="N")
    arg("--profile", "a Snakemake profile, such as profiles/slurm", metavar="FOLDER")
    arg("--accept-failures", **(accept := {"help": ACCEPTED, "action": "store_true"}))
    add("check", "check config, notebooks, models, data and servers before anything runs")("config", **config)
    add("jobs", "list the notebook runs of a config")("config", **config)
    arg = add("status", "show which jobs of a config are finished, and those in SLURM's queue")
    arg("config", **config)
    arg("--watch", "show the progress of the jobs at work, until all are finished", action="store_true")
    add("stop", "end a config's run that works in this checkout, and its jobs in SLURM's queue")(
        "config", **config
    )
    add("headline", "print the result of a finished run and where its files are")("config", **config)
    add("serve-commands", "print the commands that start vLLM for a config's endpoints")("config", **config)

    arg = add("stage", "run one notebook by hand")
    arg("notebook", "its name or its path", metavar="NOTEBOOK")
    arg("--set", "a parameter; repeat for several", action="append", default=[], metavar="NAME=VALUE")
    arg("--accept-failures", **accept)
    arg = add("cell", "print the parameters cell of a notebook")
    notebooks = NamesOf("..params", "ALL_NOTEBOOKS")
    arg("notebook", "its name, such as 05_paper_figures", choices=notebooks, metavar="NOTEBOOK")

    arg = add("index", "write index.html of a run and the pages of its notebooks")
    arg("run", "default: demo", nargs="?", default="demo", metavar="RUN")
    arg = add("publish", "copy tables and figures of a run to figures/RUN")
    arg("run", "default: demo", nargs="?", default="demo", metavar="RUN")
    arg("--readme", "also fill the headline of README.md", action="store_true")
    add("figures", "redraw figures/ and the README's headline from the recorded run and the reported numbers")

    arg = add("export-page", "write the gate of a run as one interactive HTML file that can be sent by mail")
    arg("run", "name of the run", metavar="RUN")
    arg("--out", "the file to write (default: gate_RUN.html)", type=Path, metavar="FILE")
    about = "where it opens, and another one to compare with"
    arg("--thresholds", about, nargs="+", default=[], type=float, metavar="T")

    arg = add("verify", "compare every file and record of a run with what was recorded of it")
    arg("run", "default: demo", nargs="?", default="demo", metavar="RUN")
    arg = add(
        "recorded", "unpack the recorded runs, or pack the current embedded run, those of `rl`, or the study"
    )
    packs = ("unpack", "pack", "pack-rl", "pack-tools")
    arg("action", "default: unpack", choices=packs, nargs="?", default="unpack")
    arg = add("fetch", "fetch models and benchmarks from the hub at pinned revisions, or list and check them")
    arg("items", "what to fetch; without one, the list is printed", nargs="*", metavar="ITEM")
    arg("--check", "do not fetch; compare every file with the hub", action="store_true")
    arg = add("benchmark", "write the embedded benchmark and its validation set")
    arg("--accept", "record the checksums of this data as the right ones", action="store_true")

    arg = add(
        "serve", "serve models on 127.0.0.1 as an OpenAI-compatible server (default: the embedded pair)"
    )
    arg("--model", "a model; repeat for several", action="append", default=[], metavar="NAME=FOLDER")
    arg("--port", "default: 8765; 0: any free one", type=_whole(0, 65_535), default=8765, metavar="N")
    arg("--max-logprobs", "largest number of alternatives per token", type=_whole(1), metavar="N")
    arg("--max-batch", "largest number of requests in a batch", type=_whole(1), metavar="N")
    arg(
        "--thoughts-in",
        "move the thoughts of answers into this field, as a reasoning parser of vLLM does",
        choices=("reasoning", "reasoning_content"),
        default="",
    )
    arg("--dtype", "as models.dtype of a config (default: float32)", default="float32")
    arg("--device", "as models.device of a config (default: auto)", default="auto")

    arg = add("import", "turn result files of another program, or a table of your own, into a run")
    programs = NamesOf("..formats.importing", "SOURCES")
    arg("source", "table, speceyes, deepeyes, lmms-eval or vlmevalkit", choices=programs, metavar="SOURCE")
    arg("paths", "its files, or folders of them", nargs="+", type=Path, metavar="PATH")
    arg("--run", "name of the new run", required=True)
    arg("--data-root", "the benchmarks in their official layouts", metavar="FOLDER")
    arg("--map", **(columns := {"help": "a column of the table; repeat for several", "action": "append"}),
        default=[], metavar="OURS=COLUMN")  # fmt: skip
    arg("--replace", "replace an existing run of that name", action="store_true")
    arg = add("add-score", "add a score of your own to a run, from a table with the columns id and value")
    arg("run", "name of the run", metavar="RUN")
    arg("path", "a .csv, .tsv, .jsonl or .parquet file", type=Path, metavar="FILE")
    arg("--name", "of the score (default: that of the file)")
    arg("--map", **columns, default=[], metavar="OURS=COLUMN")
    arg("--replace", "replace a score of that name", action="store_true")
    arg = add("export", "write a run as result files of the original")
    arg("run", "name of the run", metavar="RUN")
    arg("folder", "folder to write", type=Path, metavar="FOLDER")
    arms = ["baseline", "gated"]
    arg("--arms", "beside the drafts (default: baseline gated)", nargs="+", default=arms, metavar="ARM")
    tasks = NamesOf("..tasks.registry", "TASKS")
    arg("--tasks", "default: all", nargs="+", default=[], choices=tasks, metavar="TASK")
    arg("--data-root", "the benchmarks, if the run does not record it", metavar="FOLDER")
    arg("--agent-name", "the agent's name in file names (default: that of its folder)", metavar="NAME")
    arg("--draft-name", "the small model's name in file names", metavar="NAME")

    arg = add("tools", "run tasks with tools while a speculator makes the calls of the actor in advance")
    what = (
        "run: one example step by step, or a batch; study: the embedded study; lossless: whether arms leave every "
        "message as it is. --set gives the parameters of the last two"
    )
    arg("action", what, choices=("run", "study", "lossless"))
    arg("example", "folder of one task (default: the first of the level)", nargs="?", metavar="EXAMPLE")
    arg("--batch", "run all examples of a level", action="store_true")
    arg("--level", "1, 2 or 3 (default: 1)", type=int, choices=(1, 2, 3), default=1)
    arg("--start", "first example of the level, from 0", type=_whole(0), default=0, metavar="N")
    arg("--end", "example before which the batch ends", type=_whole(0), metavar="N")
    arg("--max", "at most so many of them", type=_whole(1), metavar="N")
    arg("--output", "folder for results; one that holds some is gone on with", metavar="FOLDER")
    arg(
        "--tasks",
        "tasks in one of GAIA's layouts (default: GAIA if fetched, else embedded)",
        metavar="FOLDER",
    )
    arg("--models", "default: served if environment variables name servers", choices=("served", "embedded"))
    arg("--form", "how served models call tools", choices=("native", "hermes"), default="native")
    arg("--mcp", "file that names MCP servers, whose tools served models get too", metavar="FILE")
    arg("--pictures", "send the pictures that a question names to served models", action="store_true")
    arg("--arms", "ways to run, such as baseline exact original", nargs="+", default=[], metavar="ARM")
    arg("--set", "a setting, such as strategy=jaccard", action="append", default=[], metavar="NAME=VALUE")
    more = ("metered", "open_world")
    arg(
        "--allow",
        "side effects of calls made in advance",
        nargs="+",
        default=[],
        choices=more,
        metavar="EFFECT",
    )

    arg = add("tool-report", "audit, ceiling and comparison of recorded tool runs; nothing is run")
    what = "runs.jsonl, a folder that holds it, or a folder of the original's result files"
    arg("paths", what, nargs="+", metavar="PATH")
    arg("--trace", "also write timelines, as trace events for Perfetto", metavar="FILE")
    arg("--task", "the task of --trace (default: all)", metavar="ID")

    arg = add("train", "train one of the embedded models from scratch")
    arg("which", "the model to train", choices=("draft", "agent", "tools-actor", "tools-speculator"))
    arg("--seed", "seed of the training (default: 0)", type=_whole(0), default=0, metavar="N")
    arg("--out", "folder to write; replaced when the training is done", required=True, metavar="FOLDER")
    arg("--threads", "CPU threads (default: 1)", type=_whole(1), default=1, metavar="N")
    arg("--smoke", "two steps per phase, to check that everything runs", action="store_true")

    arg = add("rl", "train the embedded agent from rewards, as DeepEyes was, with several arms and seeds")
    arg(
        "--out",
        "folder of the runs (default: data/runs/recipe)",
        default="data/runs/recipe",
        metavar="FOLDER",
    )
    arms, both = NamesOf("..training.miniature", "ARMS"), ["bonus", "no_bonus"]
    about = "bonus, no_bonus or rate_too_high (default: bonus no_bonus)"
    arg("--arms", about, nargs="+", default=both, choices=arms, metavar="ARM")
    arg("--seeds", "default: 0", nargs="+", type=_whole(0), default=[0], metavar="N")
    arg("--steps", "of each run (default: 32)", type=_count, default=32, metavar="N")
    arg("--held-out", "questions before and after (default: 100)", type=_count, default=100, metavar="N")
    arg("--processes", "runs at once, each with one thread (default: 2)", type=_count, default=2, metavar="N")

    _verl_commands(add)

    command = commands.add_parser("job", description="one job of the Snakefile")
    command.add_argument("kind", help="notebook, or shard:I/N")
    for name in ("notebook", "executed", "blob"):
        command.add_argument(name)
    return top


def _whole(least: int, most: float = float("inf")) -> Callable[[str], int]:
    """A type for argparse: whole numbers within limits."""

    def read(text: str) -> int:
        if not (text.isdecimal() and text.isascii()) or not least <= int(text) <= most:
            limits = f"from {least} to {most}" if most < float("inf") else f"of at least {least}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return int(text)

    return read


def _count(text: str) -> int:
    """A number of things that there is at least one of, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _verl_commands(add: Callable[..., Callable[..., object]]) -> None:
    """The commands for real training runs with verl."""
    arg = add(
        "verl-config", "write launch script, judge server and tool for a real run of the DeepEyes recipe"
    )
    arg(
        "out", "folder to write; the run's logs, dumps and checkpoints go there too", type=Path, metavar="OUT"
    )
    arg("--model", "model to train: its folder, or its name on the hub", required=True)
    arg(
        "--data",
        "folder with train.parquet and val.parquet (speceyes verl-data)",
        required=True,
        metavar="FOLDER",
    )
    arg("--verl-folder", "checkout of verl with its submodules", required=True, metavar="FOLDER")
    arg("--verl", "version of verl (default: 0.7.1)", default="0.7.1", metavar="VERSION")
    arg("--judge", "address of the judging server", default="http://127.0.0.1:18901/v1", metavar="URL")
    arg("--judge-model", "model that judges", default="Qwen/Qwen2.5-72B-Instruct", metavar="MODEL")
    arg(
        "--judge-server", "program that serves it (default: vllm)", choices=("vllm", "sglang"), default="vllm"
    )
    arg("--gpus", "of each node (default: 8)", type=_count, default=8, metavar="N")
    arg("--nodes", "default: 1", type=_count, default=1, metavar="N")
    arg("--prompts", "per step (default: 128)", type=_count, default=128, metavar="N")
    arg("--group-size", "trajectories of each prompt (default: 8)", type=_count, default=8, metavar="N")
    arg("--name", "name of the experiment (default: deepeyes)", default="deepeyes")
    arg = add("verl-data", "turn the three published files of DeepEyes into train.parquet and val.parquet")
    arg("raw", "folder with the published files", nargs="?", type=Path, metavar="RAW")
    arg("out", "folder to write", nargs="?", type=Path, metavar="OUT")
    arg("--validation", "rows for validation (default: 1000)", type=_count, default=1000, metavar="N")
    arg("--seed", "of the split (default: 0)", type=int, default=0, metavar="N")
    arg("--charts", "keep the charts, whose crops need much memory", action="store_true")
    arg("--self-test", "prepare generated files and check the result", action="store_true")
    arg = add("verl-check", "check judge, data, paths, memory and logging before a real run starts")
    arg("folder", "folder that verl-config wrote", type=Path, metavar="OUT")


def run(given: argparse.Namespace) -> int:
    """Carry out a parsed command; returns the exit code.

    Raises:
        UserError: a mistake of the user's.
        JobError: a notebook failed.
    """
    if path := getattr(given, "config", None):
        _use_plugins(path)
    match given.command:
        case "reproduce":
            from .reproduce import run_all

            return run_all(given.config, given.cores, given.profile, given.accept_failures)
        case "check" | "jobs" | "status" | "stop" | "headline" | "serve-commands":
            watched = getattr(given, "watch", False)
            _about_config("watch" if watched else given.command, given.config)
        case "job":
            from .execute import run_job, run_shard

            if given.kind == "notebook":
                return run_job(given.notebook, given.executed, given.blob)
            return run_shard(given.kind.removeprefix("shard:"), given.notebook, given.executed, given.blob)
        case "stage":
            from .execute import stage

            stage(given.notebook, [*given.set, *(["accept_failures=True"] if given.accept_failures else [])])
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
        case "export-page":
            from ..explore.gate_page import export_gate_page

            path = given.out or Path(f"gate_{given.run}.html")
            export_gate_page(given.run, path, given.thresholds)
            print(f"wrote {path}: open it in a browser, or send it")
        case "verify":
            return _verify(given.run)
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
            settings = {"dtype": given.dtype, "device": given.device, "thoughts_in": given.thoughts_in}
            serve(given.model, given.port, **settings, **limits)
        case "import":
            return _import(given)
        case "add-score":
            return _add_score(given)
        case "export":
            from ..formats.speceyes_export import export

            names = {"agent_model": given.agent_name, "draft_model": given.draft_name}
            names = {role: name for role, name in names.items() if name is not None}
            written = export(given.run, given.folder, given.arms, given.tasks, given.data_root, names)
            print(f"run {given.run}: {len(written)} files in {shown(given.folder)}")
        case "tools":
            from .tool_runs import run_tool_study, run_tools

            return run_tools(given) if given.action == "run" else run_tool_study(given)
        case "verl-config" | "verl-data" | "verl-check":
            return {"verl-config": _verl_config, "verl-data": _verl_data, "verl-check": _verl_check}[
                given.command
            ](given)
        case "tool-report":
            from .tool_report import report_tools

            return report_tools(given)
        case "train" if given.which.startswith("tools-"):
            from ..training.tool_pair import smoke_tool_recipe, train_tool_model

            role = given.which.removeprefix("tools-")
            extra = {"recipe": smoke_tool_recipe(role), "per_level": 3} if given.smoke else {}
            report = partial(print, flush=True)
            train_tool_model(role, given.seed, given.out, threads=given.threads, report=report, **extra)
        case "train":
            from ..training.pretraining import smoke_recipe, train

            extra = {"recipe": smoke_recipe(given.which), "held_out": 10} if given.smoke else {}
            report = partial(print, flush=True)  # progress as it happens
            train(given.which, given.seed, given.out, threads=given.threads, report=report, **extra)
        case "rl":
            from .recipe import train_and_compare

            train_and_compare(given)
    return 0


def _use_plugins(config: str) -> None:
    """Load what a config lists under `plugins` before the registries are built; `load_config` reports other faults."""
    import yaml

    try:
        values = yaml.safe_load(resolve(config).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, UserError, yaml.YAMLError, ValueError, RecursionError):
        return
    names = values.get("plugins") if isinstance(values, dict) else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        plugins.use(names, shown(config))


def _about_config(command: str, path: str) -> None:
    from . import reproduce, vllm_commands
    from .plan import load_config, plan

    config = load_config(path)
    if command == "check":
        reproduce.check(config)
        reproduce.check_servers(config)
        print(f"{shown(path)}: run {config.name}, {len(plan(config))} jobs, no fault found")
    elif command == "serve-commands":
        print(vllm_commands.text(config), end="")
    else:
        act = {
            "jobs": reproduce.list_jobs,
            "status": reproduce.status,
            "watch": reproduce.watch,
            "stop": reproduce.stop,
            "headline": reproduce.headline,
        }
        act[command](config)


def _verl_config(given: argparse.Namespace) -> int:
    from ..training.verl_config import VerlPlan, version_warnings, write_verl_config

    names = (
        "model",
        "judge",
        "judge_model",
        "judge_server",
        "gpus",
        "nodes",
        "prompts",
        "group_size",
        "name",
    )
    folders = {"data": str(Path(given.data).resolve()), "verl": str(Path(given.verl_folder).resolve())}
    plan = VerlPlan(**{name: getattr(given, name) for name in names}, **folders, version=given.verl)
    for path in write_verl_config(plan, given.out):
        print(shown(path))
    for warning in version_warnings(plan.version):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _verl_data(given: argparse.Namespace) -> int:
    import tempfile

    from ..training import verl_data

    if given.self_test:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(f"ok: {what}" for what in verl_data.self_test(Path(folder))))
        return 0
    if given.raw is None or given.out is None:
        raise UserError("verl-data: name the folder with the published files, and the folder to write")
    counts = verl_data.prepare(given.raw, given.out, given.validation, given.seed, given.charts)
    print(f"{shown(given.out)}: {counts['train']} rows to train on, {counts['val']} for validation")
    return 0


def _verl_check(given: argparse.Namespace) -> int:
    from ..training.verl_preflight import preflight

    checks = preflight(given.folder)
    for check in checks:
        print(printable(f"{check.state:7}  {check.name}: {check.text}"))
    return 1 if any(check.state == "fault" for check in checks) else 0


def _recorded(action: str) -> None:
    from ..demo import recorded
    from ..report.site import write_index

    if action != "unpack":
        packs = {"pack": recorded.pack, "pack-rl": recorded.pack_recipe, "pack-tools": recorded.pack_tools}
        path = packs[action]()
        print(f"wrote {shown(path)}, {path.stat().st_size / 1e6:.1f} MB")
        return
    folders = [*recorded.unpack(), *recorded.unpack_recipe(), *recorded.unpack_tools()]
    print("\n".join(f"unpacked {shown(f)}" for f in folders) or "nothing to unpack: the runs exist already")
    print(f"open {write_index('demo').as_uri()}")


def _verify(run: str) -> int:
    from ..runs.verifying import verify

    checks = verify(run)
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.name:{width}}  {check.state}")
        for fault in check.faults:
            print(f"{'':{width}}  - {fault}")
    damaged = sum(bool(check.faults) for check in checks)
    print(f"run {run}: {len(checks)} stages, {f'{damaged} damaged' if damaged else 'no fault found'}")
    return 1 if damaged else 0


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

    if given.source == "table":
        from ..formats.tables import import_table

        columns = _columns(given.map)
        stages, notes, problems = import_table(given.paths, given.run, columns, given.replace)
        print("\n".join([*import_report({given.run: stages}), *notes, *_own_results(given.run)]))
    else:
        runs, problems = import_files(given.source, given.paths, given.run, given.data_root, given.replace)
        print("\n".join(import_report(runs)))
    return _report(problems)


def _own_results(run: str) -> list[str]:
    """What an imported table says at once, and the command that shows the rest."""
    from ..analysis.own_results import gather_own_results
    from ..params import OwnResultsParams
    from ..runs.own_scores import names_of_scores

    score = next(iter(names_of_scores(run)), "min")
    params = OwnResultsParams(run=run, score=score, repeats=1)
    return [
        *gather_own_results(params).sentences(params),
        f"more: speceyes stage study_own_results --set run={run} --set score={score}",
        f"to try or send it: speceyes export-page {run}; another target: --set risk_target=0.1 in the line above",
    ]


def _add_score(given: argparse.Namespace) -> int:
    from ..formats.tables import import_score
    from ..runs import recorded_run

    drafts = recorded_run.open(given.run).drafts()
    name, columns = given.name or given.path.stem, _columns(given.map)
    sentence, problems = import_score(given.path, given.run, name, drafts, columns, given.replace)
    print(sentence)
    return _report(problems)


def _columns(pairs: list[str]) -> dict[str, str]:
    """The columns of `--map OURS=COLUMN`."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--map {pair}: write OURS=COLUMN, such as --map confidence=my_score")
    return dict(pair.split("=", 1) for pair in pairs)


def _report(problems: Sequence[object]) -> int:
    """Print what was left out; returns the exit code."""
    for problem in problems:
        print(printable(str(problem)), file=sys.stderr)
    if problems:
        print(f"problems: {len(problems)}; everything else was kept", file=sys.stderr)
    return 1 if problems else 0


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
