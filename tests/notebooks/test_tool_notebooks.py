"""The notebooks about tool speculation run on a small study, on the recorded one, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_models import study

from speceyes_lib.errors import ConfigError, DataError
from tests.notebooks.test_training_notebooks import cells_run, quick_figures, shown_by_papermill  # noqa: F401


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield study(profiles=["science"])


@pytest.mark.parametrize(("name", "figures"), [("study_tool_speculation", 3), ("explore_tool_calls", 0)])
def test_it_runs_by_papermill_without_error_or_warning(name, figures, folder, tmp_path):
    parameters = {"path": str(folder)} | ({"profiles": ["science"]} if name.startswith("study") else {})
    shown_by_papermill(name, tmp_path, parameters, figures)


def test_the_recorded_study_is_shown(tmp_path, monkeypatch, quick_figures):  # noqa: F811
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    names = cells_run("study_tool_speculation", bootstrap=100)
    assert set(names["results"]["profile"]) == {"long_thinking", "science", "research", "coding"}
    assert len(names["both"]) == 4
    assert {path.stem for path in (tmp_path / "runs/tools/figures").glob("*.png")} == {
        *("guess_gate", "tool_share", "tool_timeline")
    }


@pytest.mark.parametrize("name", ["study_tool_speculation", "explore_tool_calls"])
def test_what_is_no_study_is_one_sentence(name, tmp_path):
    with pytest.raises(DataError, match="no study of tool speculation is here"):
        cells_run(name, path=str(tmp_path))
    with pytest.raises(ConfigError, match="profile"):
        cells_run(name, **({"profiles": ["codding"]} if name.startswith("study") else {"profile": ""}))
