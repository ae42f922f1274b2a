"""`speceyes rl`: train the recipe's arms, and print what each run changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from ..analysis.recipe_speculation import agent_samples, agents_table, speculation
from ..analysis.training_outcomes import held_out_change, windows
from ..errors import UserError
from ..formats import read_training
from ..inference import run_agent_stage, run_draft_stage
from ..judging import run_judging
from ..params import AgentParams, DraftParams, JudgingParams
from ..paths import resolve, shown
from ..runs import recorded_run

HELD_OUT = "held_out.csv"
SPECULATION, SPECULATION_SAMPLES = "speculation.csv", "speculation_samples.csv"


def train_and_compare(given: argparse.Namespace) -> None:
    """Train what `speceyes rl` names, or finish it, and print a line per run."""
    from ..demo.recorded import set_aside
    from ..training import grpo, miniature

    folder = resolve(given.out)
    if folder == resolve(miniature.FOLDER):
        set_aside([folder.name])
    settings = replace(grpo.Settings(), steps=given.steps)
    report = partial(print, flush=True)
    miniature.train_arms(
        folder, given.arms, given.seeds, settings, given.held_out, given.processes, report=report
    )
    print(outcomes(folder).round(2).to_string())


def outcomes(folder: str | Path) -> pd.DataFrame:
    """What each run of a folder changed: the end of its training against the beginning, and held-out questions.

    Returns:
        A row per run; held-out answers are greedy and compared with those of the start. Index: run. score_start,
        score_end, tool_start, tool_end (of sampled trajectories); accuracy_before, accuracy_after (rates), change,
        change_low, change_high (pp), p_value; tool_easy_after, tool_hard_after.
    """
    home = resolve(folder)
    before = pd.read_csv(home / "start" / HELD_OUT)
    rows = {}
    for file in sorted(home.glob(f"*/{HELD_OUT}")):
        if file.parent.name == "start":
            continue
        table = windows(read_training(file.parent).rollouts)
        change = held_out_change(before, pd.read_csv(file)).loc["greedy"]
        rows[file.parent.name] = {
            "score_start": table.loc["score", "start"],
            "score_end": table.loc["score", "end"],
            "tool_start": table.loc["tool_rate", "start"],
            "tool_end": table.loc["tool_rate", "end"],
            **{name: change[name] for name in change.index if name.startswith(("accuracy", "change", "p_"))},
            "tool_easy_after": change["tool_easy_after"],
            "tool_hard_after": change["tool_hard_after"],
        }
    return pd.DataFrame(rows).T.rename_axis("run")


def through_the_funnel(
    folder: str | Path,
    agents: Sequence[str],
    limit: int = 0,
    tasks: Sequence[str] = (),
    data_root: str = "data/demo/benchmark",
) -> Path:
    """Run trained agents through the funnel with the embedded draft model; the file with what each one comes to.

    A second file beside it has a row per sample.

    Args:
        folder: of `training.miniature`, with the models of its runs.
        agents: "start", or names of runs in the folder.
        limit: samples per task, from the front; 0: all.
        tasks: benchmark/split; empty: those of the paper.
        data_root: the benchmark.

    Raises:
        UserError: a run's model is not there.
    """
    home = resolve(folder)
    tables: dict[str, pd.DataFrame] = {}
    for name in agents:
        checkpoints = sorted((home / name / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
        model = home / "start" if name == "start" else next(reversed(checkpoints), None)
        if model is None or not model.is_dir():
            raise UserError(f"{shown(home / name)} holds no model; train it with speceyes rl")
        run = f"{home.name}_{name}"
        shared = {"run": run, "tasks": list(tasks), "data_root": data_root}
        run_draft_stage(DraftParams(**shared, limit=limit))
        arms = {"arms": ["collect"]}
        run_agent_stage(AgentParams(**shared, **arms, limit=limit, agent_model=shown(model)))
        run_judging(JudgingParams(**shared, **arms))
        recorded = recorded_run.open(run, tasks=DraftParams(**shared).tasks)
        tables[name] = agent_samples(recorded)
    rows = pd.concat([table.assign(agent=name) for name, table in tables.items()])
    rows.to_csv(home / SPECULATION_SAMPLES, index=False, float_format="%.6g")
    file = home / SPECULATION
    joined = (
        agents_table(tables).reset_index().merge(speculation(tables), on="agent", suffixes=("_alone", ""))
    )
    joined.to_csv(file, index=False, float_format="%.6g")
    return file
