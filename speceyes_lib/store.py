"""Stage folders: appended record by record, resumed after any interruption, finished by a manifest.

A folder in the making holds `stage.json` (what it is made from), `records.jsonl` and, where generations have
evidence, `evidence.jsonl`. Finishing turns the evidence into `evidence.parquet` and adds `manifest.json`.
The line in records.jsonl commits a sample: it is written once its evidence is on disk, so a record never lacks
evidence and evidence without a record is leftover of a sample that is done again. The next stage trusts the
manifest, which is written last, and nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np
from pydantic import ValidationError

from .errors import StageError, UserError
from .evidence import Evidence
from .paths import notebook_of, shown, stage_dir
from .provenance import environment as current_environment
from .provenance import file_hash, text_hash
from .records import SCHEMA_VERSION, Counts, Manifest, Record

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R", bound=Record)
IfChanged = Literal["refuse", "restart"]

HEADER, RECORDS, MANIFEST, LOCK = "stage.json", "records.jsonl", "manifest.json", ".lock"
JOURNAL, EVIDENCE = "evidence.jsonl", "evidence.parquet"
ROWS_PER_GROUP = 256  # evidence held in memory at once while it is compacted


class StoreError(UserError):
    """A stage folder that cannot be written: full disk, missing rights, used by another process."""


class StageStore(Generic[R]):
    """Writes one stage folder, one record per expected sample. Use it as a context manager.

    >>> with StageStore(folder, stage="01_draft", task=task, record_type=DraftRecord,
    ...                 config=params.stage_config(), expected_ids=ids, inputs={"code": ...}) as store:
    ...     for sample in samples:
    ...         if sample.id not in store.done_ids:
    ...             store.append(record, evidence)
    ...     store.finish(timing={"wall_s": wall_s})

    `config`, `inputs` and `expected_ids` are what the records are made from. A folder that was made from the
    same is taken up where it stopped, also when it is complete; one with records made from something else is
    refused, or begun anew with `if_changed="restart"`.

    Raises (on entering):
        StageError: another schema version; another stage or task; records made from something else (names
            the first difference); a file that was damaged other than by an interruption.
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
                    f"{shown(self.folder)} holds files but no {HEADER}: not a stage of ours; "
                    "move them away or give another run name"
                )
            _write_atomically(self.folder / HEADER, _json(self.header))
        self.records = self._repair()
        self.resumed = len(self.records)
        self._open(RECORDS)

    def _open(self, name: str) -> None:
        self._files[name] = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _empty(self) -> None:
        # the manifest goes first and the header last: killed in between, it is still an unfinished stage
        # of the old fingerprint, never a finished one
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name not in (HEADER, LOCK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
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
            _write_atomically(path, b"".join(kept[key] for key in records))
        _whole_lines(self.folder / JOURNAL, json.loads)
        return records

    # -------------------------------------------------------------- writing

    @property
    def done_ids(self) -> set[str]:
        """Ids that need not be done again."""
        return set(self.records)

    def append(self, record: R, evidence: Evidence | None = None) -> None:
        """Keep one sample's record, and the evidence of its answer.

        Raises:
            ValueError: an id that was not expected or is already done: a bug of the caller.
            StoreError: it cannot be written; everything stored before stays.
        """
        if record.id in self.records:
            raise ValueError(f"{record.id} is already stored")
        if record.id not in self._expected_set:
            raise ValueError(f"{record.id} was not expected in {shown(self.folder)}")
        with _writing(self.folder):
            if evidence is not None:
                if JOURNAL not in self._files:
                    self._open(JOURNAL)
                _write_all(self._files[JOURNAL], _json_line(_pack(record.id, evidence)))
            self.records[record.id] = record
            self._held.append(record.model_dump_json().encode() + b"\n")
            if time.monotonic() - self._synced_s >= self.sync_every_s:
                self.sync()

    def adopt(self, other: StageStore[R]) -> int:
        """Take over the records of another finished folder, if it was made as `other` describes it (a shard).

        Returns how many were taken: those expected here and not yet done; none of a folder that is missing,
        unfinished or made from something else.

        Raises StageError when its files are not those its manifest speaks of.
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
        """Bring everything appended so far to the disk: evidence first, then the records it belongs to."""
        if not self._held:
            return
        with _writing(self.folder):
            if JOURNAL in self._files:
                os.fsync(self._files[JOURNAL])
            lines, self._held = b"".join(self._held), []
            _write_all(self._files[RECORDS], lines)
            os.fsync(self._files[RECORDS])
            self._synced_s = time.monotonic()

    def finish(
        self, timing: Mapping[str, float] | None = None, environment: Mapping | None = None
    ) -> Manifest:
        """Check that every expected sample is there, compact the evidence, write the manifest.

        Raises:
            StageError: samples are missing; the folder stays resumable.
            StoreError: it cannot be written; the folder stays resumable.
        """
        self.sync()
        missing = [key for key in self.expected_ids if key not in self.records]
        if missing:
            raise StageError(
                f"{shown(self.folder)}: {len(missing)} of {len(self.expected_ids)} samples have no record "
                f"(first {missing[0]!r}); run {notebook_of(self.header['stage'])} again to complete it"
            )
        with _writing(self.folder):
            # in the order asked for, whatever order the work was done in
            ordered = b"".join(self.records[k].model_dump_json().encode() + b"\n" for k in self.expected_ids)
            _write_atomically(self.folder / RECORDS, ordered)
            if (self.folder / JOURNAL).exists():
                self._compact()
        return write_stage(
            self.folder,
            stage=self.header["stage"],
            task=self.header["task"],
            config=self.header["config"],
            inputs=self.header["inputs"],
            files=[name for name in (RECORDS, EVIDENCE) if (self.folder / name).exists()],
            counts=Counts(
                expected=len(self.expected_ids),
                done=len(self.records),
                resumed=self.resumed,
                failed=sum(getattr(r, "status", "ok") == "error" for r in self.records.values()),
            ),
            timing=timing,
            environment=environment,
        )

    def _compact(self) -> None:
        """Join the journal to the parquet file of an earlier finish, in the order asked for; drop the journal.

        Killed anywhere in here, journal and parquet together still hold everything: the parquet file is
        replaced in one step and the journal goes after it.
        """
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
        journal.unlink()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if not isinstance(error, StoreError):  # a disk that just refused would only refuse again
                self.sync()
        finally:
            self._close()

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


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

    `StageStore.finish` ends here; stages that write files of their own (data, analysis, figures) call it
    directly. `environment` defaults to the current one.
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
        _write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


# ------------------------------------------------------------------ reading


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

    def frame(self) -> pd.DataFrame:
        """One row per record, indexed by id (see `to_frame`)."""
        return to_frame(self.records.values())


def read_manifest(run_or_folder: str | Path, stage: str, task: str | None = None) -> Manifest:
    """The manifest of a finished stage.

    Args:
        run_or_folder: a run's name (str), or the stage folder itself (Path).

    Raises:
        StageError: missing or unfinished (names the notebook to run), another schema version or stage.
    """
    return _manifest_of(_folder_of(run_or_folder, stage, task), stage, task)


def read_stage(run_or_folder: str | Path, stage: str, task: str | None, record_type: type[R]) -> StageData[R]:
    """A finished stage with its records, checked against its manifest. Arguments as for `read_manifest`.

    Raises:
        StageError: as `read_manifest`; or the records are not those the manifest speaks of.
    """
    folder = _folder_of(run_or_folder, stage, task)
    manifest = _manifest_of(folder, stage, task)
    path = folder / RECORDS
    _check_hash(path, manifest)
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

    With `only` of these ids, for which just the parts of the file that hold them are read.

    Raises:
        StageError: unfinished, or the file is not the one the manifest speaks of (`verify`).
    """
    import pyarrow.parquet as pq

    path = Path(folder) / EVIDENCE
    if verify:
        manifest = _manifest_of(Path(folder))
        if EVIDENCE not in manifest.outputs:
            return {}
        _check_hash(path, manifest)
    file = pq.ParquetFile(path)
    groups = [
        g
        for g in range(file.num_row_groups)
        if only is None or not set(only).isdisjoint(file.read_row_group(g, ["id"])["id"].to_pylist())
    ]
    found = {}
    for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, row_groups=groups):
        for row in zip(*(batch.column(name) for name in _COLUMNS), strict=True):
            key, k, texts, *arrays = row
            if only is not None and key.as_py() not in only:
                continue
            ids, chosen, top_ids, top = (array.values.to_numpy() for array in arrays)  # noqa: PD011 (arrow's, not pandas')
            shape = (len(ids), k.as_py())
            found[key.as_py()] = Evidence(
                ids, tuple(texts.as_py()), chosen, top_ids.reshape(shape), top.reshape(shape)
            )
    return found


