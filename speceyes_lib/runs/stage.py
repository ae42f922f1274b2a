"""Writing a stage: records are appended one by one, the manifest is written last."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from ..errors import StageError
from ..paths import notebook_of, shown, stage_dir
from ..texts import storable, to_cell
from .checksums import (
    Sums,
    altered_evidence,
    altered_records,
    digest,
    line_of,
    manifest_digest,
    named,
    read_sums,
)
from .evidence import Evidence, _evidence_at, _write_parquet, pack
from .files import (
    EVIDENCE,
    HEADER,
    JOURNAL,
    LOCK,
    MANIFEST,
    RECORDS,
    SUMS,
    StoreError,
    _json,
    _json_line,
    _whole_lines,
    _write_all,
    _writing,
    write_atomically,
)
from .provenance import environment as current_environment
from .provenance import file_hash, text_hash
from .reading import R, _read_header, check_hash, read_evidence, read_manifest, read_stage
from .records import SCHEMA_VERSION, Counts, Manifest

if TYPE_CHECKING:
    import pandas as pd

IfChanged = Literal["refuse", "restart"]


class StageStore(Generic[R]):
    """Writes one stage folder, one record per expected sample. Use it as a context manager.

    >>> with StageStore(folder, stage="01_draft", task=task, record_type=DraftRecord,
    ...                 config=params.stage_config(), expected_ids=ids, inputs={"code": ...}) as store:
    ...     for sample in samples:
    ...         if sample.id not in store.done_ids:
    ...             store.append(record, evidence)
    ...     store.finish(timing={"wall_s": wall_s})

    `config`, `inputs` and `expected_ids` are what the records are made from. A folder made from the same is resumed,
    also when it is complete; one made from something else is refused, or emptied with `if_changed="restart"`.

    Raises (on entering):
        StageError: another schema version, stage or task; records made from something else (names the first
            difference); a file that was damaged other than by an interruption (names the lines or samples).
        StoreError: the folder cannot be written or another process is writing it.
    """

    sync_every_s = 1.0  # at most this much work is repeated after a kill
    lock_wait_s = 5.0  # the kernel of a killed run needs a moment to notice

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        task: str | None,
        record_type: type[R],
        config: Mapping[str, Any],
        expected_ids: Iterable[str],
        inputs: Mapping[str, str] | None = None,
        if_changed: IfChanged = "refuse",
    ) -> None:
        self.folder = Path(folder)
        self.record_type = record_type
        self.expected_ids = list(expected_ids)
        self.if_changed = if_changed
        self.header = {
            "schema_version": SCHEMA_VERSION,
            "stage": stage,
            "task": task,
            "config": json.loads(json.dumps(dict(config))),  # as it will read back: tuples are lists
            "inputs": {**(inputs or {}), "sample_ids": text_hash(self.expected_ids)},
        }
        self._expected_set = set(self.expected_ids)
        if len(self._expected_set) != len(self.expected_ids):
            raise ValueError(f"{stage} {task}: expected_ids are not unique")
        self.records: dict[str, R] = {}
        self.resumed = 0  # records taken over from an earlier session
        self._held: list[bytes] = []  # record lines waiting for their evidence to reach the disk
        self._sums: dict[str, Sums] | None = {}  # None: the stage began before there were checksums
        self._held_sums: list[bytes] = []
        self._synced_s = 0.0
        self._files: dict[str, int] = {}

    # -------------------------------------------------------------- opening

    def __enter__(self) -> Self:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open(LOCK)
        try:
            with _writing(self.folder):
                self._lock()
                self._take_up()
        except BaseException:
            self._close()
            raise
        return self

    def _lock(self) -> None:
        """Keep other writers out; the lock goes with the process, however it ends."""
        deadline_s = time.monotonic() + self.lock_wait_s
        while True:
            try:
                fcntl.flock(self._files[LOCK], fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise StoreError(
                        f"{shown(self.folder)}: another process is writing this stage; wait for it or stop it"
                    ) from None
                time.sleep(0.1)

    def _take_up(self) -> None:
        before = _read_header(self.folder)
        if before and (difference := _difference(before, self.header)):
            records = self.folder / RECORDS
            if self.if_changed == "refuse" and records.exists() and records.stat().st_size:
                raise StageError(
                    f"{shown(self.folder)} holds results made with {difference}; give another run name, "
                    "or set if_changed='restart' to replace them"
                )
            self._empty()
            before = None
        if before is None:
            if any(p.name != LOCK and p.suffix != ".part" for p in self.folder.iterdir()):
                raise StageError(
                    f"{shown(self.folder)} holds files but no {HEADER}, so it is no stage of this suite; "
                    "move them away or give another run name"
                )
            write_atomically(self.folder / HEADER, _json(self.header | {SUMS: True}))
        elif not before.get(SUMS):
            self._sums = None
        if (self.folder / MANIFEST).exists():
            self._check_finished()
        self.records = self._repair()
        self.resumed = len(self.records)
        self._open(RECORDS)
        if self._sums is not None:
            self._open(SUMS)

    def _check_finished(self) -> None:
        """Refuse a finished stage that is not what its manifest describes."""
        manifest = read_manifest(self.folder, self.header["stage"], self.header["task"])
        if (manifest.config, manifest.inputs) != (self.header["config"], self.header["inputs"]):
            raise StageError(
                f"{shown(self.folder / MANIFEST)} and {HEADER} describe different stages; restore them from a copy, "
                f"or remove the folder and run {notebook_of(manifest.stage)} again"
            )
        for name in manifest.outputs:
            check_hash(self.folder / name, manifest)
        # killed between the manifest and the end of `finish`: the evidence is in its file
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def _open(self, name: str) -> None:
        self._files[name] = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _empty(self) -> None:
        # the manifest goes first and the header last: killed in between, it is still an unfinished stage
        # of the old fingerprint, never a finished one
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name not in (HEADER, SUMS, LOCK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / SUMS).unlink(missing_ok=True)
        (self.folder / HEADER).unlink()

    def _repair(self) -> dict[str, R]:
        """Read what is there; cut a torn tail, drop repeated lines (the first one counts)."""
        path = self.folder / RECORDS
        lines = _whole_lines(path, self.record_type.model_validate_json)
        records: dict[str, R] = {}
        for _, record in lines:
            records.setdefault(record.id, record)
        if len(records) < len(lines):
            kept = {record.id: line for line, record in reversed(lines)}
            write_atomically(path, b"".join(kept[key] for key in records))
        _whole_lines(self.folder / JOURNAL, json.loads)
        if self._sums is not None:
            self._sums = read_sums(self.folder)
            _whole_lines(self.folder / SUMS, json.loads)
            self._refuse(RECORDS, altered_records((line for line, _ in lines), self._sums))
            self._refuse("evidence of", altered_evidence(self.folder, records, self._sums))
        return records

    def _refuse(self, what: str, altered: list[str]) -> None:
        if altered:
            raise StageError(
                f"{shown(self.folder)}: {what} {named(altered)} is not as it was written (by {SUMS}); restore the "
                f"folder from a copy, or remove the lines of these samples from {RECORDS}, and {MANIFEST}, and run "
                f"{notebook_of(self.header['stage'])} again, which repeats them"
            )

    # -------------------------------------------------------------- writing

    @property
    def done_ids(self) -> set[str]:
        """Ids that need not be done again."""
        return set(self.records)

    def append(self, record: R, evidence: Evidence | None = None) -> None:
        """Keep one sample's record, and the evidence of its answer.

        Raises ValueError for an id that was not expected or is already done, StoreError when it cannot be written.
        """
        if record.id in self.records:
            raise ValueError(f"{record.id} is already stored")
        if record.id not in self._expected_set:
            raise ValueError(f"{record.id} was not expected in {shown(self.folder)}")
        record, line = _as_line(record)
        with _writing(self.folder):
            sums = Sums(digest(line))
            if evidence is not None:
                if JOURNAL not in self._files:
                    self._open(JOURNAL)
                packed = _json_line(pack(record.id, evidence))
                _write_all(self._files[JOURNAL], packed)
                sums = Sums(sums.record, digest(packed))
            self.records[record.id] = record
            self._held.append(line)
            if self._sums is not None:
                self._sums[record.id] = sums
                self._held_sums.append(line_of(record.id, sums))
            if time.monotonic() - self._synced_s >= self.sync_every_s:
                self.sync()

    def adopt(self, other: StageStore[R]) -> int:
        """Take over the records of another finished folder, if it was made as `other` describes it (a shard).

        Returns how many were taken: those expected here and not yet done; 0 where the folder is missing, unfinished or
        made from something else. Raises StageError when its files are not those its manifest describes.
        """
        if not (other.folder / MANIFEST).is_file():
            return 0
        data = read_stage(other.folder, other.header["stage"], other.header["task"], self.record_type)
        if (data.manifest.config, data.manifest.inputs) != (other.header["config"], other.header["inputs"]):
            return 0
        wanted = [r for key, r in data.records.items() if key in self._expected_set - self.done_ids]
        evidence = read_evidence(other.folder) if wanted else {}
        for record in wanted:
            self.append(record, evidence.get(record.id))
        self.resumed += len(wanted)
        return len(wanted)

    def sync(self) -> None:
        """Bring everything appended so far to the disk: evidence and checksums first, then their records."""
        if not self._held:
            return
        with _writing(self.folder):
            if JOURNAL in self._files:
                os.fsync(self._files[JOURNAL])
            if self._sums is not None:
                sums, self._held_sums = b"".join(self._held_sums), []
                _write_all(self._files[SUMS], sums)
                os.fsync(self._files[SUMS])
            lines, self._held = b"".join(self._held), []
            _write_all(self._files[RECORDS], lines)
            os.fsync(self._files[RECORDS])
            self._synced_s = time.monotonic()

    def finish(
        self, timing: Mapping[str, float] | None = None, environment: Mapping | None = None
    ) -> Manifest:
        """Check that every expected sample is there, compact the evidence, write the manifest.

        Raises StageError for missing samples, StoreError when it cannot be written; the folder stays resumable.
        """
        self.sync()
        missing = [key for key in self.expected_ids if key not in self.records]
        if missing:
            raise StageError(
                f"{shown(self.folder)}: {len(missing)} of {len(self.expected_ids)} samples have no record "
                f"(first {missing[0]!r}); run {notebook_of(self.header['stage'])} again to complete it"
            )
        with _writing(self.folder):
            # in the order of the samples, whatever order the work was done in
            lines = {key: _as_line(self.records[key])[1] for key in self.expected_ids}
            if (self.folder / JOURNAL).exists():
                self._compact()
            if self._sums is not None:
                self._refuse("evidence of", altered_evidence(self.folder, self.records, self._sums))
                sums = {key: self._sums[key]._replace(record=digest(line)) for key, line in lines.items()}
                write_atomically(self.folder / SUMS, b"".join(line_of(k, s) for k, s in sums.items()))
            write_atomically(self.folder / RECORDS, b"".join(lines.values()))
        manifest = write_stage(
            self.folder,
            stage=self.header["stage"],
            task=self.header["task"],
            config=self.header["config"],
            inputs=self.header["inputs"],
            files=[name for name in (RECORDS, EVIDENCE, SUMS) if (self.folder / name).exists()],
            counts=Counts(
                expected=len(self.expected_ids),
                done=len(self.records),
                resumed=self.resumed,
                failed=sum(getattr(r, "status", "ok") == "error" for r in self.records.values()),
            ),
            timing=timing,
            environment=environment,
        )
        with _writing(self.folder):
            (self.folder / JOURNAL).unlink(missing_ok=True)
        return manifest

    def _compact(self) -> None:
        """Join the journal to the parquet file of an earlier finish. Both hold everything, should this be killed."""
        journal = self.folder / JOURNAL
        where = {}  # id -> byte range of its last whole line: the one written just before its record
        offset = 0
        with journal.open("rb") as file:
            for line in file:
                where[json.loads(line)["id"]] = (offset, len(line))
                offset += len(line)
        earlier = read_evidence(self.folder, verify=False) if (self.folder / EVIDENCE).exists() else {}
        with journal.open("rb") as file:
            rows = (
                _evidence_at(file, *where[key]) if key in where else (key, earlier[key])
                for key in self.expected_ids
                if key in where or key in earlier
            )
            _write_parquet(self.folder / EVIDENCE, rows)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if not isinstance(error, StoreError):  # a disk that just refused would only refuse again
                self.sync()
        finally:
            self._close()

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def finish_stage(
    run: str,
    stage: str,
    config: Mapping[str, Any],
    files: Mapping[str, Any],
    counts: Counts | int,
    inputs: Mapping[str, str] | None = None,
    *,
    figures: Iterable[Path] = (),
    timing: Mapping[str, float] | None = None,
) -> Path:
    """Write a stage that holds tables instead of records, and its manifest; returns the stage's folder.

    Args:
        run: name of the run.
        stage: its folder is data/runs/<run>/<stage>.
        config: the stage's parameters.
        files: name in the folder -> content: text, a frame (written as CSV with 10 significant digits), or a mapping
            (written as JSON). "../name" lies in the run's folder.
        counts: samples behind the files; a number where none is missing and none failed.
        inputs: name -> sha256 of what the files were made from.
        figures: files that lie in the run's folder `figures` already.
        timing: seconds by name.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = stage_dir(run, stage)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, _as_bytes(content))
    write_stage(
        folder,
        stage=stage,
        config=config,
        files=[*files, *(f"../figures/{path.name}" for path in figures)],
        counts=Counts(expected=counts, done=counts) if isinstance(counts, int) else counts,
        inputs=inputs,
        timing=timing,
    )
    return folder


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, Mapping):
        return _json(content)
    return (content if isinstance(content, str) else csv_text(content)).encode()


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV, with 10 significant digits. No spreadsheet takes a text in it for a formula."""
    cells = frame.map(_cell).rename(columns=_cell)
    return cells.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def _cell(value: Any) -> Any:
    return to_cell(value) if isinstance(value, str) else value


def write_stage(
    folder: Path,
    *,
    stage: str,
    task: str | None = None,
    config: Mapping[str, Any],
    files: Sequence[str],
    counts: Counts,
    inputs: Mapping[str, str] | None = None,
    timing: Mapping[str, float] | None = None,
    environment: Mapping | None = None,
) -> Manifest:
    """Finish a stage folder: hash its `files` (names inside it) and write the manifest, atomically, last.

    `StageStore.finish` and `finish_stage` end here. `environment` defaults to the current one.
    """
    folder = Path(folder)
    with _writing(folder):
        manifest = Manifest(
            stage=stage,
            task=task,
            config=dict(config),
            inputs=dict(inputs or {}),
            outputs={name: file_hash(folder / name) for name in files},
            counts=counts,
            timing={name: float(value) for name, value in (timing or {}).items()},
            environment=dict(current_environment() if environment is None else environment),
            finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        checksum = manifest_digest(json.loads(manifest.model_dump_json()))
        manifest = manifest.model_copy(update={"checksum": checksum})
        write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def _as_line(record: R) -> tuple[R, bytes]:
    """A record and its line; texts of models and data that no file can hold are made storable."""
    try:
        return record, record.model_dump_json().encode() + b"\n"
    except ValueError:  # of pydantic and of UTF-8 alike
        record = type(record).model_validate(storable(record.model_dump()))
        return record, record.model_dump_json().encode() + b"\n"


def _difference(before: dict, now: dict) -> str | None:
    """The first thing that differs between two headers, in words; None when they agree."""
    for part in ("stage", "task"):
        if before.get(part) != now[part]:
            return f"{part} {before.get(part)!r} (now {now[part]!r})"
    for part in ("config", "inputs"):
        old, new = before.get(part, {}), now[part]
        for name in sorted(old.keys() | new.keys()):
            if (a := old.get(name)) != (b := new.get(name)):
                if part == "config":
                    return f"{name} = {a!r} (now {b!r})"
                return f"another input: {name} = {str(a)[:12]} (now {str(b)[:12]})"
    return None
