"""Sample logs of lmms-eval and tables of VLMEvalKit: answers of one model, each with the score of that program.

    {date}_samples_{task}.jsonl     lmms-eval: doc_id, target, filtered_resps, resps, doc, and the metric fields
    {model}_{dataset}.tsv or .xlsx  VLMEvalKit: index, question, A-D, answer, category, prediction, hit

An import is a baseline, whatever the model was, because there is no gate. The options may have another order than in
the benchmark. With `--data-root` the order is found from their texts and recorded, so that letters are read as they
were meant. Both programs name samples in their own ways. Without the benchmark only the row number is known.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..runs.records import VerdictValue
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS
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
        for number, line in parts.of_file(path, json_lines(path, problems)):
            doc = line.get("doc") if isinstance(line.get("doc"), Mapping) else {}
            question, options = _question(doc)
            standard, category = (text_of(text) or "" for text in (line.get("target"), doc.get("category")))
            sample = ImportedSample(question, standard, category, options=options)
            key = text_of(doc.get("question_id", doc.get("index", line.get("doc_id"))))
            with problems.caught(path, number):
                parts.add(path, key, sample, _reply(line), _score(line), "lmms_eval")
    return parts.finished()


def read_vlmevalkit(paths: Iterable[Path], finder: Finder, problems: Problems) -> list[ImportedStage]:
    """One imported stage per task of VLMEvalKit's tables."""
    parts = _StagesByTask(finder, problems)
    for path in files_of(paths, ".tsv", ".xlsx"):
        for number, row in parts.of_file(path, _rows(path, problems)):
            hit = next((row[name] for name in ("hit", "score") if row.get(name) not in (None, "")), None)
            question, standard = (str(row.get(name) or "").strip() for name in ("question", "answer"))
            category = text_of(row.get("category")) or ""
            sample = ImportedSample(question, standard, category, options=option_texts(row))
            # a row number identifies no sample of POPE, which has ids of its own and repeats questions
            number_known = parts.benchmark != "pope" or finder.root is None
            key = text_of(row.get("question_id") or (row.get("index") if number_known else None))
            with problems.caught(path, number):
                parts.add(path, key, sample, text_of(row.get("prediction")), hit, "vlmevalkit")
    return parts.finished()


class _StagesByTask:
    """The stages that are being imported, by task. A file may hold several splits, and a split several files."""

    def __init__(self, finder: Finder, problems: Problems) -> None:
        self.finder, self.problems = finder, problems
        self.by_task: dict[str, ImportedStage] = {}
        self.benchmark, self.split = "", None

    def of_file(self, path: Path, rows: Iterable[tuple[int, Mapping]]) -> Iterator[tuple[int, Mapping]]:
        """The rows of a file whose name holds a known benchmark; no row of any other file."""
        known = [(b, s) for pattern, b, s in _TASKS if re.search(pattern, path.stem, re.IGNORECASE)]
        if known:
            self.benchmark, self.split = known[0]
            yield from rows
        else:
            titles = ", ".join(b.title for b in BENCHMARKS.values())
            self.problems.add(path, f"the file name holds no known benchmark ({titles})")

    def add(
        self, path: Path, key: str | None, row: ImportedSample, answer: str | None, score: Any, rule: str
    ) -> None:
        """Add the answer of one row, and its verdict where the row has a score."""
        task = f"{self.benchmark}/{self.split or _split(self.benchmark, row.kind)}"
        id_, sample = self.finder.find(task, key, row.question, row.options)
        shown = order_shown(sample, row.options) if sample and sample.options and row.options else None
        turns = None if answer is None else trajectory(answer, None)
        record = baseline_record(id_, answer, turns, options_shown=shown)
        if path not in (part := self.by_task.setdefault(task, ImportedStage("02_baseline", task))).files:
            part.files.append(path)
        part.add(record, imported_sample(sample, shown) if sample else replace(row, group=id_))
        if verdict := _verdict(score):
            part.judge(id_, verdict, rule, "final", *(["agent"] if turns else []))

    def finished(self) -> list[ImportedStage]:
        """The stages, after samples that they lack were reported."""
        for part in self.by_task.values():
            self.finder.report_missing(part, self.problems, "row")
        return list(self.by_task.values())


def _split(benchmark: str, category: str) -> str:
    """The split that a row's category names."""
    name = category.strip().lower().replace(" ", "_")
    splits = BENCHMARKS[benchmark].splits
    name = next((full for short, full in _SPLIT_OF.items() if name.startswith(short)), name)
    if name not in splits:
        raise LineError(f"field 'category' is {category!r}, expected one of {', '.join(splits)}")
    return name


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


_OPTION = re.compile(r"\(([A-Z])\)")


def _question(doc: Mapping) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a document: options in columns, or behind the question as "(A) red (B) blue"."""
    text = str(doc.get("question") or doc.get("text") or "").strip()
    if columns := option_texts(doc):
        return text, columns
    pieces = _OPTION.split(text)
    if pieces[1::2] and pieces[1::2] == list(LETTERS[: len(pieces) // 2]):
        return pieces[0].strip(), tuple(p.strip() for p in pieces[2::2])
    return text, ()


def _rows(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with their line numbers. Raises DataError for a table without predictions."""
    if path.suffix == ".xlsx":
        if importlib.util.find_spec("openpyxl") is None:
            remedy = "install it, or save the table as .tsv"
            raise DataError(f"{path}: reading .xlsx needs the package openpyxl; {remedy}")
        import pandas as pd

        table = pd.read_excel(path, dtype=str, keep_default_na=False)
        _check_columns(path, list(table.columns))
        yield from enumerate(table.to_dict("records"), 2)
        return
    csv.field_size_limit(2**31 - 1)  # a cell may hold a picture
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t")
        try:
            _check_columns(path, list(reader.fieldnames or ()))
            for row in reader:
                if None in row or None in row.values():
                    n_fields = (
                        sum(v is not None for v in row.values()) + len(row.get(None, ())) - (None in row)
                    )
                    what = f"{n_fields} fields, but the header names {len(reader.fieldnames)}"
                    problems.add(path, what, reader.line_num)
                else:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 after line {reader.line_num} ({error}); save it as UTF-8"
            ) from None


def _check_columns(path: Path, names: list[str]) -> None:
    if "prediction" not in names:
        raise DataError(f"{path}: column 'prediction' is missing; found {', '.join(names) or 'nothing'}")
