"""Sweeps over threshold, K and batch size, as reported and as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..gating.gate import accepts, rejecting_threshold
from ..gating.separability import MODES
from ..replay import outcomes
from ..replay.outcomes import POOLED
from ..replay.replay_data import Lacking
from ..replay.settings import Setting
from ..runs import arms
from ..tasks.registry import TASKS
from .confidence_data import Gathered, _eligible, _pooled

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
KS = (32, 48, 64, 80, 96)  # the paper's


def points_at(run: Gathered, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Where thresholds lie on the front: columns `label threshold speedup gain_pp` (accuracy less the agent's)."""
    settings = [replace(run.setting, threshold=threshold) for threshold in thresholds.values()]
    told = outcomes.replay(run.population, settings)
    told = told[told["task"] == POOLED].reset_index(drop=True)
    gain = told["accuracy_pct"] - told["baseline_accuracy_pct"]
    return told[["threshold", "speedup"]].assign(label=list(thresholds), gain_pp=gain)


# ------------------------------------------------------------------ the same pass under other settings


def front(run: Gathered, names: Sequence[str], points: int = 200) -> pd.DataFrame:
    """Accuracy and speedup of the funnel over its threshold, one line per score: columns of `replay.curve` (pooled).

    `points` is how many thresholds are tried at most, spread evenly over the drafts; a score that the run cannot be
    gated by gives no rows.
    """
    lines = []
    for name in names:
        setting = replace(run.setting, score=name)
        try:
            values = np.sort(_eligible(run, setting))
        except Lacking:
            continue
        at = np.unique(np.linspace(0, len(values) - 1, points).astype(int)) if len(values) else []
        lines.append(outcomes.curve(run.population, setting, np.unique([0.0, *values[at], 1.0])))
    return _pooled(lines)


def ablations(run: Gathered, threshold: float, thresholds: Sequence[float]) -> pd.DataFrame:
    """The paper's ablations from the one pass: a row per `panel`, `line` and `x`, with the columns of `replay`.

    Panels: threshold, K, score, router, batch. K and the score change the scale on which a threshold is read, so
    these two are shown at the same threshold and at the same coverage as the run's setting.
    """
    base = replace(run.setting, threshold=threshold)
    share = int(accepts(_eligible(run, base), threshold).sum())
    asked: list[tuple[str, str, object, Setting]] = []

    def ask(panel: str, line: str, x: object, **changes: object) -> None:
        asked.append((panel, line, x, replace(base, **changes)))

    for value in thresholds:
        ask("threshold", base.score, value, threshold=float(value))
    for k in KS:
        ask("K", "same threshold", k, k=k)
        ask("K", "same coverage", k, k=k, threshold=_at_coverage(run, replace(base, k=k), share))
    for name in MODES:
        ask("score", "same threshold", name, score=name)
    for name in run.scores:
        fair = _at_coverage(run, replace(base, score=name), share)
        if fair is not None:
            ask("score", "same coverage", name, score=name, threshold=fair)
    for router in arms.ROUTERS:
        ask("router", "same threshold", router, router=router)
    for size in BATCH_SIZES:
        ask("batch", "agents one at a time", size, batch_size=size)
        ask("batch", "agents together too", size, batch_size=size, agents_in_parallel=size)
    told = outcomes.replay(run.population, [setting for *_, setting in asked])
    told = told[told["task"] == POOLED].reset_index(drop=True)
    names = pd.DataFrame([row[:3] for row in asked], columns=["panel", "line", "x"])
    return pd.concat([names, told.drop(columns=["setting", "task"])], axis=1)


def _at_coverage(run: Gathered, setting: Setting, accepted: int) -> float | None:
    """The threshold at which a setting accepts as many drafts; None where it never does.

    1 where the setting cannot be done at all: replay says why.
    """
    try:
        values = -np.sort(-_eligible(run, setting))
    except Lacking:
        return 1.0
    if accepted > len(values):
        return None
    return float(rejecting_threshold(values[accepted])) if accepted < len(values) else 0.0


# ------------------------------------------------------------------ sweeps from the two sources
def reported_sweep(table: pd.DataFrame, x: str) -> pd.DataFrame:
    """A reported ablation (`paper.reported`) as a sweep over its column `x`."""
    baseline = table["is_baseline"] if "is_baseline" in table else table[x].eq(0)
    sweep = table.assign(source="reported", is_baseline=baseline)
    columns = ["source", "agent", "split", x, "accuracy_pct", "speedup", "is_baseline"]
    return sweep.reindex(columns=columns)


def measured_sweep(replayed: pd.DataFrame, x: str, agent: str) -> pd.DataFrame:
    """Rows of `replay.replay` as a sweep over the setting `x`; refused settings and totals are left out.

    The agent alone becomes the baseline row of each split.
    """
    part = replayed[(replayed["status"] == "ok") & replayed["task"].isin(TASKS)]
    points = pd.DataFrame(
        {
            "source": "measured",
            "agent": agent,
            "split": part["task"],
            x: part[x].astype("float64"),
            "accuracy_pct": part["accuracy_pct"],
            "speedup": part["speedup"],
            "is_baseline": False,
        }
    )
    alone = part.drop_duplicates("task")
    baseline = pd.DataFrame(
        {
            "source": "measured",
            "agent": agent,
            "split": alone["task"],
            x: np.nan,
            "accuracy_pct": alone["baseline_accuracy_pct"],
            "speedup": 1.0,
            "is_baseline": True,
        }
    )
    return pd.concat([baseline, points], ignore_index=True)


def joined(*sweeps: pd.DataFrame | None) -> pd.DataFrame:
    """Sweeps of several sources below each other; None and empty ones are passed over."""
    there = [sweep for sweep in sweeps if sweep is not None and len(sweep)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame()
