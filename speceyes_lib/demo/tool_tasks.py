"""The embedded tool tasks on disk, in both layouts of GAIA, and what their tools work on.

    data/demo/tool_tasks/test/folders/level1/example_000/metadata.json     with its files beside it
    data/demo/tool_tasks/test/official/2023/validation/metadata.jsonl      with all files beside it

Both hold the same tasks. The validation set has tasks of other seeds and other facts, for choosing thresholds and for
measuring the models while they are trained. Equal seeds and package versions give equal bytes.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..paths import resolve
from ..tools.calculator import CALCULATE
from ..tools.declared import Toolbox
from ..tools.files import FILE_READ, LABELLED
from ..tools.glyphs import draw_line
from ..tools.pictures import IMAGE_ZOOM, VISION, VISION_ANALYZE, VISION_OCR
from ..tools.programs import CODE_EXEC, CODE_GENERATE
from ..tools.search import CORPUS, search_tools
from ..tools.waits import WAITS, Waits, waits_of
from . import scenes
from .office_files import csv_file, docx_file, pdf_file, xlsx_file, zip_file
from .tool_vocabulary import STEMS
from .tool_world import (
    KINDS,
    LEVELS,
    Facts,
    WorldTask,
    document_text,
    draw_corpus,
    draw_task,
    table_cells,
)

Split = Literal["test", "validation"]
SPLITS = ("test", "validation")
PER_LEVEL = 40
ROOT = "data/demo/tool_tasks"
LAYOUTS = ("folders", "official")
BACKGROUNDS = {"test": 811, "validation": 812}  # seeds of the grounds of pictures; training uses another
WAITING_TOOLS = ("file_read", "vision_ocr", "vision_analyze", "web_search", "enhanced_search")


@cache
def facts_of(split: Split) -> Facts:
    """The facts behind the corpus of a split."""
    return draw_corpus(random.Random(f"tool corpus {split}"))


@cache
def world_tasks(split: Split, per_level: int = PER_LEVEL) -> dict[str, WorldTask]:
    """task_id -> task, level by level. The kinds of a level take turns, so that each is as frequent."""
    tasks = {}
    stems = random.Random(f"tool stems {split}").sample(STEMS, len(STEMS))
    for level in LEVELS:
        for i in range(per_level):
            kind = KINDS[level][i % len(KINDS[level])]
            stem = stems[((level - 1) * PER_LEVEL + i) % len(stems)]
            seed = f"{split} {level} {i}"
            tasks[f"tool-{split}-{level}-{i:02d}"] = draw_task(seed, level, kind, facts_of(split), stem)
    return tasks


def files_of(task: WorldTask, split: Split) -> dict[str, bytes]:
    """The files of a task: name -> content. The first is its attachment."""
    files = {}
    if task.scene is not None:
        files[task.picture] = _scene(task, split)
    elif task.picture:
        files[task.picture] = _png(draw_line(task.document))
    if task.document:
        files[task.document] = _document(task)
    return files


def _document(task: WorldTask) -> bytes:
    stem, _, kind = task.document.rpartition(".")
    rows = table_cells(task.table)
    if kind == "xlsx":
        return xlsx_file({"items": rows, "notes": table_cells(task.notes)})
    if kind == "zip":
        return zip_file({f"{stem}.csv": csv_file(rows)})
    if kind == "json":
        header, *body = rows
        return (json.dumps([dict(zip(header, row, strict=True)) for row in body], indent=1) + "\n").encode()
    if kind in ("txt", "pdf"):
        text = document_text(task)
        return f"{text}\n".encode() if kind == "txt" else pdf_file(text.splitlines())
    return {"csv": csv_file, "docx": docx_file}[kind](rows)


def _scene(task: WorldTask, split: Split) -> bytes:
    """A picture of the shape in its color and of another shape, large enough to be seen without zooming in."""
    rng = random.Random(f"tool scene {split} {task.question}")
    shape, color = task.scene
    other = rng.choice([s for s in scenes.SHAPES if s != shape])
    scene = scenes.sample_scene(rng, 0.6, 0.9, shapes=(shape, other))
    colors = (color, rng.choice([c for c in scenes.COLORS if c != color]))
    objects = tuple(replace(o, color=c) for o, c in zip(scene.objects, colors, strict=True))
    grounds = scenes.bank(BACKGROUNDS[split], count=8)
    return _png(scenes.render(replace(scene, objects=objects), rng, 384, grounds))


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------ on disk
def write_tool_tasks(folder: str | Path, split: Split, per_level: int = PER_LEVEL) -> list[Path]:
    """Write the tasks of a split in both layouts; returns the folders of the two.

    Args:
        folder: gets the folders of `LAYOUTS`; existing ones are replaced.
        split: which tasks.
        per_level: fewer tasks for a quick look.
    """
    root = resolve(folder)
    folders, official = (root / name for name in LAYOUTS)
    for path in (folders, official):
        shutil.rmtree(path, ignore_errors=True)
    lines, counts = [], dict.fromkeys(LEVELS, 0)
    flat = official / "2023" / "validation"
    flat.mkdir(parents=True)
    for task_id, task in world_tasks(split, per_level).items():
        files = files_of(task, split)
        notes = _annotations(task, list(files))
        example = folders / f"level{task.level}" / f"example_{counts[task.level]:03d}"
        counts[task.level] += 1
        example.mkdir(parents=True)
        for name, data in files.items():
            (example / name).write_bytes(data)
            (flat / name).write_bytes(data)
        row = {
            "task_id": task_id,
            "question": task.question,
            "level": str(task.level),
            "final_answer": task.answer,
            "file_name": task.attachment,
            "annotator_metadata": notes,
        }
        (example / "metadata.json").write_text(json.dumps(row, indent=1) + "\n", "utf-8")
        lines.append(
            {
                "task_id": task_id,
                "Question": task.question,
                "Level": task.level,
                "Final answer": task.answer,
                "file_name": task.attachment,
                "file_path": f"2023/validation/{task.attachment}" if task.attachment else "",
                "Annotator Metadata": notes,
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (flat / "metadata.jsonl").write_text(text, "utf-8")
    return [folders, official]


def _annotations(task: WorldTask, files: list[str]) -> dict[str, str]:
    """The annotations of GAIA, and the further files that the question leads to."""
    tools = list(dict.fromkeys(turn.call.name for turn in task.turns if turn.call))
    steps = [f"{n}. {turn.call.name if turn.call else 'answer'}" for n, turn in enumerate(task.turns, 1)]
    return {
        "Steps": "\n".join(steps),
        "Number of steps": str(len(steps)),
        "How long did this take?": "",
        "Tools": "\n".join(f"{n}. {name}" for n, name in enumerate(tools, 1)),
        "Number of tools": str(len(tools)),
        "Kind": task.kind,
        "Files": " ".join(files),
    }


def provide_tool_tasks(split: Split) -> Path:
    """The folder of a split's tasks in the layout of folders, written if it is not there yet."""
    root = resolve(ROOT) / split
    if not all((root / name).is_dir() for name in LAYOUTS):
        write_tool_tasks(root, split)
    return root / LAYOUTS[0]


