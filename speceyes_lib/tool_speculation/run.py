"""Tasks run one after the other under one or several arms, each result on disk before the next begins."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, MeansError
from ..paths import shown
from ..runs.files import StoreError
from ..tasks.gaia import ToolTask
from ..tools.declared import Toolbox, Workspace
from .episode import Assignment, Episode
from .models import Policy
from .records import Step, TaskRun, append_run, keep_runs
from .settings import SpeculationSettings

RUNS = "runs.jsonl"
MOST_FAULTS = 3  # of the actor in succession, until a batch stops


@dataclass(frozen=True)
class ToolSetup:
    """Who runs tasks, and with what.

    Attributes:
        actor, speculator: the models.
        toolbox: the tools. resources: of a workspace.
    """

    actor: Policy
    speculator: Policy | None
    toolbox: Toolbox
    resources: Mapping[str, Any] = field(default_factory=dict)

    async def close(self) -> None:
        """Close the connections of models behind servers."""
        for policy in (self.actor, self.speculator):
            if hasattr(policy, "close"):
                await policy.close()


def assignment_of(task: ToolTask) -> Assignment:
    """What is asked: the question, with a note on the attachment where the question does not name it."""
    question = task.question
    if task.attachment and task.attachment not in question:
        question += f"\n\n[Attached file: {task.attachment}. It is in the working folder.]"
    return Assignment(task.task_id, task.level, question, task.answer, task.attachment)


async def run_task(
    task: ToolTask,
    setup: ToolSetup,
    settings: SpeculationSettings,
    arm: str = "",
    observe: Callable[[Step], object] = lambda step: None,
) -> TaskRun:
    """The record of one task. Tools see a folder with the task's files and nothing else, which is removed afterwards.

    Args:
        task: what is asked.
        setup: models and tools.
        settings: how it is run.
        arm: name of the settings, for the record.
        observe: called with every step when it is over.
    """
    assignment = assignment_of(task)
    with tempfile.TemporaryDirectory(prefix="speceyes-task-", ignore_cleanup_errors=True) as folder:
        try:
            workspace = Workspace(task.workspace(Path(folder) / "files"), setup.resources)
        except (DataError, OSError) as error:  # the other tasks can be run
            return TaskRun(
                task_id=task.task_id,
                level=task.level,
                question=assignment.question,
                truth=task.answer,
                arm=arm,
                settings=settings.recorded(),
                error=str(error),
                cause="task",
                models={"actor": setup.actor.name, "speculator": setup.speculator and setup.speculator.name},
                started=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        episode = Episode(
            assignment, setup.actor, setup.speculator, setup.toolbox, workspace, settings, arm, observe
        )
        return await episode.run()


async def run_batch(
    tasks: Sequence[ToolTask],
    setup: ToolSetup,
    arms: Mapping[str, SpeculationSettings],
    folder: Path,
    others: Mapping[str, ToolSetup] | None = None,
) -> AsyncIterator[tuple[TaskRun, bool]]:
    """Run tasks under all arms; gives each record, and whether it was there already, in the order of the tasks.

    The arms of a task follow each other, beginning with another one each time, so that what drifts meets all alike. A
    folder that holds records is gone on with. Tasks whose model or files failed are done again.

    Args:
        tasks: what is asked.
        setup: models and tools.
        arms: name -> settings.
        folder: gets the file `RUNS`.
        others: of arms that have models or tools of their own, by name.

    Raises:
        ConfigError: the folder holds records of other settings or models.
        StoreError: the folder cannot be written, or another process writes it.
        MeansError: the actor failed in several tasks in succession.
    """
    path, faults = folder / RUNS, 0
    names = list(arms)
    setups = {arm: (others or {}).get(arm, setup) for arm in names}
    with _alone(folder):
        there = {
            (run.task_id, run.arm): run
            for run in keep_runs(path, lambda run: run.cause not in ("model", "task"))
        }
        for run in there.values():
            if run.arm in arms:
                _check_alike(path, run, arms[run.arm], setups[run.arm])
        for number, task in enumerate(tasks):
            for arm in names[number % len(names) :] + names[: number % len(names)]:
                if (run := there.get((task.task_id, arm))) is not None:
                    yield run, True
                    continue
                run = await run_task(task, setups[arm], arms[arm], arm)
                append_run(path, run)
                faults = faults + 1 if run.cause == "model" else 0
                yield run, False
                if faults == MOST_FAULTS:
                    raise MeansError(
                        "model",
                        f"the actor failed in {MOST_FAULTS} tasks in succession, last with: {run.error}. Mend that and "
                        f"run the same command with --output {shown(folder)}; what is done stays",
                    )


def _check_alike(path: Path, run: TaskRun, settings: SpeculationSettings, setup: ToolSetup) -> None:
    models = {"actor": setup.actor.name, "speculator": setup.speculator and setup.speculator.name}
    expected = settings.recorded()
    differing = [name for name in expected if run.settings.get(name) != expected[name]]
    if run.models["actor"] != models["actor"]:
        differing.append("actor")
    if settings.policy != "off" and run.models["speculator"] != models["speculator"]:
        differing.append("speculator")
    if differing:
        raise ConfigError(
            f"{shown(path)}: holds records of the arm {run.arm!r} with other values of {', '.join(differing)}; "
            "give another --output, or the settings with which they were made"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StoreError(f"{shown(folder)}: cannot be written ({error.strerror or error})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"{shown(folder)}: another process is writing it; wait for it, or give another --output"
            ) from None
        yield
