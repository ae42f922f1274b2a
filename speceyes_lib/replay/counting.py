"""Counts over all thresholds at once: how many samples above each threshold are right, per task and group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..gating.gate import thresholds_passed
from ..stats.intervals import wilson
from .one_setting import _Plan, _View
from .replay_data import FAILED, RIGHT, ReplayData

# codes of draft and agent as one number: the draft in the high two bits, the agent in the low two
N_CLASSES = 16
_EACH = np.arange(N_CLASSES)


def _classes(draft: int | None = None, agent: int | None = None) -> NDArray[np.bool_]:
    """Which classes have this draft, or this answer of the agent, bool [N_CLASSES]."""
    return draft & 3 == _EACH >> 2 if draft is not None else agent & 3 == _EACH & 3


def _per_task(data: ReplayData, values: NDArray, n_values: int) -> NDArray[np.int64]:
    """How often each value occurs in each task: int64 [tasks, n_values]."""
    tasks = len(data.task_names)
    return np.bincount(data.task_codes * n_values + values, minlength=tasks * n_values).reshape(tasks, -1)


class _Above:
    """The samples that can be accepted, by how many thresholds they exceed."""

    def __init__(self, view: _View, thresholds: NDArray) -> None:
        data = view.data
        order = np.argsort(thresholds, kind="stable")  # nan comes last, and nothing exceeds it
        self.column = np.argsort(order, kind="stable")  # place of each threshold among the ascending ones
        self.at = np.flatnonzero(view.eligible)
        self.exceeds = thresholds_passed(view.confidence[self.at], thresholds[order])
        self.steps, self.tasks = len(thresholds) + 1, len(data.task_names)
        self.cell = data.task_codes[self.at] * self.steps + self.exceeds

    def counted(self, values: NDArray, n_values: int) -> NDArray[np.int64]:
        """How often each value occurs above each threshold, int64 [tasks, thresholds, n_values]; values [n]."""
        size = self.tasks * self.steps * n_values
        table = np.bincount(self.cell * n_values + values[self.at], minlength=size)
        return self._from_above(table.reshape(self.tasks, self.steps, n_values))

    def summed(self, values: NDArray) -> NDArray[np.float64]:
        """Sum of values [n] above each threshold, float64 [tasks, thresholds]."""
        return self.cells(self.cell, values[self.at])

    def cells(self, cell: NDArray, values: NDArray) -> NDArray[np.float64]:
        """As `summed`, for values in stated cells (task * steps + thresholds exceeded)."""
        table = np.bincount(cell, values, self.tasks * self.steps)
        return self._from_above(table.reshape(self.tasks, self.steps))

    def _from_above(self, table: NDArray) -> NDArray:
        return np.flip(np.flip(table, 1).cumsum(axis=1), 1)[:, 1:][:, self.column]


def _seconds(view: _View, plan: _Plan | None, above: _Above) -> tuple[NDArray, NDArray]:
    """Predicted seconds with the gate and without it, [tasks and pooled, thresholds]."""
    p = view.data
    tasks, shape = len(p.task_names), (len(p.task_names) + 1, above.steps - 1)
    if plan is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)

    def total(seconds: NDArray) -> NDArray[np.float64]:
        return np.bincount(p.task_codes, seconds, tasks)[:, None]

    agents = plan.agents
    linear, alone_linear = (np.where(p.readable, each.linear_s, 0.0) for each in (agents, plan.alone))
    wall = total(plan.before_s + linear) - above.summed(linear)
    alone = np.broadcast_to(total(plan.baseline_s + alone_linear), wall.shape)
    if agents.call_s is not None:
        call_s = np.array([agents.call_s[task] for task in p.task_names])
        for turn, takes in enumerate((agents.takes_turn & p.readable[:, None]).T):
            all_samples, call = total(takes), call_s[:, turn, None]
            wall = wall + call * np.ceil((all_samples - above.summed(takes)) / agents.size)
            alone = alone + call * np.ceil(all_samples / agents.size)
    return tuple(np.concatenate([t, t.sum(axis=0, keepdims=True)]) for t in (wall, alone))


def _interval(
    view: _View, above: _Above, right: NDArray, counted: NDArray, level: float
) -> tuple[NDArray, NDArray, NDArray]:
    """Interval of right / counted as fractions, and its name, [tasks and pooled, thresholds]."""
    # with y right and m counted answers in a group, the variance of the share p is that of the sums of y - p m over
    # groups: it needs the sums of y^2, y m and m^2
    p = view.data
    within, task_of_group = p.task_groups
    n_all = int(p.group_codes.max(initial=-1)) + 1
    if n_all == p.n:
        return *wilson(right, counted, level), np.array("Wilson", dtype=object)
    by_task = _group_squares(p, above, within, task_of_group)
    n_groups = np.bincount(task_of_group, minlength=above.tasks)
    if n_all == len(task_of_group):
        pooled = [s.sum(axis=0, keepdims=True) for s in by_task]
    else:  # groups reach over tasks
        pooled = _group_squares(p, above, p.group_codes, np.zeros(n_all, np.int64))
        pooled = [s.sum(axis=0, keepdims=True) for s in pooled]
    yy, ym, mm = (np.concatenate(parts) for parts in zip(by_task, pooled, strict=True))
    groups = np.append(n_groups, n_all)[:, None]
    samples = np.append(np.bincount(p.task_codes, minlength=above.tasks), p.n)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = right / counted
        spread = np.maximum(yy - 2 * share * ym + share**2 * mm, 0.0)
        variance = groups / np.maximum(groups - 1, 1) * spread / counted**2
        effect = np.where(groups < samples, variance / (share * (1 - share) / counted), 1.0)
    # nothing varies at 0 and 100 %: every group counts once, as in `proportions.share`
    constant = (right == 0) | (right == counted)
    n_effective = np.where(constant, np.minimum(counted, groups), counted / np.fmax(effect, 1.0))
    low, high = wilson(np.where(right == counted, n_effective, share * n_effective), n_effective, level)
    name = np.where(groups < samples, "Wilson, design effect of groups", "Wilson").astype(object)
    return low, high, name


def _group_squares(
    p: ReplayData, above: _Above, group: NDArray, task_of_group: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Sums over groups of y^2, y m and m^2, each [tasks, thresholds]; `group` int [n], `task_of_group` its task."""
    # As the threshold falls, samples change one after another from the agent's outcome to the draft's. Each change
    # moves the sums by an amount that depends on its group alone, so they are cumulative sums as well.

    def counts(codes: NDArray) -> NDArray[np.float64]:
        return (codes != FAILED).astype(np.float64) if p.protocol == "paper" else np.ones(len(codes))

    y0 = np.bincount(group, p.agent == RIGHT, len(task_of_group))
    m0 = np.bincount(group, counts(p.agent), len(task_of_group))
    dy = (p.draft[above.at] == RIGHT).astype(np.float64) - (p.agent[above.at] == RIGHT)
    dm = counts(p.draft[above.at]) - counts(p.agent[above.at])
    some = np.flatnonzero((dy != 0) | (dm != 0))
    exceeds, group, dy, dm = above.exceeds[some], group[above.at][some], dy[some], dm[some]
    order = np.argsort(group * above.steps + (above.steps - 1 - exceeds), kind="stable")
    exceeds, group, dy, dm = (values[order] for values in (exceeds, group, dy, dm))
    y, m = (start[group] + _earlier(step, group) for start, step in ((y0, dy), (m0, dm)))
    cell = task_of_group[group] * above.steps + exceeds
    return tuple(
        np.bincount(task_of_group, a0 * b0, above.tasks)[:, None]
        + above.cells(cell, a * db + b * da + da * db)
        for a0, b0, a, b, da, db in ((y0, y0, y, y, dy, dy), (y0, m0, y, m, dy, dm), (m0, m0, m, m, dm, dm))
    )


def _earlier(steps: NDArray, group: NDArray) -> NDArray[np.float64]:
    """Sum of the earlier steps of the same group; the groups stand together."""
    running = np.cumsum(steps) - steps
    first = np.flatnonzero(np.diff(group, prepend=-1))  # where the next group begins
    return running - np.repeat(running[first], np.diff(np.append(first, len(group))))
