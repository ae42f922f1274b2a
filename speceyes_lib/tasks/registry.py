"""Every benchmark that can be run, read from its official on-disk layout into one kind of `Sample`.

Adding a benchmark takes a file beside this one that defines `BENCHMARK`, and its name in `FILES`. A file that is not
what it claims to be raises DataError when loading. A picture that cannot be decoded raises DataError on opening it: one
lost sample must not lose the others.
"""

from __future__ import annotations

import itertools
import re
from importlib import import_module
from pathlib import Path

from ..errors import ConfigError, DataError, nearest
from ..paths import resolve
from ..plugins import contributed
from .benchmark import Benchmark
from .sample import Sample

FILES = ("vstar", "hrbench", "pope")  # the files of this wing that define a BENCHMARK, in the order of tables
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (import_module(f".{file}", __package__).BENCHMARK for file in FILES)
}
BENCHMARKS |= contributed("BENCHMARKS", BENCHMARKS)
if _misnamed := [name for name, benchmark in BENCHMARKS.items() if name != benchmark.name]:
    raise ConfigError(
        f"benchmark {_misnamed[0]!r} of a plugin calls itself {BENCHMARKS[_misnamed[0]].name!r}"
    )
SPLITS_BY_TASK = {f"{b.name}/{name}": split for b in BENCHMARKS.values() for name, split in b.splits.items()}
TASKS = tuple(SPLITS_BY_TASK)  # every "benchmark/split" that can be run
REPORTED_TASKS = tuple(f"{b.name}/{split}" for b in BENCHMARKS.values() if b.reported for split in b.splits)
OPTION_TASKS = tuple(f"{b.name}/{split}" for b in BENCHMARKS.values() if not b.yes_no for split in b.splits)
SIZES = {task: split.size for task, split in SPLITS_BY_TASK.items() if split.size}  # as published
AVERAGE = "average"  # the split name of the unweighted mean over splits
HARD_BELOW = 0.42  # target_fraction under which a sample is called hard


def load_task(task: str, root: str | Path) -> list[Sample]:
    """All samples of one split, sorted by key (numbers by value), validated, with unique ids.

    Args:
        task: "benchmark/split".
        root: the folder that holds the benchmarks' folders; a relative one starts at the repository.

    Raises:
        DataError: an unknown task, a missing folder, a malformed file, duplicate ids or an empty split.
    """
    if task not in TASKS:
        raise DataError(f"no task {task!r}{nearest(task, TASKS)}; known are {', '.join(TASKS)}")
    name, split = task.split("/")
    benchmark = BENCHMARKS[name]
    folder = _folder(benchmark, resolve(root))
    samples = sorted(benchmark.read(folder, split), key=lambda s: _natural(s.key))
    if not samples:
        raise DataError(
            f"{folder}: split {split!r} of {benchmark.title} is empty; put {benchmark.source} there"
        )
    for before, after in itertools.pairwise(samples):
        if before.key == after.key:
            raise DataError(
                f"{folder}: split {split!r} holds the id {after.id!r} more than once; ids must be unique"
            )
    return samples


def _folder(benchmark: Benchmark, root: Path) -> Path:
    for name in benchmark.folders:
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root}: no folder {' or '.join(map(repr, benchmark.folders))} here, so no {benchmark.title} data. "
        f"Run notebooks/00_prepare_data.ipynb for the embedded benchmark, or put {benchmark.source} there"
    )


def _natural(key: str) -> list[tuple[int, int, str]]:
    """Sort key by which "9" comes before "10"; total on all strings."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", key) if p]


def task_of(id_: str) -> str:
    """The task of a sample's id "benchmark/split/key"; keys may hold "/" themselves."""
    return "/".join(id_.split("/", 2)[:2])


def place_of(task: str) -> int:
    """Position of a task in the order of `TASKS`; a task that is not among them comes after all of them."""
    return TASKS.index(task) if task in TASKS else len(TASKS)
