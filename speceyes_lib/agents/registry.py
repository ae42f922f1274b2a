"""The agents that can be run, and what starts one. Adding an agent takes a file beside this one and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image

from ..errors import ConfigError, nearest
from ..plugins import contributed
from ..tasks.images import Crop
from ..tools import sandbox as code_sandbox
from ..tools import zoom
from ..tools.registry import TOOLS
from ..tools.sandbox import Sandbox
from .base import Agent, AgentType
from .deepeyes import DeepEyesAgent
from .specreason import SpecReason, SpecReasonAgent
from .thyme import ThymeAgent

AGENTS = {
    "deepeyes": AgentType("DeepEyes", DeepEyesAgent, TOOLS[zoom.NAME]),
    "thyme": AgentType("Thyme", ThymeAgent, TOOLS[code_sandbox.NAME]),
}
AGENTS |= contributed("AGENTS", AGENTS)


def agent_factory(
    name: str,
    *,
    sandbox: Sandbox | None = None,
    specreason: SpecReason | None = None,
    crop: Crop = "outwards",
    **settings: Any,
) -> Callable[..., Agent]:
    """What starts the agent of a sample: ``make(id, question_block, original, view, forbid_tool=False)``.

    Args:
        name: a key of `AGENTS`.
        sandbox: for agents whose tool needs one.
        specreason: steps are proposed by the small model. An answer without tool (forbid_tool) is one turn of the
            large one and stays as it is.
        crop: for agents that zoom.
        settings: `spec`, `prompts`, `max_turns` and `max_new_tokens` of `TaggedAgent`.

    Raises:
        ConfigError: there is no such agent.
        ValueError: the agent writes code and no sandbox was given.
    """
    if name not in AGENTS:
        raise ConfigError(f"agent: no agent {name!r}{nearest(name, AGENTS)}; there are {', '.join(AGENTS)}")
    kind = AGENTS[name]
    if kind.tool.needs_sandbox:
        if sandbox is None:
            raise ValueError("an agent that writes code needs a sandbox")
        settings["sandbox"] = sandbox
    elif kind.tool is TOOLS[zoom.NAME]:
        settings["crop"] = crop
    start = partial(kind.start, **settings)
    if specreason is None:
        return start

    def make(
        id: str, block: str, original: Image.Image, view: Image.Image, forbid_tool: bool = False
    ) -> Agent:
        if forbid_tool:
            return start(id, block, original, view, forbid_tool=True)
        return SpecReasonAgent(start(id, block, original, view, steps=True), specreason)

    return make
