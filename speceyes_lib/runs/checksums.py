"""Checksums of a stage's records and evidence, a line per sample, so that what was altered is found and named.

A line is on disk before the record that it belongs to. Stages that began before there were checksums say nothing of
them in their header, and have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .evidence import Evidence, pack, read_rows
from .files import EVIDENCE, JOURNAL, RECORDS, SUMS, _json_line


class Sums(NamedTuple):
    """Checksums of one sample's line in the records, and of its evidence ("" where it has none)."""

    record: str
    evidence: str = ""


def digest(data: bytes) -> str:
    """A checksum of a line: the first half of its sha256."""
    return hashlib.sha256(data).hexdigest()[:32]


def line_of(id_: str, sums: Sums) -> bytes:
    """The line of a sample."""
    return _json_line({"id": id_, **sums._asdict()})


def read_sums(folder: Path) -> dict[str, Sums]:
    """The checksums by id, the last one of each; lines that cannot be read are left out."""
    sums: dict[str, Sums] = {}
    path = folder / SUMS
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            values = json.loads(line)
            sums[values["id"]] = Sums(values["record"], values["evidence"])
        except (ValueError, KeyError, TypeError):
            continue
    return sums


def altered_records(lines: Iterable[bytes], sums: Mapping[str, Sums]) -> list[str]:
    """The lines of the records that are not as they were written, as "line 3 (vstar/direct_attributes/7)"."""
    altered = []
    for number, line in enumerate(lines, 1):
        id_ = _id(line)
        if id_ not in sums or sums[id_].record != digest(line):
            altered.append(f"line {number} ({id_ or 'unreadable'})")
    return altered


def altered_evidence(folder: Path, ids: Iterable[str], sums: Mapping[str, Sums]) -> list[str]:
    """Those of the ids whose evidence is lost or not as it was written."""
    wanted = {id_: sums[id_].evidence for id_ in ids if id_ in sums and sums[id_].evidence}
    journal = folder / JOURNAL
    if journal.is_file():
        stored = {}
        with journal.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    stored[json.loads(line)["id"]] = digest(line)
        wanted = {id_: sum_ for id_, sum_ in wanted.items() if stored.get(id_) != sum_}
    path = folder / EVIDENCE
    if wanted and path.is_file():
        with contextlib.suppress(Exception):  # of a damaged Parquet file: many types
            stored = {id_: evidence_digest(id_, evidence) for id_, evidence in read_rows(path)}
            wanted = {id_: sum_ for id_, sum_ in wanted.items() if stored.get(id_) != sum_}
    return list(wanted)


def evidence_digest(id_: str, evidence: Evidence) -> str:
    """The checksum of a sample's evidence, the same in the journal and in the Parquet file."""
    return digest(_json_line(pack(id_, evidence)))


def manifest_digest(values: Mapping[str, Any]) -> str:
    """The checksum of a manifest's values, its own field left out."""
    rest = {name: value for name, value in values.items() if name != "checksum"}
    return digest(json.dumps(rest, sort_keys=True).encode())


def named(items: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def altered_file(folder: Path, name: str) -> str:
    """What is wrong with a file that is not the one its manifest describes, as exactly as the checksums can tell."""
    path, sums = folder / name, read_sums(folder)
    if not path.is_file():
        return "it was removed"
    if name == RECORDS and sums:
        lines = path.read_bytes().splitlines(keepends=True)
        altered = altered_records(lines, sums)
        lost = sorted(sums.keys() - {_id(line) for line in lines})
        parts = [f"{named(altered)} altered" if altered else "", f"without {named(lost)}" if lost else ""]
        return "; ".join(filter(None, parts)) or "lines were moved or repeated"
    if name == EVIDENCE and (altered := altered_evidence(folder, sums, sums)):
        return f"evidence of {named(altered)} altered or lost"
    return "it was changed"


def _id(line: bytes) -> str:
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError):
        return ""
