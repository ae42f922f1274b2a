"""The judging stage: every answer of a record is judged, and nothing is mixed or lost between sessions."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic_run import make_run, make_samples, write_answers, write_vstar

from speceyes_lib.errors import DataError, StageError
from speceyes_lib.judging.stage import boxes_fraction, judge_record, preview_verdicts, run_judging
from speceyes_lib.judging.verdict_frames import verdict_frame
from speceyes_lib.params import JudgingParams
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord, Failure, JudgedRecord, Trajectory

TASK = "vstar/direct_attributes"
# options red, blue, dark red, green; the right one is A
SAMPLE = dataclasses.replace(
    make_samples(1, (TASK,))[0],
    options=("red", "blue", "dark red", "green"),
    meta={"group": "q1", "category": "single"},
)


def test_an_undecided_answer_was_decided_by_nobody():
    record = AgentRecord(
        id=SAMPLE.id,
        run_mode="baseline",
        status="ok",
        decision="baseline",
        used="large",
        answer="red or blue",
    )
    (verdict,) = judge_record(SAMPLE, record).verdicts
    assert (verdict.verdict, verdict.decided_by, verdict.by_rule) == ("undecided", "none", "undecided")


def test_every_answer_a_record_was_made_from_is_judged():
    record = AgentRecord(
        id=SAMPLE.id,
        run_mode="collect",
        status="ok",
        decision="collected",
        used="large",
        answer="red",
        draft=DraftRecord(id=SAMPLE.id, status="ok", answer="blue"),
        trajectory=Trajectory(status="ok", answer="red"),
        first_look=Trajectory(status="error", error=Failure(type="turn_limit", message="no answer")),
    )
    judged = judge_record(SAMPLE, record, target_fraction=0.25)
    by_source = {v.source: v.verdict for v in judged.verdicts}
    assert by_source == {"final": "right", "draft": "wrong", "agent": "right", "first_look": "error"}
    assert all(v.standard == "A. red" and v.protocol == "strict" for v in judged.verdicts)
    assert all(v.decided_by == "rule" for v in judged.verdicts)
    assert (judged.group, judged.kind, judged.target_fraction) == ("q1", "single", 0.25)
    without = judge_record(SAMPLE, record.model_copy(update={"first_look": None, "draft": None}))
    assert [v.source for v in without.verdicts] == ["final", "agent"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with answers of three arms on eight V* samples, and the benchmark they answer."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    arms, _ = make_run(per_task=8, tasks=(TASK,))
    write_answers("r", arms)
    write_vstar(tmp_path / "bench", make_samples(8, (TASK,)))
    return JudgingParams(
        run="r", tasks=[TASK], arms=["collect", "baseline", "gated"], data_root=str(tmp_path / "bench")
    )


def test_the_stage_judges_every_arm_and_knows_the_target_size(run):
    seen = []
    folders = run_judging(run, lambda done, total, text="": seen.append((done, total, text)))
    assert len(folders) == 3
    judged = read_stage("r", "03_judging/collect", TASK, JudgedRecord)
    assert judged.manifest.counts.done == 8
    assert judged.manifest.config["protocol"] == "strict"
    sources = [v.source for v in judged.records[f"{TASK}/003"].verdicts]
    assert sources == ["final", "draft", "agent", "first_look"]
    assert seen[0] == (0, 8, f"{TASK} · collect")
    assert seen[-1] == (8, 8, f"{TASK} · gated")


def test_a_preview_is_what_the_stage_stores(run):
    preview = preview_verdicts(run, 3)
    run_judging(run)
    stored = read_stage("r", "03_judging/collect", TASK, JudgedRecord).records
    assert preview.equals(verdict_frame(list(stored.values())[:3]))


def test_sizes_come_from_the_sidecar_or_else_from_boxes(run, tmp_path):
    record = next(iter(read_stage("r", "02_collect", TASK, AgentRecord).records.values()))
    boxed = dataclasses.replace(SAMPLE, boxes=((4, 4, 10, 5), (20, 2, 4, 4)))
    known = record.model_copy(update={"trajectory": Trajectory(status="ok", image_px=(40, 20))})
    assert boxes_fraction(boxed, known) == pytest.approx(20 / 40)
    (tmp_path / "bench" / "difficulty.csv").write_text(f"id,w\n{TASK}/002,0.125\n")
    run_judging(run)
    stored = read_stage("r", "03_judging/collect", TASK, JudgedRecord).records
    assert stored[f"{TASK}/002"].target_fraction == 0.125
    (tmp_path / "bench" / "difficulty.csv").write_text("id,size\na,1\n")
    with pytest.raises(DataError, match="columns id and w"):
        run_judging(run)


def test_another_protocol_is_not_mixed_into_finished_verdicts(run):
    run_judging(run)
    other = run.model_copy(update={"protocol": "paper"})
    with pytest.raises(StageError, match="protocol"):
        run_judging(other)
    run_judging(other.model_copy(update={"if_changed": "restart"}))
    assert read_stage("r", "03_judging/gated", TASK, JudgedRecord).manifest.config["protocol"] == "paper"


def test_judging_before_the_answers_names_the_notebook_to_run(run):
    with pytest.raises(StageError, match="02_gated_agent_eval"):
        run_judging(run.model_copy(update={"arms": ["gated_batched"], "run": "other"}))


def test_answers_to_another_benchmark_are_refused(run, tmp_path):
    write_vstar(tmp_path / "other", make_samples(4, (TASK,)))
    with pytest.raises(StageError, match="set data_root"):
        run_judging(run.model_copy(update={"data_root": str(tmp_path / "other")}))
