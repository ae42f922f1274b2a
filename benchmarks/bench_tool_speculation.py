"""How much later an actor has finished its turn because its calls are guessed, against the original's policy.

    python benchmarks/bench_tool_speculation.py [--write]

The actor is paced, as from a remote server: token n is released at n / 100 s. Its turns are the same in all arms, and
so must be the messages, or the script fails. Every other guess is wrong. Tools compute for 50 ms in processes of their
own.
`--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_confidence import write_between_markers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/worlds"))  # tools and models are those of the tests

import toy_tools as toys  # noqa: E402
from tool_episodes import answer, call, turns_so_far  # noqa: E402

from speceyes_lib.tool_speculation.episode import Assignment, Episode  # noqa: E402
from speceyes_lib.tool_speculation.models import (  # noqa: E402
    PacedPolicy,
    ScriptedPolicy,
    Token,
    scripted_tokens,
)
from speceyes_lib.tool_speculation.settings import SpeculationSettings  # noqa: E402
from speceyes_lib.tools.declared import Toolbox, Workspace  # noqa: E402
from speceyes_lib.tools.worker import prepare  # noqa: E402

STEPS, RATE, ROUNDS, K = 20, 100.0, 2, 64
THOUGHT = "I compare the rows one by one and keep the larger value every time, then I look up what it says. "
ARMS = {
    "no speculation": {"policy": "off"},
    "exact": {},
    "exact, 2 guesses, look-ahead 2": {"guesses": 2, "look_ahead": 2},
    "original policy": {"policy": "original"},
}


def actor_turn(messages: list[dict], toolbox: Toolbox, prefix: object) -> str:
    n = turns_so_far(messages)
    return answer("4") if n == STEPS else THOUGHT + call("busy", query=f"row {n}")


def guess(messages: list[dict], toolbox: Toolbox, prefix: list[Token]) -> list[Token]:
    n = turns_so_far(messages)
    text = call("busy", query=f"row {n + n % 2}")  # wrong in every other step
    tokens = scripted_tokens(text)[len(prefix) :]
    logprobs = tuple(-0.1 - 0.05 * i for i in range(K))
    return [Token(t.text, logprobs, (t.text, "9", *(" x",) * (K - 2))) for t in tokens]


def run(settings: dict) -> tuple[list[dict], list[float], list[float], float]:
    """Messages, seconds by which each turn was late, seconds from turn to call, and seconds in total."""
    actor = PacedPolicy(ScriptedPolicy(actor_turn), RATE)
    speculator = ScriptedPolicy(guess, 0.002, "speculator")

    async def work() -> object:
        values = SpeculationSettings(max_steps=STEPS + 1, **settings)
        box = Toolbox([toys.BUSY])
        with tempfile.TemporaryDirectory() as folder:
            task = Assignment("task", 1, "?", "4")
            return await Episode(task, actor, speculator, box, Workspace(Path(folder)), values).run()

    result = asyncio.run(work())
    steps = [s for s in result.steps if s.calls]
    late = [s.actor_end_s - s.actor_start_s - s.actor_tokens / RATE for s in steps]
    waited = [s.calls[0].start_s - s.actor_end_s for s in steps]
    return result.messages, late, waited, result.seconds


def report() -> str:
    prepare()
    late: dict[str, list[float]] = {name: [] for name in ARMS}
    waited: dict[str, list[float]] = {name: [] for name in ARMS}
    seconds = dict.fromkeys(ARMS, 0.0)
    expected = None
    for _ in range(ROUNDS):
        for name, settings in ARMS.items():
            messages, more, waits, total = run(settings)
            expected = expected or messages
            if messages != expected:
                raise SystemExit(f"{name}: other messages")
            late[name] += more
            waited[name] += waits
            seconds[name] += total
    base = np.quantile(late["no speculation"], 0.95)
    rows = [
        f"| {name} | {1e3 * np.median(values):.1f} | {1e3 * np.quantile(values, 0.95):.1f} | "
        f"{1e3 * (np.quantile(values, 0.95) - base):+.1f} | {1e3 * np.quantile(waited[name], 0.95):.1f} | "
        f"{seconds[name] / ROUNDS:.1f} |"
        for name, values in late.items()
    ]
    head = (
        f"{STEPS} steps, {ROUNDS} rounds, arms in turn; {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; clock time."
    )
    table = (
        "| arm | turn late, median ms | turn late, p95 ms | against no speculation, ms | from turn to call, p95 ms | "
        "seconds per task |"
    )
    return "\n".join([head, "", table, "| --- " * 6 + "|", *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    measured = report()
    print(measured)
    if parser.parse_args().write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_tool_speculation", measured)
