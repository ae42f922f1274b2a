"""The data of the DeepEyes recipe: from the three published files to train.parquet and val.parquet.

Left out are the charts: crops of huge figures run out of memory on one node. Pictures with a side below 28 pixels,
which the model cannot take, are scaled up. Rows that the recipe could not use are left out and counted.

Source: the dataset ChenShawn/DeepEyes-Datasets-47k and the notes of verl's recipe `deepeyes`.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..errors import DataError, UserError
from ..paths import shown
from ..runs.files import write_atomically

VSTAR, CHART, THINKLITE = (
    "data_0.1.2_visual_toolbox_v2.parquet",
    "data_v0.8_visual_toolbox_v2.parquet",
    "data_thinklite_reasoning_acc.parquet",
)
COLUMNS = ("data_source", "prompt", "images", "ability", "env_name", "reward_model", "extra_info")
SMALLEST_SIDE_PX = 28  # a patch of the model, twice
ROWS_AT_ONCE = 64  # a row may hold megabytes of pictures


def prepare(
    raw: Path,
    out: Path,
    validation: int = 1000,
    seed: int = 0,
    charts: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, int]:
    """Write train.parquet, val.parquet and data.json; returns the counts of data.json.

    Args:
        raw: folder with the published files.
        out: folder to write; what it holds of these names is replaced when everything is done.
        validation: rows of val.parquet, drawn by the seed.
        seed: of the split.
        charts: keep the charts as well.
        report: gets a line per file.

    Raises:
        DataError: a file or one of its columns is missing, or files do not fit together.
        UserError: more rows for validation than there are.
    """
    files = [raw / name for name in (VSTAR, THINKLITE, *([CHART] if charts else []))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise DataError(
            f"{shown(raw)}: {' and '.join(missing)} missing; download ChenShawn/DeepEyes-Datasets-47k there"
        )
    opened = [_opened(file) for file in files]
    total = sum(file.metadata.num_rows for file in opened)
    if not 0 < validation < total:
        raise UserError(
            f"validation = {validation}: must be between 1 and {total - 1}, the rows that there are"
        )
    held_out = set(random.Random(seed).sample(range(total), validation))
    try:
        schema = pa.unify_schemas([_columns(f.schema_arrow) for f in opened], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{shown(raw)}: the columns of the files do not fit together ({error})") from None
    counts: Counter[str] = Counter(rows=total, train=0, val=0, scaled=0)
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / f"{name}.parquet.partial" for name in ("train", "val")}
    writers = {name: pq.ParquetWriter(path, schema) for name, path in paths.items()}
    number = 0
    for path, file in zip(files, opened, strict=True):
        before = counts.copy()
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(COLUMNS)):
            parts: dict[str, list[dict]] = {"train": [], "val": []}
            for row in batch.to_pylist():
                name = "val" if number in held_out else "train"
                number += 1
                if fault := row_fault(row):
                    counts[f"left out: {fault}"] += 1
                    continue
                counts["scaled"] += _scaled(row)
                counts[name] += 1
                parts[name].append(row)
            for name, rows in parts.items():
                if rows:
                    writers[name].write_table(pa.Table.from_pylist(rows, schema=schema))
        more = counts - before
        report(f"{path.name}: " + ", ".join(f"{n} {what}" for what, n in more.items()))
    for name, writer in writers.items():
        writer.close()
        paths[name].replace(out / f"{name}.parquet")
    if not charts:
        report(f"{CHART} is left out: crops of huge figures run out of memory (charts = True keeps it)")
    facts = {"seed": seed, "files": [file.name for file in files], "counts": dict(counts)}
    write_atomically(out / "data.json", (json.dumps(facts, indent=1) + "\n").encode())
    return dict(counts)


def _opened(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{shown(file)} is no readable Parquet file ({error}); download it again") from None
    if missing := [name for name in COLUMNS if name not in opened.schema_arrow.names]:
        raise DataError(f"{shown(file)}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
    return opened


def _columns(schema: pa.Schema) -> pa.Schema:
    return pa.schema([schema.field(name) for name in COLUMNS])


def row_fault(row: dict[str, Any]) -> str:
    """Why the recipe cannot use a row; empty: it can."""
    prompt, images = row["prompt"] or [], row["images"] or []
    if len(prompt) != 2 or [message["role"] for message in prompt] != ["system", "user"]:
        return "prompt is not a system and a user message"
    if "<image>" not in (prompt[1]["content"] or ""):
        return "the user message has no <image>"
    if not images or not images[0]["bytes"]:
        return "no picture"
    if not (row["reward_model"] or {}).get("ground_truth"):
        return "no right answer"
    if not (row["extra_info"] or {}).get("question"):
        return "no extra_info.question, without which the judge sees no question"
    try:
        for image in images:
            with Image.open(io.BytesIO(image["bytes"])) as opened:
                opened.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "a picture cannot be decoded"
    return ""


def _scaled(row: dict[str, Any]) -> bool:
    """Scale the row's pictures up where a side is too short; whether one was."""
    changed = False
    for image in row["images"]:
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            if min(opened.size) >= SMALLEST_SIDE_PX:
                continue
            factor = SMALLEST_SIDE_PX / min(opened.size)
            size = tuple(max(SMALLEST_SIDE_PX, math.ceil(side * factor)) for side in opened.size)
            larger = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        data = io.BytesIO()
        larger.save(data, "PNG")
        image["bytes"], changed = data.getvalue(), True
    return changed


