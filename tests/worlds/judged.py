"""Judged records for tests: a word or two say what a sample is and what was answered."""

from __future__ import annotations

from types import SimpleNamespace

from speceyes_lib.judging.stage import judge_record
from speceyes_lib.runs.records import AgentRecord, Failure, JudgedRecord

OPTIONS = ("red", "blue", "dark red", "green")


def judged(
    id: str,
    answer: str | None,
    truth: str = "A",
    *,
    group: str = "",
    kind: str = "",
    protocol: str = "strict",
) -> JudgedRecord:
    """A baseline's answer to a sample of the benchmark its id names; None: the sample failed."""
    benchmark = id.split("/")[0]
    options = None if benchmark == "pope" else OPTIONS
    sample = SimpleNamespace(
        id=id,
        benchmark=benchmark,
        options=options,
        answer=truth,
        standard=truth if options is None else f"{truth}. {options['ABCD'.index(truth)]}",
        question="What color?",
        meta={"group": group or id, "category": kind},
        boxes=(),
    )
    failed = answer is None
    record = AgentRecord(
        id=id,
        run_mode="baseline",
        status="error" if failed else "ok",
        error=Failure(type="image_error", message="broken") if failed else None,
        decision="baseline",
        used="large",
        answer=answer,
    )
    return judge_record(sample, record, protocol)
