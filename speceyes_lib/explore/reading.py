"""A run as the explorers read it: whatever is there, finished or not, each part opened when first asked for.

Reading never writes, repairs or refuses: a stage that is missing, in progress or unreadable becomes a sentence
in `notes`, and everything else is shown. No model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Generic, TypeVar

from pydantic import ValidationError

from ..errors import DataError, StageError
from ..models.loading import tokenizer_file
from ..paths import resolve, runs_dir, stage_dir
from ..runs.evidence import Evidence
from ..runs.files import EVIDENCE, RECORDS
from ..runs.reading import is_finished, read_evidence, read_manifest, read_stage
from ..runs.records import AgentRecord, DraftRecord, JudgedRecord, Record
from ..tasks.registry import TASKS, load_task
from ..tasks.sample import Sample

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Part(Generic[R]):
    """One stage of one task as far as it has come; `config` is empty while it is in progress."""

    records: dict[str, R] = field(default_factory=dict)
    finished: bool = False
    config: dict = field(default_factory=dict)
    note: str = ""


def read_part(run: str, stage: str, task: str, record_type: type[R]) -> Part[R]:
    """The records of a stage, complete or not; `note` says in words what is wrong or missing."""
    what = f"{stage} of {task}"
    try:
        if is_finished(run, stage, task):
            done = read_stage(run, stage, task, record_type)
            return Part(done.records, True, done.manifest.config)
    except StageError as error:
        return Part(note=str(error))
    path = stage_dir(run, stage, task) / RECORDS
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is still being written
    except OSError:
        return Part(note=f"{what} has not run")
    records: dict[str, R] = {}
    for line in lines:
        try:
            record = record_type.model_validate_json(line)
        except ValidationError:
            continue  # the writer tells about damaged lines when it takes the stage up again
        records.setdefault(record.id, record)
    return Part(records, note=f"{what} is in progress: {len(records)} records so far")


def runs() -> list[str]:
    """Runs that hold answers of an agent or drafts, by name."""
    found = [
        p.parent for p in runs_dir().glob("*/*") if p.is_dir() and p.name.startswith(("01_draft", "02_"))
    ]
    return sorted({p.name for p in found})


def agent_of(run: str) -> str:
    """The agent that a run ran, as its records were made with; "unknown agent" where that is not told."""
    for path in sorted((runs_dir() / run).glob("02_*/*/*/manifest.json")):
        try:
            config = json.loads(path.read_bytes())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        model = str(config.get("agent_model", "")).rstrip("/").rsplit("/", 1)[-1]
        if named := " ".join(filter(None, [config.get("agent", ""), model])):
            return named
    return "unknown agent"


class Run:
    """A run, read as it is asked for and kept; ask for a new one to see what was added since."""

    def __init__(self, name: str, tasks: Sequence[str] = TASKS) -> None:
        self.name = name
        self.tasks = tuple(t for t in tasks if any(stage_dir(name, s, t).is_dir() for s in self._stages))
        self.record = cache(self._record)
        self._part = cache(self._read)
        self._samples = cache(self._read_samples)
        self.evidence = lru_cache(maxsize=256)(self._read_evidence)
        self._verified: set[str] = set()  # tasks whose evidence file was compared with its manifest

    @cached_property
    def _stages(self) -> tuple[str, ...]:
        folder = runs_dir() / self.name
        found = [p.name for p in folder.glob("0[12]_*") if p.is_dir()] if folder.is_dir() else []
        return tuple(sorted(found))

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The ways the run was run, the instrumented one first."""
        names = [s.removeprefix("02_") for s in self._stages if s.startswith("02_")]
        return tuple(sorted(names, key=lambda name: (name != "collect", name)))

    # ------------------------------------------------------------------ records

    def _read(self, stage: str, task: str) -> Part:
        types = {"01": DraftRecord, "02": AgentRecord, "03": JudgedRecord}
        return read_part(self.name, stage, task, types[stage[:2]])

    def _record(self, stage: str) -> dict[str, Record]:
        """id -> record of a stage such as "02_collect" or "03_judging/collect", all tasks together."""
        return {id_: r for task in self.tasks for id_, r in self._part(stage, task).records.items()}

    def records(self, arm: str) -> dict[str, AgentRecord]:
        return self.record(f"02_{arm}")

    def judged(self, arm: str) -> dict[str, JudgedRecord]:
        return self.record(f"03_judging/{arm}")

    def drafts(self) -> dict[str, DraftRecord]:
        return self.record("01_draft")

    def config(self, stage: str) -> dict:
        """What a stage was made with: the config of its first finished task, empty without one."""
        return next((p.config for t in self.tasks if (p := self._part(stage, t)).config), {})

    def notes(self, stages: Iterable[str]) -> list[str]:
        """What is missing, in progress or unreadable in these stages, a sentence each."""
        if not self.tasks:
            return [f"run {self.name} holds no answers; make reproduce makes the embedded run"]
        return [note for stage in stages for t in self.tasks if (note := self._part(stage, t).note)]

    # ------------------------------------------------------------------ one sample

    def sample(self, id_: str) -> Sample | None:
        """The sample as the benchmark has it; None where the benchmark is not there (any more)."""
        return self._samples(id_.rsplit("/", 1)[0]).get(id_)

    def _read_samples(self, task: str) -> dict[str, Sample]:
        stages = [*self._stages, *(f"03_judging/{arm}" for arm in self.arms)]
        roots = [root for s in stages if (root := self._part(s, task).config.get("data_root"))]
        try:
            return {sample.id: sample for sample in load_task(task, resolve(roots[0]))} if roots else {}
        except DataError:
            return {}

    def _read_evidence(self, id_: str) -> Evidence | None:
        """The evidence of a draft; None where none is kept, or where its stage is still in progress.

        Raises StageError when the file is not the one that its stage finished with.
        """
        task = id_.rsplit("/", 1)[0]
        if "01_draft" not in self._stages or not self._part("01_draft", task).finished:
            return None
        folder = stage_dir(self.name, "01_draft", task)
        if EVIDENCE not in read_manifest(folder, "01_draft", task).outputs:
            return None
        found = read_evidence(folder, task not in self._verified, [id_])
        self._verified.add(task)
        return found.get(id_)

    @cached_property
    def token_text(self) -> Callable[[int], str]:
        """Token id -> text by the draft model's tokenizer; "#id" where that is not on this machine.

        A part of a character is shown as the tokenizer writes its bytes.
        """
        path = tokenizer_file(self.config("01_draft").get("draft_model", ""))
        if path is None:
            return lambda token: f"#{token}"
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))

        def text(token: int) -> str:
            whole = tokenizer.decode([token], skip_special_tokens=False)
            if "\ufffd" not in whole:
                return whole
            return tokenizer.id_to_token(token) or f"#{token}"  # a part of a character

        return text
