"""Read other programs' result files into runs, and write runs as the original's files.

    python -m speceyes_lib.interchange import speceyes PATH... --run theirs --data-root data/benchmarks
    python -m speceyes_lib.interchange import deepeyes|lmms-eval|vlmevalkit PATH... --run theirs
    python -m speceyes_lib.interchange export RUN FOLDER [--arms baseline gated]

PATH is a file or a folder. Lines that cannot be read are told with file and line, the rest is kept. With
`--data-root` every sample is looked up in the benchmark: that checks the files, and gives later notebooks what the
files lack (options, and which samples share a picture). Exit code 1: something was left out; 2: nothing was done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import DataError, UserError
from ..params import TASKS
from ..paths import resolve, shown
from ..records import AgentRecord
from . import deepeyes, scored, speceyes
from .export import export
from .parts import Finder, Part, Problems, write

READERS = {
    "speceyes": speceyes.read,
    "deepeyes": lambda *given: {"": deepeyes.read(*given)},
    "lmms-eval": lambda *given: {"": scored.read_lmms_eval(*given)},
    "vlmevalkit": lambda *given: {"": scored.read_vlmevalkit(*given)},
}


def import_files(
    source: str, paths: list[Path], run: str, data_root: str | None = None, replace: bool = False
) -> tuple[dict[str, list[Part]], Problems]:
    """Import files of one program; returns the parts by the name of the run they were stored in, and the problems.

    Files of several gated settings make one run each, named `<run>_<setting>`. Raises DataError where nothing at
    all could be read, StageError where a run of that name holds something else (unless `replace`).
    """
    problems: Problems = []
    found = READERS[source](paths, Finder(resolve(data_root) if data_root else None), problems)
    runs = {f"{run}_{setting}" if setting else run: parts for setting, parts in found.items()}
    runs = {name: kept for name, parts in runs.items() if (kept := [p for p in parts if p.records])}
    if not runs:
        told = "".join(f"\n  {problem}" for problem in problems[:10])
        raise DataError(f"nothing in these files could be read as results of {source}{told}")
    for name, parts in runs.items():
        write(name, parts, source, "restart" if replace else "refuse")
    return runs, problems


def _tell(runs: dict[str, list[Part]], problems: Problems) -> None:
    for name, parts in runs.items():
        for part in parts:
            failed = sum(record.status == "error" for record in part.records.values())
            judged = len(part.verdicts.get("final", ()))
            told = f"{len(part.records)} records, {failed} failed"
            told += f", {judged} judged" if isinstance(next(iter(part.records.values())), AgentRecord) else ""
            print(f"run {name}: {part.stage} {part.task}: {told}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems; everything else was kept", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speceyes_lib.interchange",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("import")
    command.add_argument("source", choices=READERS)
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    command.add_argument("--run", required=True, help="name of the run to make")
    command.add_argument("--data-root", help="folder of the benchmarks in their official layouts")
    command.add_argument("--replace", action="store_true", help="replace what the run holds already")
    command = commands.add_parser("export")
    command.add_argument("run")
    command.add_argument("folder", type=Path)
    command.add_argument("--arms", nargs="+", default=["baseline", "gated"], help="arms beside the drafts")
    command.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, metavar="TASK")
    command.add_argument("--data-root", help="folder of the benchmarks, where the run does not name it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "export":
            written = export(asked.run, asked.folder, asked.arms, asked.tasks, asked.data_root)
            print(f"run {asked.run}: {len(written)} files in {shown(asked.folder)}")
            return 0
        runs, problems = import_files(asked.source, asked.paths, asked.run, asked.data_root, asked.replace)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    _tell(runs, problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