def is_finished(run_or_folder: str | Path, stage: str, task: str | None = None) -> bool:
    """Whether a stage has its manifest; raises as `read_manifest` for one of another version."""
    folder = _folder_of(run_or_folder, stage, task)
    return (folder / MANIFEST).is_file() and bool(_manifest_of(folder, stage, task))


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


def _manifest_of(folder: Path, stage: str | None = None, task: str | None = None) -> Manifest:
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


def _read_header(folder: Path) -> dict | None:
    try:
        header = json.loads((folder / HEADER).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise StageError(f"{shown(folder / HEADER)}: not JSON; remove the folder to begin anew") from None
    _check_version(folder, header)
    return header


def _check_version(folder: Path, values: dict) -> None:
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise StageError(
            f"{shown(folder)} was written with schema version {version}, this library reads version "
            f"{SCHEMA_VERSION}; use another run name, or remove the folder"
        )


def _check_hash(path: Path, manifest: Manifest) -> None:
    if not path.is_file() or file_hash(path) != manifest.outputs.get(path.name):
        raise StageError(
            f"{shown(path)} is not the file its manifest speaks of (changed or removed since); "
            f"remove the folder and run {notebook_of(manifest.stage)} again"
        )


def _difference(before: dict, now: dict) -> str | None:
    """The first thing that differs between two headers, in words; None when they agree."""
    for part in ("stage", "task"):
        if before.get(part) != now[part]:
            return f"{part} {before.get(part)!r} (now {now[part]!r})"
    for part, what in (("config", ""), ("inputs", "another input: ")):
        old, new = before.get(part, {}), now[part]
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                a, b = (
                    str(value)[:12] if part == "inputs" else repr(value)
                    for value in (old.get(name), new.get(name))
                )
                return f"{what}{name} = {a} (now {b})"
    return None


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"


# ------------------------------------------------------------------ bytes


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tell a failed write as what it is; what was stored before stays."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{shown(folder)}: cannot be written ({error.strerror or error}); mend that and run again, "
            "what is stored already stays"
        ) from error


