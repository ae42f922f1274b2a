"""The recorded run is unpacked as it was packed, never over an existing run, and is marked as recorded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from speceyes_lib.demo import recorded
from speceyes_lib.errors import DataError, StageError
from speceyes_lib.paths import repo_root, resolve


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    for run, last in recorded.RUNS.items():
        stage = tmp_path / "runs" / run / last
        stage.mkdir(parents=True)
        (stage / "manifest.json").write_text(run)
        (stage.parent / "figures").mkdir()
        (stage.parent / "figures" / "a.csv").write_text("x\n")
        (stage / ".lock").write_text("")
    return tmp_path / "runs"


def test_what_was_packed_comes_out_again_without_figures_and_the_same_runs_give_the_same_bytes(
    runs, tmp_path
):
    first = recorded.pack(tmp_path / "a.tar.xz").read_bytes()
    assert recorded.pack(tmp_path / "b.tar.xz").read_bytes() == first
    runs.rename(tmp_path / "before")
    folders = recorded.unpack(tmp_path / "a.tar.xz")
    assert [folder.name for folder in folders] == list(recorded.RUNS)
    files = sorted(p.relative_to(runs / "demo").as_posix() for p in (runs / "demo").rglob("*") if p.is_file())
    assert files == ["05_figures/manifest.json", "RECORDED"]
    assert recorded.is_recorded("demo")


def test_an_existing_run_stays_as_it_is(runs, tmp_path):
    path = recorded.pack(tmp_path / "a.tar.xz")
    (runs / "demo" / "05_figures" / "manifest.json").write_text("mine")
    assert recorded.unpack(path) == []
    assert (runs / "demo" / "05_figures" / "manifest.json").read_text() == "mine"
    assert not recorded.is_recorded("demo")


def test_an_unpacked_run_is_set_aside_whole_and_is_never_packed_again(runs, tmp_path):
    path = recorded.pack(tmp_path / "a.tar.xz")
    runs.rename(tmp_path / "before")
    recorded.unpack(path)
    (runs / "demo" / "human_checks.csv").write_text("mine")
    with pytest.raises(StageError, match="unpacked, not run here"):
        recorded.pack(path)
    moved = recorded.set_aside(["demo"])
    assert [m.name for m in moved] == ["demo_recorded"]
    assert (moved[0] / "human_checks.csv").read_text() == "mine"
    assert recorded.set_aside(["demo"]) == []


def test_a_missing_damaged_or_foreign_archive_is_named(runs, tmp_path):
    with pytest.raises(DataError, match="is missing"):
        recorded.unpack(tmp_path / "none.tar.xz")
    broken = tmp_path / "broken.tar.xz"
    broken.write_bytes(recorded.pack(tmp_path / "a.tar.xz").read_bytes()[:100])
    runs.rename(tmp_path / "before")
    with pytest.raises(DataError, match="cannot be unpacked"):
        recorded.unpack(broken)
    with tarfile.open(tmp_path / "foreign.tar.xz", "w:xz") as packed:
        packed.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(DataError, match="belongs to no run"):
        recorded.unpack(tmp_path / "foreign.tar.xz")


def test_the_committed_recording_is_a_finished_run(tmp_path, monkeypatch):
    archive = resolve(recorded.ARCHIVE)
    assert archive.stat().st_size < 5e6
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    assert len(recorded.unpack(archive)) == 2
    assert (tmp_path / "runs" / "demo" / "summary.json").is_file()
    assert (tmp_path / "runs" / "demo_validation" / "04_threshold" / "operating_point.json").is_file()
    assert not (repo_root() / "runs").exists()
