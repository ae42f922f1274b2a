"""What the cost model predicts for the arms that ran, and how far it is off on tasks that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..replay import outcomes
from ..replay.outcomes import POOLED
from ..replay.replay_data import ReplayData, fitted_without
from ..replay.settings import Setting
from ..runs.recorded_run import GATE, RecordedRun
from ..stats.intervals import finite_or_none
from ..tasks.registry import AVERAGE


def cost_errors(recorded: RecordedRun, data: ReplayData) -> pd.DataFrame:
    """Predicted beside measured seconds of every gated arm and task that ran.

    For each row the cost model is fitted again without that arm's records of that task. So the row shows what a
    prediction of an arm that has not run is worth.

    Args:
        recorded: the run.
        data: the same run, instrumented by `collect`.

    Returns:
        Columns arm, task, predicted_s, measured_s, off_pct (of the prediction). Arms and tasks without times have no
        row.
    """
    rows = []
    for arm in (name for name in recorded.arms if name.startswith("gated")) if data.cost else ():
        setting, records = setting_of(recorded, arm), recorded.records(arm)
        for task in data.task_names:
            of_task = data.tasks == task
            measured_s = sum(records[id_].wall_s for id_ in data.ids[of_task] if id_ in records)
            fitted = replace(data, cost=fitted_without(recorded, data, arm, task))
            predicted_s = outcomes.decisions(fitted, setting)["wall_s"].to_numpy()[of_task].sum()
            if measured_s > 0 and np.isfinite(predicted_s + measured_s):
                rows.append((arm, task, predicted_s, measured_s, 100.0 * (predicted_s / measured_s - 1.0)))
    return pd.DataFrame(rows, columns=["arm", "task", "predicted_s", "measured_s", "off_pct"])


def setting_of(recorded: RecordedRun, arm: str) -> Setting:
    """The setting of replay that an arm ran with; of an arm without a gate only the batch sizes matter."""
    config = recorded.config(f"02_{arm}")
    axes = (*GATE, "batch_size", "agent_batch_size")
    return Setting(**{name: config[name] for name in axes if config.get(name) is not None})


def predict_speedups(summary: dict, data: ReplayData, recorded: RecordedRun, arms: Sequence[str]) -> None:
    """Add to the arms of a summary that ran, and to their splits, the `speedup_predicted` by the cost model."""
    for name, entries in summary["arms"].items():
        if name.startswith("gated"):
            rows = outcomes.replay(data, setting_of(recorded, name)).set_index("task")
            add_predictions(entries, rows["speedup"])
        elif name == "router_only" and "gated" in arms:
            every_draft = replace(setting_of(recorded, "gated"), threshold=-1.0)
            add_predictions(entries, outcomes.replay(data, every_draft).set_index("task")["speedup"])
        elif name == "baseline_batched" and "baseline" in arms:
            one = setting_of(recorded, "baseline")
            many = setting_of(recorded, name if name in arms else "collect")
            alone_s = [
                outcomes.replay(data, replace(many, agent_batch_size=size)).set_index("task")
                for size in (one.agent_batch_size, many.agent_batch_size)
            ]
            ratio = alone_s[0]["baseline_wall_s"] / alone_s[1]["baseline_wall_s"]
            ratio[AVERAGE] = ratio[list(entries["splits"])].mean()
            add_predictions(entries, ratio)


def add_predictions(entries: dict, speedups: pd.Series) -> None:
    """Add predicted speedups, by task, to the entry of an arm (`summary.arm_summary`)."""
    for task, entry in {**entries["splits"], POOLED: entries["pooled"], AVERAGE: entries["average"]}.items():
        entry["speedup_predicted"] = finite_or_none(speedups.get(task, np.nan))
