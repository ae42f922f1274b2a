"""V*, HR-Bench and POPE, read from their official on-disk layouts into one kind of `Sample`.

    root/vstar/<split>/NAME.jpg + NAME.json      {target_object, bbox, question, options}, options[0] is right
    root/hr/<split>.tsv                          one row per question and option order, image in base64
    root/pope/Full/<split>-00000-of-00001.parquet
    root/pope/coco_pope_<split>.json             POPE as first published: JSON lines, pictures in val2014/

The folder names of the official downloads (`vstar_bench`, `HR-Bench`, `POPE`) are accepted as well. Pictures
stay on disk until `Sample.image.open()`: memory does not grow with their number or size.

Two kinds of bad input are told apart. A file that is not what it claims to be raises DataError when loading.
A picture that cannot be decoded raises DataError on opening it: one lost sample must not lose the others.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from .errors import DataError, nearest
from .records import ShownOptions

if TYPE_CHECKING:
    import pyarrow as pa

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
YES_NO = ("yes", "no")
Box = tuple[float, float, float, float]


# ------------------------------------------------------------------------------------------------ samples
@dataclass(frozen=True)
class Sample:
    """One question about one picture.

    id: "benchmark/split/key", the same on every machine. options: the offered answers in file order, None for
    yes/no. answer: the right letter ("A" is options[0]), or "yes"/"no". boxes: (x, y, w, h) of the targets in
    pixels of the original picture, where the benchmark has them. meta: what only this benchmark has, always
    with `group`: samples of one group share picture and question, so intervals must be clustered by it.
    options_shown: the order that `options` and `answer` are in, where it is not the file's.
    """

    id: str
    benchmark: str
    split: str
    key: str
    question: str
    options: tuple[str, ...] | None
    answer: str
    image: ImageRef
    boxes: tuple[Box, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    options_shown: ShownOptions | None = None

    @property
    def task(self) -> str:
        """ "benchmark/split", the unit of every stage."""
        return f"{self.benchmark}/{self.split}"

    @property
    def answer_text(self) -> str:
        """The right answer in words: the text of the right option, or yes/no."""
        return self.answer if self.options is None else self.options[LETTERS.index(self.answer)]

    @property
    def standard(self) -> str:
        """The standard answer as shown to people and judges: "A. red", or yes/no."""
        return self.answer if self.options is None else f"{self.answer}. {self.answer_text}"


# ---------------------------------------------------------------------------------------- order of options
def arranged(samples: Sequence[Sample], option_order: str, seed: int = 0) -> list[Sample]:
    """Samples with their options as `option_order` has them; those without options stay as they are.

    "as_published": the file's order. "rotated_N": each option N places later, the last ones first, so that N = 1
    moves a right answer from A to B. "shuffled": a permutation drawn from `seed` and the sample's id, so that it
    depends neither on the machine nor on which other samples there are.
    """
    if option_order == "as_published":
        return list(samples)
    return [shown_as(sample, _order(sample, option_order, seed)) for sample in samples]


def shown_as(sample: Sample, shown: ShownOptions | None) -> Sample:
    """A sample as published in the order in which its options were shown, the right letter moved with them."""
    if shown is None or sample.options is None:
        return sample
    if sorted(shown.order) != list(range(len(sample.options))):
        raise DataError(
            f"{sample.id}: options shown in the order {list(shown.order)}, but the benchmark has "
            f"{len(sample.options)} options; it is not the benchmark that the answers were given to"
        )
    options = tuple(sample.options[i] for i in shown.order)
    answer = LETTERS[shown.order.index(LETTERS.index(sample.answer))]
    return replace(sample, options=options, answer=answer, options_shown=shown)


def _order(sample: Sample, option_order: str, seed: int) -> ShownOptions | None:
    if sample.options is None:
        return None
    places = list(range(len(sample.options)))
    if option_order == "shuffled":
        random.Random(f"{seed} {sample.id}").shuffle(places)
        return ShownOptions(order=tuple(places), seed=seed)
    shift = int(option_order.removeprefix("rotated_")) % len(places)
    return ShownOptions(order=tuple(places[-shift:] + places[:-shift]))


# ----------------------------------------------------------------------------------------------- pictures
@dataclass(frozen=True)
class ImageRef:
    """Where a picture lies. Holds no pixels; `open()` reads them anew each time."""

    path: Path

    @property
    def where(self) -> str:
        """File and place in it, for error messages."""
        return str(self.path)

    def read(self) -> bytes:
        """The encoded picture (JPEG, PNG, ...). Raises DataError when it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as e:
            raise DataError(f"{self.where}: cannot read the picture ({e.strerror or e})") from e

    def open(self) -> Image.Image:
        """The picture as RGB, turned as its EXIF orientation says, transparency shown on white.

        Raises DataError naming file and row when it is missing, truncated or no picture.
        """
        data = self.read()
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as e:
            raise DataError(
                f"{self.where}: not a readable picture ({e}); {len(data)} bytes are there. "
                "Replace it with the intact original"
            ) from e


