"""Names of the files of a stage folder, and atomic writing of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from ..errors import StageError, UserError
from ..paths import shown

HEADER, RECORDS, MANIFEST, LOCK = "stage.json", "records.jsonl", "manifest.json", ".lock"
JOURNAL, EVIDENCE, SUMS = "evidence.jsonl", "evidence.parquet", "checksums.jsonl"


class StoreError(UserError):
    """A stage folder that cannot be written: full disk, missing rights, used by another process."""


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise StoreError for a write that failed."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{shown(folder)}: cannot be written ({error.strerror or error}); fix that and run it again; "
            "what is stored already stays"
        ) from error


def _whole_lines(path: Path, parse: Callable[[bytes], Any]) -> list[tuple[bytes, Any]]:
    """Lines of a file with their parsed values; an unreadable tail (torn by a kill or a power cut) is cut off.

    Raises StageError when an unreadable line is followed by a readable one: no interruption does that.
    """
    if not path.exists():
        return []
    good: list[tuple[bytes, Any]] = []
    good_bytes, bad_at = 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                value = parse(line) if line.endswith(b"\n") else None
            except ValueError:  # of JSON, of UTF-8 and of pydantic alike
                value = None
            if value is None:
                bad_at = bad_at or number
            elif bad_at:
                raise StageError(
                    f"{shown(path)}: line {bad_at} cannot be read although later ones can; the file was "
                    "changed by another program; remove the folder and run the stage again"
                )
            else:
                good.append((line, value))
                good_bytes += len(line)
    if bad_at:
        os.truncate(path, good_bytes)
    return good


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a filling disk takes a part before it refuses
        view = view[os.write(file, view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: killed or out of space in between, the old one stays."""
    with _replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` in one step once it is complete on disk; else leaves no trace."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def _json_line(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"
