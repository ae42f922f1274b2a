"""The outcome of any gate setting, computed from one instrumented pass. No model runs.

A `collect` run holds for every sample the draft with its evidence, the router's output, the agent's answer and the
seconds of each. Every threshold, score, K, slope, router and batch size can be computed from that. A setting that needs
data the run did not record gives a row with status "refused" and the reason.

For speed, a binary search puts each sample between two thresholds. The samples above a threshold are then a cumulative
sum over thresholds, so another threshold costs almost nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..gating.gate import accepts, candidate_thresholds, rejecting_threshold
from ..stats.intervals import LEVEL, Estimate
from ..stats.proportions import funnel_shares
from ..stats.resampling import linearised_ratio
from ..tasks.registry import AVERAGE
from .counting import N_CLASSES, _Above, _classes, _interval, _per_task, _seconds
from .one_setting import _Plan, _shortage, _threshold_fault, _View
from .replay_data import ABSENT, FAILED, RIGHT, NotRecorded, ReplayData
from .settings import AXES, POOLED, Setting, Settings, frame_of, grid

# what a decision comes to against the agent alone
OUTCOMES = {
    "gained": "draft right, agent wrong",
    "lost": "draft wrong, agent right",
    "both wrong": "draft and agent wrong",
    "both right": "draft and agent right",
    "unknown": "the agent's answer is not recorded",
    "missed": "not accepted although the draft is right",
}


def replay(data: ReplayData, settings: Settings, *, level: float = LEVEL) -> pd.DataFrame:
    """What every setting would have done: a row per setting and task, then the tasks "pooled" and "average".

    Args:
        data: the recorded run.
        settings: a frame with some of the axes as columns (the others keep their defaults), a Setting, or several.
        level: coverage of the intervals, 0 to 1.

    Returns:
        Columns, in this order:

        setting: number of the setting, from 0; then its axes as in `Setting`, and task.
        n, n_errors, n_unscored: samples that count; failed samples; drafted samples without a score.
        accuracy_pct, accuracy_low_pct, accuracy_high_pct: of the funnel, and its interval. interval: its method.
        baseline_accuracy_pct: of the agent alone on the same samples.
        drafted, accepted: samples that the router leaves to the draft; drafts that the gate accepts.
        alpha, beta, coverage: acceptance rate, drafted share and accepted share, 0 to 1 (`stats.funnel_shares`).
        selective_risk: share of wrong drafts among the accepted (NaN: none accepted).
        gained, lost: accepted drafts that are right where the agent is wrong, and the reverse.
        wall_s, baseline_wall_s, speedup: predicted by the run's cost model. cost_note: what it extrapolates.
        status, reason: "ok", or "refused" with what the run lacks; the numbers are NaN then.

        The interval is Wilson's. Where groups repeat, its n is divided by the design effect: the variance of the
        clustered share over that of independent samples, at least 1. "average" is the unweighted mean over tasks of
        accuracy and speedup, without interval; its counts and seconds are sums. Under the protocol `paper` failed
        samples do not count in the accuracies, as in the original, but in shares and seconds.

    Raises:
        UserError: a column of `settings` is no axis.

    Source:
        Design effect: Korn and Graubard 1998.
    """
    frame = frame_of(settings)
    if not len(frame):
        return pd.DataFrame(columns=["setting", *AXES, "task", *_COLUMNS])
    names = np.array([*data.task_names, POOLED, AVERAGE], dtype=object)
    columns: dict[str, list[NDArray]] = {name: [] for name in ("setting", "place", *_COLUMNS)}
    axes = [name for name in AXES if name != "threshold"]
    plans: dict[tuple, _Plan | None] = {}  # predicted seconds do not depend on the score
    for values, rows in frame.groupby(axes, sort=False, dropna=False):
        setting = Setting(**dict(zip(axes, values, strict=True)))
        view = _View(data, setting)
        key = (setting.router, setting.batch_size, setting.agent_batch_size)
        if not view.why and key not in plans:
            plans[key] = view.plan()
        values = _outcomes(view, plans.get(key), rows["threshold"].to_numpy(dtype=np.float64), level)
        values["setting"], values["place"] = rows.index.to_numpy(), np.arange(len(names))[:, None]
        for name, column in columns.items():
            column.append(np.broadcast_to(values[name], (len(names), len(rows))).ravel())
    result = pd.DataFrame({name: np.concatenate(column) for name, column in columns.items()})
    result = result.sort_values(["setting", "place"], ignore_index=True)
    result.insert(1, "task", names[result.pop("place")])
    settings_of_rows = frame.loc[result["setting"]].reset_index(drop=True)
    return pd.concat([result[["setting"]], settings_of_rows, result.drop(columns="setting")], axis=1)


def curve(
    data: ReplayData, setting: Setting, thresholds: ArrayLike | None = None, *, level: float = LEVEL
) -> pd.DataFrame:
    """`replay` of one setting over thresholds.

    Args:
        data: the recorded run.
        setting: its threshold is ignored.
        thresholds: None: ascending, every threshold at which the decisions differ from those of the one before.
        level: of the intervals.
    """
    if thresholds is None:
        view = _View(data, setting)
        confidence = view.confidence[view.eligible]
        if ((confidence >= 0) & (confidence <= 1)).all():
            thresholds = candidate_thresholds(confidence)
        else:  # scores on another scale: below all of them, and at each
            distinct = np.unique(confidence)
            thresholds = np.append(distinct[0] - 1.0, rejecting_threshold(distinct))
    axes = asdict(setting) | {"threshold": thresholds}
    return replay(data, grid(**axes), level=level)


def decisions(data: ReplayData, setting: Setting, *, partial: bool = False) -> pd.DataFrame:
    """What one setting does with every sample.

    Args:
        data: the recorded run.
        setting: score, threshold and the rest.
        partial: give the decisions also where the run lacks answers or verdicts; those are missing then.

    Returns:
        A row per sample, in the order of the data, with the columns

        id, task, group: of the sample.
        confidence: the gate's score (NaN: none). margin: confidence less threshold.
        decision: "accepted", "rejected", "routed" or "draft_failed". used: "small" or "large".
        right: of the funnel's answer (missing: not judged). error: whether that answer failed.
        draft_right, agent_right: of the two answers (missing: not recorded).
        wall_s, baseline_wall_s: predicted seconds of the sample with the gate and of the agent alone.
        outcome: one of `OUTCOMES`; "" where the agent answers and the draft is not right.

    Raises:
        NotRecorded: the run did not record what the setting needs.
    """
    view = _View(data, setting)
    if reason := view.fault(setting.threshold) if partial else view.lacks(setting.threshold):
        raise NotRecorded(f"{setting}: {reason}")
    accepted = view.eligible & accepts(view.confidence, setting.threshold)
    decision = np.select(
        [view.routed, data.draft == FAILED, accepted],
        ["routed", "draft_failed", "accepted"],
        default="rejected",
    )
    answer = np.where(accepted, data.draft, data.agent)
    draft, agent = data.draft_right, data.agent_right
    outcome = np.select(
        [~accepted, data.agent == ABSENT, draft & agent, draft, agent],
        [np.where(draft, "missed", ""), "unknown", "both right", "gained", "lost"],
        default="both wrong",
    )
    wall_s, baseline_s = view.charged(~accepted & data.readable)
    columns = {
        "id": data.ids,
        "task": data.tasks,
        "group": data.groups,
        "confidence": view.confidence,
        "margin": view.confidence - setting.threshold,
        "decision": decision,
        "used": np.where(accepted, "small", "large"),
        "right": _nullable(answer),
        "error": answer == FAILED,
        "draft_right": _nullable(data.draft),
        "agent_right": _nullable(data.agent),
        "wall_s": wall_s,
        "baseline_wall_s": baseline_s,
        "outcome": outcome.astype(object),
    }
    return pd.DataFrame(columns)


def speedup_estimate(value: float, decided: pd.DataFrame) -> Estimate:
    """A predicted speedup with the linearised interval of the seconds that are charged to the samples.

    Args:
        value: the speedup as `replay` predicts it: calls shared by several samples add up a little differently.
        decided: rows of `decisions`; those without times are passed over.
    """
    timed = decided[decided["wall_s"].notna() & decided["baseline_wall_s"].notna()]
    groups = pd.factorize(timed["group"])[0]
    ratio = linearised_ratio(timed["baseline_wall_s"].to_numpy(), timed["wall_s"].to_numpy(), groups)
    shift = value - ratio.value
    return replace(ratio, value=value, low=ratio.low + shift, high=ratio.high + shift, unit="x")


def seconds_of_samples(data: ReplayData, setting: Setting) -> pd.DataFrame:
    """Predicted seconds of every sample in parts that no threshold changes, for agents that run one at a time.

    Returns:
        A row per sample, in the order of the data: before_s (with the gate, before the agent), agent_s (added where
        the draft is not accepted; 0 without a readable picture) and baseline_s (the agent alone). NaN: not timed.

    Raises:
        NotRecorded: no threshold of the setting can be evaluated.
    """
    view = _View(data, replace(setting, agent_batch_size=1))
    if view.why:
        raise NotRecorded(f"{setting}: {view.why}")
    if (plan := view.plan()) is None:
        return pd.DataFrame({name: np.full(data.n, np.nan) for name in ("before_s", "agent_s", "baseline_s")})
    agent_s = np.where(data.readable, plan.agents.linear_s, 0.0)
    columns = {"before_s": plan.before_s, "agent_s": agent_s, "baseline_s": plan.baseline_s + agent_s}
    return pd.DataFrame(columns)


def ledger(data: ReplayData, setting: Setting) -> pd.DataFrame:
    """The samples on which a setting gains or loses against the agent alone, or could have.

    Returns:
        The rows of `decisions` that have an `outcome`, with the predicted `saved_s`, sorted by outcome and falling
        confidence. A routed or rejected sample is among them when its draft is right ("missed").

    Raises:
        NotRecorded: the run did not record what the setting needs.
    """
    frame = decisions(data, setting)
    frame["saved_s"] = frame["baseline_wall_s"] - frame["wall_s"]
    frame = frame[frame["outcome"] != ""]
    return frame.sort_values(["outcome", "confidence"], ascending=[True, False]).reset_index(drop=True)


def _nullable(codes: NDArray) -> pd.arrays.BooleanArray:
    return pd.arrays.BooleanArray(codes == RIGHT, codes == ABSENT)


_COLUMNS = (
    *("n", "n_errors", "n_unscored", "accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "interval"),
    *("baseline_accuracy_pct", "drafted", "accepted", "alpha", "beta", "coverage", "selective_risk"),
    *("gained", "lost", "wall_s", "baseline_wall_s", "speedup", "cost_note", "status", "reason"),
)
_NUMBERS = [c for c in _COLUMNS if c not in ("n", "interval", "cost_note", "status", "reason")]


def _outcomes(view: _View, plan: _Plan | None, thresholds: NDArray, level: float) -> dict[str, NDArray | str]:
    """The columns of `replay` as [tasks and pooled and average, thresholds], or broadcastable to it."""
    p = view.data
    above = _Above(view, thresholds)
    right_if_drafted, right_if_agent = _classes(draft=RIGHT), _classes(agent=RIGHT)
    all_samples = _per_task(p, p.outcomes, N_CLASSES)[:, None, :]
    taken = above.counted(p.outcomes, N_CLASSES)
    all_samples, taken = (np.concatenate([t, t.sum(axis=0, keepdims=True)]) for t in (all_samples, taken))
    left = all_samples - taken

    def of(counts: NDArray, classes: NDArray) -> NDArray[np.float64]:
        return counts[..., classes].sum(axis=-1).astype(np.float64)

    def everywhere(mask: NDArray) -> NDArray[np.float64]:
        counts = _per_task(p, mask.astype(np.int64), 2)[:, 1:]
        return np.concatenate([counts, counts.sum(axis=0, keepdims=True)]).astype(np.float64)

    n, accepted = all_samples.sum(axis=-1).astype(np.float64), taken.sum(axis=-1).astype(np.float64)
    drafted, errors = everywhere(~view.routed), of(left, _classes(agent=FAILED))
    right = of(taken, right_if_drafted) + of(left, right_if_agent)
    drops = p.protocol == "paper"
    counted = n - errors if drops else np.broadcast_to(n, accepted.shape)
    low, high, interval = _interval(view, above, right, counted, level)
    unknown = np.where(of(taken, _classes(agent=ABSENT)) > 0, np.nan, 0.0)
    shares = funnel_shares(accepted, np.broadcast_to(drafted, accepted.shape), n)
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = of(all_samples, right_if_agent) / (n - of(all_samples, _classes(agent=FAILED)) * drops)
        columns = {
            "n": counted,
            "n_errors": errors,
            "n_unscored": everywhere(view.drafted & np.isnan(view.confidence)),
            "accuracy_pct": 100.0 * right / counted,
            "accuracy_low_pct": 100.0 * low,
            "accuracy_high_pct": 100.0 * high,
            "baseline_accuracy_pct": 100.0
            * np.where(of(all_samples, _classes(agent=ABSENT)) > 0, np.nan, alone),
            "drafted": drafted,
            "accepted": accepted,
            "alpha": shares.alpha,
            "beta": shares.beta,
            "coverage": shares.accepted,
            "selective_risk": (accepted - of(taken, right_if_drafted)) / accepted,
            "gained": of(taken, right_if_drafted & ~right_if_agent) + unknown,
            "lost": of(taken, right_if_agent & ~right_if_drafted) + unknown,
        }
        wall, alone_s = _seconds(view, plan, above)
        columns |= {"wall_s": wall, "baseline_wall_s": alone_s, "speedup": alone_s / wall}
    lacking = (everywhere(view.unrecorded), everywhere(view.undrafted))
    lacking += (of(taken, _classes(draft=ABSENT)), of(left, _classes(agent=ABSENT)))
    reason = _reasons(view, thresholds, lacking)
    columns |= {"interval": interval, "reason": reason}
    columns = {name: np.broadcast_to(values, reason.shape) for name, values in columns.items()}
    columns = {name: _with_average(name, values) for name, values in columns.items()}
    refused = columns["reason"] != ""
    columns |= {name: np.where(refused, np.nan, columns[name]) for name in _NUMBERS}
    untimed = np.isnan(columns["wall_s"] + columns["baseline_wall_s"]) & ~refused & (p.cost is not None)
    note = np.full(refused.shape, view.cost_note(), dtype=object)
    note[untimed] = "some samples were not timed"
    return columns | {
        "n": columns["n"].astype(np.int64),
        "status": np.where(refused, "refused", "ok"),
        "cost_note": note,
    }


def _with_average(name: str, values: NDArray) -> NDArray:
    """The row of "average" below the tasks and "pooled": mean of the tasks where that is one, else as pooled."""
    last = values[-1:]
    if name in ("accuracy_pct", "baseline_accuracy_pct", "speedup") and len(values) > 1:
        last = values[:-1].mean(axis=0, keepdims=True)
    elif name in ("accuracy_low_pct", "accuracy_high_pct", "interval"):
        last = np.full_like(last, "none" if name == "interval" else np.nan)
    return np.concatenate([values, last])


def _reasons(view: _View, thresholds: NDArray, lacking: tuple[NDArray, ...]) -> NDArray[np.object_]:
    """What the run lacks, [tasks and pooled, thresholds], from counts of samples; "" where it lacks nothing."""
    shape = (len(lacking[0]), len(thresholds))
    reasons = np.full(shape, view.why, dtype=object)
    if view.why:
        return reasons
    counts = [np.broadcast_to(count, shape) for count in lacking]
    for at in zip(*np.nonzero((sum(counts) > 0) | ~np.isfinite(thresholds)), strict=True):
        shortage = _shortage(*(int(c[at]) for c in counts), view.setting.router)
        reasons[at] = _threshold_fault(thresholds[at[1]]) or shortage
    return reasons
