"""Moves cases from station to station: one job at a time, or with all workers busy.

At a station, cases wait for one kind of work (a router verdict, the next turn of an agent). A job is that work on up to
`size` cases. Stations of one `lane` share its workers. The last station of the line comes first, so that started cases
are finished before new ones start, and few pictures are held at a time.

Time: the jobs running in a second of the clock share it equally. The seconds that the cases of a job measured are
scaled by the job's share (charged / measured seconds; 1 when jobs run one at a time). So the costs of the cases sum to
the clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class Station(Generic[C]):
    """One kind of work."""

    name: str
    lane: Hashable  # the workers that it uses
    size: int  # cases per job at most
    work: Callable[
        [list[C]], list[Any]
    ]  # by a worker: a result for every case, in order; changes only these cases
    take: Callable[
        [C, Any, float], None
    ]  # in the scheduler's thread: a case, its result, the job's share of the clock
    patient: bool = False  # waits for a full job instead of starting with fewer cases
    brief: bool = False  # its jobs are so short that patient stations wait for them
    # key function: only cases with equal keys share a job. Of equally large groups, the highest key goes first
    alike: Callable[[C], Any] = lambda _: 0
    # seconds that these cases measured in a job with these results; None: the job's own clock counts
    measured: Callable[[list[C], list[Any]], float] | None = None


@dataclass(eq=False)
class _Job(Generic[C]):
    station: Station[C]
    cases: list[C]
    results: list[Any] = field(default_factory=list)
    error: BaseException | None = None
    measured_s: float = 0.0
    charged_s: float = 0.0

    def run(self) -> None:
        start = time.perf_counter()
        try:
            self.results = self.station.work(self.cases)
        except BaseException as error:  # raised in the thread that waits for the cases
            self.error = error
        self.measured_s = time.perf_counter() - start


class Scheduler(Generic[C]):
    """Runs cases through `stations`, given from the last of the line to the first, where all cases enter.

    Args:
        destination: name of the next station of a case; None when it is done.
        workers: lane -> number of jobs at once, each in its own thread. None: one job at a time over all lanes, in the
            thread that iterates.
        window: cases in work at most (with workers; without, as few as the stations' sizes allow).
    """

    def __init__(
        self,
        stations: Sequence[Station[C]],
        destination: Callable[[C], str | None],
        workers: Mapping[Hashable, int] | None = None,
        window: int | None = None,
    ) -> None:
        self.stations, self.destination, self.workers, self.window = stations, destination, workers, window
        self._waiting: dict[str, deque[C]] = {station.name: deque() for station in stations}
        self._running: list[_Job[C]] = []
        self._ended: SimpleQueue[_Job[C]] = SimpleQueue()
        self._live = 0
        self._clock_s = 0.0

    def run(self, arrivals: Iterable[C]) -> Iterator[C]:
        """The cases, each as soon as it is done. Exceptions and stopping early wait for the running jobs."""
        self._arrivals, done = iter(arrivals), []
        with ExitStack() as stack:
            start = self._starter(stack)
            while True:
                if self.workers is not None or not done:
                    while (job := self._next_job()) is not None:
                        self._elapse()
                        self._running.append(job)
                        start(job)
                if done:
                    yield from done
                    self._live -= len(done)  # until then the caller holds what they hold
                    done = []
                elif self._running:
                    done = self._settle(self._ended.get())
                else:
                    return

    def _starter(self, stack: ExitStack) -> Callable[[_Job[C]], None]:
        def run(job: _Job[C]) -> None:
            job.run()
            self._ended.put(job)

        if self.workers is None:
            return run
        pools = {
            lane: stack.enter_context(ThreadPoolExecutor(count, f"lane-{number}"))
            for number, (lane, count) in enumerate(self.workers.items())
        }
        return lambda job: pools[job.station.lane].submit(run, job)

    def _settle(self, job: _Job[C]) -> list[C]:
        """Use the results of an ended job; returns the cases that are done."""
        self._elapse()
        self._running.remove(job)
        if job.error is not None:
            raise job.error
        station, done = job.station, []
        measured_s = station.measured(job.cases, job.results) if station.measured else job.measured_s
        share = 1.0 if self.workers is None else job.charged_s / max(measured_s, 1e-9)
        for case, result in zip(job.cases, job.results, strict=True):
            station.take(case, result, share)
            where = self.destination(case)
            if where is None:
                done.append(case)
            else:
                self._waiting[where].append(case)
        return done

    def _elapse(self) -> None:
        now_s = time.perf_counter()
        for job in self._running:
            job.charged_s += (now_s - self._clock_s) / len(self._running)
        self._clock_s = now_s

    # ------------------------------------------------------------------------------------ what is done next
    def _next_job(self) -> _Job[C] | None:
        for full in (True, False):
            for station in self.stations:
                if self._has_worker(station) and (cases := self._cases_for(station, full)):
                    return _Job(station, cases)
        return None

    def _has_worker(self, station: Station[C]) -> bool:
        if self.workers is None:
            return not self._running
        return sum(job.station.lane == station.lane for job in self._running) < self.workers[station.lane]

    def _cases_for(self, station: Station[C], full: bool) -> list[C]:
        """Cases for a job, removed from their queue; none if none wait or a patient station waits for more."""
        if station is self.stations[-1]:
            return self._arrive(station.size) if full else []
        waiting = self._waiting[station.name]
        groups: dict[Any, list[C]] = {}
        for case in waiting:
            groups.setdefault(station.alike(case), []).append(case)
        if not groups:
            return []
        _, chosen = max(groups.items(), key=lambda item: (min(len(item[1]), station.size), item[0]))
        if station.patient and full and len(waiting) < station.size:
            return []
        if station.patient and not full and any(job.station.brief for job in self._running):
            return []
        chosen = chosen[: station.size]
        for case in chosen:
            waiting.remove(case)
        return chosen

    def _arrive(self, size: int) -> list[C]:
        room = size if self.window is None else min(size, self.window - self._live)
        cases = list(islice(self._arrivals, max(0, room)))
        self._live += len(cases)
        return cases
