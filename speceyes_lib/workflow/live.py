"""A run that can be watched: jobs write how far they are, and one line shows it.

A job's progress is a small file in `.progress/` of its run, replaced as it advances and removed when the job ends. Who
watches (`speceyes reproduce`, `speceyes status --watch`) reads these files and the records, and disturbs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from ..errors import UserError
from ..paths import run_dir, stage_dir
from ..report.formatting import duration
from ..runs.arms import DRAFT_STAGE
from ..runs.files import RECORDS
from .config import RunConfig

if TYPE_CHECKING:
    from ..analysis.so_far import RunSoFar

VARIABLE = "SPECEYES_PROGRESS"  # the file of a job's progress
FOLDER = ".progress"
SECONDS_BETWEEN_LINES = 60.0  # where the line cannot be replaced: in a log
SECONDS_BETWEEN_UPDATES = 1.0
SECONDS_BETWEEN_PAGES = 5.0
LINES_KEPT = 12
FAILED = b'"status":"error"'


@dataclass(frozen=True)
class Advance:
    """How far a job is in one leg, such as a task of an arm.

    Attributes:
        job: name of the executed notebook.
        verb: what is done with the samples.
        done, total, start: samples; `start` of them were done before this session.
        text: "task" or "task · arm, arm".
        began_s, now_s: clock at the beginning of the leg, and of this report.
    """

    job: str
    verb: str
    done: int
    total: int
    start: int
    text: str
    began_s: float
    now_s: float

    @property
    def rate(self) -> float:
        """Samples per second of this session; 0 before the first."""
        return (self.done - self.start) / max(self.now_s - self.began_s, 1e-9)


def file_of(run: str, job: str) -> Path:
    """Where a job writes its progress."""
    return run_dir(run) / FOLDER / f"{job}.json"


def write(verb: str, done: int, total: int, start: int, text: str, spent_s: float) -> None:
    """Write this job's progress where its file is named by the environment; a full disk is no fault of the job."""
    if not (name := os.environ.get(VARIABLE)):
        return
    path, now_s = Path(name), time.time()
    advance = Advance(path.stem, verb, done, total, start, text, now_s - spent_s, now_s)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(advance)), "utf-8")
        part.replace(path)


def advances(run: str) -> list[Advance]:
    """What the jobs of a run report now, the latest first; what cannot be read is left out."""
    found = []
    for path in (run_dir(run) / FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Advance(**json.loads(path.read_text("utf-8"))))
    return sorted(found, key=lambda advance: -advance.now_s)


def failures(run: str, advance: Advance) -> int:
    """Failed samples among the records of the task and arms that a job works on."""
    task, _, arms = advance.text.partition(" · ")
    n_failed = 0
    for stage in [f"02_{arm}" for arm in arms.split(", ")] if arms else [DRAFT_STAGE]:
        with contextlib.suppress(OSError, UserError):
            n_failed += (stage_dir(run, stage, task) / RECORDS).read_bytes().count(FAILED)
    return n_failed


def sentence(run: str, advance: Advance) -> str:
    """One job's progress: run, task, arm, n of N, samples per second, time left, failed samples."""
    parts = [run, advance.text or advance.job, f"{advance.verb} {advance.done} of {advance.total}"]
    if advance.done > advance.start:
        left_s = (advance.total - advance.done) / advance.rate
        parts += [f"{advance.rate:.2g}/s", f"{duration(left_s)} left"]
    if failed := failures(run, advance):
        parts.append(f"{failed} failed")
    return " · ".join(parts)


def line(runs: Sequence[str], jobs_done: int, jobs: int) -> str:
    """What the runs are doing now, for a terminal: jobs that are finished, and the progress of those at work."""
    working = [sentence(run, advance) for run in runs for advance in advances(run)]
    return " | ".join([f"{jobs_done} of {jobs} jobs", *working])


