"""Agents as state machines: a conversation goes in, the next request or the final answer comes out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from PIL import Image

from ..tasks.images import ImageSpec
from ..tools.sandbox import Sandbox
from .base import Agent
from .deepeyes import DeepEyesAgent
from .prompt_sets import PromptSet
from .specreason import SpecReason, SpecReasonAgent
from .thyme import ThymeAgent

AgentKind = Literal["deepeyes", "thyme"]


def agent_factory(
    kind: AgentKind,
    *,
    spec: ImageSpec,
    prompts: PromptSet,
    max_turns: int,
    max_new_tokens: int,
    sandbox: Sandbox | None = None,
    specreason: SpecReason | None = None,
) -> Callable[..., Agent]:
    """What starts the agent of a sample: ``make(id, question_block, original, view, forbid_tool=False)``.

    sandbox: for agents that write code. specreason: steps are proposed by the small model; a first look
    (forbid_tool) is one turn of the large one and stays as it is. Raises ValueError for Thyme without a sandbox.
    """
    settings = {"spec": spec, "prompts": prompts, "max_turns": max_turns, "max_new_tokens": max_new_tokens}
    if kind == "thyme":
        if sandbox is None:
            raise ValueError("an agent that writes code needs a sandbox")
        start = partial(ThymeAgent, **settings, sandbox=sandbox)
    else:
        start = partial(DeepEyesAgent, **settings)
    if specreason is None:
        return start

    def make(
        id: str, block: str, original: Image.Image, view: Image.Image, forbid_tool: bool = False
    ) -> Agent:
        if forbid_tool:
            return start(id, block, original, view, forbid_tool=True)
        return SpecReasonAgent(start(id, block, original, view, steps=True), specreason)

    return make
