"""Training runs of verl (and ours, which are written alike): metrics by step, and the trajectories of dumps.

verl writes the metrics of a step to the console (`step:12 - actor/entropy:0.06 - ...`), to a JSON-lines file, or to
TensorBoard, and trajectories to `<step>.jsonl`. A folder may hold any of them, of one run, from several starts: after
a restart the later lines count from their first step on. Names that changed between versions become those of `RENAMED`.
What cannot be read is counted and named, and the rest is kept.

Source: verl 0.6 to 0.9, and the repository of DeepEyes.
"""

from __future__ import annotations

import itertools
import json
import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from ..judging.rewards import decompose
from ..paths import shown
from ..runs.event_files import read_scalars
from .common import Problems, finite, json_lines

# name in some version -> name here; a name that ends in "/" or "_" stands for all that begin so
RENAMED = {
    "training/num_turns/": "num_turns/",
    "actor/entropy_loss": "actor/entropy",
    "agent/tool_call_": "tool_calls/",
}
DUMP_FIELDS = ("input", "output", "gts", "score", "step")
LONGEST_LINE = 1 << 24  # bytes; what has longer ones is no log
_STEP = re.compile(rb"(?<![\w/@.])step:(\d+) - ")
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_REPEATED = re.compile(r"\s*\[repeated \d+x across cluster\].*$", re.DOTALL)
_WRAPPED = re.compile(r"[A-Za-z_][\w.]*\((.*)\)$")  # np.float64(2.5), tensor(2.5)
_REPLY = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)
_FAILED = ("Error", "Unknown function", "Invalid JSON")  # how the tool's reply to a failed call begins
_NOTHING = pd.DataFrame({"step": np.array([], np.int64), "key": [], "value": np.array([], np.float64)})


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """A training run as its files hold it.

    Attributes:
        metrics: a row per step and key, ascending: step, key, value (float64, nan where the run wrote none).
        rollouts: a row per trajectory of the dumps, see `read_rollouts`; empty without dumps.
        files: what was read.
        problems: what was left out, or is doubtful.
    """

    metrics: pd.DataFrame
    rollouts: pd.DataFrame
    files: list[Path]
    problems: Problems

    def wide(self) -> pd.DataFrame:
        """The metrics with a row per step and a column per key."""
        wide = self.metrics.pivot_table(index="step", columns="key", values="value", dropna=False)
        return wide.rename_axis(columns=None)


def read_training(path: str | Path) -> TrainingLog:
    """Read a training run: one file, or a folder with files of one run.

    Raises:
        DataError: there is no such path, it holds nothing of a training run, or it holds two runs.
    """
    root, problems = Path(path), Problems()
    if not root.exists():
        raise DataError(f"{path}: there is no such file or folder")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    kinds: dict[str, list[Path]] = {"events": [], "lines": [], "console": [], "dump": []}
    for file in files:
        if kind := _kind(file):
            kinds[kind].append(file)
    if len(names := {file.name for file in kinds["lines"]}) > 1:
        raise DataError(
            f"{path}: holds the metrics of several runs ({', '.join(sorted(names))}); name one of them"
        )
    tables = {
        "lines": _stitched(_from_lines(kinds["lines"], problems), problems),
        "console": _stitched(_from_consoles(kinds["console"], problems), problems),
        "events": _stitched(_from_events(kinds["events"], problems), problems),
    }
    metrics = _joined({kind: table for kind, table in tables.items() if len(table)}, root)
    rollouts = read_rollouts(kinds["dump"], problems)
    if not len(metrics) and not len(rollouts):
        reasons = "".join(f"; {problem}" for problem in problems[:3])
        raise DataError(
            f"{path}: holds no metrics and no trajectories of a training run; expected console lines "
            f"'step:1 - key:value - ...', JSON lines with 'step' and 'data', TensorBoard event files, or dumps "
            f"'<step>.jsonl' with {', '.join(DUMP_FIELDS)}{reasons}"
        )
    return TrainingLog(
        metrics, rollouts, sorted({f for of_kind in kinds.values() for f in of_kind}), problems
    )


def _kind(file: Path) -> str | None:
    """What a file holds, judged by its name and its first line; None: nothing that is read here."""
    if ".tfevents." in file.name:
        return "events"
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            first = lines.readline().strip()
        return "lines" if b'"data"' in first and b'"output"' not in first else "dump"
    return "console" if file.suffix in ("", ".log", ".txt", ".out", ".err") else None


# ------------------------------------------------------------------------------------------------ metrics


Part = tuple[Path, pd.DataFrame]  # a file, and the metrics that it holds


