"""Nothing stored is lost or doubled, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import StageError, UserError
from speceyes_lib.paths import stage_dir
from speceyes_lib.runs.checksums import altered_evidence, read_sums
from speceyes_lib.runs.evidence import Evidence, LayerEvidence
from speceyes_lib.runs.files import StoreError
from speceyes_lib.runs.reading import is_finished, read_evidence, read_manifest, read_stage, to_frame
from speceyes_lib.runs.records import SCHEMA_VERSION, Counts, DraftRecord, Failure
from speceyes_lib.runs.stage import StageStore, finish_stage

TASK = "pope/random"
IDS = [f"{TASK}/{i:03d}" for i in range(80)]


def record_of(key: str) -> DraftRecord:
    if key.endswith("7"):
        return DraftRecord(id=key, status="error", error=Failure(type="image_error", message="no picture"))
    return DraftRecord(id=key, status="ok", answer=f"answer of {key}", n_tokens=2, draft_s=0.25)


def evidence_of(key: str) -> Evidence | None:
    """Evidence that is known from the id; failed samples have none, some answers no tokens."""
    if key.endswith("7"):
        return None
    rng = np.random.default_rng(int(key[-3:]))
    tokens = int(rng.integers(0, 4))
    top = -np.sort(rng.exponential(3, (tokens, 5)))
    top[:, 4] = -np.inf
    ids = rng.integers(0, 150_000, (tokens, 5))
    return Evidence(ids[:, 0], [f"é{i}" for i in range(tokens)], top[:, 0], ids, top)


def open_store(folder: Path, **changed) -> StageStore:
    given = {
        "stage": "01_draft",
        "task": TASK,
        "record_type": DraftRecord,
        "config": {"batch_size": 8, "tasks": (1, 2)},
        "expected_ids": IDS,
        "inputs": {"code": "abc"},
    }
    return StageStore(folder, **given | changed)


def work(folder: Path, limit: int = len(IDS), pause_s: float = 0.0) -> None:
    """What a stage does: append what is not there, finish."""
    with open_store(folder) as store:
        for key in [key for key in IDS if key not in store.done_ids][:limit]:
            time.sleep(pause_s)
            store.append(record_of(key), evidence_of(key))
        if store.done_ids == set(IDS):
            store.finish({"wall_s": 1.0})


def assert_complete(folder: Path) -> None:
    data = read_stage(folder, "01_draft", TASK, DraftRecord)
    assert data.records == {key: record_of(key) for key in IDS}
    assert list(data.records) == IDS
    observed, expected = read_evidence(folder), {key: e for key in IDS if (e := evidence_of(key))}
    assert observed.keys() == expected.keys()
    assert all(observed[key].equals(expected[key]) for key in expected)
    failed = sum(key.endswith("7") for key in IDS)
    assert (data.manifest.counts.expected, data.manifest.counts.done, data.manifest.counts.failed) == (
        80,
        80,
        failed,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "01_draft"


@pytest.fixture
def finished(folder: Path) -> Path:
    work(folder)
    return folder


# ------------------------------------------------------------------ resume


def test_records_and_evidence_read_back_as_they_were_written(finished):
    assert_complete(finished)
    assert sorted(p.name for p in finished.iterdir() if not p.name.startswith(".")) == [
        *("checksums.jsonl", "evidence.parquet", "manifest.json", "records.jsonl", "stage.json"),
    ]


def test_half_a_surrogate_pair_is_stored_as_one_unknown_character(folder):
    half = "red \ud83d"
    ids = np.zeros((1, 2), int)
    evidence = Evidence([0], [half], [0.0], ids, [[0.0, -1.0]])
    with open_store(folder, expected_ids=IDS[:1]) as store:
        store.append(record_of(IDS[0]).model_copy(update={"answer": half}), evidence)
        assert store.records[IDS[0]].answer == "red \ufffd"
        store.finish()
    with open_store(folder, expected_ids=IDS[:1]) as store:
        assert store.done_ids == {IDS[0]}
        store.finish()
    assert read_stage(folder, "01_draft", TASK, DraftRecord).records[IDS[0]].answer == "red \ufffd"
    assert read_evidence(folder)[IDS[0]].token_texts == ("red \ufffd",)


@pytest.mark.parametrize("wanted", [[IDS[3], IDS[60]], [IDS[1], "no/such/id"], []])
def test_evidence_of_a_few_is_that_of_all(finished, wanted):
    everything = read_evidence(finished)
    few = read_evidence(finished, only=wanted)
    assert few.keys() == everything.keys() & set(wanted)
    assert all(few[key].equals(everything[key]) for key in few)


def test_a_stage_done_in_sittings_equals_one_done_at_once(folder, tmp_path):
    for _ in range(4):
        work(folder, limit=26)
    work(tmp_path / "at_once")
    assert_complete(folder)
    assert (folder / "records.jsonl").read_bytes() == (tmp_path / "at_once" / "records.jsonl").read_bytes()
    assert read_manifest(folder, "01_draft", TASK).counts.resumed == 78


WORKER = """
import pathlib, signal, sys, test_stage
test_stage.StageStore.sync_every_s = 0.05
test_stage.work(pathlib.Path(sys.argv[1]), limit=9, pause_s=0.03)
signal.pause()
"""


def python(code: str, *arguments: object) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a process that can import this file."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return [sys.executable, "-c", code, *map(str, arguments)], os.environ | {"PYTHONPATH": path}


def test_killed_at_ten_random_moments_and_resumed_it_holds_the_same(folder):
    rng = random.Random(20260323)
    stages_seen = []
    for _ in range(10):
        command, environment = python(WORKER, folder)
        began = (folder / "records.jsonl").stat().st_mtime_ns if folder.exists() else 0
        worker = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 1800
        while worker.poll() is None and time.monotonic() < deadline:  # until it has begun to work
            if (folder / "records.jsonl").exists() and (folder / "records.jsonl").stat().st_mtime_ns > began:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
        stages_seen.append(len((folder / "records.jsonl").read_bytes().splitlines()))
    assert 0 < stages_seen[0] < stages_seen[-1] < len(IDS)  # each sitting got somewhere, none to the end
    work(folder)
    assert_complete(folder)


@given(cut=st.integers(0, 4000), evidence_cut=st.integers(0, 9000))
@settings(max_examples=30, deadline=None)
def test_files_torn_anywhere_are_repaired(tmp_path_factory, cut, evidence_cut):
    """Records are torn at any byte; evidence only behind what the last whole record needs, as it goes first."""
    folder = tmp_path_factory.mktemp("torn") / "stage"
    work(folder, limit=30)
    records, journal = folder / "records.jsonl", folder / "evidence.jsonl"
    records.write_bytes(records.read_bytes()[:cut])
    needed = [json.loads(line)["id"] for line in records.read_bytes().split(b"\n")[:-1]]
    lines = journal.read_bytes().splitlines(keepends=True)
    least = sum(len(line) for line in lines if json.loads(line)["id"] in needed)
    journal.write_bytes(journal.read_bytes()[: max(least, evidence_cut)])
    work(folder)
    assert_complete(folder)


def test_evidence_without_its_record_is_done_again(folder):
    work(folder, limit=5)
    records = folder / "records.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:3]))
    with open_store(folder) as store:
        assert store.done_ids == set(IDS[:3])
    work(folder)
    assert_complete(folder)


def test_a_record_written_twice_counts_once(folder):
    work(folder, limit=5)
    records = folder / "records.jsonl"
    records.write_bytes(records.read_bytes() * 2)
    work(folder)
    assert_complete(folder)


def test_a_damaged_line_amid_good_ones_is_not_mistaken_for_a_torn_end(folder):
    work(folder, limit=5)
    records = folder / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join([*lines[:2], b"{broken}\n", *lines[3:]]))
    with pytest.raises(StageError, match=r"records\.jsonl: line 3 cannot be read"):
        work(folder)
    assert len(records.read_bytes().splitlines()) == 5


def test_killed_while_the_evidence_is_compacted_nothing_is_lost(finished, tmp_path):
    """Parquet in place, journal not yet removed, no manifest: as a kill between the steps leaves it."""
    work(tmp_path / "other", limit=len(IDS) - 1)
    journal = (tmp_path / "other" / "evidence.jsonl").read_bytes()
    (finished / "evidence.jsonl").write_bytes(journal)
    (finished / "manifest.json").unlink()
    work(finished)
    assert_complete(finished)


def test_a_finished_stage_without_its_manifest_is_not_computed_again(finished):
    (finished / "manifest.json").unlink()  # as snakemake does before a job
    with open_store(finished) as store:
        assert store.done_ids == set(IDS)
        store.finish()
    assert_complete(finished)


def test_an_error_in_the_work_leaves_what_was_appended(folder):
    with pytest.raises(ZeroDivisionError), open_store(folder) as store:  # noqa: PT012
        store.append(record_of(IDS[0]), evidence_of(IDS[0]))
        raise ZeroDivisionError
    with open_store(folder) as store:
        assert store.done_ids == {IDS[0]}


# ------------------------------------------------------------------ evidence of layers


def layered_evidence_of(key: str) -> Evidence | None:
    """The same with two intermediate layers of three alternatives, and the state of one token or of none."""
    evidence = evidence_of(key)
    if evidence is None:
        return None
    t, rng = evidence.n_tokens, np.random.default_rng(1)
    top = -np.sort(rng.exponential(3, (t, 2, 3)))
    hidden = rng.normal(size=(min(t, 1), 4))
    layers = LayerEvidence(6, [2, 4], rng.integers(0, 9, (t, 2, 3)), top, top[..., 0] - 1, hidden)
    return replace(evidence, layers=layers)


def columns_of(folder: Path) -> set[str]:
    return {name for name in pq.read_schema(folder / "evidence.parquet").names if name.startswith("layer_")}


def test_layers_are_stored_resumed_and_finished_again(folder):
    for upto in (30, len(IDS)):
        with open_store(folder) as store:
            for key in [key for key in IDS[:upto] if key not in store.done_ids]:
                store.append(record_of(key), layered_evidence_of(key))
    for _ in range(2):
        with open_store(folder) as store:
            store.finish()
        expected = {key: e for key in IDS if (e := layered_evidence_of(key))}
        observed = read_evidence(folder)
        assert observed.keys() == expected.keys()
        assert all(observed[key].equals(expected[key]) for key in expected)
        assert not altered_evidence(folder, IDS, read_sums(folder))
        (folder / "manifest.json").unlink()
    assert len(columns_of(folder)) == 8


def test_a_file_without_layers_has_no_column_of_them_and_says_so_by_its_answers(finished):
    assert columns_of(finished) == set()
    assert {e.layers for e in read_evidence(finished).values()} == {None}


def test_answers_with_and_without_layers_are_not_mixed_in_silence(folder):
    with open_store(folder, expected_ids=IDS[:2]) as store:
        store.append(record_of(IDS[0]), layered_evidence_of(IDS[0]))
        store.append(record_of(IDS[1]), evidence_of(IDS[1]))
        with pytest.raises(ValueError, match=IDS[1]):
            store.finish()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"config": {"batch_size": 4, "tasks": (1, 2)}}, r"batch_size = 8 \(now 4\)"),
        ({"config": {"batch_size": 8}}, r"tasks = \[1, 2\] \(now None\)"),
        ({"inputs": {"code": "abd"}}, r"another input: code = abc \(now abd\)"),
        ({"expected_ids": IDS[:6]}, r"another input: sample_ids"),
        ({"stage": "02_collect"}, r"stage '01_draft' \(now '02_collect'\)"),
    ],
)
def test_results_made_from_something_else_are_refused_or_restarted(folder, changed, complaint):
    work(folder, limit=5)
    with (
        pytest.raises(StageError, match=complaint + r".*another run name.*if_changed='restart'"),
        open_store(folder, **changed),
    ):
        pass
    with open_store(folder) as store:
        assert len(store.done_ids) == 5
    with open_store(folder, if_changed="restart", **changed) as store:
        assert store.done_ids == set()
    assert not (folder / "evidence.jsonl").exists()


def test_restarting_a_finished_stage_unfinishes_it_first(finished):
    with open_store(finished, config={}, if_changed="restart"):
        assert not is_finished(finished, "01_draft", TASK)


def test_a_stage_that_failed_before_its_first_record_binds_no_later_settings(folder):
    with open_store(folder):
        pass
    with open_store(folder, config={"k": 32}) as store:
        store.append(record_of(IDS[0]))
    with open_store(folder, config={"k": 32}) as store:
        assert store.done_ids == {IDS[0]}


@pytest.mark.parametrize("if_changed", ["refuse", "restart"])
@pytest.mark.parametrize("file", ["stage.json", "manifest.json"])
def test_another_schema_version_is_refused(finished, file, if_changed):
    path = finished / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 0}))
    complaint = pytest.raises(
        StageError, match=rf"schema version 0.*version {SCHEMA_VERSION}.*another run name"
    )
    if file == "stage.json":
        with complaint, open_store(finished, if_changed=if_changed):
            pass
    else:
        with complaint:
            read_stage(finished, "01_draft", TASK, DraftRecord)


def test_a_folder_of_somebody_else_is_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StageError, match="no stage of this suite"), open_store(folder, if_changed="restart"):
        pass
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_two_writers_of_one_stage_are_kept_apart(folder, monkeypatch):
    monkeypatch.setattr(StageStore, "lock_wait_s", 0.1)
    with (
        open_store(folder),
        pytest.raises(StoreError, match="another process is writing"),
        open_store(folder),
    ):
        pass
    with open_store(folder):
        pass


def test_unexpected_and_repeated_records_are_bugs_of_the_caller(folder):
    with open_store(folder) as store:
        store.append(record_of(IDS[0]))
        with pytest.raises(ValueError, match="already stored"):
            store.append(record_of(IDS[0]))
        with pytest.raises(ValueError, match="not expected"):
            store.append(record_of("pope/random/999"))


def test_an_incomplete_stage_cannot_be_finished(folder):
    with open_store(folder) as store:
        store.append(record_of(IDS[0]))
        with pytest.raises(StageError, match=r"79 of 80 samples have no record.*01_small_model_inference"):
            store.finish()
    assert not is_finished(folder, "01_draft", TASK)


# ------------------------------------------------------------------ reading


def test_a_missing_stage_names_the_notebook_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    with pytest.raises(
        StageError, match=r"data/runs/demo/02_gated/pope/random does not exist; run 02_gated_agent_eval first"
    ):
        read_stage("demo", "02_gated", TASK, DraftRecord)


def test_an_unfinished_stage_is_not_read(folder):
    work(folder, limit=5)
    with pytest.raises(StageError, match="is unfinished; run 01_small_model_inference first"):
        read_stage(folder, "01_draft", TASK, DraftRecord)


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("records.jsonl", lambda folder: read_stage(folder, "01_draft", TASK, DraftRecord)),
        ("evidence.parquet", read_evidence),
    ],
)
def test_files_changed_after_the_manifest_are_not_trusted(finished, file, read):
    (finished / file).write_bytes((finished / file).read_bytes() + b" ")
    with pytest.raises(StageError, match=rf"{re.escape(file)} is not the file its manifest describes"):
        read(finished)


def test_a_manifest_of_another_stage_is_not_taken_for_it(finished):
    with pytest.raises(StageError, match="is of stage 01_draft"):
        read_stage(finished, "01_draft", "pope/popular", DraftRecord)


def test_a_broken_manifest_is_reported(finished):
    (finished / "manifest.json").write_text('{"schema_version": 1')
    with pytest.raises(StageError, match=r"manifest\.json: cannot be read"):
        read_manifest(finished, "01_draft", TASK)


def test_the_frame_is_flat_and_counts_seconds():
    frame = to_frame([record_of(IDS[0]), record_of(IDS[7])])
    assert list(frame.index) == [IDS[0], IDS[7]]
    assert frame.loc[IDS[0], "wall_s"] == 0.25
    assert frame.loc[IDS[7], "error.type"] == "image_error"
    assert to_frame([]).empty


def test_a_stage_of_tables_is_written_with_its_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    figure = tmp_path / "r/figures/front.png"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"picture")
    table = pd.DataFrame({"a": [1 / 3, 2.0]})
    files = {"table.csv": table, "note.html": "<p>text</p>", "../summary.json": {"n": 3}}
    folder = finish_stage("r", "05_figures", {"source": "run"}, files, 3, {"paper": "f00"}, figures=[figure])
    assert folder == stage_dir("r", "05_figures")
    assert (folder / "table.csv").read_bytes() == b"a\n0.3333333333\n2\n"
    assert (folder / "note.html").read_text() == "<p>text</p>"
    assert json.loads((tmp_path / "r/summary.json").read_text()) == {"n": 3}
    manifest = read_manifest("r", "05_figures")
    assert list(manifest.outputs) == [*files, "../figures/front.png"]
    assert (manifest.counts, manifest.inputs) == (Counts(expected=3, done=3), {"paper": "f00"})
    assert manifest.environment["packages"]["numpy"] == np.__version__


def test_manifests_name_no_machine_user_or_absolute_folder(finished):
    text = (finished / "manifest.json").read_text() + (finished / "stage.json").read_text()
    for secret in (os.uname().nodename, str(Path.home()), str(Path(__file__).parents[2]), str(finished)):
        assert len(secret) < 3 or secret not in text


# ------------------------------------------------------------------ disks that refuse

FULL_DISK = """
import pathlib, resource, sys, test_stage
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    test_stage.work(pathlib.Path(sys.argv[1]), limit=30)
except test_stage.StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("limit_bytes", [600, 1500, 4000])
def test_a_full_disk_is_reported_and_what_was_written_stays(folder, limit_bytes):
    """A limit on file size stands for the disk: the same failing write, part of it taken."""
    command, environment = python(FULL_DISK, folder, limit_bytes)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"cannot be written \(File too large\).*what is stored already stays", done.stdout)
    work(folder)
    assert_complete(folder)


def test_a_device_without_space_is_reported(folder, monkeypatch):
    """The kernel's own ENOSPC, from /dev/full."""
    with pytest.raises(StoreError, match="No space left on device"), open_store(folder) as store:  # noqa: PT012
        opened = {os.path.realpath(link): int(link.name) for link in Path("/proc/self/fd").iterdir()}
        os.dup2(os.open("/dev/full", os.O_WRONLY), opened[os.path.realpath(folder / "records.jsonl")])
        store.append(record_of(IDS[0]))
        store.sync()
    work(folder)
    assert_complete(folder)


@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_an_unwritable_folder_is_reported(tmp_path, place):
    if place == "a file":
        place = str(tmp_path / "file")
        Path(place).write_text("")
    with pytest.raises(UserError, match=r"cannot be written \("), open_store(Path(place) / "01_draft"):
        pass
