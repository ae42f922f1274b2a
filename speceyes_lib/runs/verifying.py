"""Is a whole run what was recorded: every stage compared with its manifest, its checksums and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import StageError
from ..paths import recorded_mark, run_dir
from .arms import DRAFT_STAGE
from .checksums import altered_evidence, altered_file, altered_records, named, read_sums
from .files import EVIDENCE, HEADER, JOURNAL, LOCK, MANIFEST, RECORDS, SUMS
from .provenance import file_hash, text_hash
from .reading import read_manifest
from .records import Manifest


@dataclass(frozen=True)
class StageCheck:
    """One stage folder: its name in the run, its state in words, and what is wrong with it, a sentence each."""

    name: str
    state: str
    faults: tuple[str, ...] = ()


def verify(run: str) -> list[StageCheck]:
    """Every stage folder of a run, compared with what was recorded. Nothing is written or repaired.

    Raises:
        StageError: there is no such run, or it has no stage.
    """
    root = run_dir(run)
    folders = sorted({path.parent for name in (HEADER, MANIFEST, RECORDS) for path in root.rglob(name)})
    if not folders:
        raise StageError(f"there is no run {run!r}, or it holds no stage")
    return [_check(root, folder) for folder in folders]


def _check(root: Path, folder: Path) -> StageCheck:
    name = folder.relative_to(root).as_posix()
    try:
        header = json.loads((folder / HEADER).read_bytes()) if (folder / HEADER).is_file() else None
        if header is not None and not isinstance(header, dict):
            raise ValueError("no object")
    except ValueError as error:
        return StageCheck(name, "damaged", (f"{HEADER} cannot be read ({error})",))
    if not (folder / MANIFEST).is_file():
        return _check_unfinished(name, folder, header)
    try:
        manifest = read_manifest(folder)
    except StageError as error:
        return StageCheck(name, "damaged", (str(error),))
    faults = (
        *_changed(root, folder, manifest),
        *_unlike(folder, manifest, header),
        *_sources(root, manifest),
    )
    with_sums = SUMS in manifest.outputs or RECORDS not in manifest.outputs
    state = "as recorded" if with_sums and manifest.checksum else "as recorded, no checksums per record"
    return StageCheck(name, "damaged" if faults else state, faults)


def _check_unfinished(name: str, folder: Path, header: dict | None) -> StageCheck:
    """A stage without a manifest: its lines by their checksums."""
    if header is None:
        return StageCheck(name, "damaged", (f"{HEADER} and {MANIFEST} are missing",))
    path = folder / RECORDS
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # of a session that was killed or is at work
    state = f"unfinished, {len(lines)} records"
    if not header.get(SUMS):
        return StageCheck(name, f"{state}, no checksums per record")
    sums = read_sums(folder)
    faults = []
    if altered := altered_records(lines, sums):
        faults.append(f"{RECORDS}: {named(altered)} is not as it was written")
    elif lost := altered_evidence(folder, [json.loads(line)["id"] for line in lines], sums):
        faults.append(f"evidence of {named(lost)} is lost or not as it was written")
    return StageCheck(name, "damaged" if faults else state, tuple(faults))


def _changed(root: Path, folder: Path, manifest: Manifest) -> Iterator[str]:
    unpacked = recorded_mark(root.name).is_file()  # without figures and tables
    for file, sha256 in manifest.outputs.items():
        path = folder / file
        if unpacked and file not in (RECORDS, EVIDENCE, SUMS) and not path.exists():
            continue
        if not path.is_file() or file_hash(path) != sha256:
            yield f"{file} is not the file its manifest describes ({altered_file(folder, file)})"


def _unlike(folder: Path, manifest: Manifest, header: dict | None) -> Iterator[str]:
    """Where header, manifest and records of a stage disagree, and files that no manifest names."""
    if RECORDS not in manifest.outputs:
        return
    parts = ("stage", "task", "config", "inputs")
    if header is None:
        yield f"{HEADER} is missing"
    elif unlike := [part for part in parts if header.get(part) != getattr(manifest, part)]:
        yield f"{HEADER} and {MANIFEST} differ in {', '.join(unlike)}"
    if header is not None and header.get(SUMS) and SUMS not in manifest.outputs:
        yield f"{SUMS} is not among the files of {MANIFEST}"
    known = {*manifest.outputs, HEADER, MANIFEST, LOCK, JOURNAL}
    yield from (f"{p.name} is no file of this stage" for p in sorted(folder.iterdir()) if p.name not in known)
    try:
        ids = [json.loads(line)["id"] for line in (folder / RECORDS).read_bytes().splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return  # `_changed` names it
    if manifest.inputs.get("sample_ids") not in (None, text_hash(ids)):
        yield f"{RECORDS} does not hold the samples that the stage was made for"
    if len(ids) != manifest.counts.done:
        yield f"{RECORDS} holds {len(ids)} records, {MANIFEST} counts {manifest.counts.done}"


def _sources(root: Path, manifest: Manifest) -> Iterator[str]:
    """Inputs that other stages of the run hold, and hold otherwise now."""
    for name, sha256 in manifest.inputs.items():
        if name == "drafts":
            source = f"{DRAFT_STAGE}/{manifest.task}"
        elif name == "records":
            source = f"{manifest.stage.replace('03_judging/', '02_', 1)}/{manifest.task}"
        else:
            source = name if "/" in name else ""
        path = root / source / RECORDS
        if source and (root / source / MANIFEST).is_file() and path.is_file() and file_hash(path) != sha256:
            yield f"it was made from other records than {source} holds now"
