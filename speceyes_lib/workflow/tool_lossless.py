"""`speceyes tools lossless`: every arm that is lossless against no speculation, message by message.

A turn of a model is computed when it is first wanted and comes from memory afterwards, at stated rates. Tools wait for
nothing. So arms differ in what speculation does and in nothing else, and the actor still writes long enough for guesses
to be carried out before its call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from ..demo.tool_tasks import embedded_resources, embedded_toolbox, provide_tool_tasks
from ..demo.tool_vision import GatedVision
from ..params import ToolLosslessParams
from ..paths import run_dir
from ..tasks.gaia import load_gaia
from ..tool_speculation.models import PacedPolicy, Policy
from ..tool_speculation.records import TaskRun
from ..tool_speculation.remembered import RememberedPolicy
from ..tool_speculation.run import ToolSetup, run_batch
from ..tool_speculation.settings import SpeculationSettings, comparison_arms
from ..tools.pictures import Vision
from .tool_study import RememberedVision

MOST_NAMED = 5  # tasks that differ


@dataclass
class EqualRuns:
    """How many runs of an arm are those of the baseline.

    Attributes:
        arm: its name.
        tasks: compared. messages, answers: of these, how many are equal.
        calls: of the arm. served: of these, how many a guess served.
        differing: tasks with another message or answer.
    """

    arm: str
    tasks: int = 0
    messages: int = 0
    answers: int = 0
    calls: int = 0
    served: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def lossless(self) -> bool:
        """True if nothing differs."""
        return not self.differing

    def add(self, run: TaskRun, baseline: TaskRun) -> None:
        """Count one task."""
        equal = (
            run.messages == baseline.messages,
            (run.answer, run.error) == (baseline.answer, baseline.error),
        )
        calls = [call for step in run.steps for call in step.calls]
        self.tasks += 1
        self.messages, self.answers = self.messages + equal[0], self.answers + equal[1]
        self.calls, self.served = (
            self.calls + len(calls),
            self.served + sum(c.source != "executed" for c in calls),
        )
        if not all(equal):
            self.differing.append(run.task_id)

    def line(self) -> str:
        """The counts as one line."""
        words = (
            f"{self.arm}: messages equal in {self.messages} of {self.tasks} tasks, answers in {self.answers}"
        )
        words += f"; a guess served {self.served} of {self.calls} calls"
        names = ", ".join(self.differing[:MOST_NAMED]) + (", ..." if len(self.differing) > MOST_NAMED else "")
        return words + (f"; different: {names}" if names else "")


def lossless_arms(threshold: float) -> dict[str, SpeculationSettings]:
    """The baseline and all arms that must leave its messages as they are, by name."""
    every = comparison_arms(threshold)
    every |= {
        "normalised": SpeculationSettings(strategy="normalised"),
        "shadow": SpeculationSettings(policy="shadow", guesses=2),
    }
    return {name: settings for name, settings in every.items() if settings.lossless}


def equal_runs(runs: Iterable[TaskRun], baseline: str = "baseline") -> list[EqualRuns]:
    """The arms of these runs against the baseline, on the tasks that both have."""
    runs = list(runs)
    without = {run.task_id: run for run in runs if run.arm == baseline}
    counts: dict[str, EqualRuns] = {}
    for run in runs:
        if run.arm != baseline and run.task_id in without:
            counts.setdefault(run.arm, EqualRuns(run.arm)).add(run, without[run.task_id])
    return list(counts.values())


def run_lossless(
    params: ToolLosslessParams,
    models: Sequence[Policy] | None = None,
    vision: Vision | None = None,
    report: Callable[[str], object] = print,
) -> list[EqualRuns]:
    """Run what is missing in the folder of the run; returns the counts of each arm.

    Args:
        params: what is run.
        models: actor and speculator; None: the embedded pair.
        vision: what answers vision_analyze; None: the embedded one.
        report: gets a line of text per task.

    Raises:
        ConfigError: the folder holds records of other settings or models.
    """
    if models is None:
        from .tool_runs import embedded_pair

        models = embedded_pair()
    rates = (params.tokens_per_s, params.guess_tokens_per_s)
    actor, speculator = (
        PacedPolicy(RememberedPolicy(m), rate) for m, rate in zip(models, rates, strict=True)
    )
    resources = embedded_resources(params.split, None, RememberedVision(vision or GatedVision()))
    setup = ToolSetup(actor, speculator, embedded_toolbox(), resources)
    root = provide_tool_tasks(params.split)
    levels = [load_gaia(root, level=level)[: params.tasks] for level in params.levels]
    # by turns, so that a run that was ended early has met every level
    tasks = [task for task in chain.from_iterable(zip_longest(*levels)) if task is not None]
    arms = lossless_arms(params.threshold)

    async def run() -> list[TaskRun]:
        runs: list[TaskRun] = []
        async with aclosing(run_batch(tasks, setup, arms, run_dir(params.run))) as results:
            async for result, _ in results:
                runs.append(result)
                if len(runs) % len(arms) == 0:
                    n = len(runs) // len(arms)
                    equal = all(count.lossless for count in equal_runs(runs[-len(arms) :]))
                    report(f"{n} of {len(tasks)} tasks: {'equal' if equal else 'different'}")
        return runs

    return equal_runs(asyncio.run(run()))
