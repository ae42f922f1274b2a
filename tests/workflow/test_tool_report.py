"""`speceyes tool-report` on our files and on folders of the original."""

from __future__ import annotations

import json

import pytest
from tool_runs import recorded_runs

from speceyes_lib.formats import write_tool_results
from speceyes_lib.tool_speculation import append_run
from speceyes_lib.workflow.cli import main


def arm(policy, faster=1.0, name=None):
    settings = {"policy": policy, "strategy": "exact"}
    changes = {"settings": settings, "arm": name or policy, "models": {"actor": "A", "speculator": "S"}}
    return [run.model_copy(update=changes | {"seconds": run.seconds / faster}) for run in recorded_runs(8, 2)]


@pytest.fixture
def ours(tmp_path):
    for run in [*arm("off", name="baseline"), *arm("concurrent", 1.5, "exact"), *arm("shadow")]:
        append_run(tmp_path / "ours/runs.jsonl", run)
    return tmp_path / "ours"


@pytest.fixture
def originals(tmp_path):
    for name, policy in (("base", "off"), ("spec", "concurrent")):
        write_tool_results(arm(policy), tmp_path / name)
    return tmp_path / "spec", tmp_path / "base"


def headings(text):
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


@pytest.mark.parametrize("name", ["", "runs.jsonl"])
def test_our_runs_are_audited_then_bounded_then_compared(ours, capsys, name):
    assert main(["tool-report", str(ours / name)]) == 0
    text = capsys.readouterr().out
    assert [heading.split(":")[0] for heading in headings(text)] == [
        *(
            "Conditions of the arms",
            "Ceiling",
            "Arms against baseline, task by task",
            "shadow",
            "exact",
            "exact",
        )
    ]
    assert "1.500" in text
    assert text.count("speedup at most") == 3


def test_folders_of_the_original_get_their_own_table_and_ours(originals, capsys):
    spec, base = map(str, originals)
    assert main(["tool-report", spec, base]) == 0
    text = capsys.readouterr().out
    assert "As the original's script compares" in headings(text)
    assert "Arms against baseline, task by task" in headings(text)
    assert main(["tool-report", base]) == 0
    assert [h.split(":")[0] for h in headings(capsys.readouterr().out)] == [
        "Conditions of the arms",
        "Ceiling",
    ]


def test_a_trace_of_one_task_or_of_all_is_written(ours, tmp_path, capsys):
    path = tmp_path / "trace.json"
    task = recorded_runs(8, 2)[1].task_id
    assert main(["tool-report", str(ours), "--trace", str(path), "--task", task]) == 0
    events = json.loads(path.read_text())["traceEvents"]
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert names == [f"{task}, {name}" for name in ("baseline", "exact", "shadow")]
    assert main(["tool-report", str(ours), "--trace", str(path), "--task", "none"]) == 2
    assert "no arm has this task" in capsys.readouterr().err


def test_what_cannot_be_read_is_reported(originals, tmp_path, capsys):
    spec, base = originals
    (spec / "result_level1_x_spec.json").write_text("{")
    assert main(["tool-report", str(spec), str(base)]) == 1
    assert "result_level1_x_spec.json" in capsys.readouterr().err
    assert main(["tool-report", str(spec), str(spec)]) == 2
    assert "occur twice" in capsys.readouterr().err
    assert main(["tool-report", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/x.json").write_text("{}")
    assert main(["tool-report", str(tmp_path / "empty")]) == 2
    assert "no runs of tasks with tools" in capsys.readouterr().err
