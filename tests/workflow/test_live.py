"""A run is watched by what its jobs write while they work."""

from __future__ import annotations

import io
import threading

import pytest

from speceyes_lib.paths import run_dir, stage_dir
from speceyes_lib.runs.records import AgentRecord, Failure
from speceyes_lib.tasks.registry import load_task
from speceyes_lib.workflow import live
from speceyes_lib.workflow.config import RunConfig
from speceyes_lib.workflow.notebook import Progress


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))


def test_a_job_reports_how_far_it_is_and_leaves_no_file():
    with live.as_job("r", "02_gated_agent_eval"):
        with Progress("answered") as progress:
            progress(10, 40, "vstar/direct_attributes · gated")
            progress(40, 40, "vstar/direct_attributes · gated")
        (advance,) = live.advances("r")
        assert (advance.job, advance.verb) == ("02_gated_agent_eval", "answered")
        assert (advance.done, advance.total, advance.start) == (40, 40, 10)
    assert live.advances("r") == []
    with Progress("answered") as progress:  # by hand: nobody watches
        progress(1, 2)
    assert not list(run_dir("r").rglob("*.json"))


def test_the_line_has_rate_time_left_and_failed_samples():
    folder = stage_dir("r", "02_gated", "vstar/direct_attributes")
    folder.mkdir(parents=True)
    failed = AgentRecord(
        id="vstar/direct_attributes/1", run_mode="gated", status="error",
        error=Failure(type="image", message="x"), decision="rejected", used="large", answer=None,
    )  # fmt: skip
    (folder / "records.jsonl").write_text(f"{failed.model_dump_json()}\n" * 2, "utf-8")
    text = "vstar/direct_attributes · gated"
    advance = live.Advance("02", "answered", 30, 90, 10, text, began_s=100.0, now_s=110.0)
    sentence = live.sentence("r", advance)
    assert sentence == f"r · {text} · answered 30 of 90 · 2/s · 30 s left · 2 failed"
    before = live.Advance("02", "answered", 10, 90, 10, text, began_s=100.0, now_s=110.0)
    assert live.sentence("r", before) == f"r · {text} · answered 10 of 90 · 2 failed"


def test_files_that_are_no_reports_are_left_out():
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"job": 1}')):
        path = live.file_of("r", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    assert live.line(["r", "none"], 3, 8) == "3 of 8 jobs"


def test_a_log_gets_whole_lines_in_between():
    out, asked = io.StringIO(), threading.Event()

    def text() -> str:
        asked.set()
        return "1 of 2 jobs"

    with live.LiveLine(text, out, every_s=0.001) as line:
        assert asked.wait(1800)
        line.print("a: done in 1 s")
    assert "a: done in 1 s" in out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()


def test_the_page_of_a_run_at_work_shows_its_records_and_its_end(benchmark_root):
    task = "vstar/direct_attributes"
    samples = load_task(task, benchmark_root)
    records = [
        AgentRecord(id=s.id, run_mode="gated", status="ok", decision=d, used="small", answer=s.answer)
        for s, d in zip(samples, ["accepted", "rejected", "accepted"], strict=False)
    ]
    failed = AgentRecord(
        id=samples[3].id, run_mode="gated", status="error", decision="rejected", used="large", answer=None,
        error=Failure(type="image", message="<b>no picture</b>"),
    )  # fmt: skip
    folder = stage_dir("r", "02_gated", task)
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(f"{r.model_dump_json()}\n" for r in (*records, failed)))
    config = RunConfig(
        name="r", arms=["gated"], data={"root": str(benchmark_root), "tasks": [task]}, gate={"threshold": 0.9}
    )
    page = live.LivePage(config, lambda: 1, 4)
    assert not page.path.exists()
    with page:
        page.note("r: 01 done in 2 s")
    begun = page.path.read_text("utf-8")
    assert 'http-equiv="refresh"' in begun
    assert "75.0 [30.1, 95.4]" in begun  # three of four
    assert "2 accepted, 1 rejected, 1 failed" in begun
    assert "&lt;b&gt;no picture" in begun
    page.end("stopped")
    ended = page.path.read_text("utf-8")
    assert 'http-equiv="refresh"' not in ended
    assert "r: 01 done in 2 s" in ended


def test_a_page_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "r").write_text("in the place of its folder")
    page = live.LivePage(RunConfig(name="r", arms=["baseline"]), lambda: 1, 4)
    with page:
        pass
    page.end("stopped")
    assert not page.path.exists()
