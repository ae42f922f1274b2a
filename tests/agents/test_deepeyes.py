"""The DeepEyes agent: every kind of turn leads to the documented outcome, and no text makes it crash."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.base import Agent
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.models.base import Generation
from speceyes_lib.runs.records import Failure, Trajectory
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tools import zoom

SPEC = ImageSpec(factor=16, min_pixels=96 * 96, max_pixels=96 * 96)
PROMPTS = prompt_sets.load("demo")


def picture() -> Image.Image:
    """960 x 960 px, black with a red lower right quarter."""
    image = Image.new("RGB", (960, 960), "black")
    image.paste("red", (480, 480, 960, 960))
    return image


def agent(**options) -> DeepEyesAgent:
    original = picture()
    view = original.resize((96, 96))
    return DeepEyesAgent("v/s/1", "What?", original, view, spec=SPEC, prompts=PROMPTS, **options)


def generation(text: str, reason: str = "stop", error: Failure | None = None) -> Generation:
    return Generation("v/s/1", text, tuple(range(len(text.split()))), reason, 0.5, 2, error=error)


def tool_call(*box, closed: bool = True) -> str:
    call = json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": list(box)}})
    return f"<think>Look closer.</think>\n<tool_call>\n{call}\n" + "</tool_call>" * closed


def run(*texts: str | Generation, **options) -> tuple[DeepEyesAgent, Trajectory]:
    a = agent(**options)
    for text in texts:
        assert not a.done
        a.feed(generation(text) if isinstance(text, str) else text)
    return a, a.trajectory()


def test_it_is_an_agent():
    assert isinstance(agent(), Agent)


def test_zoom_then_answer():
    a, t = run(tool_call(48, 48, 96, 96), "<think>Red.</think>\n<answer> red </answer>")
    assert (t.status, t.answer, t.answer_from) == ("ok", "red", "tag")
    assert [turn.action for turn in t.turns] == ["tool", "answer"]
    assert t.turns[0].box_px == (48, 48, 96, 96)
    assert t.turns[0].crop_px == (480, 480, 960, 960)
    assert t.turns[0].tool_call["name"] == zoom.NAME
    assert (t.image_px, t.view_px) == ((960, 960), (96, 96))
    assert t.agent_s == 1.0
    assert a.next_request() is None


def test_the_crop_comes_back_as_the_next_user_turn_after_the_agents_text():
    a, _ = run(tool_call(48, 48, 96, 96))
    _, _, assistant, user = a.next_request().messages
    assert assistant == {"role": "assistant", "content": tool_call(48, 48, 96, 96)}
    assert user["role"] == "user"
    (image,) = [part["image"] for part in user["content"] if part["type"] == "image"]
    assert image.size == (96, 96)
    assert image.getpixel((3, 3)) == (255, 0, 0)


def test_a_second_zoom_crops_the_first_picture_again():
    _, t = run(tool_call(48, 48, 96, 96), tool_call(48, 48, 96, 96))
    assert t.turns[1].crop_px == t.turns[0].crop_px == (480, 480, 960, 960)


def test_the_first_request_shows_question_and_view_with_the_limits_given():
    request = agent(max_new_tokens=77).next_request()
    assert request.max_new_tokens == 77
    assert {"</tool_call>", "</answer>"} <= set(request.stop)
    assert request.prefill == ""
    assert [m["role"] for m in request.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("text", "reason", "answer", "answer_from", "error"),
    [
        ("<answer>red</answer>", "stop", "red", "tag", None),
        ("<answer>red", "stop", "red", "tag", None),  # a server left the stop string out
        ("<answer>red</answer> and more", "stop", "red", "tag", None),
        (tool_call(0, 0, 50, 50) + "<answer>red</answer>", "stop", "red", "tag", None),
        ("<think>The <answer> tag</think><answer>blue</answer>", "stop", "blue", "tag", None),
        ("<think>It is red.</think> red", "stop", "red", "untagged", None),
        ("red", "stop", "red", "untagged", None),
        ("<answer></answer>", "stop", None, "none", "no_answer"),
        ("", "stop", None, "none", "no_answer"),
        ("[THINK]It is blue.[/THINK] red", "stop", "red", "untagged", None),
        ("<think>It is <answer>red</answer>", "stop", "red", "tag", None),
        ("<think>Only a thought.</think>", "stop", None, "none", "no_answer"),
        ("<think>A thought without end", "stop", None, "none", "no_answer"),
        ("<think>A thought without end", "length", None, "none", "cut_off"),
        ("<answer>a very long", "length", None, "none", "cut_off"),
        ("rambling on", "length", None, "none", "cut_off"),
    ],
)
def test_how_a_turn_without_a_tool_call_ends_the_run(text, reason, answer, answer_from, error):
    a, t = run(generation(text, reason))
    assert a.done
    assert (t.answer, t.answer_from) == (answer, answer_from)
    assert (t.error.type if t.error else None) == error
    assert t.status == ("error" if error else "ok")
    assert t.turns[0].text == text


def test_a_call_whose_closing_tag_a_server_left_out_is_carried_out_and_closed_in_the_history():
    a, t = run(tool_call(48, 48, 96, 96, closed=False))
    assert t.turns[0].crop_px == (480, 480, 960, 960)
    assert a.next_request().messages[2]["content"].endswith("</tool_call>")


@pytest.mark.parametrize(
    ("text", "action", "error"),
    [
        ("<tool_call>nonsense</tool_call>", "malformed", "malformed_call"),
        ('<tool_call>{"name": "crop"}</tool_call>', "malformed", "unknown_tool"),
        (tool_call(1, 2, 3), "malformed", "bad_box"),
        (tool_call(60, 60, 10, 10), "tool", "bad_box"),
        (tool_call(500, 500, 600, 600), "tool", "bad_box"),
    ],
)
def test_a_refused_call_comes_back_as_a_user_turn_and_can_be_corrected(text, action, error):
    a, t = run(text)
    assert not a.done
    assert (t.turns[0].action, t.turns[0].error.type) == (action, error)
    last = a.next_request().messages[-1]
    assert last["role"] == "user"
    assert any(t.turns[0].error.message in part.get("text", "") for part in last["content"])
    assert not any(part["type"] == "image" for part in last["content"])
    a.feed(generation(tool_call(48, 48, 96, 96)))
    a.feed(generation("<answer>red</answer>"))
    assert a.trajectory().status == "ok"


def test_the_same_refused_call_twice_in_a_row_ends_the_run():
    bad = "<tool_call>nonsense</tool_call>"
    a, t = run(bad, bad)
    assert a.done
    assert t.error.type == "repeated_call"
    assert len(t.turns) == 2


def test_an_agent_may_cut_as_the_original_does():
    calls = tool_call(50, 50, 51.25, 51.25), tool_call(7, 7, 7.01, 40), "<answer>red</answer>"
    _, t = run(*calls, crop="original")
    assert t.turns[0].crop_px == (500, 500, 512, 512)
    assert t.turns[0].notes == ()
    assert t.turns[1].error.type == "bad_box"
    assert t.status == "ok"


def test_odd_turns_are_carried_out_and_noted():
    _, t = run(
        tool_call(48, 48, 96, 96, closed=False),
        tool_call(48, 48, 96, 96) + "<tool_call>nonsense</tool_call>",
        tool_call(-10, 0, 500, 500),
        tool_call(50, 50, 51, 51),
        tool_call(48, 48, 96, 96) + "<answer>red",
    )
    noted = [turn.notes for turn in t.turns]
    assert noted[:2] == [("unclosed_tag",), ("several_calls",)]
    assert noted[2:] == [("box_clamped",), ("box_grown",), ("answer_beside_call", "unclosed_tag")]
    assert t.turns[1].crop_px == (480, 480, 960, 960)
    assert t.turns[2].crop_px == (0, 0, 960, 960)
    assert t.answer == "red"


def test_an_argument_that_names_a_crop_is_ignored_and_noted_since_the_first_picture_is_cropped_always():
    call = json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": [48, 48, 96, 96], "img_idx": 1}})
    _, t = run(tool_call(0, 0, 48, 48), f"<tool_call>{call}</tool_call>")
    assert t.turns[1].notes == ("ignored_arguments",)
    assert t.turns[1].crop_px == (480, 480, 960, 960)


def test_a_model_that_counts_in_thousandths_has_its_boxes_recorded_in_pixels_of_the_view():
    _, t = run(tool_call(500, 500, 1000, 1000), boxes="thousandths")
    assert t.turns[0].box_px == (48, 48, 96, 96)
    assert t.turns[0].crop_px == (480, 480, 960, 960)


def test_an_empty_turn_is_reported_as_empty():
    _, t = run("")
    assert (t.error.type, t.turns[0].n_tokens) == ("no_answer", 0)
    assert "empty" in t.error.message


def test_a_thought_alone_is_a_step_only_with_steps():
    a, t = run("<think>Hm.</think>", steps=True)
    assert not a.done
    assert t.turns[0].action == "none"
    assert a.next_request().messages[-1] == {"role": "user", "content": PROMPTS.step_next}
    a, _ = run("<think>Hm.</think>")
    assert a.done


def test_two_different_refused_calls_do_not_end_the_run():
    a, _ = run("<tool_call>one</tool_call>", "<tool_call>two</tool_call>", "<tool_call>one</tool_call>")
    assert not a.done


def test_endless_zooming_ends_at_the_turn_limit_with_every_turn_kept():
    a, t = run(*[tool_call(0, 0, 40 + i, 40) for i in range(3)], max_turns=3)
    assert a.done
    assert (t.status, t.error.type, t.answer) == ("error", "turn_limit", None)
    assert len(t.turns) == 3


def test_a_failed_generation_ends_the_run_with_its_reason():
    oom = Failure(type="generation_error", message="out of memory")
    a, t = run(tool_call(48, 48, 96, 96), generation("", "error", oom))
    assert a.done
    assert (t.status, t.error) == ("error", oom)
    assert len(t.turns) == 2


def test_the_first_look_is_one_turn_that_opens_with_the_commitment_to_answer():
    a = agent(forbid_tool=True)
    assert a.next_request().prefill == PROMPTS.forced_look_prefix
    a.feed(generation(" the color.</think>\n<answer>red</answer>"))
    t = a.trajectory()
    assert (t.answer, len(t.turns), a.done) == ("red", 1, True)
    assert t.turns[0].text.startswith(PROMPTS.forced_look_prefix)


def test_a_prefix_that_opens_the_answer_tag_is_completed_by_the_model():
    original = picture()
    a = DeepEyesAgent(
        "x",
        "What?",
        original,
        original.resize((96, 96)),
        spec=SPEC,
        prompts=prompt_sets.load("deepeyes"),
        forbid_tool=True,
    )
    a.feed(generation("B</answer>"))
    assert a.trajectory().answer == "B"


def test_a_tool_call_in_the_first_look_is_not_carried_out():
    a, t = run(generation("</think>" + tool_call(48, 48, 96, 96)), forbid_tool=True)
    assert a.done
    assert t.error.type == "tool_forbidden"
    assert t.turns[0].crop_px is None


def test_feeding_an_agent_that_is_done_raises():
    a, _ = run("<answer>red</answer>")
    with pytest.raises(RuntimeError):
        a.feed(generation("more"))


CALL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 5, 5]}}'
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>", "<|im_end|>"]
PIECES = st.sampled_from([*TAGS, CALL, '{"name": []}', "red", "\n"])
TURN = st.lists(PIECES | st.text(max_size=20), max_size=8).map("".join)


@given(st.lists(st.tuples(TURN, st.sampled_from(["stop", "length"])), min_size=8, max_size=8), st.booleans())
def test_no_text_makes_it_crash_or_run_on_and_all_of_it_can_be_recorded(turns, forbid):
    a = agent(max_turns=6, forbid_tool=forbid)
    for text, reason in turns:
        if a.done:
            break
        assert a.next_request() is not None
        a.feed(generation(text, reason))
    t = a.trajectory()
    assert a.done
    assert len(t.turns) <= 6
    assert (t.status == "ok") == (t.answer is not None)
    assert (t.error is None) == (t.status == "ok")
    assert Trajectory.model_validate_json(t.model_dump_json()) == t


@given(
    st.lists(st.floats() | st.integers() | st.text(max_size=3) | st.none(), max_size=6),
    st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=3),
)
def test_no_arguments_make_it_crash(box, more):
    call = json.dumps({"name": zoom.NAME, "arguments": {"bbox_2d": box, **more}})
    _, t = run(f"<tool_call>{call}</tool_call>")
    assert (t.turns[0].crop_px is None) == (t.turns[0].error is not None)
    assert Trajectory.model_validate_json(t.model_dump_json()) == t
