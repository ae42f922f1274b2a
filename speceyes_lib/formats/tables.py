"""Results of one's own, in any table: CSV, TSV, JSON lines, Parquet or a DataFrame becomes a run.

Three columns are enough: `id`, `draft_right`, and `confidence` or any `score_<name>`. What a table may have (others
are ignored, and named):

    id               of the sample, unique within its task
    draft_right      whether the draft is right: 1/0, true/false, yes/no, right/wrong
    confidence       how sure the draft is; higher is surer. `score_<name>`: another such score
    agent_right      whether the agent's answer is right
    draft_s, agent_s seconds of the draft and of the agent on this sample
    top_logprobs     of the draft: a list per token of its K highest log-probabilities (JSON)
    routed           whether a router sends the sample to the agent before any draft
    task, group      the task; what makes samples dependent (one picture, one question)
    question, draft_answer, agent_answer, standard    texts to read in the explorers

All other numbers of the suite need more than a table can hold, and are absent by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.own_results import NEEDED_FOR
from ..errors import DataError, UserError, nearest
from ..gating.scores import GATE_SCORES
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES, score_answer
from ..paths import is_run_name, possible, run_dir, shown
from ..runs.evidence import Evidence
from ..runs.own_scores import FOLDER, add_scores
from ..runs.records import AgentRecord, DraftRecord, RouterRecord, Trajectory, Turn
from ..texts import storable
from .common import ImportedSample, ImportedStage, LineError, Problems, finite, json_lines, text_of, write

COLUMNS = (
    "id", "draft_right", "confidence", "agent_right", "draft_s", "agent_s", "top_logprobs", "routed", "task", "group",
    "question", "draft_answer", "agent_answer", "standard",
)  # fmt: skip
NEEDED = ("id", "draft_right")
PREFIX = "score_"
SOURCE = "table"
TRUTHS = dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "right", "correct"), True)
TRUTHS |= dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "wrong", "incorrect"), False)
RULE = "own"  # of verdicts that came in a table


def import_table(
    table: pd.DataFrame | Sequence[Path],
    run: str,
    columns: Mapping[str, str] | None = None,
    replace: bool = False,
) -> tuple[list[ImportedStage], list[str], Problems]:
    """Make a run of a table of one's own; returns its stages, sentences on scores and absent parts, and problems.

    Args:
        table: a frame, or files with one row per sample.
        run: name of the new run.
        columns: names as this module has them -> names as the table has them.
        replace: replace what the run holds already.

    Raises:
        UserError: a column is missing or unknown.
        DataError: no row can be read.
        StageError: a run of that name holds something else, and `replace` is not set.
    """
    problems = Problems()
    rows = _Rows(columns or {}, problems)
    if isinstance(table, pd.DataFrame):
        rows.add(Path("table"), _rows_of(table))
    else:
        for path in map(possible, table):
            rows.add(path, read_table(path, problems))
    stages = rows.stages()
    if not stages:
        reasons = "".join(f"\n  {problem}" for problem in problems[:10])
        raise DataError(f"no row of this table can be imported{reasons}")
    if replace:
        for path in (run_dir(run) / FOLDER).glob("*.csv"):
            path.unlink()
    write(run, stages, SOURCE, "restart" if replace else "refuse")
    ids = {id_ for part in stages if part.stage == "01_draft" for id_ in part.records}
    notes = [add_scores(run, name, values, ids, replace=True) for name, values in rows.scores.items()]
    return stages, notes + rows.lacks(), problems


def import_score(
    path: Path, run: str, name: str, ids: Iterable[str], columns: Mapping[str, str], replace: bool
) -> tuple[str, Problems]:
    """Add a score from a file with the columns `id` and `value` to a run; returns a sentence, and problems.

    Args:
        path: the file.
        run: name of the run.
        name: of the score.
        ids: of the run's samples; the part behind the task is enough where it is unique.
        columns: `id`, `value` -> names as the file has them.
        replace: replace a score of that name.

    Raises:
        UserError: a column is missing, or the name is one of the suite's own scores.
        DataError: an id is not of this run, occurs twice or means several samples.
    """
    if name in GATE_SCORES:
        raise UserError(f"score {name!r} is computed from the evidence; choose another name")
    problems = Problems()
    by_key: dict[str, list[str]] = {}
    for id_ in ids:
        for key in {id_, id_.split("/", 2)[-1]}:
            by_key.setdefault(key, []).append(id_)
    id_column, value_column = (columns.get(column, column) for column in ("id", "value"))
    values: dict[str, float] = {}
    for number, row in read_table(path, problems):
        for column in (id_column, value_column):
            if column not in row:
                raise UserError(
                    f"{shown(path)}: no column {column!r}{nearest(column, row)}; there are {', '.join(row)}"
                )
        key = str(row[id_column]).strip()
        named = by_key.get(key, [key])
        if len(named) > 1:
            raise DataError(
                f"{shown(path)}, line {number}: id {key!r} fits {len(named)} samples; write it as {named[0]!r}"
            )
        if named[0] in values:
            raise DataError(f"{shown(path)}, line {number}: id {key!r} occurs twice")
        with problems.caught(path, number):
            values[named[0]] = _number(row[value_column], value_column, empty=math.nan)
    return add_scores(run, name, values, set().union(*by_key.values()), replace), problems


def read_table(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their numbers, as dicts from column to value; texts of a CSV file stay texts.

    Raises:
        DataError: the file is missing, empty or not of its kind.
    """
    suffix = path.suffix.casefold()
    try:
        if suffix in (".jsonl", ".ndjson"):
            yield from json_lines(path, problems)
        elif suffix == ".parquet":
            yield from _rows_of(pd.read_parquet(path))
        elif suffix in (".csv", ".tsv", ".txt"):
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            mark = max(",;\t|", key=header.count)
            # without a header, so that a column that occurs twice is seen
            cells = pd.read_csv(
                path, sep=mark, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
            yield from _rows_of(cells[1:].set_axis(cells.iloc[0], axis=1))
        else:
            raise DataError(f"{shown(path)}: expected a file ending in .csv, .tsv, .jsonl or .parquet")
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, pd.errors.ParserError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{shown(path)}: not readable as {suffix[1:]} ({reason})") from None


def _rows_of(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a frame; the first one of a file has the number 2, below the header."""
    names = [str(name).strip() for name in frame.columns]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"column {repeated[0]!r} occurs twice; name each column once")
    for number, values in enumerate(frame.itertuples(index=False, name=None), 2):
        yield number, dict(zip(names, values, strict=True))


class _Rows:
    """The rows of a table, read one by one into stages."""

    def __init__(self, columns: Mapping[str, str], problems: Problems) -> None:
        for name in columns:
            if name not in COLUMNS and not name.startswith(PREFIX):
                raise UserError(
                    f"--map {name}: no such column{nearest(name, COLUMNS)}; there are {', '.join(COLUMNS)}, "
                    f"and {PREFIX}<name>"
                )
        self.columns, self.problems = columns, problems
        self.files: list[Path] = []
        self.rows: list[dict[str, Any]] = []  # by our names
        self.ids: set[str] = set()
        self.tasks: dict[str, str] = {}  # task of a run -> as the table has it
        self.held: dict[str, str] | None = None  # our name -> the table's, of the columns there are
        self.scores: dict[str, dict[str, float]] = {}

    def add(self, path: Path, entries: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        if path.is_file():
            self.files.append(path)
        for number, entry in entries:
            held = self._columns(path, entry)
            if self.held is None:
                self.held = held
            elif missing := sorted(self.held.keys() - held.keys()):
                self.problems.add(
                    path,
                    f"field {self.held[missing[0]]!r} is missing; rows of one table have the same fields",
                    number,
                )
                continue
            with self.problems.caught(path, number):
                self._row({name: entry[self.held[name]] for name in self.held})

    def _columns(self, path: Path, entry: Mapping[str, Any]) -> dict[str, str]:
        """Our name of each column -> its name in the table."""
        for name, theirs in self.columns.items():
            if theirs not in entry:
                raise UserError(
                    f"{shown(path)}: --map {name}={theirs}: no such column{nearest(theirs, entry)}; there are "
                    f"{', '.join(map(str, entry))}"
                )
        held = {name: name for name in entry if name in COLUMNS or str(name).startswith(PREFIX)}
        held |= self.columns
        for name in NEEDED:
            if name not in held:
                raise UserError(
                    f"{shown(path)}: no column {name!r}{nearest(name, entry)}; there are {', '.join(map(str, entry))}. "
                    f"Rename it, or give --map {name}=COLUMN"
                )
        if not any(
            name == "confidence" or name == "top_logprobs" or name.startswith(PREFIX) for name in held
        ):
            raise UserError(
                f"{shown(path)}: no column 'confidence', {PREFIX}<name> or 'top_logprobs'; the gate needs one of them. "
                f"There are {', '.join(map(str, entry))}. Rename one, or give --map confidence=COLUMN"
            )
        return held

    def _row(self, entry: dict[str, Any]) -> None:
        task = self._task(entry.get("task"))
        key = str(text_of(entry["id"]) or "").strip()
        if not key or not key.isprintable():
            raise LineError("field 'id' is empty or holds control characters")
        row: dict[str, Any] = {"id": key if key.startswith(f"{task}/") else f"{task}/{key}", "task": task}
        if row["id"] in self.ids:
            raise LineError(f"id {key!r} occurs twice in task {self.tasks[task]!r}; the first row counts")
        for name in ("draft_right", "agent_right", "routed"):
            if name in entry:
                row[name] = _truth(entry[name], self.held[name])
        for name in ("draft_s", "agent_s"):
            if name in entry:
                row[name] = _number(entry[name], self.held[name])
                if row[name] < 0:
                    raise LineError(f"field {self.held[name]!r} is {row[name]:g}; seconds are not negative")
        for name in entry:
            if name == "confidence" or name.startswith(PREFIX):
                row[name] = _number(entry[name], self.held[name], empty=math.nan)
        for name in ("group", "question", "draft_answer", "agent_answer", "standard"):
            row[name] = storable(text_of(entry.get(name)) or "")
        if "top_logprobs" in entry:
            row["evidence"] = _evidence(entry["top_logprobs"], self.held["top_logprobs"])
        self.ids.add(row["id"])
        self.rows.append(row)

    def _task(self, value: Any) -> str:
        """The task of a row as "benchmark/split", with characters that folders can have."""
        named = (text_of(value) or "").strip() or "all"
        first, _, rest = named.partition("/")
        parts = [first, rest] if rest else [SOURCE, first]
        task = "/".join(re.sub(r"[^\w.-]+", "_", part).strip(".") or "_" for part in parts)
        if self.tasks.setdefault(task, named) != named:
            raise LineError(
                f"tasks {named!r} and {self.tasks[task]!r} differ in characters that no folder can have"
            )
        if not is_run_name(task.replace("/", "_")):
            raise LineError(f"task {named[:60]!r} is too long")
        return task

    def stages(self) -> list[ImportedStage]:
        """The stages of every task: drafts, the instrumented arm, and the agent alone where its verdicts are there."""
        stages: list[ImportedStage] = []
        for task in self.tasks:
            rows = [row for row in self.rows if row["task"] == task]
            if rows:
                stages += self._stages_of(task, rows)
        for name in dict.fromkeys(name for row in self.rows for name in row):
            if name == "confidence" or name.startswith(PREFIX):
                self.scores[name.removeprefix(PREFIX)] = {row["id"]: row[name] for row in self.rows}
        return stages

    def _stages_of(self, task: str, rows: list[dict[str, Any]]) -> list[ImportedStage]:
        names = ["01_draft", "02_collect", *(["02_baseline"] if "agent_right" in rows[0] else [])]
        stored = min((row["evidence"].k for row in self.rows if row.get("evidence")), default=DEFAULT_K)
        config = {"k": min(DEFAULT_K, stored), "slope": DEFAULT_SLOPE, "batch_size": 1}
        config["router"] = "large" if "routed" in rows[0] else "none"
        parts = [ImportedStage(name, task, config=dict(config), files=self.files) for name in names]
        if len(parts) == 3:
            parts[2].config["router"] = "none"
        for row in rows:
            facts = ImportedSample(row["question"], row["standard"], group=row["group"])
            draft = _draft(row, config["k"])
            records = [draft, _agent(row, "collect", draft), _agent(row, "baseline")]
            for part, record in zip(parts, records, strict=False):
                part.add(record, facts)
            if "evidence" in row:
                parts[0].evidence[row["id"]] = row["evidence"]
            parts[1].judge(row["id"], _verdict(row["draft_right"]), RULE, "draft")
            if len(parts) == 3:
                parts[1].judge(row["id"], _verdict(row["agent_right"]), RULE, "agent", "final")
                parts[2].judge(row["id"], _verdict(row["agent_right"]), RULE, "agent", "final")
        return parts

    def lacks(self) -> list[str]:
        """What cannot be computed from this table, a sentence each, with the column that it needs."""
        held = self.held or {}
        return [
            f"not shown: {what}; needs the column {name}"
            for name, what in NEEDED_FOR.items()
            if name not in held
        ]


def _truth(value: Any, column: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    word = str("" if value is None else value).strip().casefold()
    if word not in TRUTHS:
        raise LineError(
            f"field {column!r} is {value!r}; expected 1 or 0, true or false, yes or no, right or wrong"
        )
    return TRUTHS[word]


def _number(value: Any, column: str, empty: float | None = None) -> float:
    """A finite number; `empty` (where it is allowed) for an empty field and for NaN."""
    number = finite(value.item() if isinstance(value, np.generic) else value)
    if number is not None:
        return number
    if empty is not None and str("" if value is None else value).strip().casefold() in (
        "",
        "nan",
        "none",
        "null",
    ):
        return empty
    raise LineError(f"field {column!r} is {value!r}; expected a finite number")


def _evidence(value: Any, column: str) -> Evidence | None:
    """Log-probabilities of a draft; rows may come unsorted, and end where the shortest ends."""
    try:
        tokens = json.loads(value) if isinstance(value, str) else value
        rows = [
            sorted((float(v) for v in token), reverse=True) for token in (() if tokens is None else tokens)
        ]
    except (TypeError, ValueError) as error:
        raise LineError(f"field {column!r} must be a list of numbers per token ({error})") from None
    if not rows:
        return None
    top = np.array([row[: min(map(len, rows))] for row in rows], dtype=np.float32)
    if top.shape[1] < 2 or np.isnan(top).any() or (top > 0.01).any():
        raise LineError(f"field {column!r} must hold two or more log-probabilities (not above 0) per token")
    unknown = np.full(len(top), -1, np.int32)
    return Evidence(unknown, ("",) * len(top), top[:, 0], np.full(top.shape, -1, np.int32), top)


def _draft(row: Mapping[str, Any], k: int) -> DraftRecord:
    evidence = row.get("evidence")
    scores = None
    if evidence is not None:
        scores = {name: score_answer(evidence.top_logprobs, name, k) for name in PAPER_SCORES}
    return DraftRecord(
        id=row["id"],
        status="ok",
        answer=row["draft_answer"],
        n_tokens=None if evidence is None else evidence.n_tokens,
        scores=scores,
        score_reason=None if scores else "not_recorded",
        draft_s=row.get("draft_s", 0.0),
        timed="draft_s" in row,
    )


def _agent(row: Mapping[str, Any], arm: str, draft: DraftRecord | None = None) -> AgentRecord:
    known, seconds = "agent_right" in row, row.get("agent_s", 0.0)
    turn = Turn(text=row["agent_answer"], n_tokens=None, turn_s=seconds, action="answer")
    path = Trajectory(status="ok", answer=row["agent_answer"], answer_from="untagged", turns=(turn,))
    word = "yes" if row.get("routed") else "no"
    return AgentRecord(
        id=row["id"],
        run_mode=arm,
        status="ok",
        decision="collected" if arm == "collect" else "baseline",
        used="large",
        answer=row["agent_answer"] if known else None,
        router=RouterRecord(verdict=word, text=word) if arm == "collect" and "routed" in row else None,
        draft=draft,
        trajectory=path if known else None,
        timed=known and "agent_s" in row,
    )


def _verdict(right: bool) -> str:
    return "right" if right else "wrong"
