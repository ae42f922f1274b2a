"""How far a run is while it works: samples, decisions, accuracy so far, seconds and failures of each arm.

Records are read as they are appended, each once. The verdicts are those of the rules alone: people and judging models
come later. Samples come in the order of their tasks, so that an accuracy so far is one of the tasks so far.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from ..errors import UserError
from ..judging.rules import Protocol, judge
from ..paths import run_dir
from ..runs.arms import DRAFT_STAGE
from ..runs.files import RECORDS
from ..runs.records import AgentRecord, DraftRecord, Failure
from ..stats.intervals import Estimate, proportion, wilson
from ..tasks.registry import load_task
from ..tasks.sample import Sample, shown_as

POINTS = 60  # of a course, at most


class FailedSample(NamedTuple):
    """A sample without an answer, in the order in which they came."""

    arm: str
    id: str
    failure: Failure


class _Row(NamedTuple):
    decision: str
    is_right: bool | None  # None: the benchmark cannot be read
    wall_s: float
    failure: Failure | None


@dataclass(frozen=True)
class ArmSoFar:
    """One arm of a run that works.

    Attributes:
        name: of the arm; "draft_only" for the drafts.
        done, expected: samples; expected is 0 while a task cannot be read.
        decisions: decision -> samples; those without an answer are "failed".
        accuracy: percent of right answers among those done, with Wilson's interval; None: nothing can be judged.
        course: [points, 4] of n, accuracy, low and high in percent, after the first n samples.
        wall_s: seconds charged to the samples done.
    """

    name: str
    done: int
    expected: int
    decisions: Counter
    accuracy: Estimate | None
    course: np.ndarray
    wall_s: float


class RunSoFar:
    """Reads the records of a run again and again, each of them once.

    Args:
        run: its name.
        arms: that it runs, in the order to show.
        tasks: benchmark/split.
        data_root: the folder of the benchmarks.
        protocol: of the rules.
        limit: samples per task; 0: all.
    """

    def __init__(
        self,
        run: str,
        arms: Sequence[str],
        tasks: Sequence[str],
        data_root: str,
        protocol: Protocol = "strict",
        limit: int = 0,
    ) -> None:
        self.run, self.tasks, self.data_root = run, tasks, data_root
        self.protocol, self.limit = protocol, limit
        self._stages = {"draft_only": DRAFT_STAGE, **{arm: f"02_{arm}" for arm in arms}}
        self._samples: dict[str, dict[str, Sample]] = {}
        self._places: dict[Path, tuple[int, int]] = {}  # file -> its inode, and how far it was read
        self._rows: dict[Path, dict[str, _Row]] = {}

    def update(self) -> list[ArmSoFar]:
        """Each arm that has begun, with what was recorded until now."""
        return [arm for name in self._stages if (arm := self._arm(name)).done]

    def failures(self) -> list[FailedSample]:
        """The samples that failed, as far as `update` has read."""
        return [
            FailedSample(name, id_, row.failure)
            for name in self._stages
            for id_, row in self._rows_of(name).items()
            if row.failure
        ]

    def _arm(self, name: str) -> ArmSoFar:
        for task in self.tasks:
            for path in self._files(name, task):
                self._read(path, task, DraftRecord if name == "draft_only" else AgentRecord)
        rows = self._rows_of(name).values()
        right = np.array([row.is_right for row in rows if row.is_right is not None], dtype=int)
        sizes = [len(self._samples[task]) if self._samples.get(task) else 0 for task in self.tasks]
        known = [min(size, self.limit) if self.limit else size for size in sizes]
        return ArmSoFar(
            name,
            len(rows),
            sum(known) if all(known) else 0,
            Counter(row.decision for row in rows),
            proportion(int(right.sum()), len(right)) if len(right) else None,
            _course(right),
            sum(row.wall_s for row in rows),
        )

    def _files(self, name: str, task: str) -> list[Path]:
        """The records of a task: those of the run, and those of its shards."""
        folders = [run_dir(self.run), *sorted(run_dir(self.run).glob("shards/*"))]
        return [folder / self._stages[name] / task / RECORDS for folder in folders]

    def _rows_of(self, name: str) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        for task in self.tasks:
            for path in self._files(name, task):
                rows |= self._rows.get(path, {})
        return rows

    def _read(self, path: Path, task: str, kind: type[AgentRecord | DraftRecord]) -> None:
        """Add the whole lines that were appended to a file; one that was replaced is read from its beginning."""
        try:
            state = path.stat()
            inode, begin = self._places.get(path, (state.st_ino, 0))
            if inode != state.st_ino or state.st_size < begin:
                begin = 0
            if begin == 0:
                self._rows[path] = {}
            if begin == state.st_size:
                return
            with path.open("rb") as file:
                file.seek(begin)
                new = file.read()
        except OSError:  # not there yet, or just replaced
            return
        new = new[: new.rfind(b"\n") + 1]
        self._places[path] = state.st_ino, begin + len(new)
        for line in new.splitlines():
            try:
                record = kind.model_validate_json(line)
            except ValidationError:  # the stage itself reports it
                continue
            self._rows[path].setdefault(record.id, self._row(record, task))

    def _row(self, record: AgentRecord | DraftRecord, task: str) -> _Row:
        is_right = None
        if sample := self._of(task).get(record.id):
            shown = shown_as(sample, record.options_shown)
            failed = record.status == "error"
            is_right = judge(shown, record.answer, self.protocol, failed).verdict == "right"
        wall_s = 0.0 if math.isnan(record.wall_s) else record.wall_s
        decision = "failed" if record.error else getattr(record, "decision", "drafted")
        return _Row(decision, is_right, wall_s, record.error)

    def _of(self, task: str) -> dict[str, Sample]:
        """The samples of a task by id, read once; none where the benchmark cannot be read."""
        if task not in self._samples:
            try:
                self._samples[task] = {s.id: s for s in load_task(task, self.data_root)}
            except UserError:
                self._samples[task] = {}
        return self._samples[task]


def _course(right: np.ndarray) -> np.ndarray:
    if not len(right):
        return np.empty((0, 4))
    n = np.unique(np.linspace(1, len(right), min(len(right), POINTS)).round().astype(int))
    successes = np.cumsum(right)[n - 1]
    low, high = wilson(successes, n)
    return np.column_stack([n, 100 * successes / n, 100 * low, 100 * high])
