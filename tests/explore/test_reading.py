"""A run is read as far as it has come, and never changed by being looked at."""

from __future__ import annotations

import io
import shutil

import pytest
from explore_run import evidence, store_drafts, store_run
from PIL import Image

from speceyes_lib.errors import DataError
from speceyes_lib.explore import reading
from speceyes_lib.explore.reading import Run
from speceyes_lib.paths import run_dir, stage_dir
from speceyes_lib.report import sample_view
from speceyes_lib.tasks.pictures import ImageRef

TASK = "vstar/direct_attributes"


@pytest.fixture
def run(tmp_path, monkeypatch, stored_run) -> Run:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    shutil.copytree(stored_run, tmp_path / "runs")
    return Run("small")


def contents(name: str) -> dict:
    return {p: p.read_bytes() for p in sorted(run_dir(name).rglob("*")) if p.is_file()}


def test_a_finished_run_is_read_whole_and_nothing_is_noted(run, scene_samples):
    assert len(run.tasks) == 7
    assert run.arms[0] == "collect"
    assert run.records("collect").keys() == run.judged("collect").keys() == {s.id for s in scene_samples}
    assert run.notes(["01_draft", "02_collect", "03_judging/collect"]) == []
    assert reading.runs() == ["small"]
    assert reading.agent_of("small") == "agent"


def test_looking_at_a_run_in_progress_shows_what_is_there_and_changes_nothing(run):
    folder = stage_dir("small", "02_collect", TASK)
    (folder / "manifest.json").unlink()
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # the fourth is being written
    before = contents("small")
    again = Run("small")
    assert len([i for i in again.records("collect") if i.startswith(TASK)]) == 3
    assert again.notes(["02_collect"]) == [f"02_collect of {TASK} is in progress: 3 records so far"]
    again.evidence(next(iter(again.records("collect"))))
    assert contents("small") == before


def test_what_has_not_run_is_a_sentence(run):
    assert Run("small").notes(["02_specreason"])[0] == f"02_specreason of {TASK} has not run"
    assert Run("no such run").notes(["01_draft"]) == [
        "run no such run holds no answers; make reproduce makes the embedded run"
    ]


def test_a_changed_file_is_told_and_the_rest_is_shown(run):
    with (stage_dir("small", "02_collect", TASK) / "records.jsonl").open("a") as file:
        file.write("{}\n")
    again = Run("small")
    (note,) = again.notes(["02_collect"])
    assert "is not the file its manifest speaks of" in note
    assert not [i for i in again.records("collect") if i.startswith(TASK)]
    assert again.records("collect")


def test_evidence_of_one_sample_is_what_was_stored(run):
    id_, record = next((i, r) for i, r in run.records("collect").items() if r.status == "ok")
    assert run.evidence(id_).equals(evidence(id_, record.draft.n_tokens))
    assert run.evidence(f"{TASK}/nobody") is None


def test_evidence_of_a_stage_in_progress_is_not_there_yet(run):
    drafts = {i: d for i, d in run.drafts().items() if i.startswith(TASK)}
    store_drafts("young", drafts, {}, finish=False)
    assert len(Run("young").drafts()) == len(drafts)
    assert Run("young").evidence(next(iter(drafts))) is None


def test_without_the_benchmark_there_are_no_samples(run, tmp_path, scene_samples, benchmark_root):
    assert run.sample(scene_samples[0].id).question == scene_samples[0].question
    store_run("moved", scene_samples, tmp_path / "gone")
    assert Run("moved").sample(scene_samples[0].id) is None


def test_token_texts_come_from_the_draft_models_tokenizer_where_it_is(run):
    assert run.token_text(7) == "#7"
    store_drafts("named", run.drafts(), {"draft_model": "data/demo/models/draft"})
    token = Run("named").token_text
    assert len({token(i) for i in range(100, 140)}) > 30
    assert "#" not in token(100)


def save(path, size=(60, 40), **options) -> ImageRef:
    Image.new("RGB", size, "red").save(path, **options)
    return ImageRef(path)


def test_a_small_picture_travels_as_it_is_stored(tmp_path):
    ref = save(tmp_path / "a.png")
    told = sample_view.picture(ref)
    assert (told.data, told.mime) == (ref.path.read_bytes(), "image/png")
    assert (told.width, told.height) == (60, 40)


@pytest.mark.parametrize(("name", "size"), [("a.bmp", (60, 40)), ("b.jpg", (5000, 2500))])
def test_what_no_browser_shows_or_is_too_large_travels_as_a_smaller_jpeg(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(sample_view, "LARGEST_BYTES", 10_000)
    told = sample_view.picture(save(tmp_path / name, size))
    shown = Image.open(io.BytesIO(told.data))
    assert told.mime == "image/jpeg"
    assert (told.width, told.height) == size  # boxes are in pixels of the original
    assert max(shown.size) <= sample_view.LARGEST_SIDE_PX
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_turned_picture_has_the_size_people_see(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    told = sample_view.picture(save(tmp_path / "turned.jpg", exif=turned))
    assert (told.width, told.height) == (40, 60)


def test_a_missing_picture_is_told_and_found_once_it_is_back(tmp_path):
    ref = ImageRef(tmp_path / "late.png")
    with pytest.raises(DataError, match="cannot read the picture"):
        sample_view.picture(ref)
    save(ref.path)
    assert sample_view.picture(ref).width == 60


def test_no_more_pictures_are_kept_than_said(tmp_path):
    for i in range(sample_view.PICTURES_KEPT + 5):
        sample_view.picture(save(tmp_path / f"{i}.png"))
    assert sample_view.picture.cache_info().currsize == sample_view.PICTURES_KEPT
