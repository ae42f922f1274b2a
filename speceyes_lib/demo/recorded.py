"""Recorded runs: each packed into one committed file, and unpacked to explore it before running anything.

    speceyes recorded unpack     put them into data/runs, unless such runs exist
    speceyes recorded pack       after `make reproduce`: renew the committed file of the embedded run
    speceyes recorded pack-rl    after `make rl`: renew that of the recipe in miniature
    speceyes recorded pack-tools after `make tools`: renew that of the study of tool speculation

The embedded run holds what stages recorded (records, evidence, verdicts, manifests, the operating point, the summary),
no executed notebook and no figure. The recipe's runs hold logs, trajectories and measurements, and no model; the study
of tool speculation holds its records. `make reproduce`, `make rl` and `make tools` never use them as results: they set
unpacked runs aside.
"""

from __future__ import annotations

import io
import itertools
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import DataError, StageError
from ..paths import recorded_mark, resolve, run_dir, runs_dir, shown

ARCHIVE = "data/demo/recorded_run.tar.xz"
RUNS = {"demo": "05_figures", "demo_validation": "04_threshold"}  # run -> the stage that ends it
RECIPE_ARCHIVE = "data/demo/recorded_recipe.tar.xz"
RECIPE = "recipe"  # the folder of the recipe's runs
RECIPE_KEPT = (
    "*.csv",
    "*/settings.json",
    "*/metrics.jsonl",
    "*/console.log",
    "*/held_out.csv",
    "*/rollouts/*.jsonl",
)
TOOLS_ARCHIVE = "data/demo/recorded_tools.tar.xz"
TOOLS = "tools"  # the folder of the study of tool speculation
TOOLS_KEPT = ("plan.json", "parameters.json", "*/runs.jsonl")
KEPT = (".json", ".jsonl", ".parquet", ".csv")
LEFT_OUT = ("figures", "notebooks")
_NOTE = (
    "This run was unpacked from {archive}; it was not run on this machine. Figures of the embedded run are in "
    "figures/demo of the repository; make reproduce, make rl and make tools run everything here.\n"
)


def is_recorded(run: str) -> bool:
    """True if this run was unpacked instead of run here."""
    return recorded_mark(run).is_file()


def unpack(archive: str | Path = ARCHIVE) -> list[Path]:
    """The new folders of the recorded runs in data/runs; a run that exists already stays as it is.

    Raises DataError when the archive is missing or not what `pack` writes.
    """
    return _unpacked(resolve(archive), tuple(RUNS))


def unpack_recipe(archive: str | Path = RECIPE_ARCHIVE) -> list[Path]:
    """The new folder of the recipe's recorded runs in data/runs, as `unpack`."""
    return _unpacked(resolve(archive), (RECIPE,))


def unpack_tools(archive: str | Path = TOOLS_ARCHIVE) -> list[Path]:
    """The new folder of the recorded study of tool speculation in data/runs, as `unpack`."""
    return _unpacked(resolve(archive), (TOOLS,))


def _unpacked(path: Path, runs: Sequence[str]) -> list[Path]:
    if not path.is_file():
        raise DataError(
            f"{shown(path)} is missing; restore it from the repository, or run make reproduce, make rl or make tools"
        )
    folders: list[Path] = []
    absent = {run for run in runs if not run_dir(run).exists()}
    try:
        with tarfile.open(path, "r:xz") as packed:
            for member in packed:
                run = member.name.split("/")[0]
                if run not in runs:
                    raise DataError(
                        f"{shown(path)} holds {member.name!r}, which belongs to no run of {list(runs)}"
                    )
                if run in absent:
                    packed.extract(member, runs_dir(), filter="data")
    except (tarfile.TarError, EOFError, OSError) as e:
        raise DataError(f"{shown(path)} cannot be unpacked ({e}); restore it from the repository") from e
    for run in sorted(absent):
        folder = run_dir(run)
        if folder.is_dir():
            recorded_mark(run).write_text(_NOTE.format(archive=shown(path)), "utf-8")
            folders.append(folder)
    return folders


def pack(archive: str | Path = ARCHIVE) -> Path:
    """Write the archive from the finished RUNS: the same runs give the same bytes.

    Raises StageError when a run is missing or was itself unpacked.
    """
    for run in RUNS:
        if not (run_dir(run) / RUNS[run] / "manifest.json").is_file():
            raise StageError(f"run {run!r} is not finished; run make reproduce first")
        if is_recorded(run):
            raise StageError(f"run {run!r} was unpacked, not run here; run make reproduce first")
    return _packed(resolve(archive), (file for run in RUNS for file in _kept(run_dir(run))))


def pack_recipe(archive: str | Path = RECIPE_ARCHIVE) -> Path:
    """Write the archive of the recipe's runs: the same runs give the same bytes.

    Raises StageError when there are none, one is not finished, or they were unpacked.
    """
    folder = run_dir(RECIPE)
    runs = sorted(file.parent for file in folder.glob("*/settings.json"))
    if is_recorded(RECIPE):
        raise StageError(f"{shown(folder)} was unpacked, not run here; run make rl first")
    unfinished = [run for run in (folder / "start", *runs) if not (run / "held_out.csv").is_file()]
    if not runs or unfinished:
        raise StageError(f"{shown((unfinished or [folder])[0])} is not finished; run make rl first")
    return _packed(resolve(archive), sorted(f for kept in RECIPE_KEPT for f in folder.glob(kept)))


def pack_tools(archive: str | Path = TOOLS_ARCHIVE) -> Path:
    """Write the archive of the study of tool speculation: the same study gives the same bytes.

    Raises StageError when there is none, it is not finished, or it was unpacked.
    """
    folder = run_dir(TOOLS)
    if is_recorded(TOOLS):
        raise StageError(f"{shown(folder)} was unpacked, not run here; run make tools first")
    if not (folder / "vision" / "runs.jsonl").is_file():  # its last part
        raise StageError(f"{shown(folder)} is not finished; run make tools first")
    return _packed(resolve(archive), sorted(f for kept in TOOLS_KEPT for f in folder.glob(kept)))


def _packed(path: Path, files: Iterable[Path]) -> Path:
    part = path.with_suffix(".part")
    with tarfile.open(part, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as packed:
        for file in files:
            content = file.read_bytes()
            member = tarfile.TarInfo(file.relative_to(runs_dir()).as_posix())
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    part.replace(path)
    return path


def _kept(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.is_file() and file.suffix in KEPT and not set(inside.parts[:-1]) & set(LEFT_OUT):
            yield file


def set_aside(runs: Sequence[str]) -> list[Path]:
    """Rename unpacked runs out of the way of a real one, human checks and all. Returns the new folders."""
    moved = []
    for run in runs:
        if is_recorded(run):
            old = run_dir(run)
            names = (old.with_name(f"{run}_recorded{'' if i == 1 else i}") for i in itertools.count(1))
            moved.append(Path(shutil.move(old, next(name for name in names if not name.exists()))))
    return moved