class _Rows:
    """Metrics in reading order. A line that repeats a step takes everything from that step on with it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.steps, self.keys, self.values = array("q"), array("i"), array("d")
        self.names: list[str] = []  # by code
        self._codes: dict[str, int] = {}  # by every name that a key has had
        self._starts: list[tuple[int, int]] = []  # step -> its first row, ascending

    def add(
        self, step: int, pairs: Sequence[tuple[str, float]], problems: Problems, line: int | None
    ) -> None:
        if not pairs:
            return
        try:
            codes = [self._codes[key] for key, _ in pairs]
        except KeyError:
            codes = [self._code(key) for key, _ in pairs]
        last, row = self._starts[-1] if self._starts else (-1, 0)
        if step < last or (step == last and not set(codes).isdisjoint(self.keys[row:])):
            what = (
                f"step {step} comes again after step {last}: the run was restarted, and the later lines count"
            )
            problems.add(self.file, what, line)
            at = bisect_left(self._starts, step, key=lambda start: start[0])
            row = self._starts[at][1]
            del self.steps[row:], self.keys[row:], self.values[row:], self._starts[at:]
            last = -1
        if step != last:
            self._starts.append((step, len(self.steps)))
        self.steps.extend([step] * len(codes))
        self.keys.extend(codes)
        self.values.extend([value for _, value in pairs])

    def _code(self, key: str) -> int:
        name = _renamed(key)
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes.setdefault(key, self._codes[name])

    def frame(self) -> pd.DataFrame:
        keys = pd.Categorical.from_codes(np.frombuffer(self.keys, np.int32), self.names)
        columns = {"step": np.frombuffer(self.steps, np.int64), "key": keys}
        return pd.DataFrame(columns | {"value": np.frombuffer(self.values, np.float64)})


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        if key == old or (old[-1] in "/_" and key.startswith(old)):
            return new + key[len(old) :]
    return key


def _from_consoles(files: Iterable[Path], problems: Problems) -> Iterator[Part]:
    for file in sorted(files, key=lambda f: (f.stat().st_mtime, f.name)):
        rows = _Rows(file)
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), b""), 1):
                if b"step:" not in line:
                    continue
                line = _ANSI.sub(b"", line) if b"\x1b" in line else line
                if not (step := _STEP.search(line)):
                    continue
                try:
                    text = line[step.end() :].decode("utf-8")
                except UnicodeDecodeError:
                    problems.add(file, "is not UTF-8", number)
                    continue
                pairs, rest = _pairs((_REPEATED.sub("", text) if "[repeated" in text else text).strip())
                if rest:
                    problems.add(file, f"holds something that is no key:value ({rest[:80]!r})", number)
                if not line.endswith(b"\n") and pairs:
                    problems.add(file, "ends within a line; its last value was left out", number)
                    pairs.pop()
                rows.add(int(step[1]), pairs, problems, number)
        yield file, rows.frame()


def _pairs(text: str) -> tuple[list[tuple[str, float]], str]:
    """The key:value pairs of a console line, and what is none. A key may itself hold " - " and ":"."""
    pieces = text.split(" - ")
    try:
        return [(key, float(value)) for key, _, value in (piece.rpartition(":") for piece in pieces)], ""
    except ValueError:
        pairs, pending = [], ""
    for piece in pieces:
        key, colon, value = (pending + piece).rpartition(":")
        number = _number(value) if colon else None
        if number is None:
            pending += piece + " - "
        else:
            pairs.append((key, number))
            pending = ""
    return pairs, pending.removesuffix(" - ")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        wrapped = _WRAPPED.match(text.strip())
        return _number(wrapped[1]) if wrapped else None


def _from_lines(files: Iterable[Path], problems: Problems) -> Iterator[Part]:
    for file in files:
        rows = _Rows(file)
        for number, entry in json_lines(file, problems):
            data, step = entry.get("data"), entry.get("step")
            if not isinstance(data, dict) or isinstance(step, bool) or not isinstance(step, int):
                problems.add(
                    file, "expected an object with 'step' (a whole number) and 'data' (an object)", number
                )
                continue
            numbers = {key: np.nan if value is None else _plain(value) for key, value in data.items()}
            if odd := [key for key, value in numbers.items() if value is None]:
                problems.add(file, f"{len(odd)} values are no numbers, the first is of {odd[0]!r}", number)
            rows.add(step, [(k, v) for k, v in numbers.items() if v is not None], problems, number)
        yield file, rows.frame()


def _plain(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _from_events(files: Iterable[Path], problems: Problems) -> Iterator[Part]:
    began = []
    for file in files:
        rows, first_s = _Rows(file), None
        try:
            for scalar in read_scalars(file):
                first_s = scalar.wall_time_s if first_s is None else first_s
                rows.add(scalar.step, [(scalar.tag, scalar.value)], problems, None)
        except (EOFError, ValueError) as error:
            problems.add(file, f"{error}; what comes before it was read")
        began.append((first_s or 0.0, file.name, file, rows.frame()))
    yield from ((file, frame) for *_, file, frame in sorted(began, key=lambda item: item[:2]))


def _stitched(parts: Iterable[Part], problems: Problems) -> pd.DataFrame:
    """The files of one kind below each other: a later file counts from its first step on."""
    whole = _NOTHING
    for file, part in parts:
        if not len(part):
            continue
        kept = whole[whole["step"] < part["step"].min()]
        if n := whole["step"].nunique() - kept["step"].nunique():
            problems.add(
                file,
                f"begins at step {part['step'].min()}, and {n} steps of earlier files from there on were left out, as "
                "after a restart; if the files are of two runs, name one of them",
            )
        whole = pd.concat([kept.astype({"key": object}), part.astype({"key": object})], ignore_index=True)
    return whole


def _joined(tables: dict[str, pd.DataFrame], root: Path) -> pd.DataFrame:
    """One table of what several kinds of files hold; where several hold a number, the first kind's counts.

    Raises:
        DataError: they disagree in most numbers, so that they are of different runs.
    """
    if not tables:
        return _NOTHING
    names = list(tables)
    for first, second in itertools.pairwise(names):
        both = tables[first].merge(tables[second], on=["step", "key"], suffixes=("", "_other")).dropna()
        # consoles of 2025 print three decimals, TensorBoard keeps float32
        equal = np.isclose(both["value"], both["value_other"], rtol=1e-3, atol=6e-4)
        if len(both) and equal.mean() < 0.5:
            raise DataError(
                f"{shown(root)}: its {first} and its {second} files are of two runs: of {len(both)} numbers that "
                f"both hold {len(both) - equal.sum()} differ; name one of the files"
            )
    whole = pd.concat(list(tables.values()), ignore_index=True).drop_duplicates(["step", "key"])
    return whole.sort_values("step", kind="stable", ignore_index=True)


# ------------------------------------------------------------------------------------------------ trajectories


def read_rollouts(files: Iterable[Path], problems: Problems) -> pd.DataFrame:
    """The trajectories of dump files.

    Returns:
        A row per trajectory: step; set ("val" where the dump holds `reward`, else "train"); group (number of its prompt
        within the step, nan where equal prompts cannot be separated); input, output, gts; score; right, format_error,
        tool (`rewards.decompose`); calls_written, replies and failed_replies (tool calls and tool replies in the text);
        and every further field of the dumps.

    Raises:
        DataError: two files hold the same step, so that they are of two runs.
    """
    parts, seen = [], {}
    for file in files:
        if not len(part := _dump(file, problems)):
            continue
        parts.append(part)
        for key in part[["set", "step"]].drop_duplicates().itertuples(index=False, name=None):
            if (other := seen.setdefault(key, file)) != file:
                raise DataError(
                    f"{shown(file)} and {shown(other)} both hold trajectories of step {key[1]}: they are of two runs; "
                    "name the folder of one of them"
                )
    if not parts:
        counts = ("right", "format_error", "tool", "calls_written", "replies", "failed_replies")
        return pd.DataFrame(columns=["step", "set", "group", *DUMP_FIELDS[:-1], *counts])
    table = pd.concat(parts, ignore_index=True).sort_values(["set", "step"], kind="stable", ignore_index=True)
    return pd.concat([table, decompose(table["score"]).drop(columns="score")], axis=1)


def _dump(file: Path, problems: Problems) -> pd.DataFrame:
    rows = []
    for number, entry in json_lines(file, problems):
        step = entry.get("step", file.stem)
        score, text = finite(entry.get("score")), entry.get("output")
        if score is None or not isinstance(text, str) or not str(step).isdigit():
            problems.add(
                file, "expected 'output' (a text), 'score' (a number) and 'step' (a whole number)", number
            )
            continue
        replies = [reply.strip() for reply in _REPLY.findall(text)]
        counts = {
            "calls_written": len(_CALL.findall(text)),
            "replies": len(replies),
            "failed_replies": sum(reply.startswith(_FAILED) for reply in replies),
        }
        entry = {k: v if v is None or np.isscalar(v) else json.dumps(v) for k, v in entry.items()}
        known = {"step": int(step), "set": "val" if "reward" in entry else "train", "score": score}
        rows.append(entry | known | counts)
    if not rows:
        problems.add(file, "holds no trajectory")
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    table.insert(2, "group", _groups(table, file, problems))
    return table


def _groups(table: pd.DataFrame, file: Path, problems: Problems) -> pd.Series:
    """Numbers of the prompts. Equal texts about different pictures make too large a group, which is none."""
    if "uid" in table:
        return table["uid"].astype(str).str.rsplit("_", n=2).str[0].factorize()[0].astype("float64")
    keys = table.reindex(columns=["input", "gts"]).astype(str)
    groups = pd.Series(keys.groupby(["input", "gts"], sort=False).ngroup(), dtype="float64")
    sizes = groups.map(groups.value_counts())
    usual = Counter(sizes[~groups.duplicated()]).most_common(1)[0][0]
    if (sizes > usual).any():
        n = groups[sizes > usual].nunique()
        what = f"{n} prompts occur more than {usual} times: equal questions about different pictures"
        problems.add(file, f"{what}, whose groups cannot be separated")
    return groups.mask(sizes > usual)
