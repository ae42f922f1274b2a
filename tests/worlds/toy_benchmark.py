"""A benchmark of one split that the paper does not use, as an added file of the wing `tasks` would define it.

toy/<split>.csv: key, question, answer, option, option, ...
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from speceyes_lib.tasks.benchmark import Benchmark, Split
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.sample import LETTERS, Sample


def read(folder: Path, split: str) -> Iterator[Sample]:
    with (folder / f"{split}.csv").open(newline="") as file:
        for key, question, answer, *options in csv.reader(file):
            yield Sample(
                id=f"toy/{split}/{key}",
                benchmark="toy",
                split=split,
                key=key,
                question=question,
                options=tuple(options),
                answer=LETTERS[options.index(answer)],
                image=ImageRef(folder / f"{key}.jpg"),
                meta={"group": f"toy/{key}"},
            )


def write(root: Path) -> None:
    """Six questions of the split "easy"."""
    colors = ("red", "blue", "green")
    (root / "toy").mkdir(parents=True)
    with (root / "toy/easy.csv").open("w", newline="") as file:
        csv.writer(file).writerows([i, "What color is it?", colors[i % 3], *colors] for i in range(6))


BENCHMARK = Benchmark("toy", "Toy", ("toy",), {"easy": Split("Toy easy")}, read, "the toy data set")
