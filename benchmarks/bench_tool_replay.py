"""Replaying tool speculation: all steps of a setting at once against a simulation event by event.

    python benchmarks/bench_tool_replay.py [--write]

The simulation is that of the tests: one task at a time, with a queue of events. It runs every twentieth setting, and
seconds, hits, executed guesses and waste must be equal, or the script fails. `--write` puts the table into README.md
beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
from bench_confidence import write_between_markers

ROOT = Path(__file__).parents[1]
sys.path.insert(
    0, str(ROOT / "tests/worlds")
)  # recorded runs of chance, and the simulation, are those of the tests

from tool_runs import Simulated, recorded_runs  # noqa: E402

from speceyes_lib.replay.tool_playing import tool_grid  # noqa: E402
from speceyes_lib.replay.tool_speculation import replay_tools  # noqa: E402
from speceyes_lib.replay.tool_steps import flatten_runs  # noqa: E402

STEPS = 10_000
GRIDS = {
    "one step alone": tool_grid(
        policy=["concurrent", "original"],
        cache=False,
        guesses=[1, 2],
        threshold=list(np.linspace(0, 0.9, 10)),
        tool_scale=[0.125, 0.5, 1, 2, 4],
    ),
    "cache and slots": tool_grid(
        strategy=["exact", "none"],
        guesses=[1, 2],
        guess_slots=[0, 1],
        threshold=list(np.linspace(0, 0.9, 25)),
    ),
}


def report() -> str:
    runs = recorded_runs(3_400, seed=1, max_steps=6, max_calls=1, words=6)
    start = time.process_time()
    steps = flatten_runs(runs)
    flatten_s = time.process_time() - start
    if len(steps) < STEPS:
        raise SystemExit(f"only {len(steps)} steps")
    rows = []
    for name, grid in GRIDS.items():
        start = time.process_time()
        frame = replay_tools(steps, grid)
        replay_s = time.process_time() - start
        start = time.process_time()
        some = grid[::20]
        for at, setting in enumerate(some):
            results = [Simulated(run, setting) for run in runs]
            row = frame.iloc[20 * at]
            sums = {
                "seconds": sum(r.seconds for r in results),
                "hits": sum(s != "executed" for r in results for s in r.sources),
                "executed": sum(r.started for r in results),
                "wasted_s": sum(r.wasted_s for r in results),
            }
            if not all(np.isclose(row[key], value) for key, value in sums.items()):
                raise SystemExit(f"replay and simulation disagree: {setting}")
        simulated_s = (time.process_time() - start) / len(some)
        per = replay_s / len(grid)
        rows.append(
            f"| {name} | {len(steps):,} | {len(grid)} | {replay_s:.2f} | {1e3 * per:.1f} | {1e3 * simulated_s:.0f} | "
            f"{simulated_s / per:.0f}x |"
        )
    head = (
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, numpy {np.__version__}, Python "
        f"{platform.python_version()}; CPU time, once. "
        f"Making the arrays of {len(runs):,} tasks takes {flatten_s:.1f} s."
    )
    table = (
        "| settings | steps | number | replay, CPU s | per setting, CPU ms | simulation, CPU ms | faster |"
    )
    return "\n".join([head, "", table, "| --- " * 7 + "|", *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    measured = report()
    print(measured)
    if parser.parse_args().write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_tool_replay", measured)
