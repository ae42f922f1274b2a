"""V* (direct attributes and relative position) in its published layout.

vstar/<split>/NAME.jpg + NAME.json      {target_object, bbox, question, options}; options[0] is right
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

from ..errors import DataError
from .benchmark import Benchmark, Split
from .pictures import ImageRef
from .sample import LETTERS, Box, Sample, _json_object, _need, _sample, _text

# in the order in which they are taken where one question has several
_PICTURES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def _read_vstar(folder: Path, split: str) -> Iterator[Sample]:
    folder /= split
    if not folder.is_dir():
        raise DataError(
            f"{folder}: this folder of V* (NAME.jpg, NAME.json) is missing; fetch it (speceyes fetch vstar)"
        )
    images = [p for p in folder.iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith(".")]
    images.sort(key=lambda p: (_PICTURES.index(p.suffix.lower()), p.suffix), reverse=True)
    pictures = {p.stem: p for p in images}
    # hidden files are those of a file system or an archive, such as ._photo.json
    files = [p for p in folder.iterdir() if p.suffix.lower() == ".json" and not p.name.startswith(".")]
    for path in sorted(files):
        if path.stem not in pictures and not _asks(path):
            raise DataError(
                f"{path}: no question of V* and without a picture of that name; move it out of this folder"
            )
        entry = _json_object(path.read_bytes(), str(path))
        _need(entry, ("question", "options"), str(path))
        options = entry["options"]
        if not isinstance(options, list) or len(options) < 2:
            raise DataError(f"{path}: field 'options' is {options!r}, expected a list of two or more texts")
        if path.stem not in pictures:
            raise DataError(
                f"{path.with_suffix('.jpg')}: this picture is missing, but {path.name} asks about it; "
                f"fetch the benchmark again (speceyes fetch vstar){_other_kind(path)}"
            )
        targets = entry.get("target_object") or []
        yield _sample(
            "vstar",
            split,
            path.stem,
            question=_text(entry["question"], str(path), "question"),
            options=tuple(_text(o, str(path), "options") for o in options),
            answer=LETTERS[0],  # V* lists the right option first
            image=ImageRef(pictures[path.stem]),
            boxes=_boxes(entry.get("bbox") or [], str(path)),
            meta={"targets": [targets] if isinstance(targets, str) else list(targets)},
        )


def _asks(path: Path) -> bool:
    try:
        entry = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True  # reading it as a question says what is wrong
    return isinstance(entry, dict) and bool({"question", "options"} & entry.keys())


def _other_kind(path: Path) -> str:
    """What to do with a picture of that name whose kind is not read."""
    others = [
        p.name for p in sorted(path.parent.glob(f"{escape(path.stem)}.*")) if p.suffix.lower() != ".json"
    ]
    return f", or save {others[0]} as PNG or JPEG" if others else ""


def _boxes(boxes: Any, where: str) -> tuple[Box, ...]:
    try:
        numbers = tuple(tuple(float(v) for v in box) for box in boxes)
    except (TypeError, ValueError):
        numbers = ((),)
    if any(len(box) != 4 or not (box[2] >= 0 and box[3] >= 0) for box in numbers):
        raise DataError(f"{where}: field 'bbox' is {boxes!r}, expected a list of [x, y, width, height] in px")
    return numbers


BENCHMARK = Benchmark(
    name="vstar",
    title="V*",
    folders=("vstar", "vstar_bench"),
    splits={"direct_attributes": Split("V* direct", 115), "relative_position": Split("V* relative", 76)},
    read=_read_vstar,
    source="the dataset craigwu/vstar_bench",
    paper_rule="standard_inside",
    reported=True,
)
