"""How good the text pair of the tool tasks is: what the actor solves, and how well its calls are predicted.

    python benchmarks/bench_tool_pair.py                       the committed pair on the validation tasks
    python benchmarks/bench_tool_pair.py --split test --vision

Beside the speculator stand two predictors without a model: the call that the actor made last, and the most frequent
tool after it (name only). With --vision, vision_analyze is really answered by the embedded vision pair.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from itertools import pairwise

import pandas as pd

from speceyes_lib.demo.tool_tasks import PER_LEVEL, SPLITS
from speceyes_lib.demo.tool_vision import GatedVision
from speceyes_lib.training.tool_evaluation import (
    EvaluatedTask,
    actor_figures,
    guess_frame,
    run_episodes,
    speculator_figures,
)
from speceyes_lib.training.tool_pair import ACTOR_FOLDER, SPECULATOR_FOLDER, load_tool_model


def without_a_model(episodes: list[EvaluatedTask]) -> dict[str, float]:
    """Match rates of predictors without a model over the calls of these episodes, each task predicted by the others."""
    following: dict[str, Counter] = defaultdict(Counter)
    calls = [[step.call for step in e.steps if step.call] for e in episodes]
    for made in calls:
        for before, after in pairwise([None, *made]):
            following[before.name if before else ""][after.name] += 1
    total = sum(map(len, calls))
    last = sum(a == b for made in calls for a, b in pairwise(made))
    named = 0
    for made in calls:
        for before, after in pairwise([None, *made]):
            others = following[before.name if before else ""] - Counter([after.name])
            named += bool(others) and others.most_common(1)[0][0] == after.name
    return {"last call, exact": last / total, "most frequent tool, name": named / total}


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actor", default=ACTOR_FOLDER)
    parser.add_argument("--speculator", default=SPECULATOR_FOLDER)
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--per-level", type=int, default=PER_LEVEL)
    parser.add_argument("--vision", action="store_true")
    given = parser.parse_args()
    start = time.process_time()
    vision = GatedVision() if given.vision else None
    episodes = run_episodes(load_tool_model(given.actor), given.split, given.per_level, vision)
    guesses = guess_frame(load_tool_model(given.speculator), episodes)
    figures = {"actor": actor_figures(episodes), "speculator": speculator_figures(guesses)}
    for role, values in figures.items():
        print(f"\n{role}, {given.split}, {len(episodes)} tasks")
        print(pd.Series({k: v for k, v in values.items() if not isinstance(v, dict)}).to_string())
        groups = {k: v for k, v in values.items() if isinstance(v, dict)}
        for name, by in groups.items():
            print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in by.items()))
    print("\nwithout a model: " + ", ".join(f"{k} {v:.3f}" for k, v in without_a_model(episodes).items()))
    print(f"{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