@dataclass(frozen=True)
class TsvImage(ImageRef):
    """The base64 field of one TSV row: `length` bytes at byte `offset`."""

    row: int
    offset: int
    length: int

    @property
    def where(self) -> str:
        return f"{self.path}, row {self.row}, field 'image'"

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return base64.b64decode(file.read(self.length), validate=True)
        except OSError as e:
            raise DataError(f"{self.where}: cannot read the picture ({e.strerror or e})") from e
        except binascii.Error as e:
            raise DataError(f"{self.where}: not valid base64 ({e}); get this file again") from e


@dataclass(frozen=True)
class ParquetImage(ImageRef):
    """The image of one parquet row: `index` within row group `group`."""

    row: int
    group: int
    index: int

    @property
    def where(self) -> str:
        return f"{self.path}, row {self.row}, field 'image'"

    def read(self) -> bytes:
        try:
            column = _row_group_images(self.path, self.path.stat().st_mtime_ns, self.group)
        except (OSError, ValueError) as e:
            raise DataError(f"{self.where}: cannot read the picture ({e})") from e
        cell = column[self.index].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise DataError(f"{self.where}: null, expected the bytes of a picture; get this file again")
        return data


@lru_cache(maxsize=1)
def _row_group_images(path: Path, mtime_ns: int, group: int) -> pa.ChunkedArray:
    # parquet is read by row group; samples come in file order, so keeping the latest group suffices
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        # Pillow would clip 16- and 32-bit pixels to white without a word
        raise ValueError(f"pixel mode {image.mode} has no faithful 8-bit form")
    return image.convert("RGB")


# ----------------------------------------------------------------------------------------------- registry
@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its folder names (ours first), splits, reader and where the original is to be had."""

    name: str
    title: str
    folders: tuple[str, ...]
    splits: tuple[str, ...]
    read: Callable[[Path, str], Iterator[Sample]]
    source: str


def load(benchmark: str, split: str, root: str | Path) -> list[Sample]:
    """All samples of one split, sorted by key (numbers by value), validated, with unique ids.

    root: the folder that holds `vstar`, `hr` and `pope`. Raises DataError for an unknown benchmark or split,
    a missing folder, a malformed file, duplicate ids and an empty split.
    """
    known = BENCHMARKS.get(benchmark)
    if known is None:
        raise DataError(
            f"no benchmark {benchmark!r}{nearest(benchmark, BENCHMARKS)}; known are {', '.join(BENCHMARKS)}"
        )
    if split not in known.splits:
        raise DataError(
            f"benchmark {benchmark!r} has no split {split!r}{nearest(split, known.splits)}; "
            f"it has {', '.join(known.splits)}"
        )
    folder = _folder(known, Path(root))
    samples = sorted(known.read(folder, split), key=lambda s: _natural(s.key))
    if not samples:
        raise DataError(f"{folder}: split {split!r} of {known.title} is empty; put {known.source} there")
    for before, after in itertools.pairwise(samples):
        if before.key == after.key:
            raise DataError(
                f"{folder}: split {split!r} holds the id {after.id!r} more than once; ids must be unique"
            )
    return samples


def load_task(task: str, root: str | Path) -> list[Sample]:
    """`load` for a task name "benchmark/split"."""
    if task not in TASKS:
        raise DataError(f"no task {task!r}{nearest(task, TASKS)}; known are {', '.join(TASKS)}")
    benchmark, split = task.split("/")
    return load(benchmark, split, root)


def _folder(benchmark: Benchmark, root: Path) -> Path:
    for name in benchmark.folders:
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root}: no folder {' or '.join(map(repr, benchmark.folders))} here, so no {benchmark.title} data. "
        f"Run notebooks/00_prepare_data.ipynb for the embedded benchmark, or put {benchmark.source} there"
    )


def _natural(key: str) -> list[tuple[int, int, str]]:
    """Sort key by which "9" comes before "10"; total on all strings."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", key) if p]


