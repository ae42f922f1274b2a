"""What every agent offers the scheduler. No model call happens inside an agent."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..models.base import Generation, GenerationRequest
from ..runs.records import Trajectory


@runtime_checkable
class Agent(Protocol):
    """One agent at work on one sample.

    The scheduler asks for `next_request`, has it answered and feeds the generation back, until `done`. Between
    two turns of one agent any number of turns of others may be generated.
    """

    @property
    def done(self) -> bool:
        """Is the run over, by an answer or by an error?"""
        ...

    @property
    def n_turns(self) -> int:
        """Turns taken so far. Agents at the same turn make good batches: their requests are of similar length."""
        ...

    def next_request(self) -> GenerationRequest | None:
        """The next turn to generate; None when done."""
        ...

    def feed(self, generation: Generation) -> None:
        """Take the turn in: parse it, run its tool, decide what is next. Never raises on what a model wrote."""
        ...

    def trajectory(self) -> Trajectory:
        """Everything so far, as a record."""
        ...
