"""An agent is one file and one line: every entry of `AGENTS` can be configured, started and labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.registry import AGENTS, AgentType, agent_factory
from speceyes_lib.errors import ConfigError
from speceyes_lib.params import AgentParams
from speceyes_lib.report.labels import agent_label
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tools.registry import TOOLS

SPEC = ImageSpec(factor=16, min_pixels=32 * 32, max_pixels=32 * 32)
LIMITS = {"spec": SPEC, "prompts": prompt_sets.load("demo"), "max_turns": 3, "max_new_tokens": 8}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_a_known_tool_a_label_and_a_parameter_value(name):
    kind = AGENTS[name]
    assert kind.tool in TOOLS.values()
    assert agent_label(name) == kind.label
    params = AgentParams(agent=name)
    config = params.arm_config("baseline")
    assert ("sandbox" in config) == kind.tool.needs_sandbox


@dataclass
class OneTurn:
    id: str
    block: str
    original: Image.Image
    view: Image.Image
    settings: dict[str, Any]


def test_another_agent_is_started_by_its_name(monkeypatch):
    def start(id, block, original, view, **settings):
        return OneTurn(id, block, original, view, settings)

    zoom = AGENTS["deepeyes"].tool
    monkeypatch.setitem(AGENTS, "one_turn", AgentType("One turn", start, zoom))
    agent = agent_factory("one_turn", **LIMITS)("a/b/1", "Question?", None, None)
    assert (agent.id, agent.settings["max_turns"]) == ("a/b/1", 3)


def test_an_unknown_agent_is_refused_with_the_nearest_name_and_code_needs_a_sandbox():
    with pytest.raises(ConfigError, match=r"no agent 'tyme' .*did you mean 'thyme'"):
        agent_factory("tyme", **LIMITS)
    with pytest.raises(ValueError, match="needs a sandbox"):
        agent_factory("thyme", **LIMITS)


def test_tools_that_change_what_later_calls_see_are_declared():
    assert {name: tool.side_effects for name, tool in TOOLS.items()} == {
        "image_zoom_in_tool": False,
        "python": True,
    }
