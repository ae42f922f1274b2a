"""The interface between agents and the scheduler. No model call happens inside an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..models.base import Generation, GenerationRequest
from ..runs.records import Trajectory
from ..tools.agent_tool import AgentTool


@runtime_checkable
class Agent(Protocol):
    """One agent working on one sample.

    The scheduler takes `next_request`, lets a model answer it and feeds the generation back, until `done`. Turns of
    other agents may be generated between two turns of one agent.
    """

    @property
    def done(self) -> bool:
        """True once the agent has ended, with an answer or an error."""

    @property
    def n_turns(self) -> int:
        """Number of turns so far. Requests of agents at the same turn have similar lengths and make good batches."""

    def next_request(self) -> GenerationRequest | None:
        """The request for the next turn; None when done."""

    def feed(self, generation: Generation) -> None:
        """Parse a turn, run its tool and decide what comes next. No text of a model makes this raise."""

    def trajectory(self) -> Trajectory:
        """All turns so far, as a record."""


@dataclass(frozen=True)
class AgentType:
    """How the large model works.

    Attributes:
        label: name for readers.
        start: (id, question_block, original, view, ...) -> an agent at its first turn.
        tool: what it may use.
    """

    label: str
    start: Callable[..., Agent]
    tool: AgentTool
