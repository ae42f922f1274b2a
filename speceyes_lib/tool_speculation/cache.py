"""Calls made in advance for one task, and their results: where they come from, and how long they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..tools.declared import Call, Effect, Tool, ToolResult
from .matching import Strategy
from .records import Guess

MOST_CHARS = 2_000_000  # of all results together


@dataclass(eq=False)
class Attempt:
    """A guessed call that is executed.

    Attributes:
        guess: its record. place: of the record: number of the step, index in it.
        call, tool: what is executed.
        target: number of the step for which it was made.
        parent: the attempt after whose result it was guessed, for look-ahead.
        task: its execution. follow: the look-ahead from its result.
        started_s: None while it waits for a slot.
        result: None until it has ended.
    """

    guess: Guess
    place: tuple[int, int]
    call: Call
    tool: Tool
    target: int
    parent: Attempt | None = None
    task: asyncio.Task | None = None
    follow: asyncio.Task | None = None
    started_s: float | None = None
    result: ToolResult | None = None

    @property
    def cancelled(self) -> bool:
        """It was ended before it had a result."""
        return self.guess.outcome == "cancelled"

    @property
    def ready(self) -> bool:
        """It has a result that may serve."""
        return self.result is not None and self.result.error is None

    @property
    def in_flight(self) -> bool:
        """It is being executed."""
        return self.started_s is not None and self.result is None and not self.cancelled

    def ancestor(self, target: int) -> Attempt | None:
        """The attempt for this step from which it was guessed, itself included; None if there is none."""
        attempt: Attempt | None = self
        while attempt is not None and attempt.target > target:
            attempt = attempt.parent
        return attempt if attempt is not None and attempt.target == target else None


@dataclass
class Write:
    """A call of a tool that writes, from its begin to its end."""

    touches: frozenset[str] | None
    end_s: float = float("inf")


@dataclass
class AttemptCache:
    """The attempts of one task. A result holds until its lifetime has passed or something it may depend on is written.

    most: results kept; the oldest go first.
    """

    most: int
    _attempts: list[Attempt] = field(default_factory=list)
    _writes: list[Write] = field(default_factory=list)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._attempts))

    def add(self, attempt: Attempt) -> None:
        """Keep an attempt."""
        self._attempts.append(attempt)

    def trim(self) -> None:
        """Drop what can never serve, and the oldest results above the limits."""
        self._attempts = [a for a in self._attempts if not a.cancelled and (a.result is None or a.ready)]
        ready = [a for a in self._attempts if a.ready]
        chars = sum(len(a.result.text) for a in ready)
        while ready and (len(ready) > self.most or chars > MOST_CHARS):
            oldest = ready.pop(0)
            chars -= len(oldest.result.text)
            self._attempts.remove(oldest)

    def clear(self) -> None:
        """Drop all attempts."""
        self._attempts.clear()

    def begin_write(self, tool: Tool) -> Write:
        """Note that a tool begins to write. What it may change is not valid from now on."""
        self._writes.append(Write(tool.touches))
        return self._writes[-1]

    def valid(self, attempt: Attempt, now_s: float) -> bool:
        """True while a result, or one that is still to come, is what the tool would return now."""
        if attempt.cancelled or attempt.started_s is None or (attempt.result and attempt.result.error):
            return False
        lifetime_s = attempt.tool.lifetime_s
        if lifetime_s is not None and now_s - attempt.started_s > lifetime_s:
            return False
        return attempt.tool.effect == Effect.pure or not any(
            attempt.started_s <= write.end_s and (write.touches is None or attempt.tool.name in write.touches)
            for write in self._writes
        )

    def same(self, call: Call, now_s: float) -> Attempt | None:
        """An attempt at this very call that is valid or still waits for a slot."""
        for attempt in self._attempts:
            if attempt.call == call and not attempt.cancelled:
                waiting = attempt.started_s is None
                if waiting or self.valid(attempt, now_s):
                    return attempt
        return None

    def best(
        self, wanted: Call, strategy: Strategy, threshold: float, step: int, now_s: float
    ) -> Attempt | None:
        """The attempt that serves a call best: the most alike, then a ready one, then the earliest.

        Strategies that are not lossless take attempts for this step only: an older one is about something else.
        """
        ranked = [
            ((score, attempt.ready, -attempt.started_s), attempt)
            for attempt in self._attempts
            if self.valid(attempt, now_s)
            and (strategy.lossless or attempt.target == step)
            and (score := strategy.match(attempt.call, wanted, threshold)) is not None
        ]
        return max(ranked, key=lambda pair: pair[0])[1] if ranked else None
