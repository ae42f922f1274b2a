"""What every importer needs: reading lines one by one, finding the sample of a line, writing stages.

Imported records have `timed=False`, because their files hold no times per sample: such times are NaN. Where a file
holds the total of a split, the manifest has it in `timing`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, UserError
from ..paths import possible, shown, stage_dir
from ..runs.arms import DRAFT_STAGE
from ..runs.evidence import Evidence
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
from ..texts import storable

PROBLEM_CHARS = 500


class LineError(ValueError):
    """The reason why one line or row cannot be imported. It becomes a Problem."""


@dataclass(frozen=True)
class Problem:
    """Something in a file that was left out or looks wrong. The rest of the file was kept."""

    file: Path
    what: str
    line: int | None = None

    def __str__(self) -> str:
        where = f", line {self.line}" if self.line is not None else ""
        return f"{shown(self.file)}{where}: {self.what}"


class Problems(list[Problem]):
    """The problems of an import, in the order in which they were met."""

    def add(self, file: Path, what: object, line: int | None = None) -> None:
        """Add a problem; `what` may be an exception. Files may hold anything, so of its text the beginning is kept."""
        if isinstance(what, Exception) and not isinstance(what, ValueError):
            what = f"cannot be read ({type(what).__name__}: {what})"
        self.append(Problem(file, storable(" ".join(str(what)[:PROBLEM_CHARS].split())), line))

    @contextmanager
    def caught(self, file: Path, line: int) -> Iterator[None]:
        """Within this block a line that cannot be imported, whatever it holds, becomes a problem."""
        try:
            yield
        except UserError:  # of the benchmark or of the run's folder, not of this line
            raise
        except Exception as error:
            self.add(file, error, line)


Source = Literal["final", "draft", "agent"]


@dataclass(frozen=True)
class ImportedSample:
    """What a file holds about a sample itself, for later stages that do not open the benchmark."""

    question: str = ""
    standard: str = ""
    kind: str = ""
    group: str = ""
    options: tuple[str, ...] = ()


@dataclass
class ImportedStage:
    """One stage that is being imported: the records of one task, and verdicts on them where the files hold any.

    Attributes:
        stage: "01_draft" or "02_<arm>".
        facts: id -> what the files hold about the sample.
        by_rule: id -> (verdict, rule) of the original's rules, without its language model.
        verdicts: source ("final", "draft", "agent") -> id -> (verdict, rule). Empty when nothing was judged.
        wall_s: seconds of the whole split; None when no file holds them.
        judged: the other fields of a judge's file.
        evidence: id -> the log-probabilities of its draft, where the files hold them.
    """

    stage: str
    task: str
    records: dict[str, DraftRecord | AgentRecord] = field(default_factory=dict)
    facts: dict[str, ImportedSample] = field(default_factory=dict)
    by_rule: dict[str, tuple[VerdictValue, str]] = field(default_factory=dict)
    verdicts: dict[Source, dict[str, tuple[VerdictValue, str]]] = field(default_factory=dict)
    protocol: str = "imported"
    config: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    wall_s: float | None = None
    judged: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)

    def add(self, record: DraftRecord | AgentRecord, facts: ImportedSample) -> None:
        """Add a record. Raises LineError for a sample that was read before: the first one counts."""
        if record.id in self.records:
            raise LineError(f"{record.id} occurs twice; the first line counts")
        self.records[record.id] = record
        self.facts[record.id] = facts

    def judge(self, id: str, verdict: VerdictValue, rule: str, *sources: Source) -> None:
        """Add a verdict on the answers of these sources (default: the final one)."""
        for source in sources or ("final",):
            self.verdicts.setdefault(source, {})[id] = (verdict, rule)


# ------------------------------------------------------------------------------------------------ reading


def files_of(paths: Iterable[Path], *suffixes: str) -> list[Path]:
    """The given files, and the files with these suffixes below the given folders, sorted.

    Raises DataError for a path that does not exist and for a folder that holds no such file.
    """
    files: list[Path] = []
    for path in map(possible, paths):
        inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in suffixes)
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        if not inside:
            raise DataError(f"{path}: no file ending in {' or '.join(suffixes)} in this folder")
        files += filter(Path.is_file, inside)
    return list(dict.fromkeys(files))


def json_lines(path: Path, problems: Problems) -> Iterator[tuple[int, dict]]:
    """The JSON objects of a JSON-lines file with their line numbers. NaN and Infinity are read as Python does."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                value = storable(json.loads(raw.decode("utf-8-sig")))
            except (ValueError, RecursionError) as error:  # of JSON and of UTF-8 alike
                problems.add(path, f"not valid JSON ({error})", number)
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                problems.add(path, f"expected a JSON object, found {type(value).__name__}", number)