def _sample(benchmark: str, split: str, key: str, **fields: Any) -> Sample:
    sample_id = f"{benchmark}/{split}/{key}"
    meta = {"group": sample_id} | fields.pop("meta", {})
    return Sample(id=sample_id, benchmark=benchmark, split=split, key=key, meta=meta, **fields)


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field {name!r} is {value!r}, expected a text that is not empty")
    return value.strip()


def _yes_no(value: Any, where: str, name: str) -> str:
    answer = _text(value, where, name).lower()
    if answer not in YES_NO:
        raise DataError(f"{where}: field {name!r} is {value!r}, expected 'yes' or 'no'")
    return answer


def _need(fields: Sequence[str] | dict, wanted: Sequence[str], where: str) -> None:
    missing = [f for f in wanted if f not in fields]
    if missing:
        raise DataError(
            f"{where}: field {', '.join(map(repr, missing))} is missing; "
            f"expected {', '.join(wanted)}, found {', '.join(fields) or 'nothing'}"
        )


# ----------------------------------------------------------------------------------------------------- V*
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def _read_vstar(folder: Path, split: str) -> Iterator[Sample]:
    folder /= split
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder of V* is missing; expected NAME.jpg and NAME.json in it")
    for path in sorted(folder.glob("*.json")):
        try:
            entry = json.loads(path.read_text("utf-8"))
        except ValueError as e:
            raise DataError(f"{path}: not valid JSON ({e})") from e
        if not isinstance(entry, dict):
            raise DataError(f"{path}: expected one JSON object, found {type(entry).__name__}")
        _need(entry, ("question", "options"), str(path))
        options = entry["options"]
        if not isinstance(options, list) or len(options) < 2:
            raise DataError(f"{path}: field 'options' is {options!r}, expected a list of two or more texts")
        pictures = [p for suffix in _PICTURES if (p := path.with_suffix(suffix)).is_file()]
        if not pictures:
            raise DataError(
                f"{path.with_suffix('.jpg')}: this picture is missing, but {path.name} asks about it; "
                "the download is incomplete"
            )
        targets = entry.get("target_object") or []
        yield _sample(
            "vstar",
            split,
            path.stem,
            question=_text(entry["question"], str(path), "question"),
            options=tuple(_text(o, str(path), "options") for o in options),
            answer=LETTERS[0],  # by the benchmark's own convention (facts §2)
            image=ImageRef(pictures[0]),
            boxes=_boxes(entry.get("bbox") or [], str(path)),
            meta={"targets": [targets] if isinstance(targets, str) else list(targets)},
        )


def _boxes(boxes: Any, where: str) -> tuple[Box, ...]:
    try:
        found = tuple(tuple(float(v) for v in box) for box in boxes)
    except (TypeError, ValueError):
        found = ((),)
    if any(len(box) != 4 or not (box[2] >= 0 and box[3] >= 0) for box in found):
        raise DataError(f"{where}: field 'bbox' is {boxes!r}, expected a list of [x, y, width, height] in px")
    return found


# --------------------------------------------------------------------------------------------- HR-Bench
_HR_FIELDS = ("index", "question", "answer", "category", "A", "B", "C", "D", "cycle_category", "image")


