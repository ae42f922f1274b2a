"""The explorer of tool runs without a browser: controls are attributes, texts of models stay texts."""

from __future__ import annotations

import pytest
from hostile import ATTACKS
from tool_runs import recorded_runs

from speceyes_lib.explore import ToolExplorer, ToolView


def runs():
    arms = {"baseline": "off", "exact": "concurrent"}
    return [
        run.model_copy(update={"arm": arm, "settings": {"policy": policy}})
        for arm, policy in arms.items()
        for run in recorded_runs(5, 3)
    ]


@pytest.fixture
def explorer() -> ToolExplorer:
    explorer = ToolExplorer(runs())
    assert explorer.message.value == ""
    return explorer


def test_it_begins_with_the_first_task_of_the_first_arm(explorer):
    assert explorer.arm.options == ("baseline", "exact")
    assert (explorer.view.arm, explorer.view.task) == ("baseline", "t00000")
    assert [row["id"] for row in explorer.samples.rows] == [f"t0000{i}" for i in range(5)]
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")


def test_every_control_changes_the_view(explorer):
    explorer.arm.value = "exact"
    explorer.order.value = "slowest"
    seconds = [float(row["cells"][4]) for row in explorer.samples.rows]
    assert seconds == sorted(seconds, reverse=True)
    before = bytes(explorer.picture.value)
    explorer.samples.chosen = "t00002"
    assert (explorer.view.arm, explorer.view.task) == ("exact", "t00002")
    assert bytes(explorer.picture.value) != before
    assert "step 1" in explorer.steps.value


def test_a_view_names_where_to_begin_and_an_unknown_task_is_the_first():
    explorer = ToolExplorer(runs(), ToolView("exact", "t00003"))
    assert (explorer.view.arm, explorer.view.task) == ("exact", "t00003")
    assert ToolExplorer(runs(), ToolView("none", "none")).view == ToolView("baseline", "t00000")


def test_no_runs_are_reported():
    assert "no recorded run" in ToolExplorer([]).message.value


def test_texts_of_models_and_tools_are_text():
    attack = "".join(ATTACKS.values()) if isinstance(ATTACKS, dict) else "".join(map(str, ATTACKS))
    run = runs()[1]
    steps = []
    for step in run.steps:
        change = {"name": attack, "result": attack, "error": attack, "given": {attack: attack}}
        calls = [c.model_copy(update=change) for c in step.calls]
        change = {"name": attack, "refused": attack, "given": {"q": attack}}
        guesses = [g.model_copy(update=change) for g in step.guesses]
        steps.append(step.model_copy(update={"calls": calls, "guesses": guesses, "text": attack}))
    change = {
        "question": attack,
        "answer": attack,
        "truth": attack,
        "task_id": attack,
        "steps": steps,
        "arm": attack,
    }
    explorer = ToolExplorer([run.model_copy(update=change)])
    shown = explorer.question.value + explorer.steps.value + explorer.still().data
    assert "&lt;" in shown
    for tag in ("<script", "<iframe", "<svg", 'onerror="', "<a ", "<b>x"):
        assert tag not in explorer.question.value.lower() + explorer.steps.value.lower()
