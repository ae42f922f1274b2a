"""Human checks: overruled verdicts and marks on gating decisions, in one CSV file beside the run.

Lines are only appended to `data/runs/<run>/human_checks.csv`. The latest line about the same answer or decision counts,
and the mark `withdrawn` takes it back. `what` is "answer" (is this answer right?) or "gating" (was the gate's decision
sound?). `arm` and `source` name where the answer was checked. A verdict needs a `reason`, a mark on the gate may have
one. A verdict holds for every arm that gave this answer to the sample, and not for another answer of a later run.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..errors import DataError, UserError, nearest
from ..paths import run_dir, shown
from ..runs.records import HumanCheck, Verdict
from ..texts import from_cell, storable, to_cell

if TYPE_CHECKING:
    import pandas as pd

FILE = "human_checks.csv"
COLUMNS = ("time_utc", "author", "what", "id", "arm", "source", "answer", "mark", "reason")
WITHDRAWN = "withdrawn"
MARKS = {
    "answer": (*get_args(HumanCheck.model_fields["verdict"].annotation), WITHDRAWN),
    "gating": ("sound", "unsound", WITHDRAWN),
}
SOURCES = get_args(Verdict.model_fields["source"].annotation)


def checks_path(run: str) -> Path:
    """The file of a run's checks; it need not exist."""
    return run_dir(run) / FILE


@cache
def git_user() -> str:
    """The user name that git is set to; "" where there is none, or no git."""
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.decode("utf-8", "replace").strip()


def append_override(
    run: str,
    *,
    id: str,
    answer: str,
    verdict: str,
    reason: str,
    author: str,
    arm: str = "",
    source: str = "final",
) -> Path:
    """Overrule or confirm the verdict on one answer; returns the file.

    Args:
        run: its name.
        id: of the sample, benchmark/split/key.
        answer: that is judged, word for word.
        verdict: "right", "wrong" or "unparsed"; "withdrawn" takes an earlier check back.
        reason: why.
        author: who.
        arm: in which the answer was checked.
        source: "final", "draft", "agent" or "first_look".

    Raises:
        UserError: no such run, no reason, no author, no answer to judge, or another mark than `MARKS["answer"]`.
        DataError: the file that is there is not one of these.
    """
    fields = {"id": id, "arm": arm, "source": source, "answer": answer, "reason": reason, "author": author}
    return _append(run, what="answer", mark=verdict, **fields)


def append_gating_mark(
    run: str, *, id: str, mark: str, author: str, note: str = "", arm: str = "gated"
) -> Path:
    """Mark one gating decision as `sound` or `unsound`; raises as `append_override`."""
    fields = {"id": id, "arm": arm, "mark": mark, "reason": note, "author": author}
    return _append(run, what="gating", source="", answer="", **fields)


def _append(run: str, **fields: str) -> Path:
    path = checks_path(run)
    if not path.parent.is_dir():
        raise UserError(f"run {run!r}: {shown(path.parent)} does not exist, so there is nothing to check")
    row = {"time_utc": datetime.now(UTC).isoformat(timespec="seconds"), **fields}
    if fault := _fault(row):
        raise UserError(f"this check cannot be stored: {fault}")
    text = io.StringIO()
    # all quoted: a lone carriage return in an answer must not end the line
    cells = {name: to_cell(storable(value)) for name, value in row.items()}
    csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # two explorers may be open
        before = ",".join(COLUMNS) + "\n"
        if size := os.fstat(file).st_size:
            first = os.pread(file, 1024, 0).decode("utf-8-sig", "replace").splitlines()[0]
            _require_header(path, next(csv.reader([first]), []))
            before = "" if os.pread(file, 1, size - 1) == b"\n" else "\n"  # edited by hand
        os.write(file, (before + text.getvalue()).encode())
        os.fsync(file)
    finally:
        os.close(file)
    return path


