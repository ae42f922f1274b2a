"""What the run of one task with tools leaves: one JSON line per task, read and written here.

All times are seconds since the task's start, by the clock of its event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DataError
from ..paths import shown
from ..runs.files import StoreError, write_atomically

Source = Literal["executed", "used", "awaited", "cached"]
Cause = Literal["", "limit", "model", "task"]
Outcome = Literal["used", "awaited", "cancelled", "unused", "refused", "failed"]


class Stored(BaseModel):
    """Base of these records: unknown fields are refused, and every number is finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Guess(Stored):
    """A call that the speculator expects.

    Attributes:
        name, arguments, canonical: of the call. `arguments` as they were written, with defaults filled in where they
            are valid; `canonical` is "" for a malformed call.
        given: the arguments as they were written.
        rank: 0 for the speculator's own call, 1.. for its forks.
        ahead: 0 for the step in which it was made, 1 for the one after, and so on.
        start_s, end_s: of its decoding.
        tokens: decoded for it.
        scores: how sure the speculator was: separability_min, separability_mean, logprob_sum (over the tokens of the
            name and the values of the arguments), weakest_argument (a name). Empty without log-probabilities.
        refused: why it was not executed.
        tool_start_s, tool_end_s: of its execution. None if it was not executed, or did not end.
        tool_s: seconds that the tool took.
        outcome: used (ready when the actor made the call), awaited (in flight then), cancelled, unused (executed, and
            never needed), refused, failed (the tool did).
        result_error: what the tool reported.
        same_as: [step, index] of an earlier guess of the same call, which was executed for both. Its seconds are
            repeated here.
    """

    name: str
    arguments: dict[str, Any] = {}
    canonical: str = ""
    given: dict[str, Any] = {}
    rank: int = 0
    ahead: int = 0
    start_s: float
    end_s: float
    tokens: int = 0
    scores: dict[str, float | str | None] = {}
    refused: str | None = None
    tool_start_s: float | None = None
    tool_end_s: float | None = None
    tool_s: float | None = None
    outcome: Outcome = "unused"
    result_error: str | None = None
    same_as: tuple[int, int] | None = None


class MadeCall(Stored):
    """A call of the actor.

    Attributes:
        name, arguments, canonical, given: as in `Guess`.
        start_s: when the actor had made it. end_s: when its result was there.
        source: executed (for the actor), used (a guess that was ready), awaited (a guess in flight), cached (a guess
            of an earlier step that was meant for another one).
        guess: which guess served it: an index into this step's guesses, or [step, index]. None if executed.
        tool_s: seconds that the tool itself took, also where it ran in advance.
        result: what the actor read. error: what went wrong, or None.
    """

    name: str
    arguments: dict[str, Any] = {}
    canonical: str = ""
    given: dict[str, Any] = {}
    start_s: float
    end_s: float
    source: Source = "executed"
    guess: int | tuple[int, int] | None = None
    tool_s: float = 0.0
    result: str = ""
    error: str | None = None


class Step(Stored):
    """One turn of the actor, from 1, and what was guessed during it.

    Attributes:
        actor_start_s, actor_end_s: of its decoding, until its calls are complete.
        actor_tokens: decoded.
        text: what it wrote, without its calls.
        calls: those it made, in order.
        guesses: those made while it was thinking.
        speculator_s: seconds until the speculator had ended or was cancelled. None without one.
        speculator_error: what went wrong with the speculator.
        warmed: names of the tools that were warmed up.
    """

    index: int
    actor_start_s: float
    actor_end_s: float
    actor_tokens: int = 0
    text: str = ""
    calls: list[MadeCall] = []
    guesses: list[Guess] = []
    speculator_s: float | None = None
    speculator_error: str | None = None
    warmed: list[str] = []


class TaskRun(Stored):
    """The run of one task.

    Attributes:
        task_id, level, question, truth: of the task. The question has the note on the attachment.
        arm: name of the way it was run; settings: what that means.
        answer: of the actor; None if there is none.
        error: why the run ended early.
        cause: of the error: limit (no answer within the steps), model (the actor or its server failed), task (its files
            cannot be read). A batch that is resumed does the last two again.
        seconds: from start to answer.
        messages: the conversation, {role, content, name?}.
        models: names of actor and speculator.
        started: UTC, ISO 8601.
    """

    task_id: str
    level: int
    question: str
    truth: str
    arm: str
    settings: dict[str, Any] = {}
    answer: str | None = None
    error: str | None = None
    cause: Cause = ""
    seconds: float = 0.0
    steps: list[Step] = []
    messages: list[dict[str, Any]] = []
    models: dict[str, str | None] = {}
    started: str = ""


def read_runs(path: str | Path) -> list[TaskRun]:
    """The runs of a file, in order. A last line that was cut off is left out: that task is not done.

    Raises:
        DataError: the file cannot be read, or a line holds no run.
    """
    path, runs = Path(path), []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    runs.append(TaskRun.model_validate_json(line))
                except ValidationError as error:
                    fault = error.errors()[0]
                    raise DataError(
                        f"{shown(path)}: line {number} is no run of a task "
                        f"({'.'.join(map(str, fault['loc'])) or 'JSON'}: {fault['msg']}); it may come from another "
                        "version; move the file away and run the tasks again"
                    ) from None
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror or error})") from None
    return runs


def append_run(path: str | Path, run: TaskRun) -> None:
    """Append a run to a file in one piece, and have it on disk on return. A last line that was cut off is removed.

    Raises:
        StoreError: the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _cut_unfinished(file)
            file.write(run.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(
            f"{shown(path)}: cannot be written ({error.strerror or error}); mend that and run it again; what is "
            "stored stays"
        ) from None


def keep_runs(path: str | Path, keep: Callable[[TaskRun], bool]) -> list[TaskRun]:
    """Take out of a file the runs that are to be done again; returns those that stay.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    runs = read_runs(path)
    kept = [run for run in runs if keep(run)]
    if len(kept) < len(runs):
        write_atomically(path, b"".join(run.model_dump_json().encode() + b"\n" for run in kept))
    return kept


def _cut_unfinished(file: Any) -> None:
    """Shorten a file to its last whole line."""
    end = file.seek(0, os.SEEK_END)
    position = end
    while position:
        start = max(0, position - 65_536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)
