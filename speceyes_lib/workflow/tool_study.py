"""`speceyes tools study`: the embedded study of tool speculation, whose records `study_tool_speculation` shows.

    validation/runs.jsonl   a shadow pass over validation tasks: think time, and the threshold of the gate
    plan.json               what follows from it; equal for all that comes after, also when the study is continued
    PROFILE/runs.jsonl      the arms, interleaved by task, at each share of the tools
    vision/runs.jsonl       the gate of SpecEyes inside vision_analyze on and off, and speculation on and off

The study can be ended at any time, however hard, and goes on where it was.

Both models stand for models behind servers. Before a task is measured, it is rehearsed: every turn and every answer
about a picture is computed once. In the arms, tokens come at stated rates, and an answer about a picture takes the
seconds of one core that it took. So arms do not compete for this machine's cores, and other load hardly matters. What
the models really take on this machine is what `speceyes tools run` measures.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..analysis.guess_gate import gate_front, least_waste
from ..analysis.tool_study import ToolStudy, read_tool_study
from ..demo.recorded import set_aside
from ..demo.tool_tasks import (
    WAITING_TOOLS,
    Split,
    embedded_resources,
    embedded_toolbox,
    embedded_waits,
    provide_tool_tasks,
)
from ..demo.tool_vision import GatedVision
from ..errors import ConfigError
from ..params import ToolRunsParams, ToolStudyParams
from ..paths import run_dir, shown
from ..replay.tool_steps import flatten_runs, other_waits
from ..runs.files import write_atomically
from ..runs.provenance import environment
from ..stats.resampling import DEFAULT_BOOTSTRAP
from ..tasks.gaia import ToolTask, load_gaia
from ..tool_speculation.models import PacedPolicy, Policy
from ..tool_speculation.records import TaskRun, read_runs
from ..tool_speculation.remembered import RememberedPolicy
from ..tool_speculation.run import RUNS, ToolSetup, run_batch, run_task
from ..tool_speculation.settings import BASELINE, SpeculationSettings, comparison_arms
from ..tools.pictures import Vision
from ..tools.waits import Waits

PLAN = "plan.json"
SHADOW = SpeculationSettings(policy="shadow", guesses=2)
FULL_PROFILE = "science"  # all arms run here; the others have those of FEW
FEW = ("baseline", "exact", "original")
WEAK = {"weak": SpeculationSettings(), "weak_original": SpeculationSettings(policy="original")}
BOTH = {"baseline": BASELINE, "exact": SpeculationSettings()}  # the 2 x 2: each without and with the gate
WEAK_NOISE = 0.4  # added to the speculator's weights, in units of their spread
REHEARSAL = SpeculationSettings(policy="shadow", guesses=2, look_ahead=2)  # wants what all lossless arms want
MOST_REHEARSALS = 4  # of an arm that is not lossless
SCENES = "shows a"  # in the questions of tasks whose picture has to be looked at
KEPT_OF_SAVING = 85.0  # percent, by which the threshold is chosen


@dataclass(frozen=True)
class Models:
    """Who runs the study.

    Attributes:
        actor, speculator: the pair.
        weak: a speculator that guesses badly; None leaves its arms out.
        visions: what answers vision_analyze, without and with the gate of SpecEyes.
    """

    actor: Policy
    speculator: Policy
    weak: Policy | None = None
    visions: tuple[Vision, Vision] = field(default_factory=lambda: (GatedVision(False), GatedVision()))


def run_study(
    params: ToolStudyParams, models: Models | None = None, report: Callable[[str], None] = print
) -> Path:
    """Run what is missing of the study; returns its folder.

    Args:
        params: of the study.
        models: actor and speculators. By default the embedded pair, the actor paced.
        report: gets a line of text per task.

    Raises:
        ConfigError: the folder holds a study with other parameters.
    """
    set_aside([params.run])
    folder = run_dir(params.run)
    folder.mkdir(parents=True, exist_ok=True)
    _check_parameters(folder, params)
    return asyncio.run(_Study(params, models or _embedded(folder, params), folder, report).run())


def open_tool_study(params: ToolRunsParams, report: Callable[[str], None] = print) -> ToolStudy:
    """The study that a notebook shows: run here first if its parameters say so, else the one of `path`.

    Args:
        params: of the notebook.
        report: gets a line of text per task that is run.

    Raises:
        DataError: there is no study.
    """
    study = isinstance(params, ToolStudyParams)
    place = run_study(params, report=report) if study and params.run_here else params.path
    return read_tool_study(place or run_dir(params.run), params.resampling if study else DEFAULT_BOOTSTRAP)


def _check_parameters(folder: Path, params: ToolStudyParams) -> None:
    """Refuse to mix: the parameters of a study stand in its folder from its beginning on."""
    path, given = folder / "parameters.json", params.recorded()
    if not path.exists():
        write_atomically(path, _json(given))
        return
    there = json.loads(path.read_text("utf-8"))
    if differing := [name for name in given if there.get(name) != given[name]]:
        raise ConfigError(
            f"{shown(path)}: the study there has other values of {', '.join(differing)}; give another run=NAME, or "
            "the values with which it was begun"
        )


def _embedded(folder: Path, params: ToolStudyParams) -> Models:
    from ..gating.separability import DEFAULT_K
    from ..models.text_process import TextProcess
    from ..tool_speculation.local import LocalPolicy
    from .tool_runs import EMBEDDED, embedded_pair

    actor, speculator = embedded_pair()
    weak = TextProcess(weakened(EMBEDDED["speculator"], folder / "weak_speculator"))
    return Models(actor, speculator, LocalPolicy(weak, max_tokens=96, alternatives=DEFAULT_K))


class RememberedVision:
    """Answers about pictures, computed once: from then on each takes the processor seconds that it took."""

    def __init__(self, vision: Vision) -> None:
        self.vision = vision
        self._answers: dict[tuple[str, str], tuple[str, float]] = {}

    def __call__(self, path: Path, question: str) -> str:
        """The answer. Raises what the vision model raises."""
        key = (path.name, question)
        if key in self._answers:
            answer, seconds = self._answers[key]
            time.sleep(seconds)
            return answer
        start_s = time.thread_time()
        answer = self.vision(path, question)
        self._answers[key] = answer, time.thread_time() - start_s
        return answer


def weakened(model: str | Path, folder: Path, noise: float = WEAK_NOISE, seed: int = 0) -> Path:
    """A copy of a model folder whose matrices have noise on them, always the same; returns `folder`."""
    import torch
    from safetensors.torch import load_file, save_file

    from ..paths import resolve

    if not folder.exists():
        partial_folder = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        shutil.copytree(resolve(model), partial_folder, ignore=shutil.ignore_patterns("*.md", "training*"))
        weights, generator = (
            load_file(partial_folder / "model.safetensors"),
            torch.Generator().manual_seed(seed),
        )
        for name, weight in sorted(weights.items()):
            if weight.ndim == 2:
                more = torch.randn(weight.shape, generator=generator) * weight.float().std() * noise
                weights[name] = (weight.float() + more).to(weight.dtype)
        save_file(weights, partial_folder / "model.safetensors", metadata={"format": "pt"})
        partial_folder.rename(folder)
    return folder


class _Study:
    def __init__(
        self, params: ToolStudyParams, models: Models, folder: Path, report: Callable[[str], None]
    ) -> None:
        self.params, self.folder, self.report = params, folder, report
        self.toolbox, self.start_s = embedded_toolbox(), time.monotonic()
        self.visions = [RememberedVision(vision) for vision in models.visions]
        given = (models.actor, models.speculator, models.weak)
        # computed once, and the same at stated rates
        self.computed = [policy and RememberedPolicy(policy) for policy in given]
        rates = (params.tokens_per_s, params.guess_tokens_per_s, params.guess_tokens_per_s)
        self.paced = [p and PacedPolicy(p, rate) for p, rate in zip(self.computed, rates, strict=True)]

    async def run(self) -> Path:
        params = self.params
        shadow = await self._batch(
            "validation", self._tasks("validation", params.validation), {"shadow": SHADOW}, split="validation"
        )
        plan = self._plan(shadow)
        tasks = self._tasks("test", params.tasks)
        for profile in params.profiles:
            arms = self._arms(profile, plan["threshold"])
            await self._batch(profile, tasks, arms, profile, plan["think_s"])
        scenes = [t for t in load_gaia(provide_tool_tasks("test"), level=3) if SCENES in t.question]
        arms = {
            f"{name}_{gate}": settings
            for name, settings in BOTH.items()
            for gate in ("without_gate", "with_gate")
        }
        await self._batch("vision", scenes[: params.scenes], arms, FULL_PROFILE, plan["think_s"])
        return self.folder

    def _tasks(self, split: Split, per_level: int) -> list[ToolTask]:
        root = provide_tool_tasks(split)
        return [task for level in self.params.levels for task in load_gaia(root, level=level)[:per_level]]

    def _arms(self, profile: str, threshold: float) -> dict[str, SpeculationSettings]:
        every = comparison_arms(threshold)
        every |= {"normalised": SpeculationSettings(strategy="normalised"), "shadow": SHADOW}
        arms = every if profile == FULL_PROFILE else {arm: every[arm] for arm in FEW}
        return arms | (WEAK if self.paced[2] is not None and profile in (FULL_PROFILE, "coding") else {})

    def _plan(self, shadow: Sequence[TaskRun]) -> dict[str, Any]:
        """What follows from the validation tasks. A study that is continued keeps what it had."""
        path = self.folder / PLAN
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        steps = [step for run in shadow for step in run.steps]
        think_s = sum(step.actor_end_s - step.actor_start_s for step in steps) / len(steps)
        waits = {
            name: embedded_waits(name, think_s, self.params.seed)
            for name in dict.fromkeys((FULL_PROFILE, *self.params.profiles))
        }
        latency = other_waits(None, waits[FULL_PROFILE], WAITING_TOOLS)
        front = gate_front(flatten_runs(shadow, {"waits": latency}), ["separability_min"], latency="waits")
        plan = {
            "think_s": think_s,
            "threshold": float(least_waste(front, KEPT_OF_SAVING)["threshold"]),
            "waits": {name: {"mean_s": w.mean_s, "seed": w.seed} for name, w in waits.items()},
            "waiting_tools": list(WAITING_TOOLS),
            "environment": environment(),
            "load": list(os.getloadavg()),
        }
        write_atomically(path, _json(plan))
        return plan

    async def _batch(
        self,
        name: str,
        tasks: Sequence[ToolTask],
        arms: Mapping[str, SpeculationSettings],
        profile: str = "none",
        think_s: float = 0.0,
        split: Split = "test",
    ) -> list[TaskRun]:
        """Rehearse and run what is missing of a part of the study; returns all runs of the part."""
        path, runs = self.folder / name / RUNS, []
        there = {(run.task_id, run.arm) for run in read_runs(path)} if path.exists() else set()
        waits = embedded_waits(profile, think_s, self.params.seed) if think_s else None
        for number, task in enumerate(tasks):
            if any((task.task_id, arm) not in there for arm in arms):
                await self._rehearse(task, arms, split)
            # begin with another arm each time, so that what drifts meets all alike
            turn = number % len(arms)
            names = [*list(arms)[turn:], *list(arms)[:turn]]
            setups = {arm: self._setup(arm, split, waits, self.paced) for arm in arms}
            before = self.turns_computed
            batch = run_batch(
                [task], setups[names[0]], {arm: arms[arm] for arm in names}, self.folder / name, setups
            )
            async with aclosing(batch) as results:
                runs += [run async for run, _ in results]
            late = self.turns_computed - before
            spent = f"{time.monotonic() - self.start_s:.0f} s"
            self.report(
                f"{name}: {number + 1} of {len(tasks)} tasks, {spent}"
                + (f", {late} turns were not rehearsed" if late else "")
            )
        return runs

    async def _rehearse(self, task: ToolTask, arms: Mapping[str, SpeculationSettings], split: Split) -> None:
        """Have every turn in memory that the arms will want, as far as that can be known."""
        kinds = {}  # one arm for each speculator and vision model
        for arm in arms:
            kinds.setdefault(_kind(arm), arm)
        for arm in kinds.values():
            await run_task(task, self._setup(arm, split, None, self.computed), REHEARSAL)
        for arm, settings in arms.items():
            if settings.lossless and not settings.look_ahead:
                continue
            for _ in range(MOST_REHEARSALS):  # which turns are wanted depends on the pace
                before = self.turns_computed
                await run_task(task, self._setup(arm, split, None, self.paced), settings)
                if self.turns_computed == before:
                    break

    @property
    def turns_computed(self) -> int:
        """Turns that models computed so far."""
        return sum(policy.computed for policy in self.computed if policy is not None)

    def _setup(
        self, arm: str, split: Split, waits: Waits | None, models: Sequence[Policy | None]
    ) -> ToolSetup:
        """Who runs an arm: `models` are actor, speculator and weak speculator, computed or paced."""
        weak, gate = _kind(arm)
        actor, *speculators = models
        return ToolSetup(
            actor, speculators[weak], self.toolbox, embedded_resources(split, waits, self.visions[gate])
        )


def _kind(arm: str) -> tuple[bool, bool]:
    """Whether an arm has the weak speculator, and whether the gate inside vision_analyze."""
    return arm in WEAK, not arm.endswith("_without_gate")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
