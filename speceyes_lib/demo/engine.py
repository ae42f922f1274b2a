"""Which waiting requests the embedded server answers next, and together, so that a long one does not hold short ones.

A job's place in the line is its number of arrival plus its cost. So a job of cost c is overtaken by at most c later
ones, and none waits for ever. An `Engine` computes the answers of one model. While a batch is generated, it answers
jobs far enough in front of that batch between two tokens. Jobs whose future was cancelled are given up. Requests with
the same id are the same request: those that wait at the same time are computed once. Prompts become tokens in the
engine's thread, when it is their turn: a second thread that holds the interpreter makes each operation of the model
wait for it.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from collections.abc import Callable, Container, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..models.base import Generation, GenerationRequest

T = TypeVar("T")

MAX_BATCH = 16
# of the prompts of a batch, padded to the longest. Its first step cannot be interrupted, so a long prompt is alone: a
# batch would not be faster, because one such prompt keeps the processor busy
MAX_BATCH_TOKENS, ALONE_TOKENS = 8192, 1024
GATHER_S = 0.004  # how long a request waits for others to share a batch
LEAD = 256  # a batch is interrupted for jobs that are so many places in front of it
MAX_INTERRUPTED = 4  # batches that wait at a time, each with its memory


@dataclass(eq=False)
class Job(Generic[T]):
    """Work that waits, and the future of its result. place: see above; cost: as estimated, later as measured."""

    work: T
    cost: int
    place: int
    future: Future


class Line(Generic[T]):
    """Waiting jobs by their places. Any thread may use it."""

    def __init__(self) -> None:
        self._jobs: list[Job[T]] = []
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, work: T, cost: int) -> Future:
        """The future result of new work."""
        job = Job(work, cost, next(self._arrivals) + cost, Future())
        with self._changed:
            bisect.insort(self._jobs, job, key=lambda job: job.place)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take no more work: `wait` returns False once the line is empty."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def wait(self, most: int = 1) -> bool:
        """Wait for a job, and then `GATHER_S` for `most` jobs. False: the line is closed, and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            if most > 1:
                self._changed.wait_for(lambda: len(self._jobs) >= most or self._is_closed, GATHER_S)
            return bool(self._jobs)

    def take(
        self, fits: Callable[[list[Job[T]], Job[T]], bool], before: float = float("inf")
    ) -> list[Job[T]]:
        """The jobs to do next: the first one, and those behind it that fit to the ones taken.

        fits: (jobs taken so far, a further job) -> whether it joins them.
        before: only jobs with a lower place.
        """
        taken: list[Job[T]] = []
        with self._changed:
            if not self._jobs or self._jobs[0].place >= before:
                return []
            self._jobs = [job for job in self._jobs if not job.future.cancelled()]
            for job in self._jobs:
                if job.place >= before:
                    break
                if not taken or fits(taken, job):
                    taken.append(job)
            self._jobs = [job for job in self._jobs if job not in taken]
        return taken


class Generator(Protocol):
    """What an engine needs of a model."""

    def generate(
        self, requests: Sequence[GenerationRequest], unwanted: Callable[[], Container[str]]
    ) -> list[Generation]:
        """The generations in order. `unwanted` is called between two tokens: ids of requests to give up."""


class Engine:
    """One model and its thread.

    Args:
        generator: the model.
        measure: number of tokens of a request's prompt. What it raises is the request's result.
        max_batch: requests per batch at most.
        max_tokens: of prompt and answer together; at this length an answer ends.
    """

    def __init__(
        self,
        generator: Generator,
        measure: Callable[[GenerationRequest], int],
        max_batch: int = MAX_BATCH,
        max_tokens: float = float("inf"),
    ) -> None:
        self.generator, self.measure = generator, measure
        self.max_batch, self.max_tokens = max_batch, max_tokens
        self._line: Line[GenerationRequest] = Line()
        self._interrupted = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, cost: int) -> Future[tuple[int, Generation]]:
        """The future number of tokens of the prompt, and generation. Cancelling it gives the request up.

        cost: the number of tokens, estimated.
        """
        return self._line.put(request, cost)

    def close(self) -> None:
        """Answer the waiting requests, then stop."""
        self._line.close()
        self._thread.join()

    def _work(self) -> None:
        while self._line.wait(self.max_batch):
            self._answer_all(self._line.take(self._fits))

    def _answer_all(self, jobs: list[Job[GenerationRequest]]) -> None:
        """Measure jobs that were taken together, and answer them in as few batches as they fit into."""
        batch: list[Job[GenerationRequest]] = []
        measured: dict[str, int] = {}
        for job in jobs:
            try:
                if job.work.id not in measured:
                    measured[job.work.id] = self.measure(job.work)
                job.cost = measured[job.work.id]
            except BaseException as error:
                _fail(job, error)
                continue
            if batch and not self._fits(batch, job):
                self._answer(batch)
                batch = []
            batch.append(job)
        self._answer(batch)

    def _fits(self, batch: list[Job[GenerationRequest]], job: Job[GenerationRequest]) -> bool:
        rows = {j.work.id for j in batch}
        if job.work.id in rows:
            return True
        longest = max(job.cost, *(j.cost for j in batch))
        return (
            len(rows) < self.max_batch
            and longest < ALONE_TOKENS
            and longest * (len(rows) + 1) <= MAX_BATCH_TOKENS
            and _settings(job.work) == _settings(batch[0].work)
        )

    def _answer(self, batch: list[Job[GenerationRequest]]) -> None:
        if not batch:
            return
        place, steps = batch[0].place, 0
        rows = {job.work.id: job.work for job in batch}

        def unwanted() -> set[str]:
            nonlocal steps
            steps += 1
            # the longer a batch takes, the sooner it lets others go first
            while self._interrupted < MAX_INTERRUPTED:
                ahead = self._line.take(self._fits, before=place + steps - LEAD)
                if not ahead:
                    break
                self._interrupted += 1
                self._answer_all(ahead)
                self._interrupted -= 1
            return rows.keys() - {
                job.work.id
                for job in batch
                if not job.future.cancelled() and job.cost + steps < self.max_tokens
            }

        try:
            generations = self.generator.generate(list(rows.values()), unwanted)
        except BaseException as error:
            for job in batch:
                _fail(job, error)
        else:
            by_id = dict(zip(rows, generations, strict=True))
            for job in batch:
                _finish(job, (job.cost, by_id[job.work.id]))


def _settings(request: GenerationRequest) -> tuple:
    return request.max_new_tokens, request.stop, request.evidence_k


def _finish(job: Job, result: object) -> None:
    with contextlib.suppress(InvalidStateError, CancelledError):  # it was cancelled
        job.future.set_result(result)


def _fail(job: Job, error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError, CancelledError):
        job.future.set_exception(error)
