"""What every importer needs: lines read one by one, samples found again, and stages written.

Imported records are marked `timed=False`: their files hold no times per sample, so times read as NaN and only a
split's total, where a file tells it, reaches the manifest's `timing`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..inference.stages import DRAFT_STAGE
from ..paths import shown, stage_dir
from ..runs.provenance import file_hash
from ..runs.records import (
    AgentRecord,
    DraftRecord,
    Failure,
    JudgedRecord,
    Trajectory,
    Turn,
    Verdict,
    VerdictValue,
)
from ..runs.stage import IfChanged, StageStore
from ..tasks import registry
from ..tasks.sample import LETTERS, YES_NO, Sample, ShownOptions, shown_as


class LineError(ValueError):
    """Why one line or row cannot be taken over; it becomes a Problem."""


@dataclass(frozen=True)
class Problem:
    """Something in a file that was left out or looks wrong; the rest was kept."""

    file: Path
    what: str
    line: int | None = None

    def __str__(self) -> str:
        where = f", line {self.line}" if self.line is not None else ""
        return f"{shown(self.file)}{where}: {self.what}"


Problems = list[Problem]
Source = Literal["final", "draft", "agent"]


@dataclass(frozen=True)
class Told:
    """What a file says about a sample itself, for later stages that never open the benchmark."""

    question: str = ""
    standard: str = ""
    kind: str = ""
    group: str = ""
    options: tuple[str, ...] = ()


@dataclass
class Part:
    """One stage folder in the making: the records of one task, and verdicts on them where the files hold any.

    stage: "01_draft" or "02_<arm>". samples: as far as the files and the benchmark tell. verdicts: source
    ("final", "draft", "agent") -> id -> (verdict, rule); empty: nobody judged.
    """

    stage: str
    task: str
    records: dict[str, DraftRecord | AgentRecord] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)
    verdicts: dict[Source, dict[str, tuple[VerdictValue, str]]] = field(default_factory=dict)
    protocol: str = "imported"
    config: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    wall_s: float | None = None  # of the whole split
    judged: dict[str, Any] = field(default_factory=dict)  # what a judge's file says beside verdicts

    def add(self, record: DraftRecord | AgentRecord, told: Told) -> None:
        """Take a record in. Raises LineError for a sample that is there already: the first one counts."""
        if record.id in self.records:
            raise LineError(f"{record.id} was there before; the first one counts")
        self.records[record.id] = record
        self.told[record.id] = told

    def judge(self, id: str, verdict: VerdictValue, rule: str, *sources: Source) -> None:
        for source in sources or ("final",):
            self.verdicts.setdefault(source, {})[id] = (verdict, rule)


# ------------------------------------------------------------------------------------------------ reading


def files_of(paths: Iterable[Path], *suffixes: str) -> list[Path]:
    """The files named, and those with these suffixes below the folders named, sorted.

    Raises DataError for a path that does not exist and for a folder that holds no such file.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in suffixes)
        if path.is_file():
            inside = [path]
        elif not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        elif not inside:
            raise DataError(f"{path}: no file ending in {' or '.join(suffixes)} in this folder")
        found += [p for p in inside if p not in found]
    return found


def json_lines(path: Path, problems: Problems) -> Iterator[tuple[int, dict]]:
    """The JSON objects of a JSON-lines file with their line numbers; NaN and Infinity are read as Python does."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                value = json.loads(raw.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # of JSON and of UTF-8 alike
                problems.append(Problem(path, f"not valid JSON ({error})", number))
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                kind = type(value).__name__
                problems.append(Problem(path, f"expected a JSON object, found {kind}", number))


def field_of(entry: Mapping, *names: str) -> Any:
    """The first of these fields that is there and not empty. Raises LineError naming what was expected."""
    for name in names:
        if entry.get(name) not in (None, ""):
            return entry[name]
    raise LineError(
        f"field {' or '.join(map(repr, names))} is missing; found {', '.join(entry) or 'nothing'}"
    )


def finite(value: Any) -> float | None:
    """A number as such; None for NaN, the infinities and whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str | None:
    """An answer as text; None where there is none (null, NaN)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str) else str(value)


def whole(value: Any) -> int | None:
    """A count; None where it is missing or no finite number."""
    number = finite(value)
    return None if number is None or number < 0 else round(number)


def standard_json(value: Any) -> Any:
    """The value with every non-finite number as None, so that it is JSON by the standard."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): standard_json(v) for k, v in value.items()}
    return [standard_json(v) for v in value] if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------------------------------ samples


