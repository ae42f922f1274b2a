"""The recorded run is unpacked as it was packed, never over an existing run, and is marked as recorded."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from speceyes_lib.analysis.tool_study import read_tool_study
from speceyes_lib.analysis.training_curves import alarms
from speceyes_lib.demo import recorded
from speceyes_lib.errors import DataError, StageError
from speceyes_lib.formats import read_training_runs
from speceyes_lib.judging.option_reader import named_option
from speceyes_lib.judging.rewards import Weights, reward
from speceyes_lib.paths import repo_root, resolve
from speceyes_lib.stats.resampling import Bootstrap


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
    assert archive.stat().st_size < 6.5e6
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    assert len(recorded.unpack(archive)) == 2
    assert (tmp_path / "runs" / "demo" / "summary.json").is_file()
    assert (tmp_path / "runs" / "demo_validation" / "04_threshold" / "operating_point.json").is_file()
    assert not (repo_root() / "runs").exists()


@pytest.fixture
def recipe(runs) -> Path:
    folder = runs / recorded.RECIPE
    for run in ("start", "bonus-0"):
        (folder / run / "checkpoints" / "4").mkdir(parents=True)
        (folder / run / "rollouts").mkdir()
        for name in ("held_out.csv", "rollouts/1.jsonl", "metrics.jsonl", "checkpoints/4/config.json"):
            (folder / run / name).write_text(f"{run} {name}")
    (folder / "bonus-0" / "settings.json").write_text("{}")
    (folder / "speculation.csv").write_text("agent\n")
    return folder


def test_runs_of_the_recipe_are_packed_without_models_and_come_out_again(recipe, tmp_path):
    first = recorded.pack_recipe(tmp_path / "a.tar.xz").read_bytes()
    assert recorded.pack_recipe(tmp_path / "b.tar.xz").read_bytes() == first
    recipe.rename(tmp_path / "before")
    assert recorded.unpack_recipe(tmp_path / "a.tar.xz") == [recipe]
    assert {path.relative_to(recipe).as_posix() for path in recipe.rglob("*") if path.is_file()} == {
        *(
            "RECORDED",
            "speculation.csv",
            "start/held_out.csv",
            "start/metrics.jsonl",
            "start/rollouts/1.jsonl",
        ),
        *(
            f"bonus-0/{name}"
            for name in ("held_out.csv", "metrics.jsonl", "rollouts/1.jsonl", "settings.json")
        ),
    }
    with pytest.raises(StageError, match="unpacked, not run here"):
        recorded.pack_recipe(tmp_path / "a.tar.xz")


def test_a_run_of_the_recipe_that_was_not_measured_is_not_packed(recipe, tmp_path):
    (recipe / "bonus-0" / "held_out.csv").unlink()
    with pytest.raises(StageError, match=r"recipe/bonus-0 is not finished"):
        recorded.pack_recipe(tmp_path / "a.tar.xz")


def names(answer: str, question: str, right: str) -> bool:
    """Whether a sentence names the right option."""
    _, _, offered = question.partition("Options: ")
    options = None if offered == "yes, no" else tuple(offered.split(", "))
    named, _ = named_option(answer, options)
    return (options[named] if isinstance(named, int) else named) == right


def test_every_trajectory_of_the_recorded_runs_gets_its_score_again_and_decomposes_to_it():
    archive = resolve(recorded.RECIPE_ARCHIVE)
    assert archive.stat().st_size < 1e6
    runs = read_training_runs(archive)
    assert not runs.problems
    for (arm, seed), table in runs.rollouts.groupby(["arm", "seed"]):
        settings = runs.settings[arm, seed]
        weights = Weights(tool=settings["tool_bonus"])
        again = [
            reward(
                row.output, lambda answer, row=row: names(answer, row.input, row.gts), weights=weights,
                variant=settings["variant"], crops=len(json.loads(row.boxes)),
            )
            for row in table.itertuples()
        ]  # fmt: skip
        assert table["score"].tolist() == [paid.score for paid in again]
        assert table["right"].tolist() == [float(paid.right) for paid in again]
        assert table["format_error"].tolist() == [float(paid.format_error) for paid in again]
        bonus = [bool(weights.tool and paid.tool and paid.right) for paid in again]
        assert table["tool"].tolist() == [float(paid) for paid in bonus]
        means = table.groupby("step")["score"].mean()
        metrics = runs.metrics.query("arm == @arm and seed == @seed and key == 'critic/score/mean'")
        assert metrics.set_index("step")["value"].tolist() == pytest.approx(means.tolist())
        assert len(means) == settings["steps"]


def test_warnings_fire_on_the_recorded_runs_that_were_damaged_and_one_of_them_on_two_others():
    runs = read_training_runs(resolve(recorded.RECIPE_ARCHIVE))
    rollouts = dict(list(runs.rollouts.groupby(["arm", "seed"])))
    warned = {
        run: {alarm.name for alarm in alarms(metrics, rollouts[run])}
        for run, metrics in runs.metrics.groupby(["arm", "seed"])
    }
    damaged = {run: warned.pop(run) for run in runs.settings if run[0] == "rate_too_high"}
    assert len(damaged) == 2
    assert all(
        {"entropy rises", "format errors rise", "tool use is gone"} <= names for names in damaged.values()
    )
    assert [len(names) for names in warned.values()] == [1, 0, 1, 0, 0, 0]  # as docs/training.md says
    assert set().union(*warned.values()) == {"format errors rise"}
    assert len({seed for arm, seed in runs.settings if arm == "bonus"}) == 3


def test_a_study_of_tool_speculation_is_packed_when_it_is_finished_and_comes_out_again(runs, tmp_path):
    folder = runs / recorded.TOOLS
    for name in ("plan.json", "science/runs.jsonl", "weak_speculator/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    with pytest.raises(StageError, match="tools is not finished"):
        recorded.pack_tools(tmp_path / "a.tar.xz")
    (folder / "vision").mkdir()
    (folder / "vision" / "runs.jsonl").write_text("")
    first = recorded.pack_tools(tmp_path / "a.tar.xz").read_bytes()
    assert recorded.pack_tools(tmp_path / "b.tar.xz").read_bytes() == first
    folder.rename(tmp_path / "before")
    assert recorded.unpack_tools(tmp_path / "a.tar.xz") == [folder]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        *("RECORDED", "plan.json", "science/runs.jsonl", "vision/runs.jsonl")
    }
    with pytest.raises(StageError, match="unpacked, not run here"):
        recorded.pack_tools(tmp_path / "c.tar.xz")


def test_the_recorded_study_of_tool_speculation_is_whole_and_its_lossless_arms_changed_nothing():
    archive = resolve(recorded.TOOLS_ARCHIVE)
    assert archive.stat().st_size < 1e6
    study = read_tool_study(archive, Bootstrap(draws=20))
    assert list(study.profiles) == ["long_thinking", "science", "research", "coding"]
    results = study.results()
    lossless = results[results["lossless"]]
    assert (lossless["same_messages"] == lossless["n"]).all()
    assert (lossless["same_answers"] == lossless["n"]).all()
    assert len(study.validation) == 3 * study.parameters["validation"]
    assert {arm: len(runs) for arm, runs in study.vision.items()} == dict.fromkeys(
        ("baseline_without_gate", "baseline_with_gate", "exact_without_gate", "exact_with_gate"), 4
    )
