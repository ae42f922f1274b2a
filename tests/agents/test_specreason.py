"""SpecReason: which model gets which request, which steps are used, and that both models see every tool result."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.base import Agent
from speceyes_lib.agents.registry import agent_factory
from speceyes_lib.agents.specreason import SpecReason
from speceyes_lib.models.base import Generation
from speceyes_lib.runs.records import Failure, Trajectory
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tools import zoom

SPEC = ImageSpec(factor=16, min_pixels=96 * 96, max_pixels=96 * 96)
SMALL = ImageSpec(factor=16, min_pixels=64 * 64, max_pixels=64 * 64)
PROMPTS = prompt_sets.load("deepeyes")
OOM = Failure(type="generation_error", message="out of memory")


def agent(**how) -> Agent:
    make = agent_factory(
        "deepeyes",
        spec=SPEC,
        prompts=PROMPTS,
        max_turns=6,
        max_new_tokens=50,
        specreason=SpecReason(SMALL, **how),
    )
    original = Image.new("RGB", (960, 960), "black")
    return make("v/s/1", "What?", original, original.resize((96, 96)))


def generation(
    text: str, seconds: float = 1.0, reason: str = "stop", error: Failure | None = None
) -> Generation:
    return Generation("v/s/1", text, tuple(range(len(text.split()))), reason, seconds, 1, error=error)


def call(*box) -> str:
    written = json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": list(box)}})
    return f"<think>Closer.</think><tool_call>{written}</tool_call>"


def roles(a: Agent, *words: str | Generation) -> tuple[list[str], Trajectory]:
    """Feed the outputs; returns the model of each request (small, score or large), and the trajectory."""
    models = []
    for word in words:
        request = a.next_request()
        is_score = request.messages[-1]["content"] == PROMPTS.step_score
        models.append("score" if is_score else request.role)
        a.feed(generation(word) if isinstance(word, str) else word)
    return models, a.trajectory()


def pictures(messages: list[dict]) -> list[Image.Image]:
    parts = [part for m in messages if not isinstance(m["content"], str) for part in m["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def test_an_accepted_answer_of_the_small_model_ends_the_run():
    a = agent()
    assert isinstance(a, Agent)
    models, t = roles(a, "<answer>red</answer>", "8")
    assert models == ["small", "score"]
    assert (t.status, t.answer, len(t.turns)) == ("ok", "red", 1)
    assert t.turns[0].proposal.accepted
    assert t.turns[0].proposal.score == 8


def test_a_step_below_the_threshold_is_written_by_the_large_model_and_the_proposal_stays_on_record():
    models, t = roles(agent(), "<answer>blue</answer>", "Score: 6", "<answer>red</answer>")
    assert models == ["small", "score", "large"]
    assert t.answer == "red"
    assert (t.turns[0].proposal.text, t.turns[0].proposal.score) == ("<answer>blue</answer>", 6)
    assert not t.turns[0].proposal.accepted


@pytest.mark.parametrize(
    ("score", "accepts"), [("7", True), ("6", False), ("It is 9, not 1", True), ("0-9: 9", False)]
)
def test_the_first_digit_is_the_score_and_the_threshold_accepts(score, accepts):
    models, _ = roles(agent(threshold=7), "<answer>x</answer>", score)
    assert models == ["small", "score"]
    a = agent(threshold=7)
    roles(a, "<answer>x</answer>", score)
    assert a.done == accepts


def test_every_second_of_a_step_is_in_its_turn():
    _, t = roles(
        agent(), generation("<answer>a</answer>", 1), generation("0", 2), generation("<answer>b</answer>", 4)
    )
    assert t.agent_s == 7
    _, t = roles(agent(), generation("<answer>a</answer>", 1), generation("9", 2))
    assert t.agent_s == 3
    assert (t.turns[0].proposal.propose_s, t.turns[0].proposal.score_s) == (1, 2)


def test_tool_results_reach_both_models():
    a = agent()
    roles(a, "<think>no idea</think>", "0", call(48, 48, 96, 96))
    for_small = a.next_request()
    assert for_small.role == "small"
    assert [p.size for p in pictures(for_small.messages)] == [(64, 64), (64, 64)]
    again = pictures(a.next_request().messages)
    assert all(x is y for x, y in zip(pictures(for_small.messages), again, strict=True))
    a.feed(generation("<answer>red</answer>"))
    for_large = a.next_request()
    assert [p.size for p in pictures(for_large.messages)] == [(96, 96), (96, 96)]
    *_, step, question = for_large.messages
    assert step == {"role": "assistant", "content": "<answer>red</answer>"}
    assert question["content"] == PROMPTS.step_score
    assert for_large.max_new_tokens == 10


def test_a_proposed_zoom_is_carried_out_and_each_model_reads_boxes_in_its_units():
    a = agent(small_boxes="thousandths")
    _, t = roles(a, call(500, 500, 1000, 1000), "9")
    assert t.turns[0].box_px == (48, 48, 96, 96)
    assert t.turns[0].crop_px == (480, 480, 960, 960)
    assert "[500, 500, 1000, 1000]" in a.next_request().messages[2]["content"]  # to the small model
    a.feed(generation("<think>hm</think>"))
    assert "[48, 48, 96, 96]" in a.next_request().messages[2]["content"]  # to the large one


def test_after_a_step_that_is_only_a_thought_comes_the_next_step():
    a = agent()
    models, t = roles(a, "<think>The star is red.</think>", "9", "<answer>red</answer>", "9")
    assert models == ["small", "score"] * 2
    assert [turn.action for turn in t.turns] == ["none", "answer"]
    assert t.answer == "red"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((generation("", error=OOM, reason="error"),), "generation_error"),
        ((generation(""),), "no_step"),
        ((generation("<answer>lo", reason="length"),), "cut_off"),
        ((generation("<answer>x</answer>"), generation("good")), "no_score"),
        ((generation("<answer>x</answer>"), generation("", error=OOM, reason="error")), "generation_error"),
    ],
)
def test_without_a_step_or_a_score_the_large_model_writes(words, error):
    a = agent()
    models, t = roles(a, *words, generation("<answer>red</answer>"))
    assert models[-1] == "large"
    assert t.answer == "red"
    assert t.turns[0].proposal.error.type == error


def test_it_ends_after_six_steps():
    a = agent()
    steps = [(f"<think>{i}</think>", "9") for i in range(6)]
    _, t = roles(a, *[word for step in steps for word in step])
    assert a.done
    assert t.error.type == "turn_limit"
    assert len(t.turns) == 6
    with pytest.raises(RuntimeError):
        a.feed(generation("more"))


def test_a_first_look_is_one_turn_of_the_large_model():
    make = agent_factory(
        "deepeyes", spec=SPEC, prompts=PROMPTS, max_turns=6, max_new_tokens=50, specreason=SpecReason(SMALL)
    )
    original = Image.new("RGB", (960, 960))
    a = make("v", "What?", original, original.resize((96, 96)), forbid_tool=True)
    assert a.next_request().role == "large"
    a.feed(generation("red</answer>"))
    assert a.trajectory().answer == "red"
