"""`speceyes rl`: train the recipe's arms, and print what each run changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from ..analysis.recipe_speculation import agent_samples, agents_table, speculation
from ..analysis.training_outcomes import windows
from ..analysis.training_views import held_out_results
from ..errors import UserError
from ..formats import read_training_runs
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
        A row per run. Index: run. score_start, score_end, tool_start, tool_end (of sampled trajectories); then its
        greedy answers to held-out questions (`training_views.held_out_results`, without sampling and seeds). The
        start has a row, too.
    """
    runs = read_training_runs(folder)
    names = runs.held_out["arm"].where(
        runs.held_out["arm"] == "start", runs.held_out["arm"] + "-" + runs.held_out["seed"].astype(str)
    )
    greedy = runs.held_out.assign(arm=names).query("sampling == 'greedy'")
    rows = {}
    for (arm, seed), rollouts in runs.rollouts.groupby(["arm", "seed"], sort=False):
        table = windows(rollouts)
        ends = {"score": table.loc["score"], "tool": table.loc["tool_rate"]}
        rows[f"{arm}-{seed}"] = {
            f"{name}_{at}": row[at] for name, row in ends.items() for at in ("start", "end")
        }
    held_out = held_out_results(greedy).set_index("arm").drop(columns=["sampling", "seeds"])
    return pd.DataFrame(rows).T.join(held_out, how="outer").rename_axis("run")


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