def _whole_lines(path: Path, parse: Callable[[bytes], Any]) -> list[tuple[bytes, Any]]:
    """Lines of a file with what they say; an unreadable tail (torn by a kill or a power cut) is cut off.

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
                    "changed from outside: remove the folder and run the stage again"
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


def _write_atomically(path: Path, data: bytes) -> None:
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


# ------------------------------------------------------------------ evidence

_ARRAYS = {
    "token_ids": np.int32,
    "chosen_logprobs": np.float32,
    "top_ids": np.int32,
    "top_logprobs": np.float32,
}
_COLUMNS = ("id", "k", "token_texts", *_ARRAYS)


def _pack(key: str, evidence: Evidence) -> dict:
    """A journal line: arrays as base64 of their little-endian bytes (exact, `-inf` included)."""
    packed: dict[str, Any] = {"id": key, "k": evidence.k, "token_texts": evidence.token_texts}
    for name, dtype in _ARRAYS.items():
        data = getattr(evidence, name).astype(np.dtype(dtype).newbyteorder("<"))
        packed[name] = base64.b64encode(data.tobytes()).decode()
    return packed


def _evidence_at(file: IO[bytes], offset: int, length: int) -> tuple[str, Evidence]:
    file.seek(offset)
    packed = json.loads(file.read(length))
    ids, chosen, top_ids, top = (
        np.frombuffer(base64.b64decode(packed[name]), np.dtype(dtype).newbyteorder("<"))
        for name, dtype in _ARRAYS.items()
    )
    shape = (len(ids), packed["k"])
    return packed["id"], Evidence(
        ids, tuple(packed["token_texts"]), chosen, top_ids.reshape(shape), top.reshape(shape)
    )


def _write_parquet(path: Path, rows: Iterable[tuple[str, Evidence]]) -> None:
    """One row per answer; the [T, K] arrays are stored flat, row-major, with K beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.string()), ("k", pa.int32()), ("token_texts", pa.list_(pa.string()))]
        + [(name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in _ARRAYS.items()]
    )
    with _replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        group: list[dict] = []
        for key, e in rows:
            group.append(
                {"id": key, "k": e.k, "token_texts": list(e.token_texts)}
                | {name: getattr(e, name).ravel() for name in _ARRAYS}
            )
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
