"""Scripted actor and speculators for the study of tool speculation: the turns of the world's perfect agent."""

from __future__ import annotations

from speceyes_lib.demo.tool_tasks import world_tasks
from speceyes_lib.demo.tool_world import WorldTask
from speceyes_lib.params import ToolStudyParams
from speceyes_lib.tool_speculation.models import ScriptedPolicy, Token, scripted_tokens
from speceyes_lib.workflow.tool_study import Models, run_study

K = 64


def task_of(messages) -> WorldTask:
    question = messages[0]["content"].partition("\n\n[")[0]
    tasks = [t for split in ("test", "validation") for t in world_tasks(split).values()]
    return next(task for task in tasks if task.question == question)


def actor(messages, toolbox, prefix) -> str:
    turn = task_of(messages).turns[sum(m["role"] == "assistant" for m in messages)]
    return "".join(text for text, _ in turn.thought) + (turn.call.text if turn.call else "")


def guesses(right: bool):
    """A speculator that guesses every other call, or none of them; it is surer where it is right."""

    def speculator(messages, toolbox, prefix) -> list[Token]:
        n = sum(m["role"] == "assistant" for m in messages)
        turns = task_of(messages).turns
        if n >= len(turns) or turns[n].call is None:
            return []
        text = turns[n].call.text
        hits = right and n % 2 == 0
        if not hits:
            text = '<tool_call>{"name": "web_search", "arguments": {"query": "Oru mass"}}</tool_call>'
        first, others = (-0.01, -5.0) if hits else (-0.9, -1.0)
        logprobs = (first, *(others - 0.01 * i for i in range(K - 1)))
        tokens = scripted_tokens(text)[len(prefix) :]
        return [Token(t.text, logprobs, (t.text, "9", *(" x",) * (K - 2))) for t in tokens]

    return speculator


def color(path, question: str) -> str:
    """What the vision model answers: the color that the task's picture has."""
    tasks = [t for split in ("test", "validation") for t in world_tasks(split).values()]
    return next(t.scene[1] for t in tasks if t.scene and t.picture == path.name and t.scene[0] in question)


def study(run: str = "tools", report=lambda line: None, **parameters):
    """Run a small study with scripted models; returns its folder."""
    small = {
        "tasks": 1,
        "levels": [2],
        "validation": 1,
        "scenes": 1,
        "tokens_per_s": 500.0,
        "guess_tokens_per_s": 5000.0,
    }
    models = Models(
        ScriptedPolicy(actor, name="actor"),
        ScriptedPolicy(guesses(True), name="speculator"),
        ScriptedPolicy(guesses(False), name="weak"),
        (color, color),
    )
    return run_study(ToolStudyParams(run=run, **(small | parameters)), models, report)