def task_in(text: str, tasks: Iterable[str] = registry.TASKS) -> str | None:
    """The task whose split is named in a text, e.g. a file name."""
    return next(
        (t for t in tasks if re.search(rf"(?<![A-Za-z0-9]){t.split('/')[1]}(?![A-Za-z0-9])", text)), None
    )


class Finder:
    """Finds the sample that a line speaks of: by its key, or by question and options, in the benchmark if given.

    root: folder of the benchmarks; None: keys are taken as they come and nothing can be checked.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._tasks: dict[str, dict[str, Sample]] = {}
        self._texts: dict[str, dict[tuple, list[Sample]]] = {}

    def samples(self, task: str) -> dict[str, Sample]:
        """key -> sample; empty without a benchmark."""
        if task not in self._tasks:
            loaded = registry.load_task(task, self.root) if self.root else []
            self._tasks[task] = {s.key: s for s in loaded}
            self._texts[task] = {}
            for sample in loaded:
                self._texts[task].setdefault(_wording(sample.question, sample.options or ()), []).append(
                    sample
                )
        return self._tasks[task]

    def find(
        self, task: str, key: str | None, question: str = "", options: Sequence[str] = ()
    ) -> tuple[str, Sample | None]:
        """(id, sample): the key's, if that asks the same; else the only one with this question and these options.

        The order of options decides between samples that have the same ones, as HR-Bench's four orders do.
        Raises LineError where no sample, or more than one, fits.
        """
        samples = self.samples(task)
        if not self.root:
            if key is None:
                raise LineError(
                    "the line does not say which sample it is; --data-root finds it by its question"
                )
            return f"{task}/{key}", None
        keyed = samples.get(key) if key is not None else None
        if keyed and not options and (not question or _same(question, keyed.question)):
            return keyed.id, keyed
        alike = self._texts[task].get(_wording(question, options), [])
        folded = [_folded(option) for option in options]
        exact = [s for s in alike if [_folded(o) for o in s.options or ()] == folded]
        for fitting in ([s for s in exact if s is keyed], exact, [s for s in alike if s is keyed], alike):
            if len(fitting) == 1:
                return fitting[0].id, fitting[0]
        named = f"{task}/{key}" if key is not None else f"the question {question[:60]!r}"
        if alike:
            raise LineError(f"{named} fits {len(alike)} samples")
        raise LineError(f"{named} {'asks something else there' if keyed else 'is not in the benchmark'}")

    def missing(self, part: Part) -> int:
        """How many samples of the benchmark a part lacks."""
        return len({s.id for s in self.samples(part.task).values()} - part.records.keys())


def _wording(question: str, options: Iterable[str]) -> tuple:
    return " ".join(question.casefold().split()), tuple(sorted(map(_folded, options)))


def _folded(option: str) -> str:
    return " ".join(option.casefold().split()).rstrip(". ")


def _same(asked: str, question: str) -> bool:
    """Whether a recorded question is this one; prompts may add options and instructions after it."""
    return " ".join(asked.split()).casefold().startswith(" ".join(question.split()).casefold())


def order_shown(sample: Sample, options: Iterable[str]) -> ShownOptions | None:
    """In which order options were shown, from their texts; None: as published.

    Raises LineError where they are not the sample's options.
    """
    published = [_folded(o) for o in sample.options or ()]
    left = list(range(len(published)))
    order = []
    for option in options:
        place = next((i for i in left if published[i] == _folded(option)), None)
        if place is None:
            raise LineError(f"option {option!r} is not one of {sample.id}")
        left.remove(place)
        order.append(place)
    if left:
        raise LineError(f"{len(published)} options are published for {sample.id}, {len(order)} were shown")
    return ShownOptions(order=tuple(order)) if order != sorted(order) else None


def told_of(sample: Sample | None, shown_options: ShownOptions | None = None, **read: str) -> Told:
    """What is known of a sample: from the benchmark where there is one, else as the line has it."""
    if sample is None:
        return Told(**read)
    sample = shown_as(sample, shown_options)
    return Told(
        sample.question,
        sample.standard,
        str(sample.meta.get("category", "")),
        str(sample.meta["group"]),
        tuple(sample.options or YES_NO),
    )


def option_texts(entry: Mapping) -> tuple[str, ...]:
    """The options of a row with a column per letter."""
    texts = (text_of(entry.get(letter)) for letter in LETTERS)
    return tuple(t.strip() for t in texts if t and t.strip() and t.casefold() != "nan")


def trajectory(
    answer: str | None, messages: Any, error: Failure | None = None, n_tokens: int | None = None
) -> Trajectory:
    """An agent's run as a list of chat messages tells it: the assistant's ones are its turns.

    Tokens are told for the whole run only, unless there is a single turn.
    """
    said = [_content(m) for m in messages or [] if isinstance(m, Mapping) and m.get("role") == "assistant"]
    alone = n_tokens if len(said) == 1 else None
    turns = tuple(
        Turn(
            text=text,
            n_tokens=alone,
            turn_s=0.0,
            action="answer" if text is said[-1] and answer else "tool" if _TOOL.search(text) else "none",
        )
        for text in said
    )
    tagged = bool(said) and "<answer>" in said[-1]
    return Trajectory(
        status="error" if error else "ok",
        error=error,
        answer=answer,
        answer_from="none" if not answer else "tag" if tagged else "untagged",
        turns=turns,
        generated_tokens=n_tokens,
    )


_TOOL = re.compile(r"<(?:tool_call|code)>")


def _content(message: Mapping) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping))
    return "" if content is None else str(content)


# ------------------------------------------------------------------------------------------------ writing


def write(run: str, parts: Iterable[Part], source: str, if_changed: IfChanged = "refuse") -> list[Path]:
    """Store parts as finished stages of a run: the answers, and the verdicts of those that were judged.

    The manifests name the files read (by hash) and say under `environment` that the records were imported.
    Raises StageError where the run holds results made from something else (`if_changed="restart"` replaces).
    """
    folders = []
    for part in parts:
        kind = DraftRecord if part.stage == DRAFT_STAGE else AgentRecord
        timing = {} if part.wall_s is None else {"wall_s": part.wall_s}
        stages = [(part.stage, kind, part.records, part.config, timing)]
        if part.verdicts and part.stage != DRAFT_STAGE:
            judged = {id_: _judged(part, record) for id_, record in part.records.items()}
            config = {"protocol": part.protocol, "judged": part.judged}
            stages.append((f"03_judging/{part.stage.removeprefix('02_')}", JudgedRecord, judged, config, {}))
        for stage, kind, records, config, timing in stages:
            with StageStore(
                stage_dir(run, stage, part.task),
                stage=stage,
                task=part.task,
                record_type=kind,
                config={"imported_from": source, **standard_json(config)},
                expected_ids=list(records),
                inputs={path.name: file_hash(path) for path in part.files},
                if_changed=if_changed,
            ) as store:
                for id_, record in records.items():
                    if id_ not in store.done_ids:
                        store.append(record)
                store.finish(timing, environment={"imported_from": source})
            folders.append(store.folder)
    return folders


def _judged(part: Part, record: AgentRecord) -> JudgedRecord:
    """The verdicts told on one record; an answer that was left out of the judging is undecided."""
    told = part.told[record.id]
    answers = {"final": record.answer}
    if record.draft is not None:
        answers["draft"] = record.draft.answer
    if record.trajectory is not None:
        answers["agent"] = record.trajectory.answer
    verdicts = []
    for source in part.verdicts.keys() & answers.keys():
        verdict, rule = part.verdicts[source].get(record.id, ("undecided", "not_judged"))
        verdicts.append(
            Verdict(
                id=record.id,
                source=source,
                verdict=verdict,
                rule=rule,
                protocol=part.protocol,
                answer=answers[source],
                standard=told.standard,
                decided_by="none" if verdict in ("undecided", "error") else "imported",
            )
        )
    return JudgedRecord(
        id=record.id,
        question=told.question,
        kind=told.kind,
        group=told.group or record.id,
        options=told.options,
        verdicts=sorted(verdicts, key=lambda v: list(answers).index(v.source)),
    )
