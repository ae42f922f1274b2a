"""What the timeline of a task shows, as figure and as trace events."""

from __future__ import annotations

import json

import pytest
import toy_tools as toys
from tool_episodes import answer, call, model, run, search, slow

from speceyes_lib.analysis import timeline
from speceyes_lib.report import plots, trace_events, write_trace

TURNS = [
    "I look. " + search("oil"),
    "Again. " + search("gas"),
    "Other. " + call("look", query="x"),
    answer("4"),
]
GUESSES = [search("oil"), search("coal"), call("look", query="x"), search("more")]
TOOLS = [slow(seconds=2.5), slow(toys.LOOK, 1.0)]


def recorded(**settings):
    return run(model(TURNS, [2, 3, 2.5, 2]), model(GUESSES, [0.5, 0.25, 0.5, 0.5], "spec"), TOOLS, **settings)


def spans(frame, lane, *columns):
    return [tuple(row) for row in frame.loc[frame["lane"] == lane, list(columns)].itertuples(index=False)]


def test_every_span_has_its_lane_kind_and_time():
    frame = timeline(recorded())
    near = pytest.approx
    assert spans(frame, "guessed tools", "kind", "label", "begin_s", "end_s") == [
        ("awaited", "search(oil)", near(0.5), near(3.0)),
        ("unused", "search(coal)", near(3.25), near(5.75)),
        ("used", "look(x)", near(9.0), near(10.0)),
        ("cancelled", "search(more)", near(11.5), near(13.0)),
    ]
    assert spans(frame, "tools", "kind", "label", "begin_s", "end_s") == [
        ("executed", "search(gas)", near(6.0), near(8.5)),
    ]
    think = spans(frame[frame["kind"] == "think"], "actor", "begin_s", "end_s")
    assert think == [(near(a), near(b)) for a, b in [(0, 2), (3, 6), (8.5, 11), (11, 13)]]


def test_a_guess_and_the_call_that_it_served_are_a_pair():
    frame = timeline(recorded())
    pairs = frame[frame["pair"] > 0].groupby("pair")
    assert [set(part["lane"]) for _, part in pairs] == [{"actor", "speculator", "guessed tools"}] * 2
    assert [set(part["label"]) for _, part in pairs] == [{"search(oil)"}, {"look(x)"}]


def test_the_original_waits_for_guesses_that_it_does_not_need():
    frame = timeline(recorded(policy="original"))
    joined = frame[frame["kind"] == "join"]
    assert joined["step"].tolist() == [1, 4]
    assert (joined["end_s"] - joined["begin_s"]).tolist() == [pytest.approx(1.0), pytest.approx(1.0)]


def test_the_figure_joins_pairs_and_shows_text_of_models_as_text():
    strange = [*TURNS[:2], "x" + call("look", query="$x^2 \u202e\n" + "y" * 200), answer("4")]
    result = run(model(strange, 2.0), model(GUESSES, 0.5, "spec"), TOOLS)
    figure = plots.task_timeline(timeline(result), "task <b>1</b>")
    (ax,) = figure.axes
    assert len([line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]) == 1
    assert all("\u202e" not in text.get_text() and len(text.get_text()) <= 30 for text in ax.texts)
    empty = timeline(result.model_copy(update={"steps": []}))
    assert not plots.task_timeline(empty).axes[0].patches


def test_the_trace_has_a_process_per_task_a_thread_per_lane_and_an_arrow_per_pair(tmp_path):
    frame = timeline(recorded())
    path = write_trace(tmp_path / "trace.json", [("t1", frame), ("t2", frame)])
    events = json.loads(path.read_text())["traceEvents"]
    assert events == trace_events([("t1", frame), ("t2", frame)])["traceEvents"]
    names = [e["args"]["name"] for e in events if e["ph"] == "M" and e["pid"] == 1]
    assert names == ["t1", "actor", "speculator", "guessed tools", "tools"]
    begins = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert begins.keys() == ends.keys()
    assert len(begins) == 4
    assert all(begins[i]["ts"] <= ends[i]["ts"] for i in begins)
    span = next(e for e in events if e["ph"] == "X" and e["cat"] == "awaited")
    assert (span["name"], span["ts"], span["dur"]) == (
        "search(oil)",
        pytest.approx(5e5),
        pytest.approx(2.5e6),
    )
