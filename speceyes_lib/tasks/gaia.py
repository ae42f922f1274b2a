"""Tasks for agents with tools, in the three layouts in which GAIA lies on disk.

    level1/example_000/metadata.json          one folder per task, its attachment beside metadata.json
    2023/validation/metadata.jsonl            one line per task, attachments beside it; until autumn 2025
    2023/validation/metadata.parquet          the same as parquet, also split into metadata.level1.parquet and so on

`gaia-benchmark/GAIA` asks for consent before its files can be fetched, and forbids publishing its questions. Nothing of
it may be committed. The embedded tasks of this suite have the same layouts with questions of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..paths import inside, possible, resolve, shown
from ..texts import storable
from .hub import ITEMS

LEVELS = (1, 2, 3)
FILES = "Files"  # annotation of the embedded tasks: names of all files of a task, when a question leads to a second one
WITHHELD = "?"  # stands for a right answer that is not published
POINTER = b"version https://git-lfs.github.com/spec/"  # how a file begins that only names the real one
LAYOUTS = "level1/example_000/metadata.json, metadata.jsonl or metadata.parquet"
# field of a task -> its name in the folder layout and in the official ones
NAMES = {
    "question": ("question", "Question"),
    "level": ("level", "Level"),
    "answer": ("final_answer", "Final answer"),
    "metadata": ("annotator_metadata", "Annotator Metadata"),
}


@dataclass(frozen=True)
class ToolTask:
    """One question that an agent answers with tools."""

    task_id: str
    level: int  # 1 to 3
    question: str
    answer: str  # WITHHELD ("?") in the test split
    folder: Path  # where the attachment lies; it may hold right answers too, so an agent gets `workspace`
    attachment: str = ""  # name of the file, "" if there is none
    metadata: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # of the example: its folder ("example_000"), else the task_id

    @property
    def attachment_path(self) -> Path | None:
        """The attachment, None if the task has none.

        Raises:
            DataError: the file is missing, or Git LFS has left a pointer in its place.
        """
        if not self.attachment:
            return None
        path = inside(self.folder, self.attachment, f"task {self.task_id}, file_name")
        if not path.is_file():
            raise DataError(
                f"{shown(path)}: the attachment of task {self.task_id} is missing; fetch it again"
            )
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                remedy = "run git lfs pull in the folder of the data set"
                raise DataError(f"{shown(path)}: only the Git LFS pointer of the attachment; {remedy}")
        return path

    def workspace(self, folder: Path) -> Path:
        """A folder that holds the files of the task and nothing else: no right answer, no file of another task.

        Args:
            folder: made if it does not exist.

        Raises:
            DataError: the attachment is missing.
        """
        path = self.attachment_path
        folder.mkdir(parents=True, exist_ok=True)
        if path is not None:
            shutil.copyfile(path, folder / self.attachment)
        for name in str(self.metadata.get(FILES, "")).split():  # of the embedded tasks
            further = inside(self.folder, name, f"task {self.task_id}, {FILES}")
            if not further.is_file():
                raise DataError(
                    f"{shown(further)}: a file of task {self.task_id} is missing; write the tasks again"
                )
            shutil.copyfile(further, folder / further.name)
        return folder


def load_gaia(
    path: str | Path | None = None, level: int | None = None, split: str = "validation"
) -> list[ToolTask]:
    """The tasks of a folder in any of the three layouts.

    Folders are sorted by level and name; the official layouts keep the order of the file.

    Args:
        path: one example's folder, one level, a split, or the whole data set; also a metadata file. None: where
            `speceyes fetch gaia` puts it.
        level: only the tasks of this level; None: all.
        split: of the official layouts.

    Raises:
        DataError: no layout is recognised, a folder has no metadata, a field is missing or of another kind, or a task
            occurs twice. A missing attachment is no error here: the other tasks can be run.
    """
    root = resolve(ITEMS["gaia"].folder) if path is None else possible(path).absolute()
    if not root.exists():
        fetch = (
            "speceyes fetch gaia" if path is None else "check the path, or fetch GAIA (speceyes fetch gaia)"
        )
        raise DataError(f"{shown(root)}: there is no such file or folder; {fetch}")
    if level is not None and level not in LEVELS:
        raise DataError(f"level: {level!r} is none of {', '.join(map(str, LEVELS))}")
    tasks = _unique(_read(root, split), root)
    return [task for task in tasks if level in (None, task.level)]


def missing_attachments(tasks: Iterable[ToolTask]) -> dict[str, str]:
    """The tasks whose attachment cannot be opened: task_id -> why."""
    missing = {}
    for task in tasks:
        try:
            _ = task.attachment_path
        except DataError as error:
            missing[task.task_id] = str(error)
    return missing


# ------------------------------------------------------------------ layouts


def _read(root: Path, split: str) -> list[ToolTask]:
    if root.is_file():
        return _read_file(root)
    if (root / "metadata.json").is_file():
        return _read_file(root / "metadata.json")
    for folder in (root, root / split, root / "2023" / split):
        if files := _official_files(folder):
            return [task for file in files for task in _read_file(file)]
    examples = sorted(p for p in root.glob("example_*") if p.is_dir()) or sorted(
        p for pattern in ("level*/example_*", "*/level*/example_*") for p in root.glob(pattern) if p.is_dir()
    )
    if examples:
        for folder in examples:
            if not (folder / "metadata.json").is_file():
                raise DataError(
                    f"{shown(folder)}: a task's folder without metadata.json; add it or remove the folder"
                )
        return [task for folder in examples for task in _read_file(folder / "metadata.json")]
    raise DataError(
        f"{shown(root)}: no tasks in the layout of GAIA; expected {LAYOUTS} in it (split {split!r})"
    )


def _official_files(folder: Path) -> list[Path]:
    """The metadata files of a split; the whole one alone if there is one, as the others repeat its rows."""
    for pattern in ("metadata.parquet", "metadata.level?.parquet", "metadata.jsonl"):
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def _read_file(path: Path) -> list[ToolTask]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = [(f", row {i}", row) for i, row in enumerate(pq.read_table(path).to_pylist(), 1)]
        elif path.suffix == ".jsonl":
            lines = enumerate(path.read_text("utf-8-sig").split("\n"), 1)
            rows = [(f", line {i}", json.loads(line)) for i, line in lines if line.strip()]
        else:
            rows = [("", json.loads(path.read_text("utf-8-sig")))]
    except (OSError, ValueError, RecursionError) as error:  # also what pyarrow and json raise
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{shown(path)}: cannot be read as metadata of GAIA ({reason}); fetch it again"
        ) from None
    return [_task(path, where, storable(row)) for where, row in rows]


def _task(path: Path, where: str, row: Any) -> ToolTask:
    where = f"{shown(path)}{where}"
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with task_id and question, got {type(row).__name__}")
    fields = {
        name: next((row[key] for key in keys if row.get(key) is not None), None)
        for name, keys in NAMES.items()
    }
    task_id, question = row.get("task_id"), fields["question"]
    for name, value in (("task_id", task_id), ("question", question)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}, {name}: expected a text, got {value!r}")
    name = row.get("file_name") or ""
    if not isinstance(name, str):
        raise DataError(f"{where}, file_name: expected the attachment's name or an empty text, got {name!r}")
    attachment = (
        inside(path.parent, name, f"{where}, file_name").relative_to(path.parent).as_posix() if name else ""
    )
    answer, metadata = fields["answer"], fields["metadata"]
    return ToolTask(
        task_id=task_id,
        level=_level(fields["level"], where),
        question=question,
        answer=WITHHELD if answer is None else str(answer),
        folder=_folder(path, attachment, row.get("file_path")),
        attachment=attachment,
        metadata=dict(metadata) if isinstance(metadata, Mapping) else {},
        name=path.parent.name if path.suffix == ".json" else task_id,
    )


def _folder(path: Path, attachment: str, file_path: object) -> Path:
    """Where the attachment lies: beside the metadata, or where `file_path` leads from a folder above."""
    if attachment and isinstance(file_path, str) and not (path.parent / attachment).is_file():
        for root in path.parents[:4]:
            other = root / file_path
            if ".." not in other.parts and other.name == attachment and other.is_file():
                return other.parent
    return path.parent


def _level(value: object, where: str) -> int:
    """The level, which files hold as number (1, 1.0) or as text ("1")."""
    try:
        level = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        level = 0.0
    if level not in LEVELS or isinstance(value, bool):
        raise DataError(f"{where}, level: expected one of {', '.join(map(str, LEVELS))}, got {value!r}")
    return int(level)


def _unique(tasks: list[ToolTask], root: Path) -> list[ToolTask]:
    by_id: dict[str, ToolTask] = {}
    for task in tasks:
        if (other := by_id.setdefault(task.task_id, task)) is not task:
            places = f"{shown(other.folder)} and {shown(task.folder)}"
            raise DataError(f"{shown(root)}: task {task.task_id} occurs twice ({places}); remove one of them")
    return (
        sorted(tasks, key=lambda t: (t.level, t.name))
        if tasks and tasks[0].name != tasks[0].task_id
        else tasks
    )
