"""What is known of a tool of the agents before it is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentTool:
    """What is known of a tool before it is called.

    Attributes:
        label: its name for readers.
        side_effects: a call changes something that a later call can see, so that calls must not be made in advance or
            twice. Programs of one sample share variables and files.
        needs_sandbox: it runs code that a model wrote.
    """

    label: str
    side_effects: bool = False
    needs_sandbox: bool = False
