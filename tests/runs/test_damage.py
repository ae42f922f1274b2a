"""Whatever is altered in a stage's files is named before anything is signed again, or done again as it was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speceyes_lib.errors import StageError
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.reading import read_evidence, read_manifest, read_stage
from speceyes_lib.runs.records import DraftRecord
from speceyes_lib.runs.stage import finish_stage
from speceyes_lib.runs.verifying import verify
from speceyes_lib.workflow.cli import main
from tests.runs.test_stage import IDS, TASK, assert_complete, open_store, work

RECORDS, EVIDENCE, SUMS, HEADER, MANIFEST = (
    *("records.jsonl", "evidence.parquet", "checksums.jsonl"),
    *("stage.json", "manifest.json"),
)
Damage = Callable[[Path], None]


def lines(change: Callable[[list[bytes]], list[bytes] | None]) -> Damage:
    def damage(path: Path) -> None:
        before = path.read_bytes().splitlines(keepends=True)
        after = change(before)
        path.write_bytes(b"".join(before if after is None else after))

    return damage


def flipped(where: float, bit: int = 0) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(len(data) - 1, int(where * len(data)))] ^= 1 << bit
        path.write_bytes(data)

    return damage


def replaced(old: bytes, new: bytes) -> Damage:
    def damage(path: Path) -> None:
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return damage


def cut(share: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def values(change: Callable[[dict], object]) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def rows(change: Callable[[list[dict]], object]) -> Damage:
    def damage(path: Path) -> None:
        table = pq.read_table(path)
        content = table.to_pylist()
        change(content)
        pq.write_table(pa.Table.from_pylist(content, table.schema), path)

    return damage


def swap(items: list, a: int, b: int) -> None:
    items[a], items[b] = items[b], items[a]


DAMAGES: list[tuple[str, str, Damage]] = [
    *((RECORDS, f"bit {w}", flipped(w, b)) for w, b in [(0, 0), (0.2, 1), (0.5, 2), (0.8, 3), (0.9999, 4)]),
    (RECORDS, "digit", replaced(b"answer of pope/random/003", b"answer of pope/random/008")),
    (RECORDS, "number", replaced(b'"n_tokens":2', b'"n_tokens":3')),
    (RECORDS, "status", replaced(b'"status":"error"', b'"status":"ok"')),
    (RECORDS, "id", replaced(b'"id":"pope/random/005"', b'"id":"pope/random/006"')),
    (RECORDS, "blank", replaced(b'","status"', b'", "status"')),
    (RECORDS, "first lost", lines(lambda ls: ls[1:])),
    (RECORDS, "one lost", lines(lambda ls: ls[:40] + ls[41:])),
    (RECORDS, "last lost", lines(lambda ls: ls[:-1])),
    (RECORDS, "swapped", lines(lambda ls: swap(ls, 3, 5))),
    (RECORDS, "repeated", lines(lambda ls: [*ls, ls[0]])),
    (RECORDS, "joined", lines(lambda ls: [ls[0].rstrip() + ls[1], *ls[2:]])),
    (RECORDS, "garbage", lines(lambda ls: [*ls, b"\0\0\0\n"])),
    (
        RECORDS,
        "other line",
        lines(lambda ls: [ls[1].replace(b'"id":"pope/random/001', b'"id":"pope/random/000'), *ls[1:]]),
    ),
    (RECORDS, "half", cut(0.5)),
    (RECORDS, "empty", cut(0)),
    (RECORDS, "removed", Path.unlink),
    *((EVIDENCE, f"bit {w}", flipped(w, b)) for w, b in [(0, 0), (0.1, 1), (0.4, 2), (0.7, 3), (0.9999, 4)]),
    (EVIDENCE, "half", cut(0.5)),
    (EVIDENCE, "empty", cut(0)),
    (EVIDENCE, "removed", Path.unlink),
    (EVIDENCE, "row lost", rows(lambda rs: rs.pop(3))),
    (
        EVIDENCE,
        "rows swapped",
        rows(lambda rs: swap([r["id"] for r in rs], 0, 1) or rs[0].update(id=rs[1]["id"])),
    ),
    (
        EVIDENCE,
        "text",
        rows(lambda rs: next(r for r in rs if r["token_texts"])["token_texts"].__setitem__(0, "x")),
    ),
    (EVIDENCE, "all rows", rows(lambda rs: rs.clear())),
    (SUMS, "bit", flipped(0.5)),
    (SUMS, "id", replaced(b"random/005", b"random/505")),
    (SUMS, "line lost", lines(lambda ls: ls[:7] + ls[8:])),
    (SUMS, "empty", cut(0)),
    (SUMS, "removed", Path.unlink),
    (HEADER, "half", cut(0.5)),
    (HEADER, "removed", Path.unlink),
    (HEADER, "config", values(lambda v: v["config"].update(batch_size=9))),
    (HEADER, "input", values(lambda v: v["inputs"].update(code="abd"))),
    (HEADER, "task", values(lambda v: v.update(task="pope/popular"))),
    (MANIFEST, "half", cut(0.5)),
    (MANIFEST, "count", values(lambda v: v["counts"].update(failed=0))),
    (MANIFEST, "time", values(lambda v: v["timing"].update(wall_s=0.5))),
    (MANIFEST, "output", values(lambda v: v["outputs"].update({RECORDS: "0" * 64}))),
    (MANIFEST, "output left out", values(lambda v: v["outputs"].pop(EVIDENCE))),
    (MANIFEST, "config", values(lambda v: v["config"].update(batch_size=9))),
]
EACH = pytest.mark.parametrize(("file", "damage"), [pytest.param(f, d, id=f"{f}-{n}") for f, n, d in DAMAGES])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "stage"
    work(folder)
    return folder


@pytest.fixture
def stage(whole, tmp_path, monkeypatch) -> Path:
    """A copy of the finished stage, as a stage of the run "r"."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    return shutil.copytree(whole, tmp_path / "r" / "01_draft" / TASK)


