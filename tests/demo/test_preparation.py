"""Stage 00 makes or checks the data, finds every unreadable picture, and keeps validation and benchmark apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from speceyes_lib.demo import benchmark, preparation
from speceyes_lib.demo.benchmark import damaged, generate
from speceyes_lib.errors import DataError, UserError
from speceyes_lib.params import PrepareParams
from speceyes_lib.runs.reading import read_manifest
from speceyes_lib.tasks.registry import TASKS, load_task

SMALL = {"vstar": 2, "hr": 2, "pope": 3}


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "benchmark", 2, SMALL)
    generate(folder / "validation", 3, SMALL)
    return folder


@pytest.fixture
def params(generated, tmp_path, monkeypatch) -> PrepareParams:
    """Parameters of a run on a copy of the small data."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    shutil.copytree(generated, tmp_path / "data")
    data = {f"{kind}_root": str(tmp_path / "data" / name) for kind, name in ROOTS.items()}
    return PrepareParams(run="t", seed=2, validation_seed=3, **data)


ROOTS = {"data": "benchmark", "validation": "validation"}


def test_intact_data_is_kept_and_missing_data_is_generated_again(params):
    root = preparation.roots(params)["benchmark"]
    stamp = (root / "generated.json").stat().st_mtime_ns
    preparation.provide_data(params)
    assert (root / "generated.json").stat().st_mtime_ns == stamp
    (root / "hr" / "hr_bench_8k.tsv").unlink()
    notes = preparation.provide_data(params)
    assert damaged(root) == []
    assert [note.split(":")[0] for note in notes] == ["benchmark", "validation"]


def test_generated_data_of_another_seed_is_replaced_only_on_request(params):
    other = params.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match="holds data of seed 2, expected seed 5"):
        preparation.provide_data(other)
    preparation.provide_data(other.model_copy(update={"if_changed": "restart"}))
    assert benchmark.read_manifest(preparation.roots(params)["benchmark"])["seed"] == 5


def test_checking_writes_nothing_into_the_data(params):
    root = preparation.roots(params)["benchmark"]
    (root / "generated.json").unlink()
    before = sorted(root.rglob("*"))
    notes = preparation.provide_data(params.model_copy(update={"kind": "check"}))
    assert sorted(root.rglob("*")) == before
    assert "read as it is" in notes[0]


def test_every_sample_of_both_sets_is_listed_with_what_a_reader_needs(params):
    seen = []
    frame = preparation.inventory(params, lambda done, total, text: seen.append((done, total, text)))
    per_set = 2 * SMALL["vstar"] + 2 * 4 * SMALL["hr"] + 3 * 2 * SMALL["pope"]
    assert frame.groupby("set").size().to_dict() == {"benchmark": per_set, "validation": per_set}
    assert seen[0] == (0, per_set, "benchmark")
    assert seen[-1] == (per_set, per_set, "validation")
    row = frame.set_index("id").loc["hr/hr_bench_8k/3"].iloc[0]
    assert (row["width_px"], row["height_px"]) == (1408, 1408)
    assert (frame["problem"] == "").all()
    assert frame["w"].between(0, 1).all()
    pope = frame[(frame["set"] == "benchmark") & (frame["task"] == "pope/random")]
    assert [len(pope), pope["group"].nunique(), pope["picture"].nunique()] == [6, 3, 3]


def test_an_unreadable_picture_is_one_row_with_its_problem_not_a_crash(params):
    root = preparation.roots(params)["benchmark"]
    (root / "vstar" / "direct_attributes" / "scene_001.jpg").write_bytes(b"\xff\xd8 cut off")
    frame = preparation.inventory(params)
    bad = frame[frame["problem"] != ""]
    assert bad["id"].tolist() == ["vstar/direct_attributes/scene_001"]
    assert "scene_001.jpg: not a readable picture" in bad["problem"].iloc[0]
    preparation.write_data_stage(params, frame, {"read_s": 1.0})
    counts = read_manifest("t", preparation.STAGE).counts
    assert (counts.expected, counts.failed) == (len(frame), 1)


def test_the_stage_identifies_the_content_of_its_data(params):
    def inputs() -> dict:
        preparation.write_data_stage(params, preparation.inventory(params), {})
        return read_manifest("t", "00_data").inputs

    first = inputs()
    assert set(first) == {"benchmark", "validation"}
    assert inputs() == first
    path = preparation.roots(params)["validation"] / "vstar" / "direct_attributes" / "scene_000.json"
    path.write_text(path.read_text().replace("What is", "Which is"))
    changed = inputs()
    assert changed["benchmark"] == first["benchmark"]
    assert changed["validation"] != first["validation"]


def test_a_picture_in_both_sets_is_refused(params):
    frame = preparation.inventory(params)
    benchmark_row = frame[frame["set"] == "benchmark"].iloc[[0]].assign(set="validation")
    with pytest.raises(DataError, match="1 pictures are in both"):
        preparation.write_data_stage(params, pd.concat([frame, benchmark_row]), {})
    alone = params.model_copy(update={"validation_root": ""})
    assert preparation.write_data_stage(alone, preparation.inventory(alone), {}).is_dir()


def test_figures_show_each_sample_in_three_views_and_each_task_once(params):
    root = preparation.roots(params)["benchmark"]
    samples = load_task("vstar/direct_attributes", root)
    cards = preparation.sample_cards(samples, root)
    assert [len(axis.images) for axis in cards.axes] == [1] * 6
    assert samples[0].question in cards.axes[0].get_title(loc="left")
    assert len(cards.axes[0].patches) == len(samples[0].boxes) + 1
    unknown = preparation.sample_cards(load_task("pope/random", root)[:1], root.parent)
    assert [len(axis.images) for axis in unknown.axes] == [1, 1, 0]
    histogram = preparation.difficulty_histogram(preparation.inventory(params))
    assert [axis.get_title() for axis in histogram.axes[: len(TASKS)]] == list(TASKS)
    drawn = sum(patch.get_height() for patch in histogram.axes[0].patches)
    assert drawn == SMALL["vstar"]
    sizes_unknown = preparation.inventory(params).assign(w=float("nan"))
    assert preparation.difficulty_histogram(sizes_unknown).axes == []


def test_a_real_data_set_without_scenes_is_shown_by_its_boxes(params):
    root = preparation.roots(params)["benchmark"]
    sample = load_task("vstar/relative_position", root)[0]
    x, y, w, h = preparation.region(sample, (700, 700), None)
    for bx, by, bw, bh in sample.boxes:
        assert x <= bx <= bx + bw <= x + w
        assert y <= by <= by + bh <= y + h
