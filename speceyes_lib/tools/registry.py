"""The tools that agents may use, one entry each. Adding a tool takes a file beside this one and one line here."""

from __future__ import annotations

from ..plugins import contributed
from . import sandbox, zoom
from .agent_tool import AgentTool

# name, as calls and records have it -> tool
TOOLS = {
    zoom.NAME: AgentTool("zoom into the picture"),
    sandbox.NAME: AgentTool("Python in a sandbox", side_effects=True, needs_sandbox=True),
}
TOOLS |= contributed("TOOLS", TOOLS)
