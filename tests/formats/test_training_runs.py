"""Folders of training runs, packed or not, are read as one table by arm and seed."""

from __future__ import annotations

import json
import tarfile

import pytest
from training_runs import write_runs

from speceyes_lib.errors import DataError
from speceyes_lib.formats import read_training_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_runs(tmp_path_factory.mktemp("t") / "recipe", ("bonus", "no_bonus"), seeds=2, steps=3)
    (folder / "start").mkdir()
    for name in ("start", "bonus-1"):
        (folder / name / "held_out.csv").write_text("sampling,right\ngreedy,True\n")
    (folder / "bonus-1" / "settings.json").write_text(json.dumps({"seed": 1, "hard_share": 0.7}))
    return folder


def test_runs_of_several_arms_and_seeds_are_read_from_one_folder(folder):
    runs = read_training_runs(folder)
    assert runs.counts().to_numpy().tolist() == [
        [arm, seed, 3, 1, 3, 7, 48, 0] for arm in ("bonus", "no_bonus") for seed in (0, 1)
    ]
    assert not runs.problems
    assert runs.held_out[["arm", "seed", "right"]].to_numpy().tolist() == [
        ["start", 0, True],
        ["bonus", 1, True],
    ]
    assert runs.settings == {("bonus", 1): {"seed": 1, "hard_share": 0.7}}


def test_a_single_run_has_its_folders_name_and_seed_0(folder):
    runs = read_training_runs(folder / "bonus-1")
    assert runs.counts()[["arm", "seed", "trajectories"]].to_numpy().tolist() == [["bonus-1", 0, 48]]
    console = read_training_runs(folder / "bonus-1" / "console.log")
    assert console.counts()[["arm", "steps", "trajectories"]].to_numpy().tolist() == [["console", 3, 0]]
    dumps = read_training_runs(folder / "bonus-1" / "rollouts")
    assert dumps.counts()[["arm", "metrics", "trajectories"]].to_numpy().tolist() == [["rollouts", 0, 48]]


@pytest.mark.parametrize("inner", ["recipe", "."])
def test_a_packed_folder_is_read_as_an_unpacked_one(folder, inner, tmp_path):
    with tarfile.open(tmp_path / "runs.tar.xz", "w:xz") as packed:
        packed.add(folder, inner)
    runs, unpacked = read_training_runs(tmp_path / "runs.tar.xz"), read_training_runs(folder)
    assert runs.counts().equals(unpacked.counts())
    assert runs.files == [tmp_path / "runs.tar.xz"]


def test_an_archive_that_is_cut_off_or_none_is_refused_by_name(folder, tmp_path):
    with tarfile.open(tmp_path / "runs.tar.xz", "w:xz") as packed:
        packed.add(folder, "recipe")
    data = (tmp_path / "runs.tar.xz").read_bytes()
    for content in (data[: len(data) // 2], b"no archive"):
        (tmp_path / "runs.tar.xz").write_bytes(content)
        with pytest.raises(DataError, match=r"runs\.tar\.xz cannot be unpacked .*name a folder"):
            read_training_runs(tmp_path / "runs.tar.xz")


def test_an_archive_without_a_run_names_the_archive(tmp_path):
    (tmp_path / "a").mkdir()
    with tarfile.open(tmp_path / "runs.tar", "w") as packed:
        packed.add(tmp_path / "a", "a")
    with pytest.raises(DataError, match=r"runs\.tar: in it.*holds no metrics"):
        read_training_runs(tmp_path / "runs.tar")
