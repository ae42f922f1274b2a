"""Sample logs of lmms-eval and tables of VLMEvalKit: answers of one model, each with the score of that program.

    {date}_samples_{task}.jsonl     lmms-eval: doc_id, target, filtered_resps, resps, doc, and the metric fields
    {model}_{dataset}.tsv or .xlsx  VLMEvalKit: index, question, A-D, answer, category, prediction, hit

An import is a baseline, because there is no gate. With `--data-root` the order in which options were shown is found
from their texts. An answer is joined by what identifies its sample: the question with its options, the id that the
metric repeats, or the picture; a row number (`doc_id`) identifies nothing. The right answer checks the join.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, UserError
from ..models.thoughts import without_thoughts
from ..runs.records import VerdictValue
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS, Sample, ShownOptions
from ..texts import storable
from .common import (
    Finder,
    ImportedSample,
    ImportedStage,
    LineError,
    Problems,
    baseline_record,
    files_of,
    finite,
    imported_sample,
    json_lines,
    option_texts,
    order_shown,
    text_of,
    trajectory,
)

# names in file names, longest first within a benchmark -> benchmark and split; None: the row's category holds it
_TASKS = (
    (r"direct_attributes", "vstar", "direct_attributes"),
    (r"relative_position", "vstar", "relative_position"),
    (r"v_?star", "vstar", None),
    (r"hr_?bench_?4k", "hr", "hr_bench_4k"),
    (r"hr_?bench_?8k", "hr", "hr_bench_8k"),
    (r"pope_adv\w*", "pope", "adversarial"),
    (r"pope_pop\w*", "pope", "popular"),
    (r"pope_rand\w*", "pope", "random"),
    (r"pope", "pope", None),
    # other benchmarks by the names of their own splits
    *((re.escape(split), b.name, split) for b in BENCHMARKS.values() if not b.reported for split in b.splits),
)
_SPLIT_OF = {"adv": "adversarial", "pop": "popular", "spatial": "relative_position"}


def read_lmms_eval(paths: Iterable[Path], finder: Finder, problems: Problems) -> list[ImportedStage]:
    """One imported stage per task of lmms-eval's sample logs."""
    parts = _StagesByTask(finder, problems)
    for path in files_of(paths, ".jsonl"):
        parts.add_file(path, json_lines(path, problems), _lmms_row, "lmms_eval")
    return parts.finished()


def _lmms_row(number: int, line: Mapping) -> _Row:
    """One line of a sample log. Logs since 0.4 lack `doc`; then the prompt and the metric say which sample it is."""
    doc = line.get("doc") if isinstance(line.get("doc"), Mapping) else {}
    metrics = [v for k, v in line.items() if k != "doc" and isinstance(v, Mapping)]
    metric = next((v for v in metrics if "question_id" in v or "category" in v), {})
    question, options = _question(doc or {"question": text_of(line.get("input")) or ""})
    key = _first((doc, metric), "question_id", "index") or None
    category = _first((doc, metric), "category")
    sample = ImportedSample(question, _first((line,), "target"), category, options=options)
    return _Row(number, key, sample, _reply(line), _score(line), _first((doc,), "image_source"))


def _first(sources: Iterable[Mapping], *names: str) -> str:
    """The first of these fields that holds a text, in the first source that has one; else an empty text."""
    texts = (text_of(source.get(name)) for source in sources for name in names)
    return next(filter(None, texts), "")


def read_vlmevalkit(paths: Iterable[Path], finder: Finder, problems: Problems) -> list[ImportedStage]:
    """One imported stage per task of VLMEvalKit's tables."""
    parts = _StagesByTask(finder, problems)
    for path in files_of(paths, ".tsv", ".xlsx"):
        parts.add_file(path, _rows(path, problems), _table_row, "vlmevalkit")
    return parts.finished()


def _table_row(number: int, row: Mapping) -> _Row:
    hit = next((row[name] for name in ("hit", "score") if row.get(name) not in (None, "")), None)
    question, standard = (str(row.get(name) or "").strip() for name in ("question", "answer"))
    sample = ImportedSample(question, standard, _first((row,), "category"), options=option_texts(row))
    key, picture = (
        _first((row,), "question_id", "index") or None,
        _first((row,), "image_source", "image_path"),
    )
    return _Row(number, key, sample, text_of(row.get("prediction")), hit, picture, not row.get("question_id"))


