"""A shard: the part of a split that one of several jobs works on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import UserError
from ..paths import run_dir

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of every task of a run, counted from 1: a job of its own, maybe on another machine.

    Its stage folders lie in `shards/1of4` of the run. The stage without a shard takes their records over.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}of{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "1of4". Raises UserError for anything else."""
        match = re.fullmatch(r"(\d{1,6})of(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"shard {text!r}: write it as 1of4, 2of4, 3of4 or 4of4")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def all_of(cls, run: str) -> list[Shard]:
        """The shards that a run has folders of."""
        return [cls.parse(folder.name) for folder in sorted((run_dir(run) / "shards").glob("*of*"))]

    def of(self, items: Sequence[T]) -> list[T]:
        """Its part of the items: every `count`-th."""
        return list(items[self.index - 1 :: self.count])

    def run(self, run: str) -> str:
        """The run's name as `stage_dir` takes it, for the folders of this shard."""
        return f"{run}/shards/{self}"
