"""What the suite has to know of a benchmark: one `Benchmark` per file of this wing, gathered by `registry.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .sample import Sample

PaperRule = Literal["standard_inside", "letter_anywhere", "equal_length"]


@dataclass(frozen=True)
class Split:
    """A part of a benchmark that is run and reported on its own."""

    label: str  # as tables and figures call it
    size: int | None = None  # number of samples as its authors publish it; None: not known


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: where it lies, how it is read and judged."""

    name: str  # in sample ids and task names ("name/split")
    title: str  # for readers
    folders: tuple[str, ...]  # names that its folder may have, ours first
    splits: Mapping[str, Split]  # in the order of tables
    read: Callable[
        [Path, str], Iterator[Sample]
    ]  # (folder, split) -> samples in any order; DataError: malformed
    source: str  # where the original is available, for error messages
    yes_no: bool = False  # the answers are yes and no; otherwise every question has options
    cycles: bool = False  # each question is there once per cyclic order of its options; these share a group
    # rule by which the paper judges an answer (`judging/rules.py`). None: the paper does not use the benchmark; the
    # protocol `paper` then judges by the rule of the paper's benchmark of the same kind
    paper_rule: PaperRule | None = None
    # the paper reports results on it: its tasks run where none are named, and Table 1 always has their columns
    reported: bool = False
