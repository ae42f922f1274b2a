"""Reading finished stages: manifest, records and evidence, verified before they are returned."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import ValidationError

from ..errors import StageError
from ..paths import notebook_of, shown, stage_dir
from .checksums import altered_file, manifest_digest
from .evidence import Evidence, read_rows, read_top_logprobs
from .files import EVIDENCE, HEADER, MANIFEST, RECORDS, _first
from .provenance import file_hash
from .records import SCHEMA_VERSION, Manifest, Record

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class StageData(Generic[R]):
    """A finished stage: its manifest and its records by id, in the order of the samples."""

    manifest: Manifest
    folder: Path
    records: dict[str, R]

    @property
    def sha256(self) -> str:
        """Hash of the records: the `inputs` entry of whatever is made from them."""
        return self.manifest.outputs[RECORDS]


def read_manifest(run_or_folder: str | Path, stage: str | None = None, task: str | None = None) -> Manifest:
    """The manifest of a finished stage.

    Args:
        run_or_folder: a run's name (str), or the stage folder itself (Path).
        stage: its name, such as "02_gated"; None: any, of a folder.
        task: "benchmark/split"; None where the stage has no tasks.

    Raises:
        StageError: missing or unfinished (names the notebook to run), another schema version or stage.
    """
    folder = _folder_of(run_or_folder, stage, task)
    path = folder / MANIFEST
    notebook = notebook_of(stage) if stage else "the notebook that writes it"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        state = "is unfinished" if (folder / HEADER).is_file() else "does not exist"
        raise StageError(f"{shown(folder)} {state}; run {notebook} first") from None
    except (OSError, ValueError) as error:
        raise StageError(f"{shown(path)}: cannot be read ({error}); run {notebook} again") from None
    _check_version(folder, values)
    if values.get("checksum", "") not in ("", manifest_digest(values)):
        raise StageError(
            f"{shown(path)} is not as it was written; restore it from a copy, or remove it and run {notebook} again"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise StageError(f"{shown(path)}: not a manifest: {_first(error)}; run {notebook} again") from None
    if stage and (manifest.stage, manifest.task) != (stage, task):
        raise StageError(
            f"{shown(path)} is of stage {manifest.stage} {manifest.task or ''}, not {stage} {task or ''}; "
            f"run {notebook} again"
        )
    return manifest


def read_stage(run_or_folder: str | Path, stage: str, task: str | None, record_type: type[R]) -> StageData[R]:
    """A finished stage with its records, checked against its manifest. Arguments and errors as `read_manifest`."""
    folder = _folder_of(run_or_folder, stage, task)
    manifest = read_manifest(folder, stage, task)
    path = folder / RECORDS
    check_hash(path, manifest)
    try:
        records = [record_type.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except ValidationError as error:
        raise StageError(
            f"{shown(path)}: not records of type {record_type.__name__}: {_first(error)}"
        ) from None
    return StageData(manifest, folder, {record.id: record for record in records})


def read_evidence(
    folder: Path, verify: bool = True, only: Collection[str] | None = None
) -> dict[str, Evidence]:
    """Evidence by id of a finished stage folder; empty where the stage keeps none.

    Args:
        folder: of the stage.
        verify: compare the file with the manifest.
        only: ids; just the parts of the file that hold them are read.

    Raises:
        StageError: unfinished, or the file is not the one its manifest describes.
    """
    path = Path(folder) / EVIDENCE
    if verify:
        manifest = read_manifest(Path(folder))
        if EVIDENCE not in manifest.outputs:
            return {}
        check_hash(path, manifest)
    return dict(read_rows(path, only))


def read_stored_logprobs(folder: Path) -> dict[str, np.ndarray]:
    """The `top_logprobs` of `read_evidence` alone, float32 [T, K] by id, in a tenth of its time; raises as it does."""
    manifest = read_manifest(Path(folder))
    if EVIDENCE not in manifest.outputs:
        return {}
    check_hash(Path(folder) / EVIDENCE, manifest)
    return dict(read_top_logprobs(Path(folder) / EVIDENCE))


def is_finished(run_or_folder: str | Path, stage: str, task: str | None = None) -> bool:
    """Whether a stage has its manifest; raises as `read_manifest` for one of another version."""
    folder = _folder_of(run_or_folder, stage, task)
    return (folder / MANIFEST).is_file() and bool(read_manifest(folder, stage, task))


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, indexed by `id`; nested records are flattened to `outer.inner` columns.

    Lists (an agent's turns) stay Python lists; `wall_s` is added where the record has it.
    """
    import pandas as pd

    rows = []
    for record in records:
        row = record.model_dump()
        if hasattr(record, "wall_s"):
            row["wall_s"] = record.wall_s
        rows.append(row)
    frame = pd.json_normalize(rows)
    return frame.set_index("id") if rows else frame


def _folder_of(run_or_folder: str | Path, stage: str, task: str | None) -> Path:
    return run_or_folder if isinstance(run_or_folder, Path) else stage_dir(run_or_folder, stage, task)


def _read_header(folder: Path) -> dict | None:
    try:
        header = json.loads((folder / HEADER).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise StageError(f"{shown(folder / HEADER)}: not JSON; remove the folder to start again") from None
    _check_version(folder, header)
    return header


def _check_version(folder: Path, values: dict) -> None:
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise StageError(
            f"{shown(folder)} was written with schema version {version}, this library reads version "
            f"{SCHEMA_VERSION}; use another run name, or remove the folder"
        )


def check_hash(path: Path, manifest: Manifest) -> None:
    """Raise StageError for a file of a stage that is not the one its manifest describes."""
    if not path.is_file() or file_hash(path) != manifest.outputs.get(path.name):
        raise StageError(
            f"{shown(path)} is not the file its manifest describes ({altered_file(path.parent, path.name)}); "
            f"restore it from a copy, or remove the folder and run {notebook_of(manifest.stage)} again"
        )
