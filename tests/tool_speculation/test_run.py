from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tool_batches
from tool_batches import ARMS, batch, setup, write_tasks

from speceyes_lib.errors import ConfigError, MeansError, UserError
from speceyes_lib.tasks.gaia import load_gaia
from speceyes_lib.tool_speculation.models import PolicyError
from speceyes_lib.tool_speculation.records import read_runs
from speceyes_lib.tool_speculation.run import RUNS, assignment_of, run_task
from speceyes_lib.tool_speculation.settings import (
    BASELINE,
    SpeculationSettings,
    comparison_arms,
)


@pytest.fixture
def tasks(tmp_path):
    return write_tasks(tmp_path / "tasks")


def test_a_batch_runs_every_task_under_every_arm_in_turn(tmp_path, tasks):
    pairs = batch(tasks, tmp_path / "out")
    assert [(run.task_id, run.arm, earlier) for run, earlier in pairs] == [
        *[("t0", "baseline", False), ("t0", "exact", False)],
        *[("t1", "exact", False), ("t1", "baseline", False)],
        *[("t2", "baseline", False), ("t2", "exact", False)],
    ]
    assert [run.answer for run, _ in pairs] == ["0", "0", "1", "1", "2", "2"]
    assert read_runs(tmp_path / "out" / RUNS) == [run for run, _ in pairs]


def test_a_second_time_nothing_is_run_again(tmp_path, tasks):
    first = batch(tasks, tmp_path / "out")
    second = batch(tasks, tmp_path / "out")
    assert [(run, True) for run, _ in first] == second
    assert len(read_runs(tmp_path / "out" / RUNS)) == 6


def test_a_batch_that_was_killed_goes_on_where_it_was(tmp_path, tasks):
    output = tmp_path / "out"
    worlds = Path(tool_batches.__file__)
    path = os.pathsep.join([str(worlds.parent), str(worlds.parents[2])])
    process = subprocess.Popen([sys.executable, worlds, tasks, output], env=os.environ | {"PYTHONPATH": path})
    try:
        while not (output / RUNS).exists() or (output / RUNS).read_bytes().count(b"\n") < 2:
            assert process.poll() is None
            time.sleep(0.05)  # looks again; what counts is the file
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with (output / RUNS).open("ab") as file:
        file.write(b'{"task_id": "t1", "lev')  # what a kill in the middle of a write leaves
    pairs = batch(tasks, output)
    assert [earlier for _, earlier in pairs] == [True, True, False, False, False, False]
    runs = read_runs(output / RUNS)
    assert len({(run.task_id, run.arm) for run in runs}) == len(runs) == 6


def test_two_processes_do_not_write_one_folder(tmp_path, tasks):
    from speceyes_lib.tool_speculation.run import run_batch

    async def both():
        first = run_batch(load_gaia(tasks), setup(), ARMS, tmp_path / "out")
        await anext(first)
        with pytest.raises(UserError, match="another process"):
            await anext(run_batch(load_gaia(tasks), setup(), ARMS, tmp_path / "out"))
        await first.aclose()

    asyncio.run(both())


def test_records_of_other_settings_or_models_are_not_mixed(tmp_path, tasks):
    batch(tasks, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"'exact'.*strategy"):
        batch(tasks, tmp_path / "out", {"exact": SpeculationSettings(strategy="normalised")})
    with pytest.raises(ConfigError, match="actor"):
        batch(tasks, tmp_path / "out", models=setup(name="another"))


def test_a_missing_attachment_is_recorded_and_done_again(tmp_path, tasks):
    note = tasks / "level1" / "example_001" / "note.txt"
    note.unlink()
    pairs = batch(tasks, tmp_path / "out", {"baseline": BASELINE})
    assert [run.cause for run, _ in pairs] == ["", "task", ""]
    assert "missing" in pairs[1][0].error
    note.write_text("1", "utf-8")
    again = batch(tasks, tmp_path / "out", {"baseline": BASELINE})
    assert [(run.answer, earlier) for run, earlier in again] == [("0", True), ("1", False), ("2", True)]
    assert len(read_runs(tmp_path / "out" / RUNS)) == 3


def test_a_batch_stops_when_the_actor_keeps_failing_and_is_done_again(tmp_path, tasks):
    def down(messages, toolbox, prefix):
        raise PolicyError("actor: cannot be reached")

    with pytest.raises(MeansError, match=r"cannot be reached.*--output"):
        batch(tasks, tmp_path / "out", models=setup(down))
    assert {run.cause for run in read_runs(tmp_path / "out" / RUNS)} == {"model"}
    pairs = batch(tasks, tmp_path / "out")
    assert [run.answer for run, _ in pairs] == ["0", "0", "1", "1", "2", "2"]


def test_tools_see_the_files_of_their_task_only_and_the_folder_is_gone_afterwards(tasks):
    folders = []

    def look(arguments, workspace):
        folders.append(workspace.folder)
        return " ".join(sorted(p.name for p in workspace.folder.iterdir()))

    models = setup()
    models.toolbox.tools["read"] = replace(models.toolbox.tools["read"], run=look)
    (task, *_) = load_gaia(tasks)
    run = asyncio.run(run_task(task, models, BASELINE))
    assert run.answer == "note.txt"
    assert not folders[0].exists()


def test_the_question_names_the_attachment(tasks):
    (task, *_) = load_gaia(tasks)
    assert "note.txt" in assignment_of(task).question
    named = replace(task, question="What is in note.txt?")
    assert assignment_of(named).question == "What is in note.txt?"


def test_the_arms_of_a_comparison():
    arms = comparison_arms(1.5, max_steps=9)
    assert {name for name, s in arms.items() if not s.lossless} == {"jaccard", "tool_name_only"}
    assert arms["exact_gate_fork"].guesses == 2
    assert {s.max_steps for s in arms.values()} == {9}
    assert not any("gate" in name for name in comparison_arms())
    assert len({str(s.recorded()) for s in arms.values()}) == len(arms)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="original"):
        SpeculationSettings(policy="original", guesses=2)
    with pytest.raises(ValueError, match="choose one of exact"):
        SpeculationSettings(strategy="fuzzy")


def test_the_console_shows_a_run(tasks):
    from speceyes_lib.report.tool_console import (
        batch_line,
        batch_lines,
        end_lines,
        header_lines,
        step_lines,
    )

    (task, *_) = load_gaia(tasks)
    steps = []
    run = asyncio.run(run_task(task, setup(), SpeculationSettings(), "exact", steps.append))
    assert steps == run.steps
    text = "\n".join(
        [
            *header_lines(assignment_of(task), run.models, "exact", 15),
            *(t for s in steps for t in step_lines(s)),
        ]
    )
    assert "read(path='note.txt')" in text
    assert "I read it." in text
    end = "\n".join(end_lines(run))
    assert "predicted   0" in end
    assert "right" in end
    assert batch_line(1, 3, run, "example_000", False).startswith("[1/3] example_000 exact: right")
    other = run.model_copy(update={"answer": "7\x1b[2J", "error": "odd", "task_id": "t1"})
    assert batch_lines([run, other])[0].startswith("exact: 1 of 2 right")
    assert "\x1b" not in "\n".join(end_lines(other))