def field_of(entry: Mapping, name: str) -> Any:
    """The content of a field. Raises LineError where it is missing or empty."""
    if entry.get(name) in (None, ""):
        raise LineError(f"field {name!r} is missing; found {', '.join(entry) or 'nothing'}")
    return entry[name]


def finite(value: Any) -> float | None:
    """The value as a float; None for NaN, the infinities and everything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str | None:
    """An answer as text; None for null and NaN."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str) else str(value)


def whole(value: Any) -> int | None:
    """A count; None where it is missing or not a finite number."""
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


def task_in(text: str) -> str | None:
    """The task whose split is named in a text, e.g. a file name."""
    splits = {task: task.split("/")[1] for task in registry.TASKS}
    named = (t for t, s in splits.items() if re.search(rf"(?<![A-Za-z0-9]){s}(?![A-Za-z0-9])", text))
    return next(named, None)


class Finder:
    """Finds the sample of a line: by its key, or by question and options in the benchmark.

    Args:
        root: folder of the benchmarks. None: keys are used unchecked.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._tasks: dict[str, dict[str, Sample]] = {}
        self._texts: dict[str, dict[tuple, list[Sample]]] = {}

    def samples(self, task: str) -> dict[str, Sample]:
        """The samples of a task by key; empty without a benchmark."""
        if task not in self._tasks:
            loaded = registry.load_task(task, self.root) if self.root else []
            self._tasks[task] = {s.key: s for s in loaded}
            by_text = self._texts[task] = {}
            for sample in loaded:
                by_text.setdefault(_wording(sample.question, sample.options or ()), []).append(sample)
        return self._tasks[task]

    def find(
        self, task: str, key: str | None, question: str = "", options: Sequence[str] = (), picture: str = ""
    ) -> tuple[str, Sample | None]:
        """The id of a line's sample, and the sample where there is a benchmark.

        It is the sample of the key if its question agrees, else the only one with this question and these options.
        HR-Bench has each question with four orders of the same options. For it the order decides. POPE has the same
        question about several pictures. For it the picture's name decides.

        Raises:
            LineError: no sample fits, or more than one does.
        """
        samples = self.samples(task)
        if not self.root:
            if key is None:
                remedy = "give --data-root to find it by its question"
                raise LineError(f"the line does not name its sample; {remedy}")
            return f"{task}/{key}", None
        keyed = samples.get(key)
        if keyed and not options and (not question or _same(question, keyed.question)):
            return keyed.id, keyed
        alike = self._texts[task].get(_wording(question, options), [])
        if picture:
            alike = [s for s in alike if s.meta.get("image_source") in (None, Path(picture).stem)]
        exact: list[Sample] = []
        if registry.BENCHMARKS[task.split("/")[0]].cycles:  # elsewhere programs choose an order of their own
            folded = [_folded(option) for option in options]
            exact = [s for s in alike if [_folded(o) for o in s.options or ()] == folded]
        for fitting in ([s for s in exact if s is keyed], exact, [s for s in alike if s is keyed], alike):
            if len(fitting) == 1:
                return fitting[0].id, fitting[0]
        named = f"{task}/{key}" if key is not None else f"the question {question[:60]!r}"
        if alike:
            raise LineError(f"{named} fits {len(alike)} samples, so the sample is not known")
        fault = "has another question in the benchmark" if keyed else "is not in the benchmark"
        raise LineError(f"{named} {fault}")

    def report_missing(self, part: ImportedStage, problems: Problems, unit: str = "line") -> None:
        """Add a problem where an imported stage lacks samples of the benchmark; `unit` is what its files consist of."""
        samples = self.samples(part.task).values()
        if missing := sum(sample.id not in part.records for sample in samples):
            problems.add(part.files[0], f"{missing} of {len(samples)} samples of {part.task} have no {unit}")


def _wording(question: str, options: Iterable[str]) -> tuple:
    return " ".join(question.casefold().split()), tuple(sorted(map(_folded, options)))


def _folded(option: str) -> str:
    return " ".join(option.casefold().split()).rstrip(". ")


def _same(recorded: str, question: str) -> bool:
    """Whether a recorded question is this one. Prompts may add options and instructions after it."""
    return " ".join(recorded.split()).casefold().startswith(" ".join(question.split()).casefold())


def order_shown(sample: Sample, options: Iterable[str]) -> ShownOptions | None:
    """The order in which options were shown, read from their texts; None for the published order.

    Raises:
        LineError: the texts are not the options of the sample.
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
        counts = f"{len(published)} options are published for {sample.id}, but {len(order)} were shown"
        raise LineError(counts)
    return ShownOptions(order=tuple(order)) if order != sorted(order) else None


