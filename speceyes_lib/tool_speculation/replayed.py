"""Actor and speculator that write what they wrote in a recorded run, in the seconds that they took, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..tools.declared import Toolbox
from .models import PolicyError, ScriptedPolicy, Token, call_text, scripted_tokens
from .records import TaskRun


def replayed_pair(run: TaskRun) -> tuple[ScriptedPolicy, ScriptedPolicy]:
    """Actor and speculator of a recorded run.

    The speculator makes the guesses of each step (no forks, no look-ahead), without log-probabilities. Both go by the
    number of turns in the conversation. An arm that is not lossless hands the actor results that it did not read when
    it was recorded; it writes the recorded turns all the same.

    Args:
        run: of one task, with its messages.
    """
    turns = [m["content"] for m in run.messages if m["role"] == "assistant"]
    guesses = [
        "".join(
            call_text(g.name, json.dumps(g.given or g.arguments))
            for g in step.guesses
            if g.rank == g.ahead == 0 and g.name
        )
        for step in run.steps
    ]
    think_s = [step.actor_end_s - step.actor_start_s for step in run.steps]
    guess_s = [
        max(
            (g.end_s for g in step.guesses if g.rank == g.ahead == 0),
            default=step.actor_start_s + (step.speculator_s or 0.0),
        )
        - step.actor_start_s
        for step in run.steps
    ]
    models = run.models
    return (
        _replayed(turns, think_s, f"{models.get('actor') or 'actor'} (recorded)"),
        _replayed(guesses, guess_s, f"{models.get('speculator') or 'speculator'} (recorded)"),
    )


def _replayed(turns: Sequence[str], seconds: Sequence[float], name: str) -> ScriptedPolicy:
    def place(messages: Sequence[dict]) -> int:
        return sum(message["role"] == "assistant" for message in messages)

    def turn(messages: Sequence[dict], toolbox: Toolbox, prefix: Sequence[Token]) -> str:
        if place(messages) >= len(turns):
            raise PolicyError(f"{name}: the record ends after {len(turns)} turns")
        return turns[place(messages)]

    def pace(messages: Sequence[dict], index: int) -> float:
        at = place(messages)
        return seconds[at] / max(1, len(scripted_tokens(turns[at]))) if at < len(seconds) else 0.0

    return ScriptedPolicy(turn, pace, name, can_fork=False)
