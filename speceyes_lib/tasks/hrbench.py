"""HR-Bench (4K and 8K) in its published layout.

hr/<split>.tsv      one row per question and option order, image in base64
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .benchmark import Benchmark, Split
from .pictures import TsvImage
from .sample import LETTERS, Sample, _need, _sample, _text, _utf8

_HR_FIELDS = ("index", "question", "answer", "category", "A", "B", "C", "D", "cycle_category", "image")


def _read_hr(folder: Path, split: str) -> Iterator[Sample]:
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise DataError(f"{path}: this file of HR-Bench is missing; fetch it (speceyes fetch hr-bench)")
    rows = read_tsv(path)
    header = [decoded_field(f, f"{path}, header") for f, _ in next(rows, [])]
    _need(header, _HR_FIELDS, str(path))
    groups: dict[tuple, str] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} fields, but the header names {len(header)}")
        cells = dict(zip(header, row, strict=True))
        image, offset = cells.pop("image")
        text = {name: decoded_field(raw, f"{where}, field {name!r}") for name, (raw, _) in cells.items()}
        options = tuple(_text(text[c], where, c) for c in "ABCD")
        answer = _text(text["answer"], where, "answer")
        if answer not in LETTERS[: len(options)]:
            raise DataError(f"{where}: field 'answer' is {answer!r}, expected one of A, B, C, D")
        key = _text(text["index"], where, "index")
        question = _text(text["question"], where, "question")
        if image[:1] == b'"':
            image, offset = image[1:-1], offset + 1
        # the four cyclic orders of one question: same picture, question and options, whatever the row order
        group = groups.setdefault((question, tuple(sorted(options)), zlib.crc32(image)), f"hr/{split}/{key}")
        yield _sample(
            "hr",
            split,
            key,
            question=question,
            options=options,
            answer=answer,
            image=TsvImage(path, row=number, offset=offset, length=len(image)),
            meta={"category": text["category"], "cycle": text["cycle_category"], "group": group},
        )


def read_tsv(path: Path) -> Iterator[list[tuple[bytes, int]]]:
    """Rows of a TSV as (raw field, its byte offset in the file); one row in memory at a time.

    A field may be quoted as CSV writers do it: then it may hold tabs, line ends and doubled quotes.
    """
    with path.open("rb") as file:
        start = 0
        while line := file.readline():
            while (fields := _split(line)) is None:  # a quoted field goes on in the next line
                more = file.readline()
                if not more:
                    raise DataError(f"{path}: the quoted field that opens after byte {start} never ends")
                line += more
            if line.strip():
                yield [(field, start + at) for field, at in fields]
            start += len(line)


def _split(line: bytes) -> list[tuple[bytes, int]] | None:
    """Fields of one row with their offsets; None when it ends inside quotes."""
    end = len(line.rstrip(b"\r\n"))
    fields, at = [], 0
    while True:
        if line[at : at + 1] == b'"':
            close = at + 1
            while (close := line.find(b'"', close)) >= 0 and line[close + 1 : close + 2] == b'"':
                close += 2
            if close < 0:
                return None
            stop = close + 1
        else:
            stop = line.find(b"\t", at)
            stop = end if stop < 0 else stop
        fields.append((line[at:stop], at))
        if stop >= end:
            return fields
        at = stop + 1


def decoded_field(raw: bytes, where: str) -> str:
    """The text of a field, without the quotes around it. Raises DataError where it is not UTF-8."""
    text = _utf8(raw, where)
    return text[1:-1].replace('""', '"') if text[:1] == '"' else text


BENCHMARK = Benchmark(
    name="hr",
    title="HR-Bench",
    folders=("hr", "HR-Bench"),
    splits={"hr_bench_4k": Split("HR 4K", 800), "hr_bench_8k": Split("HR 8K", 800)},
    read=_read_hr,
    source="the dataset DreamMr/HR-Bench",
    cycles=True,
    paper_rule="letter_anywhere",
    reported=True,
)
