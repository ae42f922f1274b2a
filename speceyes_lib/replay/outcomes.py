"""The outcome of any gate setting, from one instrumented pass: nothing is run again.

A `collect` run holds, for every sample, the draft with its evidence, the router's word, the agent's answer and
what each cost. Every threshold, score, K, slope, router and batch size is then a function of that record:

    load(runs.open("demo"))       the run as columns
    grid(threshold=…, k=…)        settings, one row each
    replay(data, settings)  decisions counted, accuracies, shares, predicted seconds: a row per setting and task
    decisions, ledger             the same for one setting, sample by sample

A setting that needs what the run did not record is refused by name, and the others are done.

How it is fast: for a score, each sample is put between two thresholds by a binary search and counted there, once
for all tasks; what is above a threshold is then a cumulative sum over thresholds. Cost: linear in the samples, and
another threshold costs next to nothing.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..gating.gate import accepts, candidate_thresholds, rejecting_threshold
from ..stats.intervals import LEVEL
from ..stats.proportions import funnel_shares
from ..tasks.registry import AVERAGE
from .counting import N_CLASSES, _Above, _classes, _interval, _per_task, _seconds
from .one_setting import _Plan, _shortage, _threshold_fault, _View
from .replay_data import ABSENT, FAILED, RIGHT, NotRecorded, ReplayData
from .settings import AXES, Setting, Settings, frame_of, grid

# what a decision comes to against the agent alone
OUTCOMES = {
    "gained": "draft right, agent wrong",
    "lost": "draft wrong, agent right",
    "both wrong": "draft and agent wrong",
    "both right": "draft and agent right",
    "unknown": "the agent's answer is not recorded",
    "missed": "not accepted although the draft is right",
}
POOLED = "pooled"  # rows over all samples; AVERAGE: the unweighted mean of the tasks


def replay(data: ReplayData, settings: Settings, *, level: float = LEVEL) -> pd.DataFrame:
    """What every setting would have done: one row per setting and task, then "pooled" and "average".

    ============================ ========================================================================
    the axes of `Setting`, `task` which setting, where; `setting` numbers the settings given, from 0
    `n n_errors n_unscored`      samples that count; failed ones; drafts let through that have no score
    `accuracy_pct` `_low _high`  of the funnel; `interval` says how it was made
    `baseline_accuracy_pct`      of the agent alone, on the same samples
    `drafted accepted`           counts: let through by the router, taken by the gate
    `alpha beta coverage`        acceptance rate, drafted share, accepted share (fractions; `stats.funnel_shares`)
    `selective_risk`             share of wrong ones among the accepted (a fraction; nan where none is)
    `gained lost`                accepted: right where the agent is wrong, and the reverse
    `wall_s baseline_wall_s speedup` predicted by the run's cost model; `cost_note`: what it extrapolates
    `status reason`              "ok", or "refused" with what the run lacks; the numbers are nan then
    ============================ ========================================================================

    Under the protocol `paper` failed samples leave the accuracies, as in the original; shares and seconds keep
    them. The interval is Wilson's; where groups repeat its n is divided by the design effect (the variance of
    the clustered share over that of independent samples, at least 1; Korn and Graubard 1998). "average" is the
    unweighted mean over tasks of accuracy and speedup, counts and seconds summed; it has no interval.

    Args:
        settings: a frame with some of the axes as columns (the rest takes the defaults), a Setting, or several.

    Raises:
        UserError: a column of `settings` is no axis.
    """
    asked = frame_of(settings)
    if not len(asked):
        return pd.DataFrame(columns=["setting", *AXES, "task", *_TOLD])
    names = np.array([*data.task_names, POOLED, AVERAGE], dtype=object)
    columns: dict[str, list[NDArray]] = {name: [] for name in ("setting", "place", *_TOLD)}
    axes = [name for name in AXES if name != "threshold"]
    plans: dict[tuple, _Plan | None] = {}  # predicted seconds do not depend on the score
    for values, rows in asked.groupby(axes, sort=False, dropna=False):
        setting = Setting(**dict(zip(axes, values, strict=True)))
        view = _View(data, setting)
        key = (setting.router, setting.batch_size, setting.agent_batch_size)
        if not view.why and key not in plans:
            plans[key] = view.plan()
        told = _outcomes(view, plans.get(key), rows["threshold"].to_numpy(dtype=np.float64), level)
        told["setting"], told["place"] = rows.index.to_numpy(), np.arange(len(names))[:, None]
        for name, column in columns.items():
            column.append(np.broadcast_to(told[name], (len(names), len(rows))).ravel())
    frame = pd.DataFrame({name: np.concatenate(column) for name, column in columns.items()})
    frame = frame.sort_values(["setting", "place"], ignore_index=True)
    frame.insert(1, "task", names[frame.pop("place")])
    settings_of_rows = asked.loc[frame["setting"]].reset_index(drop=True)
    return pd.concat([frame[["setting"]], settings_of_rows, frame.drop(columns="setting")], axis=1)


def curve(
    data: ReplayData, setting: Setting, thresholds: ArrayLike | None = None, *, level: float = LEVEL
) -> pd.DataFrame:
    """`replay` of one setting over thresholds; None: every threshold that decides differently, ascending."""
    if thresholds is None:
        view = _View(data, setting)
        thresholds = _between(view.confidence[view.eligible])
    axes = asdict(setting) | {"threshold": thresholds}
    return replay(data, grid(**axes), level=level)


def decisions(data: ReplayData, setting: Setting) -> pd.DataFrame:
    """One setting, sample by sample, in the words of the funnel's records.

    Columns: `id task group`, `confidence` (nan: none), `margin` over the threshold, `decision` (accepted,
    rejected, routed, draft_failed), `used`, `right` (missing: not judged), `error`, `draft_right agent_right`,
    the predicted seconds charged to the sample, `wall_s` and `baseline_wall_s`, and `outcome`: one of `OUTCOMES`,
    empty where the agent answers and the draft is not right.

    Raises:
        NotRecorded: the run did not record what the setting needs.
    """
    view = _View(data, setting)
    if lacks := view.lacks(setting.threshold):
        raise NotRecorded(f"{setting}: {lacks}")
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
    return pd.DataFrame(
        {
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
    )


def ledger(data: ReplayData, setting: Setting) -> pd.DataFrame:
    """The samples on which a setting gains or loses against the agent alone, or could have.

    Returns:
        The rows of `decisions` that have an `outcome`, with the predicted `saved_s`, sorted by outcome and falling
        confidence. Where a sample was routed or rejected the answer is the agent's, so it is only there when its
        draft is right ("missed").

    Raises:
        NotRecorded: the run did not record what the setting needs.
    """
    frame = decisions(data, setting)
    frame["saved_s"] = frame["baseline_wall_s"] - frame["wall_s"]
    frame = frame[frame["outcome"] != ""]
    return frame.sort_values(["outcome", "confidence"], ascending=[True, False]).reset_index(drop=True)


def _between(confidence: NDArray) -> NDArray[np.float64]:
    """`candidate_thresholds`; for scores on another scale: below all of them, and at each."""
    if ((confidence >= 0) & (confidence <= 1)).all():
        return candidate_thresholds(confidence)
    distinct = np.unique(confidence)
    return np.append(distinct[0] - 1.0, rejecting_threshold(distinct))


def _nullable(codes: NDArray) -> pd.arrays.BooleanArray:
    return pd.arrays.BooleanArray(codes == RIGHT, codes == ABSENT)


_TOLD = (
    *("n", "n_errors", "n_unscored", "accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "interval"),
    *("baseline_accuracy_pct", "drafted", "accepted", "alpha", "beta", "coverage", "selective_risk"),
    *("gained", "lost", "wall_s", "baseline_wall_s", "speedup", "cost_note", "status", "reason"),
)
_NUMBERS = [t for t in _TOLD if t not in ("n", "interval", "cost_note", "status", "reason")]


def _outcomes(view: _View, plan: _Plan | None, thresholds: NDArray, level: float) -> dict[str, NDArray | str]:
    """The columns of `replay` as [tasks and pooled and average, thresholds], or broadcastable to it."""
    p = view.data
    above = _Above(view, thresholds)
    right_if_drafted, right_if_asked = _classes(draft=RIGHT), _classes(agent=RIGHT)
    everyone = _per_task(p, p.outcomes, N_CLASSES)[:, None, :]
    taken = above.counted(p.outcomes, N_CLASSES)
    everyone, taken = (np.concatenate([t, t.sum(axis=0, keepdims=True)]) for t in (everyone, taken))
    left = everyone - taken

    def of(counts: NDArray, classes: NDArray) -> NDArray[np.float64]:
        return counts[..., classes].sum(axis=-1).astype(np.float64)

    def everywhere(mask: NDArray) -> NDArray[np.float64]:
        counts = _per_task(p, mask.astype(np.int64), 2)[:, 1:]
        return np.concatenate([counts, counts.sum(axis=0, keepdims=True)]).astype(np.float64)

    n, accepted = everyone.sum(axis=-1).astype(np.float64), taken.sum(axis=-1).astype(np.float64)
    drafted, errors = everywhere(~view.routed), of(left, _classes(agent=FAILED))
    right = of(taken, right_if_drafted) + of(left, right_if_asked)
    drops = p.protocol == "paper"
    counted = n - errors if drops else np.broadcast_to(n, accepted.shape)
    low, high, interval = _interval(view, above, right, counted, level)
    unknown = np.where(of(taken, _classes(agent=ABSENT)) > 0, np.nan, 0.0)
    shares = funnel_shares(accepted, np.broadcast_to(drafted, accepted.shape), n)
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = of(everyone, right_if_asked) / (n - of(everyone, _classes(agent=FAILED)) * drops)
        told = {
            "n": counted,
            "n_errors": errors,
            "n_unscored": everywhere(view.drafted & np.isnan(view.confidence)),
            "accuracy_pct": 100.0 * right / counted,
            "accuracy_low_pct": 100.0 * low,
            "accuracy_high_pct": 100.0 * high,
            "baseline_accuracy_pct": 100.0
            * np.where(of(everyone, _classes(agent=ABSENT)) > 0, np.nan, alone),
            "drafted": drafted,
            "accepted": accepted,
            "alpha": shares.alpha,
            "beta": shares.beta,
            "coverage": shares.accepted,
            "selective_risk": (accepted - of(taken, right_if_drafted)) / accepted,
            "gained": of(taken, right_if_drafted & ~right_if_asked) + unknown,
            "lost": of(taken, right_if_asked & ~right_if_drafted) + unknown,
        }
        wall, alone_s = _seconds(view, plan, above)
        told |= {"wall_s": wall, "baseline_wall_s": alone_s, "speedup": alone_s / wall}
    reason = _reasons(
        view,
        thresholds,
        *(everywhere(view.unrecorded), everywhere(view.undrafted)),
        *(of(taken, _classes(draft=ABSENT)), of(left, _classes(agent=ABSENT))),
    )
    told |= {"interval": interval, "reason": reason}
    told = {name: np.broadcast_to(values, reason.shape) for name, values in told.items()}
    told = {name: _with_average(name, values) for name, values in told.items()}
    refused = told["reason"] != ""
    told |= {name: np.where(refused, np.nan, told[name]) for name in _NUMBERS}
    untimed = np.isnan(told["wall_s"] + told["baseline_wall_s"]) & ~refused & (p.cost is not None)
    note = np.full(refused.shape, view.cost_note(), dtype=object)
    note[untimed] = "some samples were not timed"
    return told | {
        "n": told["n"].astype(np.int64),
        "status": np.where(refused, "refused", "ok"),
        "cost_note": note,
    }


def _with_average(name: str, values: NDArray) -> NDArray:
    """The row of "average" below the tasks and "pooled": mean of the tasks where that is one, else as pooled."""
    last = values[-1:]
    if name in ("accuracy_pct", "baseline_accuracy_pct", "speedup") and len(values) > 1:
        last = values[:-1].mean(axis=0, keepdims=True)
    elif name in ("accuracy_low_pct", "accuracy_high_pct"):
        last = np.full_like(last, np.nan)
    elif name == "interval":
        last = np.full_like(last, "none")
    return np.concatenate([values, last])


def _reasons(
    view: _View,
    thresholds: NDArray,
    unrouted: NDArray,
    undrafted: NDArray,
    unjudged: NDArray,
    no_agent: NDArray,
) -> NDArray[np.object_]:
    """What the run lacks, [tasks and pooled, thresholds]; "" where it lacks nothing. The counts are of samples."""
    shape = (len(unrouted), len(thresholds))
    reasons = np.full(shape, view.why, dtype=object)
    if view.why:
        return reasons
    counts = [np.broadcast_to(c, shape) for c in (unrouted, undrafted, unjudged, no_agent)]
    for at in zip(*np.nonzero((sum(counts) > 0) | ~np.isfinite(thresholds)), strict=True):
        lacking = _shortage(*(int(c[at]) for c in counts), view.setting.router)
        reasons[at] = _threshold_fault(thresholds[at[1]]) or lacking
    return reasons
