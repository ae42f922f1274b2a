"""Stage folders that are worked on in turns, so that a machine that slows down does so for all of them.

The arms of a task run block by block: every arm does the first samples, then every arm the next ones. Their order is
reversed from block to block and moves on, so that no arm is always the first. A folder's work is one generator, which
pauses between its turns. So its batches, and with them its records, are those of a run without the others. Folders
that were interrupted at different samples are brought to the same block first.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import StageError
from ..paths import shown
from ..runs.evidence import Evidence
from ..runs.records import Failure, Record
from ..runs.stage import StageStore
from ..tasks.sample import Sample
from .funnel import Held

Done = Iterator[tuple[Record | Held, Evidence | None]]
GIVE_UP_AFTER = (
    20  # samples in a row that are held back: what they need is gone, and waiting for each would take hours
)


class HeldBack(StageError):
    """Stages that cannot be finished now. `gone`: neither can any other."""

    def __init__(self, message: str, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


class Meter:
    """What the machine did while the block of a `with` ran; the blocks add up.

    Attributes:
        seconds: `session_s` of the clock; `cpu_s`, processor seconds of this process; `others_cpu_s`, those of all
            other processes on the cores that this one may use (absent where the system does not report them).
    """

    def __init__(self) -> None:
        self.seconds = {"session_s": 0.0, "cpu_s": 0.0}
        if _busy_s() is not None:
            self.seconds["others_cpu_s"] = 0.0

    def __enter__(self) -> None:
        self._before = time.perf_counter(), time.process_time(), _busy_s()

    def __exit__(self, *_: object) -> None:
        clock_s, own_s, busy_s = self._before
        cpu_s = time.process_time() - own_s
        self.seconds["session_s"] += time.perf_counter() - clock_s
        self.seconds["cpu_s"] += cpu_s
        if busy_s is not None and (now_s := _busy_s()) is not None:
            self.seconds["others_cpu_s"] += now_s - busy_s - cpu_s


def _busy_s() -> float | None:
    """Processor seconds spent so far on the cores that this process may use; None where they are not reported."""
    try:
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
        # user, nice, system, then idle and waiting, then interrupts and what a host took away
        ticks = sum(
            int(line[i]) for line in lines if line[0] in cores for i in (1, 2, 3, 6, 7, 8) if i < len(line)
        )
        return ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return None


class Work:
    """The work that is left in one stage folder.

    Args:
        store: the folder, entered.
        todo: samples without a record.
        start: gives their results, each as it is done.
        pauses: whether the work can pause between two results. Otherwise its first turn does all of it.
    """

    def __init__(
        self,
        store: StageStore[Any],
        todo: Sequence[Sample],
        start: Callable[[Sequence[Sample]], Done],
        pauses: bool = True,
    ) -> None:
        self.store, self.todo, self.start, self.pauses = store, list(todo), start, pauses
        self.meter = Meter()
        self.held: dict[str, Failure] = {}  # of the last attempt
        self.gone = False
        self._results: Done | None = None
        self._before = self._in_a_row = 0

    def advance(self, n_records: int, after_each: Callable[[], None]) -> None:
        """Work until the folder has so many records. Samples held back are done again as long as others succeed."""
        with self.meter:
            while len(self.store.records) < n_records and not self.gone and (self._results or self.todo):
                if self._results is None:
                    self.held, self._before, self._in_a_row = {}, len(self.store.records), 0
                    self._results = self.start(self.todo)
                result, evidence = next(self._results, (None, None))
                if result is None:
                    again = len(self.store.records) > self._before
                    self.todo = [s for s in self.todo if again and s.id in self.held]
                    self._results = None
                    continue
                if isinstance(result, Held):
                    self.held[result.id] = result.failure
                    self._in_a_row += 1
                    self.gone = self._in_a_row >= GIVE_UP_AFTER
                else:
                    self.store.append(result, evidence)
                    self._in_a_row = 0
                after_each()

    def close(self) -> None:
        """Stop, and wait for what is at work."""
        if self._results is not None:
            self._results.close()

    @property
    def complete(self) -> bool:
        """Whether every sample has its record."""
        return len(self.store.records) == len(self.store.expected_ids)

    @property
    def fault(self) -> str:
        """Why the folder is not complete."""
        done = f"{len(self.store.records)} of {len(self.store.expected_ids)} samples are done"
        where = f"{shown(self.store.folder)}: {done}"
        if not self.held:
            return f"{where}; work stopped because another arm could not go on"
        kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(f.type for f in self.held.values()).items())
        reason = next(iter(self.held.values())).message
        stopped = f", and work stopped after {GIVE_UP_AFTER} in a row" if self.gone else ""
        return (
            f"{where}; {len(self.held)} held back{stopped}, through no fault of theirs "
            f"({kinds}; the first: {reason})"
        )


def take_turns(
    works: Sequence[Work], ids: Sequence[str], block: int, report: Callable[[], None], first: int = 0
) -> None:
    """Do the work of several folders in turns. Afterwards a folder is complete, or knows its `fault`.

    Args:
        works: the folders; each holds some of the samples.
        ids: all samples of the task, in their order.
        block: samples of a turn.
        report: called after every result.
        first: number of the first round, so that the order of the arms goes on from task to task.
    """
    last = -(-len(ids) // block)
    rounds = {id_: number // block for number, id_ in enumerate(ids)}
    with interruptible() as raise_if_interrupted, ExitStack() as stack:
        for work in works:
            stack.callback(work.close)

        def after_each() -> None:
            report()
            raise_if_interrupted()

        for number in range(last):
            for work in _in_turn(works, first + number):
                upto = number if work.pauses else last
                work.advance(sum(rounds[id_] <= upto for id_ in work.store.expected_ids), after_each)
                if work.gone:
                    return


def _in_turn(works: Sequence[Work], number: int) -> list[Work]:
    """The order of a round: there and back, then the same from the next folder on."""
    at = (number // 2) % max(len(works), 1)
    order = [*works[at:], *works[:at]]
    return order[::-1] if number % 2 else order


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if a Ctrl-C inside was lost.

    Python drops an exception that arises in the callback of a weak reference or in a finaliser. Ctrl-C is one.
    """
    interrupted = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def raise_if_interrupted() -> None:
        if interrupted:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raise_if_interrupted  # another handler takes Ctrl-C
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield raise_if_interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
