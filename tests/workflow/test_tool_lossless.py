"""`speceyes tools lossless` with scripted models: equal runs are counted, and a difference is not."""

from __future__ import annotations

import pytest
from study_models import actor, color, guesses

from speceyes_lib.params import ToolLosslessParams
from speceyes_lib.tool_speculation.models import ScriptedPolicy
from speceyes_lib.tool_speculation.records import TaskRun
from speceyes_lib.workflow.cli import main
from speceyes_lib.workflow.tool_lossless import equal_runs, lossless_arms, run_lossless


def test_every_lossless_arm_is_compared_on_every_task_and_a_second_run_only_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    params = ToolLosslessParams(tasks=1, levels=[1, 2], threshold=0.1, tokens_per_s=500.0)
    models = [ScriptedPolicy(actor, name="actor"), ScriptedPolicy(guesses(True), name="speculator")]
    lines = []
    counts = run_lossless(params, models, color, lines.append)
    assert {count.arm for count in counts} == set(lossless_arms(0.1)) - {"baseline"}
    assert all((c.tasks, c.messages, c.answers, c.lossless) == (2, 2, 2, True) for c in counts)
    served = {count.arm: count.served for count in counts}
    assert served["exact"] > 0
    assert served["none"] == served["shadow"] == 0
    assert lines == ["1 of 2 tasks: equal", "2 of 2 tasks: equal"]
    records = (tmp_path / "tools_lossless" / "runs.jsonl").read_bytes()
    assert run_lossless(params, models, color, lines.append) == counts
    assert (tmp_path / "tools_lossless" / "runs.jsonl").read_bytes() == records


def run_of(task: str, arm: str, text: str, answer: str | None = "4", error: str | None = None) -> TaskRun:
    messages = [{"role": "assistant", "content": text}]
    return TaskRun(
        task_id=task,
        level=1,
        question="?",
        truth="4",
        arm=arm,
        settings={},
        answer=answer,
        error=error,
        messages=messages,
        models={},
        started="",
    )


def test_another_message_answer_or_failure_is_named():
    runs = [run_of(f"t{n}", "baseline", "a") for n in range(4)]
    runs += [run_of("t0", "exact", "a"), run_of("t1", "exact", "b"), run_of("t2", "exact", "a", "5")]
    runs += [run_of("t3", "exact", "a", None, "down"), run_of("t9", "exact", "b")]
    (count,) = equal_runs(runs)
    assert (count.tasks, count.messages, count.answers) == (4, 3, 2)
    assert count.differing == ["t1", "t2", "t3"]
    assert not count.lossless
    assert "t1, t2, t3" in count.line()


def test_its_mistakes_are_one_sentence(capsys):
    assert main(["tools", "lossless", "--batch"]) == 2
    assert "tools lossless has no batch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tools", "losless"])
    assert main(["tools", "lossless", "--set", "task=3"]) == 2
    assert "did you mean 'tasks'" in capsys.readouterr().err