def _read_hr(folder: Path, split: str) -> Iterator[Sample]:
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise DataError(f"{path}: this file of HR-Bench is missing")
    rows = _tsv_rows(path)
    header = [_field(f) for f, _ in next(rows, [])]
    _need(header, _HR_FIELDS, str(path))
    groups: dict[tuple, str] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} fields, but the header names {len(header)}")
        cells = dict(zip(header, row, strict=True))
        image, offset = cells.pop("image")
        text = {name: _field(raw) for name, (raw, _) in cells.items()}
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


def _tsv_rows(path: Path) -> Iterator[list[tuple[bytes, int]]]:
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


def _field(raw: bytes) -> str:
    text = raw.decode("utf-8-sig", errors="replace")
    return text[1:-1].replace('""', '"') if text[:1] == '"' else text


# --------------------------------------------------------------------------------------------------- POPE
_POPE_FIELDS = ("question_id", "question", "answer", "image")
_POPE_PICTURES = ("val2014", "images", ".")  # where the COCO pictures of the JSON lines may lie


def _read_pope(folder: Path, split: str) -> Iterator[Sample]:
    parquet = folder / "Full" / f"{split}-00000-of-00001.parquet"
    lines = folder / f"coco_pope_{split}.json"
    if parquet.is_file():
        yield from _read_pope_parquet(parquet, split)
    elif lines.is_file():
        yield from _read_pope_lines(lines, split)
    else:
        raise DataError(f"{parquet}: this file of POPE is missing, and so is {lines.name} in {folder}")


def _read_pope_parquet(path: Path, split: str) -> Iterator[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as e:
        raise DataError(f"{path}: not a readable parquet file ({e})") from e
    columns = file.schema_arrow.names
    _need(columns, _POPE_FIELDS, str(path))
    texts = [c for c in columns if c != "image"]
    number = 0
    for group in range(file.num_row_groups):
        for index, row in enumerate(file.read_row_group(group, columns=texts).to_pylist()):
            where = f"{path}, row {number}"
            key = str(row["question_id"])
            source = str(row.get("image_source") or "")
            yield _sample(
                "pope",
                split,
                _text(key, where, "question_id"),
                question=_text(row["question"], where, "question"),
                options=None,
                answer=_yes_no(row["answer"], where, "answer"),
                image=ParquetImage(path, row=number, group=group, index=index),
                meta={"category": row.get("category") or split, "image_source": source}
                | ({"group": f"pope/{source}"} if source else {}),
            )
            number += 1


def _read_pope_lines(path: Path, split: str) -> Iterator[Sample]:
    fields = ("question_id", "image", "text", "label")
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as e:
            raise DataError(f"{where}: not valid JSON ({e})") from e
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected one JSON object, found {type(entry).__name__}")
        _need(entry, fields, where)
        name = _text(entry["image"], where, "image")
        picture = next((p for d in _POPE_PICTURES if (p := path.parent / d / name).is_file()), None)
        if picture is None:
            raise DataError(
                f"{where}: the picture {name!r} is missing; put the COCO val2014 pictures into "
                f"{path.parent / _POPE_PICTURES[0]}"
            )
        source = Path(name).stem
        yield _sample(
            "pope",
            split,
            str(entry["question_id"]),
            question=_text(entry["text"], where, "text"),
            options=None,
            answer=_yes_no(entry["label"], where, "label"),
            image=ImageRef(picture),
            meta={"category": split, "image_source": source, "group": f"pope/{source}"},
        )


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "vstar",
            "V*",
            ("vstar", "vstar_bench"),
            ("direct_attributes", "relative_position"),
            _read_vstar,
            "the dataset craigwu/vstar_bench",
        ),
        Benchmark(
            "hr",
            "HR-Bench",
            ("hr", "HR-Bench"),
            ("hr_bench_4k", "hr_bench_8k"),
            _read_hr,
            "the dataset DreamMr/HR-Bench",
        ),
        Benchmark(
            "pope",
            "POPE",
            ("pope", "POPE"),
            ("adversarial", "popular", "random"),
            _read_pope,
            "the dataset lmms-lab/POPE (or the JSON lines of RUCAIBox/POPE)",
        ),
    )
}
TASKS = tuple(f"{b.name}/{split}" for b in BENCHMARKS.values() for split in b.splits)
