"""POPE (adversarial, popular, random) in its published layouts.

pope/Full/<split>-00000-of-00001.parquet      or in several such parts
pope/coco_pope_<split>.json      as first published: JSON lines, pictures in val2014/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..paths import inside
from .benchmark import Benchmark, Split
from .pictures import ImageRef, ParquetImage
from .sample import Sample, _json_object, _need, _sample, _text, _utf8, _yes_no

_POPE_FIELDS = ("question_id", "question", "answer", "image")
_POPE_PICTURES = ("val2014", "images", ".")  # where the COCO pictures of the JSON lines may lie


def _read_pope(folder: Path, split: str) -> Iterator[Sample]:
    parquet = folder / "Full" / f"{split}-00000-of-00001.parquet"
    lines = folder / f"coco_pope_{split}.json"
    if parts := sorted(parquet.parent.glob(f"{split}-[0-9]*-of-[0-9]*.parquet")):
        names = [f"{split}-{i:05}-of-{len(parts):05}.parquet" for i in range(len(parts))]
        if [part.name for part in parts] != names:
            raise DataError(
                f"{parquet.parent}: the parts of {split} are {', '.join(part.name for part in parts)}, which are not "
                "all the parts of one file; fetch it again (speceyes fetch pope)"
            )
        for part in parts:
            yield from _read_pope_parquet(part, split)
    elif lines.is_file():
        yield from _read_pope_lines(lines, split)
    else:
        raise DataError(
            f"{parquet}: this file of POPE is missing, and so is {lines.name}; fetch it (speceyes fetch pope)"
        )


def _read_pope_parquet(path: Path, split: str) -> Iterator[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow.names
        _need(columns, _POPE_FIELDS, str(path))
        texts = [c for c in columns if c != "image"]
        groups = [
            file.read_row_group(group, columns=texts).to_pylist() for group in range(file.num_row_groups)
        ]
    except (pa.ArrowException, OSError, ValueError) as e:
        remedy = "fetch it again (speceyes fetch pope)"
        raise DataError(f"{path}: not a readable parquet file ({e}); {remedy}") from e
    number = 0
    for group, rows in enumerate(groups):
        for index, row in enumerate(rows):
            where = f"{path}, row {number}"
            # some writers store texts as bytes
            row = {
                k: _utf8(v, f"{where}, field {k!r}") if isinstance(v, bytes) else v for k, v in row.items()
            }
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
                meta={"category": row.get("category") or split, "image_source": source, "pid": row.get("id")}
                | ({"group": f"pope/{source}"} if source else {}),
            )
            number += 1


def _read_pope_lines(path: Path, split: str) -> Iterator[Sample]:
    fields = ("question_id", "image", "text", "label")
    for number, line in enumerate(
        path.read_bytes().splitlines(), start=1
    ):  # of text it would split at U+2028
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        entry = _json_object(line, where)
        _need(entry, fields, where)
        name = _text(entry["image"], where, "image")
        pictures = (inside(path.parent / d, name, f"{where}, field 'image'") for d in _POPE_PICTURES)
        picture = next((p for p in pictures if p.is_file()), None)
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


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    folders=("pope", "POPE"),
    splits={
        "adversarial": Split("POPE adv.", 3000),
        "popular": Split("POPE pop.", 3000),
        "random": Split("POPE rand.", 3000),
    },
    read=_read_pope,
    source="the dataset lmms-lab/POPE (or the JSON lines of RUCAIBox/POPE)",
    yes_no=True,
    paper_rule="equal_length",
    reported=True,
)
