"""The embedded benchmark: official layouts, right answers, same bytes for the same seed, nothing half done."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.demo import benchmark, scenes
from speceyes_lib.demo.benchmark import HABITS, absent_objects, compare, damaged, generate, scene_rows
from speceyes_lib.errors import DataError, UserError
from speceyes_lib.params import PrepareParams
from speceyes_lib.tasks.registry import BENCHMARKS, TASKS, load_task

SMALL = {"vstar": 6, "hr": 4, "pope": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded") / "data"
    generate(folder, seed=7, sizes=SMALL)
    return folder


@pytest.fixture(scope="module")
def tasks(root) -> dict:
    return {task: load_task(task, root) for task in TASKS}


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def color_at(sample, box) -> str:
    """The named colour nearest to the middle of a V* box (x, y, width, height)."""
    x, y, w, h = box
    pixel = np.array(sample.image.open().getpixel((int(x + w / 2), int(y + h / 2))))
    return min(scenes.COLOR_RGB, key=lambda c: np.abs(pixel - scenes.COLOR_RGB[c]).sum())


# ------------------------------------------------------------------------------------------------- content
def test_every_split_has_the_requested_size(tasks):
    sizes = {task: len(samples) for task, samples in tasks.items()}
    expected = {"vstar": SMALL["vstar"], "hr": 4 * SMALL["hr"], "pope": 2 * SMALL["pope"]}
    assert sizes == {task: expected[task.split("/")[0]] for task in TASKS}


def test_vstar_names_its_right_option_first_and_its_pixels_agree(tasks):
    checked = 0
    for sample in tasks["vstar/direct_attributes"]:
        assert sample.answer == "A"
        if "color" in sample.question:
            assert color_at(sample, sample.boxes[0]) == sample.options[0]
            checked += 1
        else:
            assert f"the {color_at(sample, sample.boxes[0])} object" in sample.question
    assert checked == SMALL["vstar"] / 2


def test_vstar_relations_agree_with_the_boxes(tasks):
    for sample in tasks["vstar/relative_position"]:
        (ax, ay, aw, ah), (bx, by, bw, bh) = sample.boxes
        across, down = (bx + bw / 2) - (ax + aw / 2), (by + bh / 2) - (ay + ah / 2)
        if len(sample.options) == 2 or abs(across) > abs(down):
            assert sample.answer_text == ("left" if across > 0 else "right")
        else:
            assert sample.answer_text == ("above" if down > 0 else "below")


@pytest.mark.parametrize("task", ["hr/hr_bench_4k", "hr/hr_bench_8k"])
def test_hr_questions_come_in_four_cyclic_orders_with_one_right_text(tasks, task):
    groups: dict[str, list] = {}
    for sample in tasks[task]:
        groups.setdefault(sample.meta["group"], []).append(sample)
    assert len(groups) == SMALL["hr"]
    for orders in groups.values():
        first = orders[0].options
        assert [s.options for s in orders] == [first[i:] + first[:i] for i in range(4)]
        assert sorted(s.answer for s in orders) == ["A", "B", "C", "D"]
        assert len({s.answer_text for s in orders}) == 1
        assert [s.meta["cycle"] for s in orders] == ["0", "1", "2", "3"]
    assert {s.meta["category"] for s in tasks[task]} == {"single", "cross"}
    assert {s.image.open().width for s in tasks[task]} == {benchmark.HR_SIDE_PX[task[3:]]}


def test_pope_splits_share_pictures_and_positive_questions(tasks):
    splits = [tasks[f"pope/{split}"] for split in ("adversarial", "popular", "random")]
    for rows in zip(*splits, strict=True):
        assert len({s.image.read() for s in rows}) == 1
        assert len({s.answer for s in rows}) == 1
        if rows[0].answer == "yes":
            assert len({s.question for s in rows}) == 1
    assert Counter(s.answer for s in splits[0]) == {"yes": SMALL["pope"], "no": SMALL["pope"]}


def test_pope_absent_objects_follow_the_published_definitions():
    # circle is everywhere but beside the star; the star's companion is the cross
    present = [("circle", "square")] * 5 + [("star", "cross")] * 3 + [("star",)]
    absent = absent_objects(present, random.Random(0))
    assert absent["popular"][-1] == "circle"
    assert absent["adversarial"][-1] == "cross"
    assert absent["adversarial"][0] == "triangle"  # nothing else meets circles: a tie, the first counts


@given(st.lists(st.sampled_from(list(HABITS)), min_size=1, max_size=30), st.integers(0, 99))
def test_pope_never_asks_for_a_present_object_as_absent(present, seed):
    for chosen in absent_objects(present, random.Random(seed)).values():
        assert len(chosen) == len(present)
        assert not any(o in objects for o, objects in zip(chosen, present, strict=True))


def test_difficulty_is_known_for_every_sample_in_the_stated_mix(root, tasks):
    rows = scene_rows(root)
    assert set(rows) == {s.id for samples in tasks.values() for s in samples}
    for task, samples in tasks.items():
        share = benchmark.EASY_SHARE.get(task) or benchmark.EASY_SHARE["pope"]
        n_easy = len({s.meta["group"] for s in samples if rows[s.id].w >= scenes.HARD_W})
        assert n_easy == round(share * len({s.meta["group"] for s in samples}))


def test_vstar_boxes_lie_in_the_scene_s_window(root, tasks):
    rows = scene_rows(root)
    for sample in tasks["vstar/direct_attributes"]:
        side, row = sample.image.open().width, rows[sample.id]
        for x, y, w, h in sample.boxes:
            assert row.x0 * side - 1 <= x <= x + w <= (row.x0 + row.w) * side + 1
            assert row.y0 * side - 1 <= y <= y + h <= (row.y0 + row.w) * side + 1


# -------------------------------------------------------------------------------------------- reproducibility
def test_same_seed_gives_the_same_bytes_and_another_seed_shares_no_picture(root, tmp_path):
    generate(tmp_path / "again", seed=7, sizes=SMALL)
    assert contents(tmp_path / "again") == contents(root)
    generate(tmp_path / "other", seed=8, sizes=SMALL)
    pictures = [
        {s.image.read() for task in TASKS for s in load_task(task, folder)}
        for folder in (root, tmp_path / "other")
    ]
    assert not pictures[0] & pictures[1]


def test_grounds_are_not_those_of_training():
    assert benchmark.bank_seed(0) > scenes.TRAIN_BACKGROUNDS
    ours = scenes.bank(benchmark.bank_seed(7), count=2)
    training = scenes.bank(scenes.TRAIN_BACKGROUNDS)
    assert not {g.tobytes() for g in ours} & {g.tobytes() for g in training}


def test_generating_again_touches_nothing_and_repairs_what_was_damaged(tmp_path):
    folder = tmp_path / "data"
    generate(folder, seed=7, sizes=SMALL)
    before = contents(folder)
    stamp = (folder / benchmark.MANIFEST).stat().st_mtime_ns
    generate(folder, seed=7, sizes=SMALL)
    assert (folder / benchmark.MANIFEST).stat().st_mtime_ns == stamp
    (folder / "hr" / "hr_bench_4k.tsv").write_text("cut")
    (folder / "difficulty.csv").unlink()
    assert damaged(folder) == ["difficulty.csv", "hr/hr_bench_4k.tsv"]
    generate(folder, seed=7, sizes=SMALL)
    assert contents(folder) == before


def test_killed_generation_leaves_nothing_that_looks_complete(tmp_path):
    folder = tmp_path / "data"
    code = f"from speceyes_lib.demo.benchmark import generate; generate({str(folder)!r}, seed=7)"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 1800
    while not list(tmp_path.glob("data.partial/vstar/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("data.partial/vstar/*/*.jpg")), (
        "killed before it wrote anything: proves nothing"
    )
    assert not folder.exists()
    generate(folder, seed=7, sizes=SMALL)
    assert damaged(folder) == []
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_with_other_data_is_never_overwritten(tmp_path):
    (tmp_path / "vstar").mkdir()
    (tmp_path / "vstar" / "precious.jpg").write_bytes(b"1")
    with pytest.raises(UserError, match="did not write; nothing was touched"):
        generate(tmp_path, seed=7, sizes=SMALL)
    assert (tmp_path / "vstar" / "precious.jpg").read_bytes() == b"1"
    with pytest.raises(DataError, match="not written by the generator"):
        damaged(tmp_path)


@pytest.mark.parametrize(
    ("seed", "sizes", "message"),
    [
        (-1, {}, "seed is -1"),
        (7, {"vstr": 4}, "unknown name 'vstr'.*did you mean 'vstar'"),
        (7, {"hr": 0}, "hr is 0, expected at least 1"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, seed, sizes, message):
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "data", seed=seed, sizes=sizes)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ committed checksums
@pytest.fixture
def accepted(root, tmp_path, monkeypatch) -> Path:
    committed = {
        "packages": {"pillow": "1.0"},
        "benchmark": json.loads((root / benchmark.MANIFEST).read_text()),
    }
    path = tmp_path / "checksums.json"
    path.write_text(json.dumps(committed))
    monkeypatch.setattr(benchmark, "checksums_file", lambda: path)
    return path


def test_comparison_with_the_committed_checksums_reports_the_differences(root, accepted):
    compared = compare(root, "benchmark")
    assert compared.identical
    assert "identical to the committed checksums" in compared.note


def test_data_that_differs_from_the_committed_checksums_is_named(root, accepted):
    committed = json.loads(accepted.read_text())
    committed["benchmark"]["files"]["difficulty.csv"] = "0" * 64
    accepted.write_text(json.dumps(committed))
    compared = compare(root, "benchmark")
    assert not compared.identical
    assert compared.differing == ("difficulty.csv",)
    assert "1 of" in compared.note
    assert "made with pillow 1.0" in compared.note


def test_data_of_another_seed_is_not_compared(accepted, tmp_path):
    generate(tmp_path / "data", seed=9, sizes={"vstar": 1, "hr": 1, "pope": 1})
    compared = compare(tmp_path / "data", "benchmark")
    assert (compared.comparable, compared.identical) == (False, False)


@pytest.fixture(scope="module")
def default(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("default") / "data"
    generate(folder, PrepareParams().seed)
    return folder


def test_the_default_benchmark_is_what_the_committed_checksums_say(default):
    committed = json.loads(benchmark.checksums_file().read_text("utf-8"))
    if committed["packages"] != benchmark.packages_in_use():
        pytest.skip(f"checksums hold for {committed['packages']}, here are {benchmark.packages_in_use()}")
    assert compare(default, "benchmark").identical
    assert committed["validation"]["seed"] != committed["benchmark"]["seed"]


def test_the_default_benchmark_has_at_least_60_samples_per_split(default):
    assert min(len(load_task(task, default)) for task in TASKS) >= 60


def test_the_three_pope_splits_of_the_default_benchmark_really_differ(default):
    questions = {
        split: [s.question for s in load_task(f"pope/{split}", default)]
        for split in BENCHMARKS["pope"].splits
    }
    for a, b in combinations(questions.values(), 2):
        assert sum(x != y for x, y in zip(a, b, strict=True)) >= len(a) / 8  # a quarter of the "no" questions
