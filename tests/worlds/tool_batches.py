"""Batches of toy tasks with scripted models, also as a program that a test can kill: FOLDER_OF_TASKS OUTPUT."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path

import toy_tools as toys
from tool_episodes import answer, call

from speceyes_lib.tasks.gaia import load_gaia
from speceyes_lib.tool_speculation.models import ScriptedPolicy
from speceyes_lib.tool_speculation.run import ToolSetup, run_batch
from speceyes_lib.tool_speculation.settings import BASELINE, SpeculationSettings
from speceyes_lib.tools.declared import Toolbox

ARMS = {"baseline": BASELINE, "exact": SpeculationSettings()}


def write_tasks(root: Path, count: int = 3) -> Path:
    """Tasks whose attachment holds the answer, in the layout of folders."""
    for n in range(count):
        folder = root / "level1" / f"example_{n:03d}"
        folder.mkdir(parents=True)
        (folder / "note.txt").write_text(str(n), "utf-8")
        task = {
            "task_id": f"t{n}",
            "question": f"What is written in it, number {n}?",
            "level": "1",
            "final_answer": str(n),
            "file_name": "note.txt",
            "annotator_metadata": {},
        }
        (folder / "metadata.json").write_text(json.dumps(task), "utf-8")
    return root


def reads_and_answers(messages, toolbox, prefix):
    results = [m["content"] for m in messages if m["role"] == "tool"]
    return answer(results[-1]) if results else "I read it. " + call("read", path="note.txt")


def setup(actor=reads_and_answers, speculator=reads_and_answers, name="actor") -> ToolSetup:
    return ToolSetup(
        ScriptedPolicy(actor, name=name),
        ScriptedPolicy(speculator, name="spec"),
        Toolbox([toys.READ]),
    )


def batch(tasks: Path, output: Path, arms=ARMS, models: ToolSetup | None = None):
    async def collect():
        return [pair async for pair in run_batch(load_gaia(tasks), models or setup(), arms, output)]

    return asyncio.run(collect())


def hangs_at_the_second_task(messages, toolbox, prefix):
    if "number 1" in messages[0]["content"]:
        threading.Event().wait()
    return reads_and_answers(messages, toolbox, prefix)


if __name__ == "__main__":
    batch(Path(sys.argv[1]), Path(sys.argv[2]), models=setup(hangs_at_the_second_task))