def read_checks(run: str) -> pd.DataFrame:
    """Every line of the file, in order; empty without one. `line` is its number in the file.

    Raises:
        DataError: a line that is not a check (names file, line, field and what was expected).
    """
    path = checks_path(run)
    rows = []
    if path.is_file():
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, strict=True)
                _require_header(path, next(reader, []))
                for cells in reader:
                    if not cells:
                        continue
                    fault = f"{len(cells)} fields" if len(cells) != len(COLUMNS) else None
                    row = dict(zip(COLUMNS, map(from_cell, cells), strict=False))
                    if fault := fault or _fault(row):
                        place = f"{shown(path)}, line {reader.line_num}"
                        raise DataError(f"{place}: {fault}; correct or remove that line")
                    rows.append(row | {"line": reader.line_num})
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{shown(path)}: not a readable CSV file ({error})") from None
    import pandas as pd  # a config only asks where the file is

    return pd.DataFrame(rows, columns=[*COLUMNS, "line"])


def read_gating_marks(run: str) -> pd.DataFrame:
    """The marks in force on gating decisions: the latest on each sample in each arm, without those taken back."""
    return _in_force(run, "gating", ["id", "arm"])


def _in_force(run: str, what: str, key: list[str]) -> pd.DataFrame:
    checks = read_checks(run)
    latest = checks[checks["what"] == what].drop_duplicates(key, keep="last")
    return latest[latest["mark"] != WITHDRAWN].reset_index(drop=True)


Overrides = Mapping[tuple[str, str], HumanCheck]  # (sample id, answer) -> the verdict of a person


def overrides_of(run: str) -> dict[tuple[str, str], HumanCheck]:
    """The verdicts in force by sample and answer: the latest on each answer, without those taken back."""
    checks = _in_force(run, "answer", ["id", "answer"]).rename(columns={"mark": "verdict"})
    fields = checks[["verdict", "reason", "author", "time_utc"]].to_dict("records")
    return {(i, a): HumanCheck(**f) for i, a, f in zip(checks["id"], checks["answer"], fields, strict=True)}


def reviewed(verdict: Verdict, overrides: Overrides) -> Verdict:
    """The verdict, overruled where a person checked this answer; the verdicts of rule and model stay in it."""
    check = overrides.get((verdict.id, verdict.answer)) if verdict.answer is not None else None
    if check is None or verdict.verdict == "error":
        return verdict
    decision = {"verdict": check.verdict, "decided_by": "human", "human": check}
    return verdict.model_copy(update=decision | {"rule_verdict": verdict.by_rule})


def _require_header(path: Path, cells: list[str]) -> None:
    if cells != list(COLUMNS):
        first = ",".join(cells)[:80]
        raise DataError(f"{shown(path)}: the first line is {first!r}, expected {','.join(COLUMNS)}")


def _fault(row: Mapping[str, str]) -> str | None:
    """What is wrong with a check, in words; None where nothing is."""
    if row["what"] not in MARKS:
        return f"what is {row['what']!r}, expected one of {', '.join(MARKS)}"
    if row["mark"] not in (marks := MARKS[row["what"]]):
        return f"mark is {row['mark']!r}{nearest(row['mark'], marks)}, expected one of {', '.join(marks)}"
    if row["id"].count("/") < 2:
        return f"id is {row['id']!r}, expected benchmark/split/key"
    if not row["author"].strip():
        return "author is empty, expected a name"
    try:
        datetime.fromisoformat(row["time_utc"])
    except ValueError:
        return f"time_utc is {row['time_utc']!r}, expected a time such as 2026-01-31T12:00:00+00:00"
    if row["what"] == "gating":
        return None
    if row["source"] not in SOURCES:
        return f"source is {row['source']!r}{nearest(row['source'], SOURCES)}, expected one of {', '.join(SOURCES)}"
    if not row["answer"].strip():
        return "answer is empty, expected the answer that is judged"
    if not row["reason"].strip():
        return "reason is empty: a verdict that overrules another says why"
    return None
