"""Episodes with scripted models and tools that take seconds of a virtual clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import toy_tools as toys
from virtual_time import run_virtually

from speceyes_lib.tool_speculation.episode import Assignment, Episode
from speceyes_lib.tool_speculation.models import ScriptedPolicy, Token, scripted_tokens
from speceyes_lib.tool_speculation.records import TaskRun
from speceyes_lib.tool_speculation.settings import SpeculationSettings
from speceyes_lib.tools.declared import Toolbox, Workspace

HERE = Path(__file__).parent


def call(name: str, **arguments) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def search(query: str, **more) -> str:
    return call("search", query=query, **more)


def answer(text: str) -> str:
    return f"FINAL ANSWER: {text}"


def turns_so_far(messages: Sequence[dict]) -> int:
    return sum(m["role"] == "assistant" for m in messages)


def model(
    turns: Sequence[str | Sequence[Token] | Exception] | Mapping,
    turn_s: float | Sequence[float] = 1.0,
    name: str = "actor",
    forks: Mapping[str, str] | None = None,
) -> ScriptedPolicy:
    """A model that writes turn n when n turns are in the conversation, in `turn_s` seconds each or of its own.

    forks: last token of a prefix -> the rest of the turn.
    """

    def turn(messages, toolbox, prefix):
        if prefix:
            return forks[prefix[-1].text]
        text = turns[min(turns_so_far(messages), len(turns) - 1)]
        if isinstance(text, Exception):
            raise text
        return text

    lengths = [len(scripted_tokens(t)) if isinstance(t, str) else len(getattr(t, "args", t)) for t in turns]

    def pace(messages, index):
        n = turns_so_far(messages)
        seconds = turn_s if isinstance(turn_s, float | int) else turn_s[min(n, len(turn_s) - 1)]
        return seconds / max(1, lengths[min(n, len(turns) - 1)])

    return ScriptedPolicy(turn, pace, name)


def slow(tool=toys.SEARCH, seconds: float = 2.0, **changes):
    """A tool that takes seconds of the virtual clock."""
    return replace(tool, wait_s=lambda call, workspace: seconds, **changes)


def episode(
    actor,
    speculator=None,
    tools=None,
    folder: Path = HERE,
    attachment: str = "",
    **settings,
) -> Episode:
    box = Toolbox(tools or [slow()])
    task = Assignment("task", 1, "What does oil cost?", "4", attachment)
    values = SpeculationSettings(**settings)
    return Episode(task, actor, speculator, box, Workspace(folder), values, values.policy)


def run(*args, **options) -> TaskRun:
    async def work():
        return await episode(*args, **options).run()

    return run_virtually(work())
