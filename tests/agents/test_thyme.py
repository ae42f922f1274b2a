"""The Thyme agent: programs run in the sandbox, their output continues the turn, and failures are results."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.base import Agent
from speceyes_lib.agents.registry import agent_factory
from speceyes_lib.agents.thyme import ThymeAgent, program
from speceyes_lib.models.base import Generation
from speceyes_lib.runs.records import Trajectory
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tools.sandbox import Limits, Sandbox, SandboxError

SPEC = ImageSpec(factor=16, min_pixels=96 * 96, max_pixels=96 * 96)
PROMPTS = prompt_sets.load("thyme")


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(limits=Limits(wall_s=5.0))
    except SandboxError as e:
        pytest.skip(f"confinement is refused here: {e}")


def picture() -> Image.Image:
    """960 x 960 px, black with a red lower right quarter."""
    image = Image.new("RGB", (960, 960), "black")
    image.paste("red", (480, 480, 960, 960))
    return image


def generation(text: str, reason: str = "stop") -> Generation:
    return Generation("v/s/1", text, tuple(range(len(text.split()))), reason, 0.5, 1)


def code(body: str, closed: bool = True) -> str:
    return f"<think>Look closer.</think>\n<code>\n```python\n{body}\n```\n" + "</code>" * closed


CROP = code(
    "from PIL import Image\nimage = Image.open('image.bmp')\n"
    "image.crop((480, 480, 960, 960)).save('a.png')\nprint('a.png')"
)


def agent(sandbox, **options) -> ThymeAgent:
    original = picture()
    return ThymeAgent(
        "v/s/1",
        "What?",
        original,
        original.resize((96, 96)),
        spec=SPEC,
        prompts=PROMPTS,
        sandbox=sandbox,
        **options,
    )


def run(sandbox, *texts: str | Generation, **options) -> tuple[ThymeAgent, Trajectory]:
    a = agent(sandbox, **options)
    for text in texts:
        assert not a.done
        a.feed(generation(text) if isinstance(text, str) else text)
    return a, a.trajectory()


def test_it_is_an_agent_whose_first_turn_has_path_and_size_of_the_picture(sandbox):
    a = agent(sandbox)
    assert isinstance(a, Agent)
    request = a.next_request()
    text = request.messages[1]["content"][1]["text"]
    assert "image.bmp" in text
    assert "960 x 960" in text
    assert request.max_new_tokens == 2048
    assert {"</code>", "</answer>"} <= set(request.stop)


def test_crop_then_answer(sandbox):
    a, t = run(sandbox, CROP, "<think>Red.</think><answer> red </answer>")
    assert (t.status, t.answer, t.answer_from) == ("ok", "red", "tag")
    assert [turn.action for turn in t.turns] == ["tool", "answer"]
    assert "crop((480" in t.turns[0].tool_call["arguments"]["code"]
    assert t.turns[0].tool_output == "[picture of 96 x 96 px]"
    assert a.next_request() is None


def test_the_output_is_appended_to_the_assistant_turn_that_the_model_continues(sandbox):
    a, _ = run(sandbox, CROP, code("print(image.size, 'so')"))
    *_, user, assistant = a.next_request().messages
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    kinds = [part.get("text", part["type"]) for part in assistant["content"]]
    assert kinds[0] == CROP
    assert kinds[1:4] == ["<sandbox_output>", "image", "</sandbox_output>"]
    assert kinds[5:] == ["<sandbox_output>", "(960, 960) so", "</sandbox_output>"]
    shown = assistant["content"][2]["image"]
    assert shown.size == (96, 96)
    assert shown.getpixel((3, 3)) == (255, 0, 0)


def test_a_model_continues_the_turn_where_the_output_ends(sandbox, tiny_agent):
    a, _ = run(sandbox, CROP)
    request = replace(a.next_request(), max_new_tokens=3)
    written = tiny_agent.tokenizer.decode(tiny_agent.prepared_row(request).ids)
    assert written.endswith("</sandbox_output>")
    assert written.count("<|im_start|>assistant") == 1
    assert written.count("<|vision_start|>") == 2
    (generation,) = tiny_agent.generate([request])
    assert generation.error is None


def test_errors_and_silence_go_back_as_text_and_count_as_steps(sandbox):
    a, t = run(sandbox, code("1 / 0"), code("x = 1"), code("print(x)"), "<answer>1</answer>")
    assert [turn.error.type if turn.error else None for turn in t.turns] == [
        "code_error",
        "empty_output",
        None,
        None,
    ]
    errors = [part["text"] for part in a.messages[-1]["content"] if part["text"].startswith("Error")]
    assert "ZeroDivisionError" in errors[0]
    assert "printed nothing" in errors[1]
    assert (t.status, len(t.turns)) == ("ok", 4)


@pytest.mark.parametrize(
    ("text", "reason", "type"),
    [
        ("<code></code>", "stop", "malformed_call"),
        ("<code>```python\n\n```</code>", "stop", "malformed_call"),
        (code("while True: print(1", closed=False), "length", "cut_off_call"),
    ],
)
def test_an_incomplete_program_is_reported_and_not_run(sandbox, text, reason, type):
    a, t = run(sandbox, generation(text, reason))
    assert not a.done
    assert (t.turns[0].action, t.turns[0].error.type) == ("malformed", type)
    assert t.turns[0].error.message in a.next_request().messages[-1]["content"][2]["text"]


def test_odd_turns_are_carried_out_and_noted(sandbox):
    _, t = run(
        sandbox,
        code("print(1)", closed=False),
        code("print(2)") + "<code>print(3)</code>",
        code("print(4)") + "<answer>red</answer>",
    )
    assert [turn.notes for turn in t.turns] == [
        ("unclosed_tag",),
        ("several_calls",),
        ("answer_beside_call",),
    ]
    assert [turn.tool_output for turn in t.turns] == ["1", "2", None]
    assert t.answer == "red"


def test_the_same_failing_program_twice_in_a_row_ends_the_run(sandbox):
    a, t = run(sandbox, code("1 / 0"), code("1 / 0"))
    assert a.done
    assert t.error.type == "repeated_call"


def test_endless_programs_end_at_the_limit_and_leave_nothing_behind(sandbox):

    a, t = run(sandbox, *[code(f"print({i})") for i in range(5)])
    assert t.error.type == "turn_limit"
    assert len(t.turns) == 5
    assert (a.session.pid, a.session.scratch) == (None, None)


def test_a_first_look_runs_nothing(sandbox):
    a, t = run(sandbox, "</answer>" + CROP, forbid_tool=True)
    assert a.done
    assert a.session is None
    assert t.status == "error"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("\n```py\nprint(1)\nprint(2)```\nand so on", "print(1)\nprint(2)"),
        ("```\nprint(1)\n", "print(1)"),
        ("print(1)", "print(1)"),
        ("```python\n  \n```", ""),
        ("", ""),
    ],
)
def test_the_program_is_what_the_fence_holds(written, expected):
    assert program(written) == expected


def test_the_agent_cannot_start_without_a_sandbox():
    with pytest.raises(ValueError, match="sandbox"):
        agent_factory("thyme", spec=SPEC, prompts=PROMPTS, max_turns=5, max_new_tokens=9)
