"""More than ten thousand malformed outputs at every agent: none escapes as an exception, all of them are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.agents.specreason import SpecReason, SpecReasonAgent
from speceyes_lib.agents.thyme import ThymeAgent
from speceyes_lib.models.base import Generation
from speceyes_lib.runs.records import Failure, Trajectory
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tools import zoom
from speceyes_lib.tools.sandbox import ProgramResult

SPEC = ImageSpec(factor=16, min_pixels=32 * 32, max_pixels=32 * 32)
PICTURE = Image.new("RGB", (64, 64), "grey")
VIEW = PICTURE.resize((32, 32))


class Sandbox:
    """Runs nothing: prints, fails, shows a picture or stays silent, by the length of the program."""

    def session(self, picture: Image.Image) -> Sandbox:
        return self

    def run(self, code: str) -> ProgramResult:
        outcomes = (
            ProgramResult("42"),
            ProgramResult(
                "", (PICTURE, Image.new("RGB", (900, 2)))
            ),  # the second is too narrow for any model
            ProgramResult("so far", (), Failure(type="code_error", message="NameError")),
            ProgramResult(error=Failure(type="empty_output", message="nothing printed")),
        )
        return outcomes[len(code) % 4]

    def close(self) -> None:
        pass


def deepeyes(forbid: bool = False, steps: bool = False) -> DeepEyesAgent:
    p = prompt_sets.load("demo")
    return DeepEyesAgent("s", "Q?", PICTURE, VIEW, spec=SPEC, prompts=p, forbid_tool=forbid, steps=steps)


def thyme(forbid: bool = False, steps: bool = False) -> ThymeAgent:
    p = prompt_sets.load("demo_thyme")
    return ThymeAgent(
        "s", "Q?", PICTURE, VIEW, spec=SPEC, prompts=p, sandbox=Sandbox(), forbid_tool=forbid, steps=steps
    )


AGENTS: dict[str, Callable] = {
    "deepeyes": deepeyes,
    "deepeyes counting in thousandths": lambda: DeepEyesAgent(
        "s", "Q?", PICTURE, VIEW, spec=SPEC, prompts=prompt_sets.load("demo"), boxes="thousandths"
    ),
    "deepeyes first look": lambda: deepeyes(forbid=True),
    "thyme": thyme,
    "thyme first look": lambda: thyme(forbid=True),
    "specreason over deepeyes": lambda: SpecReasonAgent(deepeyes(steps=True), SpecReason(SPEC)),
    "specreason over thyme": lambda: SpecReasonAgent(thyme(steps=True), SpecReason(SPEC)),
}

NUMBER = st.integers() | st.floats() | st.sampled_from([0, 1, 16, 31, 32, 33, 500, 1000, -1, 1e308, 10**400])
BOX = st.lists(NUMBER | st.none() | st.booleans() | st.text(max_size=3), max_size=6)
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"bbox_2d": BOX | NUMBER, "label": st.text(max_size=4), "img_idx": NUMBER}
)
CALL = st.fixed_dictionaries(
    {}, optional={"name": st.just(zoom.NAME) | st.text(max_size=4), "arguments": ARGUMENTS}
)
GOOD_NAME = st.fixed_dictionaries({"name": st.just(zoom.NAME), "arguments": ARGUMENTS})
JSON = (CALL | GOOD_NAME).map(json.dumps)
TAGS = [
    f"<{slash}{tag}>"
    for tag in ("think", "answer", "tool_call", "code", "tool_response")
    for slash in ("", "/")
]
PIECE = st.sampled_from(
    [*TAGS, "```python\n", "```", "\n", "print(1)", "7", "red", "<|im_end|>", "\\u0000", "[" * 99]
)
BROKEN = st.lists(PIECE | JSON | st.text(max_size=8), max_size=7).map("".join)
CALLING = st.tuples(JSON, st.sampled_from(["", "</tool_call>"])).map(lambda x: f"<tool_call>{x[0]}{x[1]}")
OUTPUT = st.tuples(BROKEN | CALLING | JSON, st.sampled_from(["stop", "length", "error"]))
FAILED = Failure(type="generation_error", message="no connection")


def generation(text: str, reason: str) -> Generation:
    if reason == "error":
        return Generation("s", "", (), "error", 0.1, 1, error=FAILED)
    return Generation("s", text, tuple(range(len(text))), reason, 0.1, 1)


@pytest.mark.parametrize("kind", AGENTS)
def test_no_output_makes_an_agent_raise_and_every_run_ends_and_can_be_recorded(kind):
    fed = 0

    @settings(max_examples=170, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(OUTPUT, min_size=10, max_size=10))
    def feed(outputs: list[tuple[str, str]]) -> None:
        nonlocal fed
        agent = AGENTS[kind]()
        for text, reason in outputs:
            if agent.done:
                recorded(agent)
                agent = AGENTS[kind]()
            assert agent.next_request() is not None
            agent.feed(generation(text, reason))
            fed += 1
        recorded(agent)

    feed()
    assert fed >= 1500  # by seven agents: more than ten thousand


def recorded(agent) -> None:
    t = agent.trajectory()
    assert Trajectory.model_validate_json(t.model_dump_json()) == t
    assert (t.status == "ok") == (t.answer is not None)
    assert (t.error is None) == (t.status == "ok")
    assert len(t.turns) <= 6
    for turn in t.turns[:-1]:
        assert turn.action in ("tool", "malformed", "none")
    if agent.done:
        assert agent.next_request() is None
        if t.turns[-1].action in ("malformed", "none") and t.turns[-1].error:
            assert t.status == "error"
