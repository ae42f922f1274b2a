from __future__ import annotations

import json

import pytest
from servers import completion, scripted_server
from tool_batches import write_tasks

from speceyes_lib.tool_speculation.records import read_runs
from speceyes_lib.workflow.cli import main


def reads_and_answers(n, body):
    """A server whose models read the file and answer with what it holds."""
    results = [m["content"] for m in body["messages"] if m["role"] == "tool"]
    if results:
        return 200, completion(f"FINAL ANSWER: {results[-1]}")
    function = {"name": "file_read", "arguments": json.dumps({"path": "note.txt"})}
    message = {
        "role": "assistant",
        "content": "I read it.",
        "tool_calls": [{"id": "1", "function": function}],
    }
    return 200, completion(message=message)


@pytest.fixture
def tasks(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def server(monkeypatch):
    for name in ("OPENAI_API_KEY", "ACTOR_OPENAI_API_KEY", "DISABLE_SPECULATION", "VERIFICATION_STRATEGY"):
        monkeypatch.delenv(name, raising=False)
    with scripted_server(reads_and_answers) as server:
        monkeypatch.setenv("MODEL_PROVIDER", "vllm")
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        monkeypatch.setenv("GAIA_ACTOR_MODEL", "big")
        monkeypatch.setenv("GAIA_SPEC_MODEL", "small")
        yield server


def test_one_example_is_shown_step_by_step(server, tasks, capsys):
    assert main(["tools", "run", str(tasks / "level1" / "example_001")]) == 0
    text = capsys.readouterr().out
    assert "file_read(path='note.txt')" in text
    assert "predicted   1" in text
    assert "right" in text
    assert {r["model"] for r in server.requests} >= {"big"}


def test_a_batch_writes_results_in_both_formats_and_goes_on(server, tasks, tmp_path, capsys):
    command = ["tools", "run", "--batch", "--tasks", str(tasks), "--output", str(tmp_path / "out")]
    assert main([*command, "--start", "1"]) == 0
    assert "2 of 2 right" in capsys.readouterr().out
    assert [run.task_id for run in read_runs(tmp_path / "out" / "runs.jsonl")] == ["t1", "t2"]
    first = json.loads((tmp_path / "out" / "result_level1_example_001_spec.json").read_text("utf-8"))
    assert (first["task_id"], first["predicted"], first["correct"]) == ("t1", "1", True)
    before = len(server.requests)
    assert main([*command, "--max", "2"]) == 0
    assert "done before" in capsys.readouterr().out
    assert [run.task_id for run in read_runs(tmp_path / "out" / "runs.jsonl")] == ["t1", "t2", "t0"]
    assert len(server.requests) > before


def test_the_baseline_and_several_arms(server, tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = ["tools", "run", "--batch", "--tasks", str(tasks), "--max", "1"]
    monkeypatch.setenv("DISABLE_SPECULATION", "1")
    assert main(batch) == 0
    (folder,) = tmp_path.glob("results_level1_baseline_*")
    assert (folder / "result_level1_example_000_baseline.json").exists()
    assert {r["model"] for r in server.requests} == {"big"}
    assert main([*batch, "--arms", "baseline", "original", "--output", "two"]) == 0
    assert {run.arm for run in read_runs(tmp_path / "two" / "runs.jsonl")} == {"baseline", "original"}
    assert {r["model"] for r in server.requests} == {"big", "small"}
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "--start", "7"], "there are 3 tasks, and none from --start 7"),
        (["--level", "2"], "level 2: there are 0 tasks"),
        (["--batch", "--arms", "exct"], "did you mean 'exact'"),
        (["--batch", "--arms", "exact_gate"], "--set threshold=NUMBER"),
        (["--arms", "exact", "baseline"], "use --batch"),
        (["--set", "strategy=fuzzy"], "strategy"),
        (["--set", "look_ahed=2"], "did you mean 'look_ahead'"),
        (["--set", "strategy"], "NAME=VALUE"),
        (["--mcp", "no-such-file.json"], "no file of MCP servers"),
        (["--mcp", "no-such-file.json", "--models", "embedded"], "name servers of models"),
        (["--arms", "original", "--set", "guesses=2"], "original"),
    ],
)
def test_mistakes_are_one_sentence(server, tasks, capsys, arguments, words):
    assert main(["tools", "run", "--tasks", str(tasks), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_server_that_is_down_and_an_example_that_is_none(server, tasks, tmp_path, capsys, monkeypatch):
    assert main(["tools", "run", str(tmp_path / "nothing")]) == 2
    assert main(["tools", "run", str(tasks), "--batch"]) == 2
    monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("LLM_MAX_TOKENS", "nine")
    assert main(["tools", "run", "--tasks", str(tasks)]) == 2
    assert "LLM_MAX_TOKENS" in capsys.readouterr().err


def test_a_key_that_is_not_set_is_named(tasks, capsys, monkeypatch):
    for name in ("OPENAI_API_KEY", "ACTOR_OPENAI_API_KEY", "SPEC_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_PROVIDER", "openai")
    assert main(["tools", "run", "--tasks", str(tasks)]) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
