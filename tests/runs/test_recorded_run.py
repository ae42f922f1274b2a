"""A run is read as far as it has come, and never changed by being looked at."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from explore_run import evidence, store_drafts, store_run

from speceyes_lib.errors import StageError
from speceyes_lib.paths import run_dir, stage_dir
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.reading import read_manifest
from speceyes_lib.runs.recorded_run import RecordedRun

TASK = "vstar/direct_attributes"


@pytest.fixture
def run(tmp_path, monkeypatch, stored_run) -> RecordedRun:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    shutil.copytree(stored_run, tmp_path / "runs")
    return opened("small")


def opened(name: str) -> RecordedRun:
    return recorded_run.open(name, strict=False)


def contents(name: str) -> dict:
    return {p: p.read_bytes() for p in sorted(run_dir(name).rglob("*")) if p.is_file()}


def test_a_finished_run_is_read_whole_and_nothing_is_noted(run, scene_samples):
    assert len(run.tasks) == 7
    assert run.arms[0] == "collect"
    assert run.records("collect").keys() == run.judged("collect").keys() == {s.id for s in scene_samples}
    assert run.notes(["01_draft", "02_collect", "03_judging/collect"]) == []
    assert recorded_run.list_runs() == ["small"]
    assert run.agent == "agent"


def test_looking_at_a_run_in_progress_shows_what_is_there_and_changes_nothing(run):
    folder = stage_dir("small", "02_collect", TASK)
    (folder / "manifest.json").unlink()
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # the fourth is being written
    before = contents("small")
    again = opened("small")
    assert len([i for i in again.records("collect") if i.startswith(TASK)]) == 3
    assert again.notes(["02_collect"]) == [f"02_collect of {TASK} is in progress: 3 records so far"]
    again.evidence(next(iter(again.records("collect"))))
    assert contents("small") == before


def test_what_has_not_run_is_a_sentence(run):
    assert opened("small").notes(["02_specreason"])[0] == f"02_specreason of {TASK} has not run"
    assert opened("no such run").notes(["01_draft"]) == [
        "run no such run holds no answers; make reproduce makes the embedded run"
    ]


def test_a_changed_file_is_reported_and_the_rest_is_shown(run):
    with (stage_dir("small", "02_collect", TASK) / "records.jsonl").open("a") as file:
        file.write("{}\n")
    again = opened("small")
    (note,) = again.notes(["02_collect"])
    assert "is not the file its manifest describes" in note
    assert not [i for i in again.records("collect") if i.startswith(TASK)]
    assert again.records("collect")


def test_evidence_of_one_sample_is_what_was_stored(run):
    id_, record = next((i, r) for i, r in run.records("collect").items() if r.status == "ok")
    assert run.evidence(id_).equals(evidence(id_, record.draft.n_tokens))
    assert run.evidence(f"{TASK}/unknown") is None


def test_evidence_of_a_stage_in_progress_is_not_there_yet(run):
    drafts = {i: d for i, d in run.drafts().items() if i.startswith(TASK)}
    store_drafts("young", drafts, {}, finish=False)
    assert len(opened("young").drafts()) == len(drafts)
    assert opened("young").evidence(next(iter(drafts))) is None


def test_without_the_benchmark_there_are_no_samples(run, tmp_path, scene_samples, benchmark_root):
    assert run.sample(scene_samples[0].id).question == scene_samples[0].question
    store_run("moved", scene_samples, tmp_path / "gone")
    assert opened("moved").sample(scene_samples[0].id) is None


# ------------------------------------------------------------------ strict


def test_a_run_that_is_not_there_and_a_stage_that_did_not_run_are_refused(run):
    with pytest.raises(StageError, match="make reproduce"):
        recorded_run.open("no such run")
    with pytest.raises(StageError, match="02_gated_agent_eval"):
        recorded_run.open("small").records("specreason")
    with pytest.raises(StageError, match="does not exist"):
        recorded_run.open("no such run", tasks=[TASK]).drafts()


def test_every_part_is_read_once_and_shared_with_a_selection_of_tasks(run, monkeypatch):
    whole = recorded_run.open("small")
    records = whole.records("collect")
    monkeypatch.setattr(recorded_run, "read_stage", None)  # nothing is read again
    assert whole.records("collect") is records
    part = whole.select([TASK])
    assert part.tasks == (TASK,)
    assert part.records("collect").items() <= records.items()
    assert part.config("02_collect") == whole.config("02_collect")


def test_what_is_missing_is_named_and_the_rest_is_offered(run):
    assert run.missing == recorded_run.open("small").missing == ()
    (stage_dir("small", "02_gated", TASK) / "manifest.json").unlink()
    strict = recorded_run.open("small")
    assert "gated" not in strict.arms
    assert "gated" in opened("small").arms
    assert TASK not in strict.finished("02_gated")
    assert [TASK in note and "is unfinished" in note for note in strict.missing] == [True]
    with pytest.raises(StageError, match="is unfinished; run 02_gated_agent_eval first"):
        strict.records("gated")


def test_all_evidence_is_that_of_every_draft_that_has_some(run):
    drafts = {id_: draft for id_, draft in run.drafts().items() if draft.status == "ok"}
    stored = run.all_evidence()
    assert stored.keys() == drafts.keys()
    assert all(stored[id_].equals(run.evidence(id_)) for id_ in list(drafts)[:5])
    logprobs = run.all_top_logprobs()
    assert list(logprobs) == list(stored)
    assert all(np.array_equal(logprobs[id_], stored[id_].top_logprobs) for id_ in stored)
    (stage_dir("small", "01_draft", TASK) / "manifest.json").unlink()
    assert opened("small").all_evidence() == opened("small").all_top_logprobs() == {}


def test_verdicts_on_answers_that_were_replaced_since_are_refused(run):
    folder = stage_dir("small", "02_collect", TASK)
    manifest = read_manifest(folder, "02_collect", TASK)
    judging = stage_dir("small", "03_judging/collect", TASK) / "manifest.json"
    verdicts = read_manifest("small", "03_judging/collect", TASK)
    for digest, refused in ((manifest.outputs["records.jsonl"], False), ("another", True)):
        changed = verdicts.model_copy(
            update={"inputs": verdicts.inputs | {"records": digest}, "checksum": ""}
        )
        judging.write_text(changed.model_dump_json())
        if refused:
            with pytest.raises(StageError, match="of other answers"):
                recorded_run.open("small").judged("collect")
        else:
            assert recorded_run.open("small").judged("collect")


@pytest.mark.parametrize(
    ("where", "value", "named"), [("inputs", {"code": "other"}, "code"), ("config", {"k": 1}, "k")]
)
def test_arms_that_were_made_from_other_things_are_not_compared(run, where, value, named):
    stages = {"gated": "02_gated", "gated_batched": "02_gated_batched"}
    for number, stage in enumerate(stages.values()):
        path = stage_dir("small", stage, TASK) / "manifest.json"
        manifest = read_manifest("small", stage, TASK)
        values = getattr(manifest, where) | (value if number else dict.fromkeys(value, "same"))
        path.write_text(manifest.model_copy(update={where: values, "checksum": ""}).model_dump_json())
    recorded = recorded_run.open("small", tasks=[TASK])
    recorded.check_comparable(["gated"])
    with pytest.raises(StageError, match=f"02_gated and 02_gated_batched .* differ in their {named}"):
        recorded.check_comparable(list(stages))
