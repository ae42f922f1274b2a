"""When actor, speculator and tools were busy in a recorded tool run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd

from ..tool_speculation.records import Guess, MadeCall, TaskRun

LANES = ("actor", "speculator", "guessed tools", "tools")
COLUMNS = ("lane", "kind", "begin_s", "end_s", "step", "place", "label", "pair")


def timeline(run: TaskRun) -> pd.DataFrame:
    """What happened in a task, a row per span of time.

    Returns:
        Columns: lane (of LANES), kind (actor: "think", "wait" for a result, "join", the original's wait for guesses;
        speculator: "guess"; guessed tools: "used", "awaited", "cached", "cancelled", "unused" or "failed"; tools:
        "executed"), begin_s, end_s, step, place (of guess or call in its step), label (the call), pair (the same number
        for a guess, its execution and the wait of the call that it served; 0: none).
    """
    rows: list[dict[str, Any]] = []

    def add(
        lane: str,
        kind: str,
        begin: float,
        end: float,
        step: int,
        place: int = 0,
        label: str = "",
        pair: int = 0,
    ):
        values = (lane, kind, begin, max(begin, end), step, place, label, pair)
        rows.append(dict(zip(COLUMNS, values, strict=True)))

    pairs = {}  # (step, place) of a guess -> number of the pair, and how it served
    for step in run.steps:
        for call in step.calls:
            if call.guess is not None:
                place = (step.index, call.guess) if isinstance(call.guess, int) else tuple(call.guess)
                pairs.setdefault(place, (len(pairs) + 1, call.source))
    for step, after in pairwise([*run.steps, None]):
        add("actor", "think", step.actor_start_s, step.actor_end_s, step.index)
        next_s = step.calls[0].start_s if step.calls else after.actor_start_s if after else run.seconds
        if run.settings.get("policy") == "original" and next_s > step.actor_end_s:
            add("actor", "join", step.actor_end_s, next_s, step.index)
        for place, guess in enumerate(step.guesses):
            number, source = pairs.get((step.index, place), (0, ""))
            add(
                "speculator",
                "guess",
                guess.start_s,
                guess.end_s,
                step.index,
                place,
                call_label(guess),
                number,
            )
            if guess.tool_start_s is not None:
                end = guess.tool_end_s
                kind = source or guess.outcome
                if end is None:  # cancelled when the actor had made another call
                    end, kind = max(step.actor_end_s, guess.tool_start_s), "cancelled"
                add(
                    "guessed tools",
                    kind,
                    guess.tool_start_s,
                    end,
                    step.index,
                    place,
                    call_label(guess),
                    number,
                )
        for place, call in enumerate(step.calls):
            at = call.guess
            number = 0 if at is None else pairs[(step.index, at) if isinstance(at, int) else tuple(at)][0]
            add("actor", "wait", call.start_s, call.end_s, step.index, place, call_label(call), number)
            if call.source == "executed":
                add("tools", "executed", call.start_s, call.end_s, step.index, place, call_label(call))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def call_label(call: Guess | MadeCall) -> str:
    """A call as people read it: the tool and the values of its arguments."""
    return f"{call.name}({', '.join(str(value) for value in (call.given or call.arguments).values())})"
