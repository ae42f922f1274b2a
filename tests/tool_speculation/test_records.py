from __future__ import annotations

import pytest

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.tool_speculation.records import Guess, MadeCall, Step, TaskRun, append_run, read_runs


def a_run(task_id="t1", text="ü\n"):
    guess = Guess(name="search", start_s=0, end_s=0.1, scores={"separability_min": 2.5}, outcome="used")
    call = MadeCall(name="search", start_s=1, end_s=1, source="used", guess=(1, 0), result=text)
    step = Step(index=1, actor_start_s=0, actor_end_s=1, calls=[call], guesses=[guess])
    return TaskRun(task_id=task_id, level=1, question="?", truth="4", arm="exact", steps=[step], seconds=1)


def test_runs_come_back_as_they_were_written(tmp_path):
    runs = [a_run("t1"), a_run("t2", "x" * 200_000)]
    for run in runs:
        append_run(tmp_path / "new" / "runs.jsonl", run)
    assert read_runs(tmp_path / "new" / "runs.jsonl") == runs


@pytest.mark.parametrize("cut", [1, 100, 150_000])
def test_a_line_that_was_cut_off_is_done_again(tmp_path, cut):
    path = tmp_path / "runs.jsonl"
    for name in ("t1", "t2"):
        append_run(path, a_run(name, "x" * 200_000))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [r.task_id for r in read_runs(path)] == ["t1"]
    append_run(path, a_run("t3"))
    assert [r.task_id for r in read_runs(path)] == ["t1", "t3"]


def test_a_file_that_holds_only_a_part_of_a_line_is_begun_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"task_id": ')
    assert read_runs(path) == []
    append_run(path, a_run())
    assert len(read_runs(path)) == 1


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"\n", "line 2.*JSON"),
        (b'{"task_id": "x"}\n', "line 2.*level"),
        (b'{"version": 9}\n', "line 2"),
        (b"\xff\n", "line 2"),
    ],
)
def test_a_line_of_something_else_is_named(tmp_path, line, part):
    path = tmp_path / "runs.jsonl"
    append_run(path, a_run())
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(DataError, match=part):
        read_runs(path)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl"):
        read_runs(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        append_run(tmp_path / "file" / "runs.jsonl", a_run())
