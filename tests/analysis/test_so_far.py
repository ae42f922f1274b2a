"""A run that works is read as it grows: each record once, with what the rules say of it."""

from __future__ import annotations

import pytest

from speceyes_lib.analysis.so_far import RunSoFar
from speceyes_lib.paths import stage_dir
from speceyes_lib.runs.records import AgentRecord, DraftRecord, Failure
from speceyes_lib.tasks.registry import load_task

TASK = "vstar/direct_attributes"


@pytest.fixture
def samples(benchmark_root, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    return load_task(TASK, benchmark_root)


def record(sample, decision="accepted", answer=None, failure=None) -> AgentRecord:
    right = answer or sample.answer
    return AgentRecord(
        id=sample.id, run_mode="gated", status="error" if failure else "ok", decision=decision, used="small",
        answer=None if failure else right, decode_s=0.5, error=failure and Failure(type="image", message=failure),
    )  # fmt: skip


def append(run, stage, *records) -> None:
    path = stage_dir(run, stage, TASK) / "records.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{r.model_dump_json()}\n" for r in records))


def test_what_is_appended_is_added_and_an_unfinished_line_waits(samples, benchmark_root):
    run = RunSoFar("r", ["baseline", "gated"], [TASK], str(benchmark_root))
    assert run.update() == []
    append("r", "02_gated", record(samples[0]), record(samples[1], "rejected", answer="E"))
    (gated,) = run.update()
    assert (gated.name, gated.done, gated.expected, gated.wall_s) == ("gated", 2, 6, 1.0)
    assert gated.decisions == {"accepted": 1, "rejected": 1}
    assert (gated.accuracy.value, gated.accuracy.n) == (50.0, 2)

    path = stage_dir("r", "02_gated", TASK) / "records.jsonl"
    whole = path.read_bytes()
    line = f"{record(samples[2], failure='no picture').model_dump_json()}\n".encode()
    path.write_bytes(whole + line[:40])
    assert run.update()[0].done == 2
    path.write_bytes(whole + line)
    (gated,) = run.update()
    assert gated.decisions["failed"] == 1
    assert gated.accuracy.n == 3  # a failed sample is not right
    assert [(f.arm, f.id, f.failure.message) for f in run.failures()] == [
        ("gated", samples[2].id, "no picture")
    ]
    widths = gated.course[:, 3] - gated.course[:, 2]
    assert gated.course[:, 0].tolist() == [1, 2, 3]
    assert gated.course[:, 1] == pytest.approx([100, 50, 100 / 3])
    assert widths[2] < widths[0]


def test_a_stage_that_begins_again_is_counted_anew(samples, benchmark_root):
    run = RunSoFar("r", ["gated"], [TASK], str(benchmark_root), limit=4)
    append("r", "02_gated", *map(record, samples[:3]))
    assert (run.update()[0].done, run.update()[0].expected) == (3, 4)
    path = stage_dir("r", "02_gated", TASK) / "records.jsonl"
    path.rename(path.with_suffix(".old"))
    append("r", "02_gated", record(samples[0]))
    assert run.update()[0].done == 1


def test_shards_count_once_and_drafts_come_first(samples, benchmark_root):
    run = RunSoFar("r", ["gated"], [TASK], str(benchmark_root))
    drafts = [DraftRecord(id=s.id, status="ok", answer=s.answer, draft_s=0.1) for s in samples[:3]]
    append("r/shards/1of2", "01_draft", *drafts[:2])
    append("r/shards/2of2", "01_draft", drafts[2])
    append("r", "01_draft", drafts[0])  # the merge has begun
    append("r", "02_gated", record(samples[0]))
    assert [(arm.name, arm.done) for arm in run.update()] == [("draft_only", 3), ("gated", 1)]
    assert run.update()[0].accuracy.value == 100.0


def test_without_the_benchmark_only_the_verdicts_are_missing(samples, tmp_path):
    run = RunSoFar("r", ["gated"], [TASK], str(tmp_path / "nowhere"))
    append("r", "02_gated", record(samples[0]))
    (gated,) = run.update()
    assert (gated.done, gated.expected, gated.accuracy, len(gated.course)) == (1, 0, None, 0)
