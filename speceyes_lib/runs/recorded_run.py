"""The one reader of a recorded run: its records, verdicts, evidence and settings, over all its tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import DataError, StageError, nearest
from ..paths import notebook_of, resolve, run_dir, runs_dir, stage_dir
from ..tasks.registry import load_task, place_of, task_of
from ..tasks.sample import Sample
from .arms import ARMS, DRAFT_STAGE
from .checksums import Sums, digest, read_sums
from .evidence import Evidence
from .files import EVIDENCE, MANIFEST, RECORDS
from .own_scores import read_scores
from .reading import (
    StageData,
    is_finished,
    read_evidence,
    read_manifest,
    read_stage,
    read_stored_logprobs,
)
from .records import AgentRecord, DraftRecord, JudgedRecord, Manifest, Record

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

RECORD_TYPES: dict[str, type[Record]] = {"01": DraftRecord, "02": AgentRecord, "03": JudgedRecord}
# what the stages of one run have in common, by name in their manifests
RUN_INPUTS = ("code", "prompts", "draft_model", "agent_model")
TASK_INPUTS = ("data", "sample_ids")
GATE = ("score", "k", "slope", "router", "threshold")
EVIDENCE_KEPT = 256  # answers whose evidence stays in memory once `RecordedRun.evidence` has read it


def open(run: str, *, tasks: Sequence[str] = (), strict: bool = True) -> RecordedRun:
    """A run that was recorded, whose parts are read when they are first used.

    Args:
        run: its name, a folder of data/runs.
        tasks: "benchmark/split", one or more; empty: every task that the run has folders of.
        strict: refuse a stage that is missing, unfinished or changed. Otherwise such a stage gives the records that
            can be read, maybe none, and a sentence in `RecordedRun.missing`. Nothing is ever written or repaired.

    Raises:
        StageError: strict, and the run has no task.
    """
    if not (strict and tasks):
        held = tasks_of(run)
        tasks = [task for task in tasks or held if task in held]
    if strict and not tasks:
        raise StageError(_nothing_in(run))
    return RecordedRun(run, tasks, strict)


def tasks_of(run: str) -> list[str]:
    """The tasks that a run has folders of, those of the benchmarks first."""
    folders = (path for stage in _stages_of(run) for path in run_dir(run).glob(f"{stage}/[!.]*/[!.]*"))
    held = {f"{path.parent.name}/{path.name}" for path in folders if path.is_dir()}
    return sorted(held, key=lambda task: (place_of(task), task))


def list_runs() -> list[str]:
    """Names of the runs that hold drafts or answers of an agent."""
    folders = (folder for folder in runs_dir().glob("*") if folder.is_dir())
    return sorted(folder.name for folder in folders if _stages_of(folder.name))


class RecordedRun:
    """A run, read part by part and kept; `open` makes one. Open it again to see what was added since.

    It has a `name`, its `tasks` ("benchmark/split", in the order of the paper's splits), and is `strict` or not.
    """

    def __init__(self, name: str, tasks: Iterable[str], strict: bool = True) -> None:
        self.name, self.strict = name, strict
        self.tasks = tuple(sorted(tasks, key=lambda task: (place_of(task), task)))
        self._stages: dict[tuple[str, str], StageData[Any]] = {}
        self._notes: dict[tuple[str, str], str] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._samples: dict[str, dict[str, Sample]] = {}
        self._verified: set[str] = set()  # tasks whose evidence file was compared with its manifest
        self.evidence = lru_cache(maxsize=EVIDENCE_KEPT)(self._evidence)

    def select(self, tasks: Collection[str]) -> RecordedRun:
        """The same run on some of its tasks, strict. What was read before is not read again."""
        part = RecordedRun(self.name, tasks)
        part._stages, part._samples, part._verified = self._stages, self._samples, self._verified
        return part

    # ------------------------------------------------------------------ what there is

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that ran all tasks, the instrumented one first; not strict: also those that are unfinished."""
        known = {stage.removeprefix("02_") for stage in _stages_of(self.name) if stage.startswith("02_")}
        ordered = [*(arm for arm in ARMS if arm in known), *sorted(known.difference(ARMS))]
        return tuple(a for a in ordered if not self.strict or self.finished(f"02_{a}") == self.tasks)

    @property
    def missing(self) -> tuple[str, ...]:
        """What the run lacks of its drafts, arms and verdicts, and why: a sentence per stage and task."""
        arms = [stage for stage in _stages_of(self.name) if stage.startswith("02_")]
        judging = [stage.replace("02_", "03_judging/", 1) for stage in arms]
        return tuple(self.notes([DRAFT_STAGE, *arms, *judging]))

    def notes(self, stages: Iterable[str]) -> list[str]:
        """What is missing, unfinished or unreadable in these stages: a sentence per stage and task."""
        if not self.tasks:
            return [_nothing_in(self.name)]
        return [note for stage in stages for task in self.tasks if (note := self._note(stage, task))]

    def _note(self, stage: str, task: str) -> str:
        if not self.strict:
            self._part(stage, task)
            return self._notes.get((stage, task), "")
        try:
            self.manifest(stage, task)
        except StageError as error:
            return str(error)
        return ""

    def finished(self, *stages: str) -> tuple[str, ...]:
        """The tasks that finished all of these stages ("02_collect", "03_judging/collect")."""
        return tuple(task for task in self.tasks if all(self._is_finished(s, task) for s in stages))

    def _is_finished(self, stage: str, task: str) -> bool:
        try:
            return (stage, task) in self._stages or is_finished(self.name, stage, task)
        except StageError:
            if self.strict:
                raise
            return False

    # ------------------------------------------------------------------ stages

    def stage(self, stage: str, task: str) -> StageData[Any]:
        """One finished stage of one task: manifest and records.

        Raises:
            StageError: it is missing, unfinished or changed (names the notebook to run).
        """
        if (stage, task) not in self._stages:
            self._stages[stage, task] = read_stage(self.name, stage, task, RECORD_TYPES[stage[:2]])
        return self._stages[stage, task]

    def manifest(self, stage: str, task: str) -> Manifest:
        """The manifest of a stage of one task. Raises StageError as `stage` does; reads no record."""
        read = self._stages.get((stage, task))
        return read.manifest if read else read_manifest(self.name, stage, task)

    def config(self, stage: str) -> dict[str, Any]:
        """The parameters that a stage ran with, of its first task; not strict: of the first finished one, or {}."""
        if self.strict:
            return self.manifest(stage, self.tasks[0]).config
        return next((self.manifest(stage, task).config for task in self.finished(stage)), {})

    @property
    def agent(self) -> str:
        """Format and model of the agent that ran; "unknown agent" where no manifest names one."""
        for arm in self.arms:
            config = self.config(f"02_{arm}")
            model = str(config.get("agent_model", "")).rstrip("/").rsplit("/", 1)[-1]
            if name := " ".join(filter(None, [config.get("agent", ""), model])):
                return name
        return "unknown agent"

    # ------------------------------------------------------------------ records

    @cached_property
    def own_scores(self) -> dict[str, dict[str, float]]:
        """Scores that were added to the run: name -> sample id -> value."""
        return read_scores(self.name)

    def drafts(self) -> dict[str, DraftRecord]:
        """Drafts of stage 01 by sample id."""
        return self._all_of(DRAFT_STAGE)

    def records(self, arm: str) -> dict[str, AgentRecord]:
        """Records of an arm by sample id."""
        return self._all_of(f"02_{arm}")

    def judged(self, arm: str) -> dict[str, JudgedRecord]:
        """Verdicts on an arm by sample id.

        Raises:
            StageError: strict, and a stage is missing or unfinished, or the verdicts are not of the arm's answers.
        """
        for task in self.tasks if self.strict else ():
            ran, judged = self.manifest(f"02_{arm}", task), self.manifest(f"03_judging/{arm}", task)
            records = judged.inputs.get("records")  # None: imported together with its records
            if ran.inputs.get("sample_ids") != judged.inputs.get("sample_ids"):
                fault = "are not of the same samples as its records"
            elif records not in (None, ran.outputs[RECORDS]):
                fault = "are of other answers than its records hold now"
            else:
                continue
            raise StageError(
                f"run {self.name}: the verdicts on {arm} of {task} {fault}; run notebooks/03_judging.ipynb again"
            )
        return self._all_of(f"03_judging/{arm}")

    def _all_of(self, stage: str) -> dict[str, Any]:
        if stage not in self._records:
            parts = [self._part(stage, task) for task in self.tasks]
            self._records[stage] = {id_: record for part in parts for id_, record in part.items()}
        return self._records[stage]

    def _part(self, stage: str, task: str) -> dict[str, Any]:
        """Records of one task; not strict: as far as they can be read, with a note on what is missing."""
        if self.strict:
            return self.stage(stage, task).records
        folder = stage_dir(self.name, stage, task)
        try:
            if (stage, task) in self._stages or (folder / MANIFEST).is_file():
                return self.stage(stage, task).records
            # the last part is a line still being written
            lines = [line + b"\n" for line in (folder / RECORDS).read_bytes().split(b"\n")[:-1]]
            sums = read_sums(folder)
        except StageError as error:
            self._notes[stage, task] = str(error)
            return {}
        except OSError:
            self._notes[stage, task] = f"{stage} of {task} has not run"
            return {}
        records: dict[str, Any] = {}
        for line in lines:
            try:
                record = RECORD_TYPES[stage[:2]].model_validate_json(line)
            except ValidationError:
                continue  # damaged lines are reported when the stage is resumed
            if not sums or sums.get(record.id, Sums("")).record == digest(line):
                records.setdefault(record.id, record)
        left_out = f", {lost} left out as damaged" if (lost := len(lines) - len(records)) else ""
        self._notes[stage, task] = (
            f"{stage} of {task} is in progress: {len(records)} records so far{left_out}"
        )
        return records

    # ------------------------------------------------------------------ do they belong together

    @property
    def protocol(self) -> str:
        """The protocol under which all arms with verdicts were judged. Raises StageError where they differ."""
        return self.protocol_of([a for a in self.arms if self.finished(f"03_judging/{a}") == self.tasks])

    def protocol_of(self, arms: Iterable[str]) -> str:
        """The protocol under which these arms were judged. Raises StageError where they differ."""
        manifests = [self.manifest(f"03_judging/{arm}", task) for arm in arms for task in self.tasks]
        protocols = sorted({manifest.config.get("protocol", "strict") for manifest in manifests})
        if len(protocols) > 1:
            raise StageError(
                f"run {self.name}: its verdicts have different protocols ({', '.join(protocols)}); "
                "run notebooks/03_judging.ipynb for all of them under one"
            )
        return protocols[0] if protocols else "strict"

    def check_comparable(self, arms: Iterable[str]) -> None:
        """Raise StageError for arms that were made from different things; it names two stages, and what differs.

        Code, models, prompts and the gate's setting belong to the whole run, data and samples to each task. What a
        manifest does not name (an imported stage) is not compared.
        """
        seen: dict[tuple[str, str], tuple[object, str]] = {}  # (scope, name) -> value, stage that has it
        for arm, task, kind in product(arms, self.tasks, ("02_", "03_judging/")):
            stage = f"{kind}{arm}"
            manifest = self.manifest(stage, task)
            values = {(kind, name): manifest.inputs.get(name) for name in RUN_INPUTS}
            values |= {(task, name): manifest.inputs.get(name) for name in TASK_INPUTS}
            if stage.startswith("02_gated"):
                values |= {(kind, name): manifest.config.get(name) for name in GATE}
            for key, value in values.items():
                before, other = seen.setdefault(key, (value, stage)) if value is not None else (None, "")
                if before != value:
                    raise StageError(
                        f"run {self.name}: {other} and {stage} ({task}) differ in their {key[1].replace('_', ' ')} "
                        f"and cannot be compared; run {notebook_of(kind)} again for both (if_changed=restart), or "
                        "restrict arms and tasks to those made in the same way"
                    )

    def inputs(self, arms: Iterable[str]) -> dict[str, str]:
        """By "stage/task" the hash of the records and verdicts of these arms: the `inputs` of stages made from them."""
        stages = [
            (stage, task) for a in arms for stage in (f"02_{a}", f"03_judging/{a}") for task in self.tasks
        ]
        return {f"{stage}/{task}": self.manifest(stage, task).outputs[RECORDS] for stage, task in stages}

    # ------------------------------------------------------------------ one sample

    def sample(self, id_: str) -> Sample | None:
        """The sample as the benchmark has it; None for an id that it does not have.

        Raises:
            StageError, DataError: strict, and the benchmark is unknown or cannot be read. Otherwise None.
        """
        task = task_of(id_)
        if task not in self._samples:
            stages = [*(f"03_judging/{arm}" for arm in self.arms), *_stages_of(self.name)]
            configs = (self.manifest(s, task).config for s in stages if self._is_finished(s, task))
            root = next((config["data_root"] for config in configs if config.get("data_root")), None)
            if root is None and self.strict:
                raise StageError(f"run {self.name}: no manifest of {task} names its benchmark")
            try:
                samples = load_task(task, resolve(root)) if root else []
            except DataError:
                if self.strict:
                    raise
                samples = []
            self._samples[task] = {sample.id: sample for sample in samples}
        return self._samples[task].get(id_)

    def _evidence(self, id_: str) -> Evidence | None:
        """Evidence of a draft; None where none is kept or its stage is unfinished. Raises StageError if it changed."""
        task = task_of(id_)
        finished = self._is_finished(DRAFT_STAGE, task)
        if not finished or EVIDENCE not in self.manifest(DRAFT_STAGE, task).outputs:
            return None
        folder = stage_dir(self.name, DRAFT_STAGE, task)
        evidence = read_evidence(folder, task not in self._verified, [id_])
        self._verified.add(task)
        return evidence.get(id_)

    def all_evidence(self) -> dict[str, Evidence]:
        """Evidence of every draft by sample id; {} unless every task kept some. Not kept in memory, being large."""
        return self._of_all_drafts(read_evidence)

    def all_top_logprobs(self) -> dict[str, np.ndarray]:
        """The log-probabilities of `all_evidence` alone, float32 [tokens, K] by sample id."""
        return self._of_all_drafts(read_stored_logprobs)

    def _of_all_drafts(self, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        evidence: dict[str, Any] = {}
        for task in self.tasks:
            finished = self._is_finished(DRAFT_STAGE, task)
            part = read(stage_dir(self.name, DRAFT_STAGE, task)) if finished else {}
            if not part:
                return {}
            evidence |= part
        return evidence


def _stages_of(run: str) -> list[str]:
    """Folders of stages 01 and 02 that a run has, by name."""
    return sorted(path.name for path in run_dir(run).glob("0[12]_*") if path.is_dir())


def _nothing_in(run: str) -> str:
    similar = nearest(run, list_runs())
    return f"run {run} holds no answers{similar}; make reproduce makes the embedded run"