def test_there_are_forty_ways_and_none_leaves_the_file_as_it_was(whole, tmp_path):
    assert len(DAMAGES) >= 40
    for number, (file, name, damage) in enumerate(DAMAGES):
        copy = shutil.copytree(whole, tmp_path / str(number))
        damage(copy / file)
        path = copy / file
        assert not path.exists() or path.read_bytes() != (whole / file).read_bytes(), name


@EACH
def test_a_damaged_finished_stage_is_named_and_not_signed_again(stage, file, damage):
    damage(stage / file)
    left = {p.name: p.read_bytes() for p in stage.iterdir()}
    with pytest.raises(StageError) as refused, open_store(stage) as store:
        store.finish()
    assert file in str(refused.value) or (file == HEADER and "01_draft" in str(refused.value))
    assert {p.name: p.read_bytes() for p in stage.iterdir()} == left
    faults = [fault for check in verify("r") for fault in check.faults]
    assert any(file in fault for fault in faults)


@EACH
def test_without_its_manifest_a_damaged_stage_is_named_or_done_again(stage, file, damage):
    """As a job of the workflow finds it: snakemake removes the manifest before it starts the job."""
    damage(stage / file)
    (stage / MANIFEST).unlink(missing_ok=True)
    assert_named_or_whole(stage, f"{RECORDS}|evidence|01_draft")


def assert_named_or_whole(folder: Path, named: str) -> None:
    """Resumed, a stage names what is altered and stays unfinished, or it ends as it would have without the damage."""
    error = None
    try:
        work(folder)
    except StageError as refused:
        error = refused
    assert (error is None) == (folder / MANIFEST).exists()
    if error is None:
        assert_complete(folder)
    else:
        assert re.search(named, str(error))


@EACH
def test_damage_is_never_shown(stage, file, damage):
    damage(stage / file)
    if file == EVIDENCE:
        with pytest.raises(StageError, match=file):
            read_evidence(stage)
    elif file in (RECORDS, MANIFEST):
        with pytest.raises(StageError, match=file):
            read_stage(stage, "01_draft", TASK, DraftRecord)
    else:
        assert_complete(stage)


@pytest.mark.parametrize("cutoff", [20, 50])
@pytest.mark.parametrize(
    "damage",
    [
        replaced(b"answer of pope/random/003", b"answer of pope/random/008"),
        replaced(b'"status":"error"', b'"status":"ok"'),
        lines(lambda ls: swap(ls, 3, 5)),
    ],
)
def test_an_altered_line_of_an_unfinished_stage_is_named(tmp_path, damage, cutoff):
    folder = tmp_path / "stage"
    work(folder, limit=cutoff)
    before = (folder / RECORDS).read_bytes()
    damage(folder / RECORDS)
    assert (folder / RECORDS).read_bytes() != before
    assert_named_or_whole(folder, "line")


def test_an_altered_record_of_an_unfinished_stage_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    folder = tmp_path / "r" / "01_draft" / TASK
    work(folder, limit=20)
    assert len(recorded_run.open("r", strict=False).drafts()) == 20
    replaced(b"answer of pope/random/003", b"answer of pope/random/008")(folder / RECORDS)
    run = recorded_run.open("r", strict=False)
    assert IDS[3] not in run.drafts()
    assert "19 records so far, 1 left out" in run.missing[0]


def test_the_command_line_names_what_is_damaged(stage, capsys):
    assert main(["verify", "r"]) == 0
    replaced(b"answer of pope/random/003", b"answer of pope/random/008")(stage / RECORDS)
    assert main(["verify", "r"]) == 1
    assert "line 4 (pope/random/003)" in capsys.readouterr().out
    assert main(["verify", "no_such_run"]) == 2


def test_a_run_whose_stages_no_longer_belong_together_is_named(stage):
    sha256 = read_manifest(stage).outputs[RECORDS]
    inputs = {"records": sha256}
    for name, used in (("fits", sha256), ("stale", "0" * 64)):
        finish_stage("r", f"04_{name}", {}, {"t.csv": "a"}, 1, inputs | {f"01_draft/{TASK}": used})
    states = {check.name: check for check in verify("r")}
    assert states["04_fits"].faults == ()
    assert states["04_stale"].faults == (f"it was made from other records than 01_draft/{TASK} holds now",)


def test_a_stage_from_before_there_were_checksums_is_resumed_and_reported_as_such(stage):
    (stage / SUMS).unlink()
    values(lambda v: v.pop(SUMS))(stage / HEADER)
    values(lambda v: (v["outputs"].pop(SUMS), v.update(checksum="")))(stage / MANIFEST)
    (check,) = verify("r")
    assert (check.faults, check.state) == ((), "as recorded, no checksums per record")
    work(stage)
    assert_complete(stage)
    assert SUMS not in read_manifest(stage).outputs
    flipped(0.5)(stage / RECORDS)
    (check,) = verify("r")
    assert check.faults
