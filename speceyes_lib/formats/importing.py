"""Result files of other programs become runs.

Lines that cannot be read are reported with file and line, and the rest is kept. With a data root every sample is
looked up in the benchmark. That checks the files, and it adds what they lack: the options, and which samples share a
picture.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, UserError, nearest
from ..paths import resolve
from ..runs.arms import DRAFT_STAGE
from ..tasks.registry import SIZES
from . import deepeyes, lmms_vlmevalkit, speceyes
from .common import Finder, ImportedStage, Problems, write

# of other programs; a table of one's own is read by `tables.import_table`
READERS = {
    "speceyes": speceyes.read,
    "deepeyes": lambda *given: {"": deepeyes.read(*given)},
    "lmms-eval": lambda *given: {"": lmms_vlmevalkit.read_lmms_eval(*given)},
    "vlmevalkit": lambda *given: {"": lmms_vlmevalkit.read_vlmevalkit(*given)},
}
SOURCES = ("table", *READERS)


def import_files(
    source: str, paths: list[Path], run: str, data_root: str | None = None, replace: bool = False
) -> tuple[dict[str, list[ImportedStage]], Problems]:
    """Import files of one program; returns the imported stages by the name of their run, and the problems.

    Files of several gated settings make one run each, named `<run>_<setting>`.

    Args:
        source: a key of READERS.
        paths: files and folders.
        run: name of the new run.
        data_root: folder of the benchmarks; None: samples are not checked.
        replace: replace what the run holds already.

    Raises:
        UserError: the source is unknown.
        DataError: nothing could be read.
        StageError: a run of that name holds something else, and `replace` is not set.
    """
    if source not in READERS:
        hint = nearest(source, READERS)
        raise UserError(f"import {source}: no such program{hint}; known are {', '.join(READERS)}")
    problems = Problems()
    by_setting = READERS[source](paths, Finder(resolve(data_root) if data_root else None), problems)
    runs = {}
    for setting, parts in by_setting.items():
        if kept := [part for part in parts if part.records]:
            runs[f"{run}_{setting}" if setting else run] = kept
    if not runs:
        reasons = "".join(f"\n  {problem}" for problem in problems[:10])
        raise DataError(f"nothing in these files could be read as results of {source}{reasons}")
    for name, parts in runs.items():
        write(name, parts, source, "restart" if replace else "refuse")
    return runs, problems


def import_report(runs: dict[str, list[ImportedStage]]) -> list[str]:
    """One line per imported stage and task: samples imported and published, how many failed, how many are judged."""
    lines = []
    for name, part in ((name, part) for name, parts in runs.items() for part in parts):
        failed = sum(record.status == "error" for record in part.records.values())
        verdicts = part.verdicts.get("final") or part.verdicts.get("draft", ())
        judged = "" if part.stage == DRAFT_STAGE else f", {len(verdicts)} judged"
        published = f" of {SIZES[part.task]:,}" if part.task in SIZES else ""
        counts = f"{len(part.records):,}{published} samples, {failed} failed{judged}"
        lines.append(f"run {name}: {part.stage} {part.task}: {counts}")
    return lines