def imported_sample(sample: Sample, shown_options: ShownOptions | None = None) -> ImportedSample:
    """What the benchmark holds about a sample, with its options as they were shown."""
    sample = shown_as(sample, shown_options)
    return ImportedSample(
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


def baseline_record(
    id_: str, answer: str | None, path: Trajectory | None, failure: Failure | None = None, **fields: Any
) -> AgentRecord:
    """The record of an agent that answered alone; `fields` are other fields of AgentRecord."""
    return AgentRecord(
        id=id_,
        run_mode="baseline",
        status="error" if failure else "ok",
        error=failure,
        decision="baseline",
        used="large",
        answer=answer,
        trajectory=path,
        timed=False,
        **fields,
    )


def trajectory(
    answer: str | None, messages: Any, error: Failure | None = None, n_tokens: int | None = None
) -> Trajectory:
    """A trajectory from a list of chat messages. Each message of the assistant is a turn.

    The files count tokens for the whole trajectory, so a turn has a count only where it is the only one.
    """
    texts = [_content(m) for m in messages or [] if isinstance(m, Mapping) and m.get("role") == "assistant"]
    actions = ["tool" if "<tool_call>" in text or "<code>" in text else "none" for text in texts]
    if answer and actions:
        actions[-1] = "answer"
    alone = n_tokens if len(texts) == 1 else None
    turns = [Turn(text=t, n_tokens=alone, turn_s=0.0, action=a) for t, a in zip(texts, actions, strict=True)]
    tagged = bool(texts) and "<answer>" in texts[-1]
    return Trajectory(
        status="error" if error else "ok",
        error=error,
        answer=answer,
        answer_from="none" if not answer else "tag" if tagged else "untagged",
        turns=tuple(turns),
        generated_tokens=n_tokens,
    )


def _content(message: Mapping) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping))
    return "" if content is None else str(content)


# ------------------------------------------------------------------------------------------------ writing


def write(run: str, parts: Iterable[ImportedStage], source: str, if_changed: IfChanged = "refuse") -> None:
    """Store imported stages in a run: the answers, and the verdicts where there are any.

    The manifests hold the hashes of the files, and `environment` names the program that the records come from.

    Raises:
        StageError: the run holds results from other files (`if_changed="restart"` replaces them).
    """
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
                        store.append(record, part.evidence.get(id_) if kind is DraftRecord else None)
                store.finish(timing, environment={"imported_from": source})


def _judged(part: ImportedStage, record: AgentRecord) -> JudgedRecord:
    """The imported verdicts on one record. An answer without one is undecided."""
    facts = part.facts[record.id]
    answering = {"final": record, "draft": record.draft, "agent": record.trajectory}
    verdicts = []
    for source, by in answering.items():
        if source not in part.verdicts or by is None:
            continue
        verdict, rule = part.verdicts[source].get(record.id, ("undecided", "not_judged"))
        verdicts.append(
            Verdict(
                id=record.id,
                source=source,
                verdict=verdict,
                rule=rule,
                protocol=part.protocol,
                answer=by.answer,
                standard=facts.standard,
                decided_by="none" if verdict in ("undecided", "error") else "imported",
            )
        )
    return JudgedRecord(
        id=record.id,
        question=facts.question,
        kind=facts.kind,
        group=facts.group or record.id,
        options=facts.options,
        verdicts=tuple(verdicts),
    )