# ------------------------------------------------------------------------------------------------ self-test


def write_example(raw: Path, rows: int = 12) -> None:
    """Write small files in the layout of the published ones: `rows` each, some pictures of one too narrow."""
    raw.mkdir(parents=True, exist_ok=True)
    for name, source in {VSTAR: "vstar", CHART: "chart", THINKLITE: "thinklite_eureka"}.items():
        table = pa.Table.from_pylist(list(_example_rows(name, source, rows)))
        pq.write_table(table, raw / name)


def _example_rows(name: str, source: str, rows: int) -> Iterator[dict]:
    for i in range(rows):
        size = (20, 60 + i) if name == THINKLITE and i % 3 == 0 else (64, 48)
        data = io.BytesIO()
        Image.new("RGB", size, (i, 2 * i, 3 * i)).save(data, "PNG")
        question = f"What is shown in picture {i} of {source}?"
        extra = {"question": question, "answer": "a dot", "id": f"{source}-{i}"}
        yield {
            "data_source": source,
            "prompt": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": f"<image>\n{question}"},
            ],
            "images": [{"bytes": data.getvalue(), "path": None}],
            "ability": "vqa",
            "env_name": "visual_toolbox_v2" if source != "thinklite_eureka" else None,
            "reward_model": {"ground_truth": "a dot", "style": "model"},
            "extra_info": extra if source != "vstar" else extra | {"index": i},
        }


def self_test(folder: Path) -> list[str]:
    """Prepare generated files twice and check the result; returns what was checked.

    Raises:
        DataError: something is not as it should be, which is a fault of this installation.
    """
    write_example(folder / "raw")
    lines: list[str] = []
    for out in ("first", "second"):
        prepare(folder / "raw", folder / out, validation=6, seed=1, report=lines.append)
    first, second = (
        {n: pq.read_table(folder / out / f"{n}.parquet") for n in ("train", "val")}
        for out in ("first", "second")
    )
    rows = [row for table in first.values() for row in table.to_pylist()]
    sides = [min(Image.open(io.BytesIO(image["bytes"])).size) for row in rows for image in row["images"]]
    ids = [row["extra_info"]["id"] for row in rows]
    checks = {
        "18 rows to train on and 6 for validation": [t.num_rows for t in first.values()] == [18, 6],
        "no chart": not any(row["data_source"] == "chart" for row in rows),
        "every row once": len(set(ids)) == len(ids) == 24,
        "no side below 28 pixels": min(sides) >= SMALLEST_SIDE_PX,
        "the columns of the recipe": first["train"].column_names == list(COLUMNS),
        "the same seed gives the same split": all(first[name].equals(second[name]) for name in first),
    }
    if failed := [what for what, holds in checks.items() if not holds]:
        raise DataError(f"self-test: expected {', '.join(failed)}; reinstall the suite's packages (make env)")
    return list(checks)