class _Row(NamedTuple):
    """One answer: key, question, options and picture say which sample it is of."""

    number: int
    key: str | None
    sample: ImportedSample
    answer: str | None
    score: Any
    picture: str = ""
    running: bool = False  # the key only numbers the rows of this program's file


class _OtherIds(UserError):
    """No id of a file can be trusted."""


class _StagesByTask:
    """The stages that are being imported, by task. A file may hold several splits, and a split several files."""

    def __init__(self, finder: Finder, problems: Problems) -> None:
        self.finder, self.problems = finder, problems
        self.by_task: dict[str, ImportedStage] = {}

    def add_file(
        self,
        path: Path,
        entries: Iterable[tuple[int, Mapping]],
        read: Callable[[int, Mapping], _Row],
        rule: str,
    ) -> None:
        """Add the answers of a file whose name holds a known benchmark, and a verdict where a row has a score."""
        known = [(b, s) for pattern, b, s in _TASKS if re.search(pattern, path.stem, re.IGNORECASE)]
        if not known:
            titles = ", ".join(b.title for b in BENCHMARKS.values())
            self.problems.add(path, f"the file name holds no known benchmark ({titles})")
            return
        found: list[tuple[_Row, str, str, Sample | None, ShownOptions | None]] = []
        try:
            for number, entry in entries:
                with self.problems.caught(path, number):
                    row = read(number, entry)
                    for split in [known[0][1]] if known[0][1] else _splits(known[0][0], row.sample.kind):
                        task = f"{known[0][0]}/{split}"
                        found.append((row, task, *self._joined(task, row)))
        except _OtherIds as error:
            self.problems.add(path, f"{error}; nothing of this file was imported")
            return
        for row, task, id_, sample, shown in found:
            # the reply is kept as the turn, its thoughts are no part of the answer
            answer = None if row.answer is None else without_thoughts(row.answer)
            messages = [{"role": "assistant", "content": row.answer}]
            turns = (
                None
                if answer is None
                else trajectory(answer, messages if answer != row.answer.strip() else None)
            )
            record = baseline_record(id_, answer, turns, options_shown=shown)
            if path not in (part := self.by_task.setdefault(task, ImportedStage("02_baseline", task))).files:
                part.files.append(path)
            with self.problems.caught(path, row.number):
                part.add(record, imported_sample(sample, shown) if sample else replace(row.sample, group=id_))
                if verdict := _verdict(row.score):
                    part.judge(id_, verdict, rule, "final", *(["agent"] if turns else []))

    def _joined(self, task: str, row: _Row) -> tuple[str, Sample | None, ShownOptions | None]:
        """The sample of a row, and the order of its options.

        Raises:
            LineError: the row's sample is not known, or its right answer is another one.
            _OtherIds: the same for an id without a question, so that no id of the file can be trusted.
        """
        # POPE's ids are others, and its questions repeat: a running number identifies nothing there
        key = None if row.running and self.finder.root and task.startswith("pope/") else row.key
        id_, sample = self.finder.find(task, key, row.sample.question, row.sample.options, row.picture)
        if sample is None:
            return id_, None, None
        options = row.sample.options
        shown = order_shown(sample, options) if sample.options and options else None
        stated = row.sample.standard.strip(" ().").casefold()
        right = sample.answer
        if sample.options is None:
            comparable = stated in ("yes", "no")
        else:
            comparable = bool(options) and stated.upper() in LETTERS
            right = LETTERS[shown.order.index(LETTERS.index(right))] if shown else right
        if comparable and stated != right.casefold():
            fault = f"the file's right answer is {stated!r}, but that of {id_} is {right!r}"
            if row.sample.question:
                raise LineError(fault)
            raise _OtherIds(
                f"line {row.number}: {fault}, so its ids are not the benchmark's; log questions as well"
            )
        return id_, sample, shown

    def finished(self) -> list[ImportedStage]:
        """The stages, after samples that they lack were reported."""
        for part in self.by_task.values():
            self.finder.report_missing(part, self.problems, "row")
        return list(self.by_task.values())


