"""Result files of Speculative Tool Calling: their traps, their tables, and what is written back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_runs import recorded_runs

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.formats import (
    original_pairs,
    original_summary,
    read_tool_results,
    tool_run_of,
    write_tool_results,
)
from speceyes_lib.formats.spec_tool_call import long_episodes, result_of_tool_run
from speceyes_lib.replay import ToolSetting, ceiling, flatten_runs, replay_tools

SEARCH = {"name": "web_search", "args": {"query": "Oru "}}


def trajectory(guess="Oru", pre_executed=True, llm_time=4.0, more=()):
    prediction = {"name": "web_search", "args": {"query": guess}, "pre_executed": pre_executed}
    prediction |= {"exec_time": 2.0, "spec_inference_time": 1.0}
    llm = {"node": "llm", "timestamp": 4.0, "step": 1, "actor_model": "a", "llm_time": llm_time}
    llm |= {"actor_reasoning": "look", "actor_tool_calls": [*more, SEARCH], "spec_predictions": [prediction]}
    tools = {"node": "tools", "timestamp": 4.5, "tool_time": 2.0}
    return [
        {"node": "start", "question": "q", "timestamp": 0},
        llm,
        tools | {"tool_executed": {"name": "web_search", "result": "7 kg"}},
        {"node": "llm", "timestamp": 7.5, "step": 2, "llm_time": 3.0, "final_answer": "FINAL ANSWER: 7"},
    ]


def content(arm="spec", **changes):
    spec = arm == "spec"
    fields = {
        "task_id": "t1",
        "level": "1",
        "question": "q",
        "ground_truth": "7",
        "predicted": "7",
        "correct": True,
    }
    fields |= {
        "steps": 2,
        "time_seconds": 7.5 if spec else 9.0,
        "actor_model": "a",
        "spec_model": "s" if spec else None,
    }
    fields |= {"speculation_enabled": spec, "verification_strategy": "exact" if spec else None}
    fields |= {"spec_hits": int(spec), "spec_misses": 0, "spec_predictions": int(spec), "error": None}
    return fields | {"trajectory": trajectory(), "messages": [{"role": "user", "content": "q"}]} | changes


def put(folder, arm="spec", example="example_000", **changes):
    folder.mkdir(exist_ok=True)
    path = folder / f"result_level1_{example}_{arm}.json"
    path.write_text(json.dumps(content(arm, **changes)))
    return path


def read_one(tmp_path, **changes):
    put(tmp_path / "r", **changes)
    (result,), problems = read_tool_results([tmp_path / "r"])
    assert not problems
    return result


def test_steps_are_read_with_their_times_calls_and_guesses(tmp_path):
    run = tool_run_of(read_one(tmp_path))
    first, second = run.steps
    assert (first.actor_start_s, first.actor_end_s, first.text) == (0, 4, "look")
    call, guess = first.calls[0], first.guesses[0]
    assert (call.source, call.guess, call.start_s, call.end_s, call.tool_s) == ("used", 0, 4, 4.5, 2)
    assert call.result == "7 kg"
    assert (guess.end_s, guess.tool_end_s, guess.tool_s, guess.outcome) == (1, 3, 2, "used")
    assert (second.actor_start_s, second.calls) == (4.5, [])
    assert run.settings["actor_bounded"] == 0


def test_a_step_that_ended_with_its_guess_bounds_the_actor_only(tmp_path):
    slow = trajectory()
    slow[1]["spec_predictions"][0]["exec_time"] = 3.0
    assert tool_run_of(read_one(tmp_path, trajectory=slow)).settings["actor_bounded"] == 1


def test_of_several_calls_only_the_last_has_a_time(tmp_path):
    more = [{"name": "calculate", "args": {"expression": "1+1"}}]
    run = tool_run_of(read_one(tmp_path, trajectory=trajectory(more=more)))
    assert [call.tool_s for call in run.steps[0].calls] == [0, 2]
    assert run.settings["untimed_calls"] == 1


@pytest.mark.parametrize(
    ("guess", "pre_executed", "strategy", "source"),
    [
        ("oru", True, "exact", "executed"),
        ("the Oru", True, "jaccard", "used"),
        ("Belin", True, "tool_name_only", "used"),
        ("Oru", False, "exact", "executed"),
        ("Oru", True, "none", "executed"),
    ],
)
def test_hits_follow_the_strategy_of_the_file(tmp_path, guess, pre_executed, strategy, source):
    events = trajectory(guess, pre_executed)
    run = tool_run_of(read_one(tmp_path, trajectory=events, verification_strategy=strategy))
    assert run.steps[0].calls[0].source == source


def test_a_failed_run_keeps_what_was_reached(tmp_path):
    start = trajectory()[:1]
    run = tool_run_of(read_one(tmp_path, predicted=None, trajectory=start, error="timeout", steps=1))
    assert (run.answer, run.error, run.steps) == (None, "timeout", [])
    run = tool_run_of(read_one(tmp_path, trajectory=trajectory()[:2]))
    assert run.steps[0].calls[0].error is not None


@pytest.mark.parametrize("level", ["1", 1, 1.0])
def test_a_level_is_text_or_number(tmp_path, level):
    assert read_one(tmp_path, level=level).level == "1"


def test_sums_of_events_may_exceed_the_whole(tmp_path):
    run = tool_run_of(read_one(tmp_path, trajectory=trajectory(llm_time=40.0), time_seconds=5.0))
    assert run.steps[0].actor_start_s == 0
    assert flatten_runs([run]).rest_s.tolist() == [0]


def test_a_task_that_occurs_twice_is_reported_and_other_files_are_left_alone(tmp_path):
    put(tmp_path / "r", example="example_001", time_seconds=1.0)
    put(tmp_path / "r", example="example_002", time_seconds=2.0)
    put(tmp_path / "r", "baseline")
    (tmp_path / "r/summary.json").write_text("{}")
    results, problems = read_tool_results([tmp_path / "r"])
    assert [(r.arm, r.time_seconds) for r in results] == [("baseline", 9.0), ("spec", 2.0)]
    assert len(problems) == 1
    assert "task t1 is also in result_level1_example_001_spec.json" in str(problems[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "expected a JSON object"),
        ('{"task_id": "a"}', "'time_seconds' is missing"),
        (json.dumps(content(time_seconds="soon")), "'time_seconds' is 'soon'"),
        (json.dumps(content(trajectory={})), "'trajectory' is dict"),
        (json.dumps(content(level="easy")), "'level' is 'easy'"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_kept(tmp_path, text, reason):
    put(tmp_path / "r")
    (tmp_path / "r/result_level1_example_009_spec.json").write_text(text)
    results, problems = read_tool_results([tmp_path / "r"])
    assert len(results) == 1
    assert "example_009" in str(problems[0])
    assert reason in str(problems[0])


def test_a_folder_without_results_is_reported(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read_tool_results([tmp_path / "none"])
    (tmp_path / "x.json").write_text("{}")
    results, problems = read_tool_results([tmp_path])
    assert (results, len(problems)) == ([], 1)


def test_the_tables_of_the_original(tmp_path):
    put(tmp_path / "spec")
    put(
        tmp_path / "spec",
        example="example_001",
        task_id="t2",
        correct=False,
        time_seconds=12.5,
        spec_misses=3,
    )
    put(tmp_path / "spec", example="example_002", task_id="t3")
    put(tmp_path / "base", "baseline")
    put(tmp_path / "base", "baseline", example="example_001", task_id="t2", steps=4)
    spec, base = (read_tool_results([tmp_path / name])[0] for name in ("spec", "base"))
    pairs = original_pairs(spec, base)
    assert pairs.index.tolist() == ["t1", "t2"]
    table = original_summary(pairs)
    assert table.loc["spec", ["tasks", "correct", "accuracy_pct", "mean_s", "mean_steps"]].tolist() == [
        2,
        1,
        50,
        10,
        2,
    ]
    assert table.loc["baseline", ["accuracy_pct", "mean_s", "mean_steps"]].tolist() == [100, 9, 3]
    assert (table.loc["spec", "hits"], table.loc["spec", "hit_pct"]) == (2, 40)
    assert original_pairs(spec, base, only_faster=True).index.tolist() == ["t1"]


def test_imported_runs_have_a_ceiling_and_are_replayed(tmp_path):
    run = tool_run_of(read_one(tmp_path))
    steps = flatten_runs([run])
    assert ceiling(steps).saved_s == 2
    row = replay_tools(steps, ToolSetting()).iloc[0]
    assert (row["hits"], row["sequential_s"], row["seconds"]) == (1, 9.0, 7.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["off", "concurrent"]))
def test_what_is_written_is_read_back(tmp_path_factory, seed, policy):
    folder = tmp_path_factory.mktemp("w")
    runs = [
        r.model_copy(update={"settings": {"policy": policy, "strategy": "exact"}})
        for r in recorded_runs(3, seed)
    ]
    paths = write_tool_results(runs, folder)
    assert len(paths) == 3
    results, problems = read_tool_results([folder])
    assert not problems
    by_id = {result.task_id: result for result in results}
    for run in runs:
        result = by_id[run.task_id]
        assert result == result_of_tool_run(run, run.task_id)
        again = tool_run_of(result)
        assert [s.actor_end_s for s in again.steps] == [s.actor_end_s for s in run.steps]
        assert [[c.name for c in s.calls] for s in again.steps] == [
            [c.name for c in s.calls] for s in run.steps
        ]


def test_an_example_that_no_file_can_be_named_after_is_refused(tmp_path):
    run = recorded_runs(1)[0]
    with pytest.raises(UserError, match="cannot be part of a file's name"):
        write_tool_results([run], tmp_path, {run.task_id: "../x"})
    with pytest.raises(UserError, match="two tasks would have this file"):
        write_tool_results([run, run], tmp_path)


def test_long_trajectories_become_episodes(tmp_path):
    result = read_one(tmp_path)
    assert long_episodes([result]) == []
    (episode,) = long_episodes([result], least_tokens=1)
    assert (episode["num_turns"], episode["success"], episode["trajectory"][0]["observation"]) == (
        2,
        True,
        "7 kg",
    )
