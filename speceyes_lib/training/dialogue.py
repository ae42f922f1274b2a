"""The turns of the demo agent's teacher: thoughts, tool calls, answers.

The user's side of the dialogue (questions, system texts, tool responses) is in `agents/prompts/demo.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..agents import prompt_sets
from ..demo.scenes import Question, teacher_box

if TYPE_CHECKING:
    from .evaluation import HeldOut

TOOL_NAME = "image_zoom_in_tool"


def zoom_thought(question: Question) -> str:
    """Why the agent looks closer. Its first word ("The") is the decision to zoom."""
    target = question.label
    if question.kind == "exist":
        return f"The {target} may be small in this view. I will zoom in before I answer."
    if question.kind in ("side", "place"):
        target, other = question.target_shapes
        return f"The {target} and the {other} are small in this view. I will zoom in before I answer."
    return f"The {target} is small in this view. I will zoom in on it before I answer."


def answer_thought(question: Question) -> str:
    """What the agent looks up before it answers. Its first word ("I") is the decision not to zoom.

    All start with "I check", the `forced_look_prefix` of the demo prompts: after these words
    the agent has to answer from what it sees.
    """
    shapes = question.target_shapes
    return {
        "color": f"I check the color of the {question.label}.",
        "shape": f"I check the shape of the {question.label}.",
        "exist": f"I check for a {question.label}.",
        "side": f"I check the side of the {shapes[0]} from the {shapes[-1]}.",
        "place": f"I check the place of the {shapes[0]} from the {shapes[-1]}.",
    }[question.kind]


def tool_call(box: Sequence[int], label: str) -> str:
    """The call as the DeepEyes format wants it; box in pixels of the resized image (96 x 96)."""
    call = {"name": TOOL_NAME, "arguments": {"bbox_2d": list(box), "label": label}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def zoom_turn(question: Question, box: Sequence[int]) -> str:
    """The agent's turn that zooms into the box."""
    return f"<think>{zoom_thought(question)}</think>\n{tool_call(box, question.label)}"


def answer_turn(question: Question) -> str:
    """The agent's turn that answers."""
    return f"<think>{answer_thought(question)}</think>\n<answer>{question.reply}</answer>"


def example_dialogue(sample: HeldOut) -> list[tuple[str, str]]:
    """The teacher's dialogue about one sample as (speaker, text): user, draft, and the two turns of the agent."""
    question = sample.question
    options = None if question.kind == "exist" else question.options
    return [
        ("user", f"<image> {prompt_sets.load('demo').question_block(question.text, options)}"),
        ("draft", question.reply),
        ("agent", zoom_turn(question, teacher_box(sample.scene))),
        ("user", "<tool_response><image></tool_response>"),
        ("agent", answer_turn(question)),
    ]
