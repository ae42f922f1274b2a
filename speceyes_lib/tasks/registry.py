"""V*, HR-Bench and POPE, read from their official on-disk layouts into one kind of `Sample`.

    root/vstar/<split>/NAME.jpg + NAME.json      {target_object, bbox, question, options}, options[0] is right
    root/hr/<split>.tsv                          one row per question and option order, image in base64
    root/pope/Full/<split>-00000-of-00001.parquet
    root/pope/coco_pope_<split>.json             POPE as first published: JSON lines, pictures in val2014/

The folder names of the official downloads (`vstar_bench`, `HR-Bench`, `POPE`) are accepted as well. Pictures
stay on disk until `Sample.image.open()`: memory does not grow with their number or size.

Two kinds of bad input are told apart. A file that is not what it claims to be raises DataError when loading.
A picture that cannot be decoded raises DataError on opening it: one lost sample must not lose the others.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, nearest
from .hrbench import _read_hr
from .pope import _read_pope
from .sample import Sample
from .vstar import _read_vstar


# ----------------------------------------------------------------------------------------------- registry
@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its folder names (ours first), splits, reader and where the original is to be had."""

    name: str
    title: str
    folders: tuple[str, ...]
    splits: tuple[str, ...]
    read: Callable[[Path, str], Iterator[Sample]]
    source: str


def load(benchmark: str, split: str, root: str | Path) -> list[Sample]:
    """All samples of one split, sorted by key (numbers by value), validated, with unique ids.

    root: the folder that holds `vstar`, `hr` and `pope`. Raises DataError for an unknown benchmark or split,
    a missing folder, a malformed file, duplicate ids and an empty split.
    """
    known = BENCHMARKS.get(benchmark)
    if known is None:
        raise DataError(
            f"no benchmark {benchmark!r}{nearest(benchmark, BENCHMARKS)}; known are {', '.join(BENCHMARKS)}"
        )
    if split not in known.splits:
        raise DataError(
            f"benchmark {benchmark!r} has no split {split!r}{nearest(split, known.splits)}; "
            f"it has {', '.join(known.splits)}"
        )
    folder = _folder(known, Path(root))
    samples = sorted(known.read(folder, split), key=lambda s: _natural(s.key))
    if not samples:
        raise DataError(f"{folder}: split {split!r} of {known.title} is empty; put {known.source} there")
    for before, after in itertools.pairwise(samples):
        if before.key == after.key:
            raise DataError(
                f"{folder}: split {split!r} holds the id {after.id!r} more than once; ids must be unique"
            )
    return samples


def load_task(task: str, root: str | Path) -> list[Sample]:
    """`load` for a task name "benchmark/split"."""
    if task not in TASKS:
        raise DataError(f"no task {task!r}{nearest(task, TASKS)}; known are {', '.join(TASKS)}")
    benchmark, split = task.split("/")
    return load(benchmark, split, root)


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


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "vstar",
            "V*",
            ("vstar", "vstar_bench"),
            ("direct_attributes", "relative_position"),
            _read_vstar,
            "the dataset craigwu/vstar_bench",
        ),
        Benchmark(
            "hr",
            "HR-Bench",
            ("hr", "HR-Bench"),
            ("hr_bench_4k", "hr_bench_8k"),
            _read_hr,
            "the dataset DreamMr/HR-Bench",
        ),
        Benchmark(
            "pope",
            "POPE",
            ("pope", "POPE"),
            ("adversarial", "popular", "random"),
            _read_pope,
            "the dataset lmms-lab/POPE (or the JSON lines of RUCAIBox/POPE)",
        ),
    )
}
TASKS = tuple(f"{b.name}/{split}" for b in BENCHMARKS.values() for split in b.splits)
AVERAGE = "average"  # the split name of the unweighted mean over the seven splits
SPLITS = TASKS  # the order of Table 1's columns
# samples of each split as its authors publish it
SIZES = dict(zip(SPLITS, (115, 76, 800, 800, 3000, 3000, 3000), strict=True))
HARD_BELOW = 0.42  # target_fraction under which a sample is called hard
