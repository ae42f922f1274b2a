"""Ablations: the gate with another threshold, K, score, batch size or router, as replayed and as reported.

One value changes, everything else stays as the run was gated. K and the score change the scale on which a threshold
is read. So these two are shown in two lines: at the same threshold, and at the same coverage, which is the threshold
that accepts as many drafts as the run's own setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..gating.gate import NOTHING, accepts, rejecting_threshold
from ..replay import outcomes
from ..replay.outcomes import POOLED
from ..replay.replay_data import NotRecorded, ReplayData
from ..replay.settings import AXES, Setting
from ..tasks.registry import TASKS

SAME_THRESHOLD, SAME_COVERAGE = "same threshold", "same coverage"


def front(data: ReplayData, base: Setting, names: Sequence[str]) -> pd.DataFrame:
    """Accuracy and speedup of the funnel over its threshold, one line per score.

    Args:
        data: the recorded pass.
        base: the setting of all lines but for score and threshold.
        names: scores. A score that the run cannot be gated by gives no rows.

    Returns:
        Columns of `outcomes.curve`, pooled over the tasks, at 200 thresholds at most.
    """
    lines = [pd.DataFrame(columns=[*AXES, "task", "accuracy_pct", "speedup"])]
    for name in names:
        setting = replace(base, score=name)
        try:
            values = np.sort(_eligible_scores(data, setting))
        except NotRecorded:
            continue
        at = np.unique(np.linspace(0, len(values) - 1, 200).astype(int)) if len(values) else []
        lines.append(outcomes.curve(data, setting, np.unique([0.0, *values[at], 1.0])))
    rows = pd.concat(lines[1:] or lines, ignore_index=True)
    return rows[rows["task"] == POOLED].reset_index(drop=True)


def replayed_sweep(
    data: ReplayData, base: Setting, axis: str, values: Sequence[object], same_coverage: bool = False
) -> pd.DataFrame:
    """`outcomes.replay` of a setting with one axis changed.

    Args:
        data: the recorded pass.
        base: the setting that all rows share but for the axis.
        axis: the field of `Setting` that changes.
        values: what it changes to.
        same_coverage: add a second line, at the coverage of `base`. A value at which that coverage cannot be
            reached has no row there.

    Returns:
        Columns of `outcomes.replay`; with `same_coverage` also `line`, which is SAME_THRESHOLD or SAME_COVERAGE.
    """
    settings = [replace(base, **{axis: value}) for value in values]
    rows = outcomes.replay(data, settings)
    if not same_coverage:
        return rows
    accepted = int(accepts(_eligible_scores(data, base), base.threshold).sum())
    thresholds = [_threshold_at_coverage(data, setting, accepted) for setting in settings]
    fair = [replace(s, threshold=t) for s, t in zip(settings, thresholds, strict=True) if t is not None]
    lines = {SAME_THRESHOLD: rows, SAME_COVERAGE: outcomes.replay(data, fair)}
    return pd.concat([part.assign(line=line) for line, part in lines.items()], ignore_index=True)


def _threshold_at_coverage(data: ReplayData, setting: Setting, accepted: int) -> float | None:
    """The threshold at which a setting accepts that many drafts; None where it has fewer drafts to accept.

    Where the run lacks what the setting needs, it is the threshold that accepts nothing (replay gives the reason).
    """
    try:
        values = -np.sort(-_eligible_scores(data, setting))
    except NotRecorded:
        return NOTHING
    if accepted > len(values):
        return None
    return float(rejecting_threshold(values[accepted])) if accepted < len(values) else 0.0


def _eligible_scores(data: ReplayData, setting: Setting) -> NDArray[np.float64]:
    """Scores of the drafts that the gate may accept; raises NotRecorded where the setting needs what is not there."""
    rows = outcomes.decisions(data, replace(setting, threshold=-1.0))
    return rows.loc[rows["decision"] == "accepted", "confidence"].to_numpy()


def reported_sweep(table: pd.DataFrame, x: str) -> pd.DataFrame:
    """A reported ablation (`read_reported`) as a sweep over its column `x`."""
    baseline = table["is_baseline"] if "is_baseline" in table else table[x].eq(0)
    sweep = table.assign(source="reported", is_baseline=baseline)
    columns = ["source", "agent", "split", x, "accuracy_pct", "speedup", "is_baseline"]
    return sweep.reindex(columns=columns)


def measured_sweep(replayed: pd.DataFrame, x: str, agent: str) -> pd.DataFrame:
    """Rows of `replayed_sweep` as a sweep over `x`; refused settings and totals are left out.

    The agent alone becomes the baseline row of each split, of the line SAME_THRESHOLD where there are two.
    """
    part = replayed[(replayed["status"] == "ok") & replayed["task"].isin(TASKS)].rename(
        columns={"task": "split"}
    )
    part = part.assign(source="measured", agent=agent, is_baseline=False)
    alone = part.drop_duplicates("split")
    alone = alone.assign(
        **{x: np.nan}, accuracy_pct=alone["baseline_accuracy_pct"], speedup=1.0, is_baseline=True
    )
    line = ["line"] if "line" in part else []
    ends = [name for name in ("accuracy_low_pct", "accuracy_high_pct") if name in part]
    columns = ["source", "agent", "split", x, *line, "accuracy_pct", *ends, "speedup", "is_baseline"]
    alone = alone.assign(
        line=SAME_THRESHOLD, **dict.fromkeys(ends, np.nan)
    )  # the interval is that of the gate
    return pd.concat([alone[columns], part[columns]], ignore_index=True)


def joined(*sweeps: pd.DataFrame | None) -> pd.DataFrame:
    """Sweeps of several sources below each other; None and empty ones are passed over.

    Where one of them has lines, the others are at the same threshold.
    """
    parts = [sweep for sweep in sweeps if sweep is not None and len(sweep)]
    sweep = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return sweep.fillna({"line": SAME_THRESHOLD}) if "line" in sweep else sweep