# ---------------------------------------------------------------------------------------- what tools work on
def embedded_toolbox() -> Toolbox:
    """The tools of the embedded tasks. All work offline."""
    searching = search_tools(embedded=True)
    return Toolbox(
        [FILE_READ, *searching, CALCULATE, VISION_ANALYZE, VISION_OCR, IMAGE_ZOOM, CODE_EXEC, CODE_GENERATE]
    )


def embedded_resources(split: Split, waits: Waits | None = None, vision: Any = None) -> Mapping[str, Any]:
    """The resources of a workspace for the embedded tasks.

    Args:
        split: whose corpus is searched.
        waits: of the tools; None: they wait for nothing.
        vision: (path, question) -> answer, for vision_analyze.
    """
    resources = {CORPUS: facts_of(split).corpus, LABELLED: True}
    return resources | ({WAITS: waits} if waits else {}) | ({VISION: vision} if vision else {})


def embedded_waits(profile: str, think_s: float, seed: int = 0) -> Waits:
    """The waits of a profile for the embedded tasks, in which most steps call a tool that waits.

    Args:
        profile: of `tools.waits.PROFILES`.
        think_s: mean seconds of the actor per step.
        seed: of the table of waits.
    """
    return waits_of(profile, think_s, waiting_share(), seed)


@cache
def waiting_share() -> float:
    """Calls that wait per step of the perfect agent, over the validation tasks."""
    turns = [turn for task in world_tasks("validation").values() for turn in task.turns]
    return sum(turn.call is not None and turn.call.name in WAITING_TOOLS for turn in turns) / len(turns)