class LiveLine:
    """Shows a line that is replaced as it changes; in a log, as a line now and then. Use as a context manager.

    Args:
        text: called for the line.
        out: where it is shown.
        every_s: seconds between two lines of a log.
    """

    def __init__(
        self, text: Callable[[], str], out: TextIO | None = None, every_s: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self.text, self.out, self.every_s = text, out or sys.stdout, every_s
        self.lock, self.over = threading.Lock(), threading.Event()
        self.replaces = self.out.isatty()
        self._shown = False

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join()
        self._clear()

    def print(self, text: str) -> None:
        """Print a line that stays, above the live one."""
        with self.lock:
            self._clear()
            print(text, file=self.out, flush=True)

    def _clear(self) -> None:
        if self._shown and self.replaces:
            print("\r\x1b[K", end="", file=self.out, flush=True)
        self._shown = False

    def _show(self) -> None:
        wait_s = SECONDS_BETWEEN_UPDATES if self.replaces else self.every_s
        while not self.over.wait(wait_s):
            text = self.text()
            with self.lock:
                if self.replaces:
                    width = os.get_terminal_size(self.out.fileno()).columns
                    print(f"\r\x1b[K{text[: width - 1]}", end="", file=self.out, flush=True)
                else:
                    print(text, file=self.out, flush=True)
                self._shown = True


class LivePage:
    """Writes index.html of a run while it works: a page that reloads itself. Use as a context manager.

    It reads what the jobs write, each record once, and takes nothing from them. Where the page cannot be written, the
    run goes on without it.

    Args:
        config: of the run.
        jobs_done: called for the number of finished jobs.
        jobs: all of them.
    """

    def __init__(self, config: RunConfig, jobs_done: Callable[[], int], jobs: int) -> None:
        self.config, self.jobs_done, self.jobs = config, jobs_done, jobs
        self.path = run_dir(config.name) / "index.html"
        self.lines: list[str] = []
        self.over = threading.Event()
        self._began_s = time.monotonic()
        self._runs: dict[str, RunSoFar] | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.over.set()
        self._thread.join()

    def note(self, text: str) -> None:
        """Keep a line of a job that ended."""
        self.lines = [*self.lines, text][-LINES_KEPT:]

    def end(self, state: str) -> None:
        """Write the page of a run that ended without a result; it does not reload itself. Call it after the block."""
        if self.over.is_set():  # else no page was begun: there was nothing to do
            self._write(state)

    def _work(self) -> None:
        while True:
            self._write("at work")
            if self.over.wait(SECONDS_BETWEEN_PAGES):
                return

    def _write(self, state: str) -> None:
        from ..report.live_page import live_page  # brings numpy, which the start of a run does not wait for

        with contextlib.suppress(OSError, UserError):
            runs = self._so_far()
            arms = {name: run.update() for name, run in runs.items()}
            failures = [failure for run in runs.values() for failure in run.failures()]
            working = [sentence(run, advance) for run in runs for advance in advances(run)]
            page = live_page(
                self.config.name,
                self.config.gate.score,
                state,
                self.jobs_done(),
                self.jobs,
                time.monotonic() - self._began_s,
                working,
                arms,
                failures,
                self.lines,
            )
            part = self.path.with_suffix(".html.part")
            part.write_text(page, "utf-8")
            part.replace(self.path)

    def _so_far(self) -> dict[str, RunSoFar]:
        """The run, and the one that chooses its threshold."""
        if self._runs is None:
            from ..analysis.so_far import RunSoFar

            config, judging = self.config, self.config.judging
            of_run = {config.name: (config.arms, config.data.root)}
            if config.validation_run:
                of_run[config.validation_run] = (["collect"], config.validation.root)
            self._runs = {
                name: RunSoFar(name, arms, config.data.tasks, root, judging.protocol, config.data.limit)
                for name, (arms, root) in of_run.items()
            }
        return self._runs


@contextlib.contextmanager
def as_job(run: str, job: str) -> Iterator[None]:
    """Within this block progress of this process and of its kernels goes to the job's file, which is then removed."""
    path = file_of(run, job)
    os.environ[VARIABLE] = str(path)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        path.unlink(missing_ok=True)
