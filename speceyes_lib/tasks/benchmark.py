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
    """A part of a benchmark that is run and reported on its own.

    label: as tables and figures call it. size: number of samples as its authors publish it; None: not known.
    """

    label: str
    size: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: where it lies, how it is read and judged.

    Attributes:
        name: its name in sample ids and task names ("name/split").
        title: its name for readers.
        folders: names that its folder may have, ours first.
        splits: its splits in the order of tables, by name.
        read: (folder, split) -> the samples, in any order. Raises DataError for a malformed file.
        source: where the original is available, for error messages.
        yes_no: the answers are yes and no; otherwise every question has options.
        cycles: each question is there once per cyclic order of its options, so that the orders share a group.
        paper_rule: rule by which the paper judges an answer (`judging/rules.py`). None: the paper does not use the
            benchmark; the protocol `paper` then judges by the rule of the paper's benchmark of the same kind.
        reported: the paper reports results on it, so that Table 1 has columns for its splits.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    splits: Mapping[str, Split]
    read: Callable[[Path, str], Iterator[Sample]]
    source: str
    yes_no: bool = False
    cycles: bool = False
    paper_rule: PaperRule | None = None
    reported: bool = False
