"""Folders are found from anywhere, and nothing shown names the machine."""

from __future__ import annotations

import pytest

from speceyes_lib import paths
from speceyes_lib.errors import UserError
from speceyes_lib.runs.shards import Shard


def test_the_repository_is_found_from_a_folder_inside_and_from_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("SPECEYES_HOME", raising=False)
    monkeypatch.chdir(paths.PACKAGE / "agents" / "prompts")
    assert paths.repo_root() == paths.PACKAGE.parent
    monkeypatch.chdir(tmp_path)
    assert paths.repo_root() == paths.PACKAGE.parent


def test_home_and_runs_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    assert paths.runs_dir() == tmp_path / "data" / "runs"
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "scratch"))
    folder = paths.stage_dir("demo", "03_judging/gated", "pope/random")
    assert folder == tmp_path / "scratch" / "demo" / "03_judging" / "gated" / "pope" / "random"


def test_a_wrong_home_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="SPECEYES_HOME"):
        paths.repo_root()


@pytest.mark.parametrize("runs", [None, "elsewhere"])
def test_shown_paths_are_relative_wherever_they_lie(monkeypatch, tmp_path, runs):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    if runs:
        monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path.parent / runs))
    else:
        monkeypatch.delenv("SPECEYES_RUNS", raising=False)
    assert paths.shown(paths.stage_dir("demo", "01_draft")) == "data/runs/demo/01_draft"
    assert paths.resolve("data/runs/demo/01_draft") == paths.stage_dir("demo", "01_draft")
    assert paths.shown("configs/demo.yaml") == "configs/demo.yaml"
    assert paths.shown("/a/b/c/d") == "c/d"


def test_relative_paths_count_from_the_repository_not_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert paths.resolve("data/x") == tmp_path / "data" / "x"
    assert str(paths.resolve("/data/x")) == "/data/x"


@pytest.mark.parametrize(
    ("stage", "notebook"),
    [
        ("01_draft", "01_small_model_inference"),
        ("02_gated_batched", "02_gated_agent_eval"),
        ("03_judging/gated", "03_judging"),
    ],
)
def test_every_stage_names_the_notebook_that_writes_it(stage, notebook):
    assert paths.notebook_of(stage) == notebook


def test_shards_deal_everything_out_once():
    items = list(range(11))
    parts = [Shard.parse(f"{i}of4") for i in (1, 2, 3, 4)]
    assert sorted(x for part in parts for x in part.of(items)) == items
    assert {len(part.of(items)) for part in parts} == {2, 3}
    assert str(parts[1]) == "2of4"


@pytest.mark.parametrize("text", ["", "0of4", "5of4", "1/4", "1of4x", "of", "-1of4"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UserError, match="1of4"):
        Shard.parse(text)


@pytest.mark.parametrize(
    "name", ["..", "a/b", "a/shards/..", "a/shards/1of2/..", "../shards/1of2", "/shards/1of2"]
)
def test_no_name_of_a_run_or_shard_leads_elsewhere(name):
    with pytest.raises(UserError, match="plain folder name"):
        paths.run_dir(name)


def test_a_shard_lies_in_its_run():
    assert paths.run_dir("a/shards/1of2") == paths.run_dir("a") / "shards" / "1of2"