def _splits(benchmark: str, categories: str) -> list[str]:
    """The splits that a row's category names, several of them with commas between."""
    splits = BENCHMARKS[benchmark].splits
    names = []
    for category in categories.split(","):
        name = category.strip().lower().replace(" ", "_")
        name = next((full for short, full in _SPLIT_OF.items() if name.startswith(short)), name)
        if name not in splits:
            raise LineError(f"field 'category' is {categories!r}, expected one of {', '.join(splits)}")
        names.append(name)
    return names


def _verdict(hit: Any) -> VerdictValue | None:
    """A score as a verdict; None without a score."""
    value = {"true": 1.0, "false": 0.0}.get(str(hit).strip().lower(), finite(hit))
    return None if value is None else "right" if value >= 1 else "wrong"


def _reply(line: Mapping) -> str | None:
    """The reply that was scored: the filtered one, else the raw one."""
    for value in (line.get("filtered_resps"), line.get("resps")):
        while isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            return value
    return None


def _score(line: Mapping) -> Any:
    """The score in the first metric that has one."""
    metrics = [value for value in line.values() if isinstance(value, Mapping)]
    scores = (metric.get(name) for metric in metrics for name in ("score", "gpt_score"))
    return next((score for score in scores if score is not None), None)


_INSTRUCTION = re.compile(
    r"\n.*|\s(?:please\s+)?(?:answer|select|choose|respond)\b.*\b(?:letter|option|choice)s?\b.*", re.I | re.S
)
_OPTION = re.compile(r"\(([A-Z])\)|^([A-Z])[.):]\s", re.MULTILINE)


def _question(doc: Mapping) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a document: options in columns, or behind the question as "(A) red (B) blue"."""
    text = str(doc.get("question") or doc.get("text") or "").replace("<image>", "").strip()
    if columns := option_texts(doc):
        return text, columns
    marks = list(_OPTION.finditer(text))
    if marks and [m[1] or m[2] for m in marks] == list(LETTERS[: len(marks)]):
        ends = [m.start() for m in marks[1:]] + [len(text)]
        options = (text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True))
        # prompts append an instruction to the last option
        return text[: marks[0].start()].strip(), tuple(_INSTRUCTION.sub("", o).strip() for o in options)
    return text, ()


def _rows(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with their line numbers. Raises DataError for a table without predictions."""
    if path.suffix == ".xlsx":
        if importlib.util.find_spec("openpyxl") is None:
            remedy = "install it, or save the table as .tsv"
            raise DataError(f"{path}: reading .xlsx needs the package openpyxl; {remedy}")
        import pandas as pd

        try:
            table = pd.read_excel(path, dtype=str, keep_default_na=False)
        except Exception as error:  # of the zip file, its XML or its numbers
            raise DataError(f"{path}: not a readable .xlsx file ({error}); save the table as .tsv") from None
        _check_columns(path, list(table.columns))
        yield from enumerate(storable(table.to_dict("records")), 2)
        return
    csv.field_size_limit(2**31 - 1)  # a cell may hold a picture
    reader = csv.DictReader(_text_lines(path), delimiter="\t", strict=True)
    try:
        _check_columns(path, list(reader.fieldnames or ()))
        for row in reader:
            if None in row or None in row.values():
                n_fields = sum(v is not None for v in row.values()) + len(row.get(None, ())) - (None in row)
                what = f"{n_fields} fields, but the header names {len(reader.fieldnames)}"
                problems.add(path, what, reader.line_num)
            else:
                yield reader.line_num, row
    except csv.Error as error:
        problems.add(path, f"{error}; what follows was not read", reader.line_num)


def _text_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        lines = (raw for line in file for raw in line.splitlines(keepends=True))
        for number, raw in enumerate(lines, 1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 ({error}); save the file as UTF-8"
                ) from None


def _check_columns(path: Path, names: list[str]) -> None:
    if "prediction" not in names:
        raise DataError(f"{path}: column 'prediction' is missing; found {', '.join(names) or 'nothing'}")
