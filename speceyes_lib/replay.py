"""The outcome of any gate setting, from one instrumented pass: nothing is run again.

A `collect` run holds, for every sample, the draft with its evidence, the router's word, the agent's answer and
what each cost. Every threshold, score, K, slope, router and batch size is then a function of that record:

    population("demo")            the run as columns
    grid(threshold=…, k=…)        settings, one row each
    replay(population, settings)  decisions counted, accuracies, shares, predicted seconds: a row per setting and task
    decisions, ledger             the same for one setting, sample by sample

A setting that needs what the run did not record is refused by name, and the others are done.

How it is fast: for a score, each sample is put between two thresholds by a binary search and counted there, once
for all tasks; what is above a threshold is then a cumulative sum over thresholds. Cost: linear in the samples, and
another threshold costs next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .cost_model import AgentPlan, CostModel
from .estimates import LEVEL, wilson
from .metrics import candidate_thresholds
from .population import (
    ABSENT,
    FAILED,
    RIGHT,
    WRONG,
    Lacking,
    Population,
    from_arrays,
    pooled_in_chunks,
    population,
)
from .setting import AXES, Setting, Settings, frame_of, grid

__all__ = [
    "ABSENT", "AXES", "FAILED", "RIGHT", "WRONG", "CostModel", "Lacking", "Population", "Setting", "curve", "decisions",
    "from_arrays", "grid", "ledger", "pooled_in_chunks", "population", "replay",
]  # fmt: skip

ROUTERS = ("large", "small", "none")
POOLED, AVERAGE = "pooled", "average"  # rows over all samples, and the unweighted mean of the tasks


def replay(population: Population, settings: Settings, *, level: float = LEVEL) -> pd.DataFrame:
    """What every setting would have done: one row per setting and task, then "pooled" and "average".

    ============================ ========================================================================
    the axes of `Setting`, `task` which setting, where; `setting` numbers the settings given, from 0
    `n n_errors n_unscored`      samples that count; failed ones; drafts let through that have no score
    `accuracy_pct` `_low _high`  of the funnel; `interval` says how it was made
    `baseline_accuracy_pct`      of the agent alone, on the same samples
    `drafted accepted`           counts: let through by the router, taken by the gate
    `alpha beta coverage`        accepted / drafted, drafted / all, accepted / all = alpha * beta (fractions)
    `selective_risk`             share of wrong ones among the accepted (a fraction; nan where none is)
    `gained lost`                accepted: right where the agent is wrong, and the reverse
    `wall_s baseline_wall_s speedup` predicted by the population's cost model; `cost_note`: what it extrapolates
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
    names = np.array([*population.task_names, POOLED, AVERAGE], dtype=object)
    columns: dict[str, list[NDArray]] = {name: [] for name in ("setting", "place", *_TOLD)}
    axes = [name for name in AXES if name != "threshold"]
    plans: dict[tuple, _Plan | None] = {}  # predicted seconds do not depend on the score
    for values, rows in asked.groupby(axes, sort=False, dropna=False):
        setting = Setting(**dict(zip(axes, values, strict=True)))
        view = _View(population, setting)
        key = (setting.router, setting.batch_size, setting.agents_in_parallel)
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
    population: Population, setting: Setting, thresholds: ArrayLike | None = None, *, level: float = LEVEL
) -> pd.DataFrame:
    """`replay` of one setting over thresholds; None: every threshold that decides differently, ascending."""
    if thresholds is None:
        view = _View(population, setting)
        thresholds = _between(view.confidence[view.eligible])
    axes = asdict(setting) | {"threshold": thresholds}
    return replay(population, grid(**axes), level=level)


def decisions(population: Population, setting: Setting) -> pd.DataFrame:
    """One setting, sample by sample, in the words of the funnel's records.

    Columns: `id task group`, `confidence` (nan: none), `margin` over the threshold, `decision` (accepted,
    rejected, routed, draft_failed), `used`, `right` (missing: not judged), `error`, `draft_right agent_right`,
    and the predicted seconds charged to the sample, `wall_s` and `baseline_wall_s`.

    Raises:
        Lacking: the run did not record what the setting needs.
    """
    view = _View(population, setting)
    if lacks := view.lacks(setting.threshold):
        raise Lacking(f"{setting}: {lacks}")
    accepted = view.eligible & (view.confidence > setting.threshold)
    decision = np.select(
        [view.routed, population.draft == FAILED, accepted],
        ["routed", "draft_failed", "accepted"],
        default="rejected",
    )
    outcome = np.where(accepted, population.draft, population.agent)
    wall_s, baseline_s = view.charged(~accepted & population.readable)
    return pd.DataFrame(
        {
            "id": population.ids,
            "task": population.tasks,
            "group": population.groups,
            "confidence": view.confidence,
            "margin": view.confidence - setting.threshold,
            "decision": decision,
            "used": np.where(accepted, "small", "large"),
            "right": _nullable(outcome),
            "error": outcome == FAILED,
            "draft_right": _nullable(population.draft),
            "agent_right": _nullable(population.agent),
            "wall_s": wall_s,
            "baseline_wall_s": baseline_s,
        }
    )


def ledger(population: Population, setting: Setting) -> pd.DataFrame:
    """Every accepted draft that is not simply right twice: the samples a setting is answerable for.

    The rows of `decisions`, with `outcome` and the predicted `saved_s`: "gained" (the agent was wrong), "lost"
    (the agent was right), "both wrong", "unknown" (the agent's answer was not recorded). Where a sample was
    routed or rejected the answer is the agent's, so nothing differs.
    """
    frame = decisions(population, setting)
    draft, agent = population.draft_right, population.agent_right
    outcome = np.select(
        [population.agent == ABSENT, draft & ~agent, agent & ~draft, ~draft & ~agent],
        ["unknown", "gained", "lost", "both wrong"],
        default="both right",
    )
    frame = frame.assign(outcome=outcome, saved_s=frame["baseline_wall_s"] - frame["wall_s"])
    kept = frame["decision"].eq("accepted") & frame["outcome"].ne("both right")
    return frame[kept].sort_values(["outcome", "confidence"], ascending=[True, False]).reset_index(drop=True)


def _between(confidence: NDArray) -> NDArray[np.float64]:
    """`candidate_thresholds`; for scores on another scale: below all of them, and at each."""
    if ((confidence >= 0) & (confidence <= 1)).all():
        return candidate_thresholds(confidence)
    distinct = np.unique(confidence)  # "accepted" is strictly above
    return np.append(distinct[0] - 1.0, distinct)


def _nullable(codes: NDArray) -> pd.arrays.BooleanArray:
    return pd.arrays.BooleanArray(codes == RIGHT, codes == ABSENT)


# ----------------------------------------------------------------------------------------- one score, any threshold


@dataclass(frozen=True, eq=False)
class _Plan:
    """Seconds [n] of each sample before the agent, with the gate and without it, and how the agent's add up."""

    before_s: NDArray[np.float64]
    baseline_s: NDArray[np.float64]
    agents: AgentPlan


class _View:
    """A population under one setting, but for the threshold: who is routed, who can be accepted, what it costs."""

    def __init__(self, population: Population, setting: Setting) -> None:
        self.population, self.setting = population, setting
        n = population.n
        self.why = ""  # why no threshold at all can be done
        self.confidence, self.routed = np.full(n, np.nan), np.zeros(n, bool)
        self.unrecorded = np.zeros(n, bool)  # samples that lack the router's word
        try:
            _check(setting)
            self.confidence = population.score(setting.score, setting.k, setting.slope)
            if setting.router != "none":
                words = _words_of(population, setting.router)
                self.routed, self.unrecorded = words == 1, words == ABSENT
        except Lacking as error:
            self.why = str(error)
        drafted = ~self.routed & population.readable
        self.undrafted = drafted & (population.draft == ABSENT) & np.isnan(self.confidence)
        self.eligible = drafted & (population.draft != FAILED) & ~np.isnan(self.confidence)
        self.drafted = drafted

    def lacks(self, threshold: float) -> str:
        """What the run lacks for this threshold; empty when nothing."""
        if self.why:
            return self.why
        accepted = self.eligible & (self.confidence > threshold)
        return _threshold_fault(threshold) or _shortage(
            int(self.unrecorded.sum()),
            int(self.undrafted.sum()),
            int((accepted & (self.population.draft == ABSENT)).sum()),
            int((~accepted & (self.population.agent == ABSENT)).sum()),
            self.setting.router,
        )

    def cost_note(self) -> str:
        """What the predicted seconds are not backed by; empty where they are."""
        cost, s = self.population.cost, self.setting
        if cost is None or self.why:
            return "" if self.why else "not timed"
        return cost.notes(s.router, int(s.batch_size), int(s.agents_in_parallel))

    def plan(self) -> _Plan | None:
        """What the setting takes, whatever the score and threshold; None without timings."""
        p, s = self.population, self.setting
        if p.cost is None:
            return None
        drafts = p.cost.draft_shares(self.drafted, p.tasks, int(s.batch_size))
        router = p.cost.router_shares(s.router, p.readable, p.tasks, int(s.batch_size))
        agents = p.cost.agents(p.tasks, int(s.agents_in_parallel))
        return _Plan(p.cost.decode_s + router + drafts, p.cost.baseline_decode_s, agents)

    def charged(self, to_agent: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
        """Predicted seconds [n] of each sample, with the gate and without; nan without timings."""
        if (plan := self.plan()) is None:
            nothing = np.full(self.population.n, np.nan)
            return nothing, nothing
        tasks, readable = self.population.tasks, self.population.readable
        return (
            plan.before_s + plan.agents.shares(to_agent, tasks),
            plan.baseline_s + plan.agents.shares(readable, tasks),
        )


def _check(setting: Setting) -> None:
    if setting.router not in ROUTERS:
        raise Lacking(f"no router {setting.router!r}; there are {', '.join(ROUTERS)}")
    for name in ("batch_size", "agents_in_parallel"):
        value = getattr(setting, name)
        if not (math.isfinite(value) and value == int(value) and value >= 1):
            raise Lacking(f"{name} is {value}; expected a whole number of at least 1")


def _words_of(population: Population, router: str) -> NDArray[np.int8]:
    if router not in population.routed:
        known = ", ".join(population.routed) or "none"
        raise Lacking(f"the word of the {router} router is not recorded (recorded: {known})")
    return population.routed[router]


def _threshold_fault(threshold: float) -> str:
    finite = math.isfinite(threshold)
    return "" if finite else f"the threshold is {threshold}; give a number, 1 to accept nothing"


def _shortage(unrouted: int, undrafted: int, unjudged: int, no_agent: int, router: str) -> str:
    for count, what in (
        (unrouted, f"the word of the {router} router is not recorded"),
        (undrafted, "no draft is recorded, which this setting would ask for,"),
        (unjudged, "the accepted draft has no verdict"),
        (no_agent, "the agent's answer is not recorded"),
    ):
        if count:
            return f"{what} for {count} sample{'s' * (count > 1)}"
    return ""


_TOLD = (
    *("n", "n_errors", "n_unscored", "accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "interval"),
    *("baseline_accuracy_pct", "drafted", "accepted", "alpha", "beta", "coverage", "selective_risk"),
    *("gained", "lost", "wall_s", "baseline_wall_s", "speedup", "cost_note", "status", "reason"),
)
_NUMBERS = [t for t in _TOLD if t not in ("n", "interval", "cost_note", "status", "reason")]


def _outcomes(view: _View, plan: _Plan | None, thresholds: NDArray, level: float) -> dict[str, NDArray | str]:
    """The columns of `replay` as [tasks and pooled and average, thresholds], or broadcastable to it."""
    p = view.population
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
            "alpha": accepted / drafted,
            "beta": drafted / n,
            "coverage": accepted / n,
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


# what can become of a draft and an agent's answer together, as one number: draft in the high bits, agent in the low
N_CLASSES = 16
_EACH = np.arange(N_CLASSES)


def _classes(draft: int | None = None, agent: int | None = None) -> NDArray[np.bool_]:
    """Which classes have this draft, or this answer of the agent, bool [N_CLASSES]."""
    return draft & 3 == _EACH >> 2 if draft is not None else agent & 3 == _EACH & 3


def _per_task(population: Population, values: NDArray, n_values: int) -> NDArray[np.int64]:
    """How often each value occurs in each task: int64 [tasks, n_values]."""
    tasks = len(population.task_names)
    return np.bincount(population.task_codes * n_values + values, minlength=tasks * n_values).reshape(
        tasks, -1
    )


class _Above:
    """The samples that can be accepted, by how many thresholds they exceed.

    `counted` and `summed` say, for each task and threshold, what is above it.
    """

    def __init__(self, view: _View, thresholds: NDArray) -> None:
        population = view.population
        order = np.argsort(thresholds, kind="stable")  # nan comes last, and nothing exceeds it
        self.column = np.argsort(
            order, kind="stable"
        )  # where each threshold given stands among the ascending
        self.at = np.flatnonzero(view.eligible)
        self.exceeds = np.searchsorted(thresholds[order], view.confidence[self.at], side="left")
        self.steps, self.tasks = len(thresholds) + 1, len(population.task_names)
        self.cell = population.task_codes[self.at] * self.steps + self.exceeds

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
    p = view.population
    tasks, shape = len(p.task_names), (len(p.task_names) + 1, above.steps - 1)
    if plan is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)

    def total(seconds: NDArray) -> NDArray[np.float64]:
        return np.bincount(p.task_codes, seconds, tasks)[:, None]

    agents = plan.agents
    linear = np.where(p.readable, agents.linear_s, 0.0)
    wall = total(plan.before_s + linear) - above.summed(linear)
    alone = np.broadcast_to(total(plan.baseline_s + linear), wall.shape)
    if agents.call_s is not None:
        call_s = np.array([agents.call_s[task] for task in p.task_names])
        for turn, takes in enumerate((agents.takes_turn & p.readable[:, None]).T):
            everyone, call = total(takes), call_s[:, turn, None]
            wall = wall + call * np.ceil((everyone - above.summed(takes)) / agents.size)
            alone = alone + call * np.ceil(everyone / agents.size)
    return tuple(np.concatenate([t, t.sum(axis=0, keepdims=True)]) for t in (wall, alone))


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


def _interval(
    view: _View, above: _Above, right: NDArray, counted: NDArray, level: float
) -> tuple[NDArray, NDArray, NDArray]:
    """Interval of right / counted as fractions, and its name, [tasks and pooled, thresholds].

    With y right and m counted answers in a group, the variance of the share p is that of the sums of y - p m
    over groups: it needs the sums of y^2, y m and m^2 (`_group_squares`).
    """
    p = view.population
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
    # nothing varies at 0 and 100 %: every group counts once, as in `estimates.clustered_share`
    constant = (right == 0) | (right == counted)
    n_effective = np.where(constant, np.minimum(counted, groups), counted / np.fmax(effect, 1.0))
    low, high = wilson(np.where(right == counted, n_effective, share * n_effective), n_effective, level)
    name = np.where(groups < samples, "Wilson, design effect of groups", "Wilson").astype(object)
    return low, high, name


def _group_squares(
    p: Population, above: _Above, group: NDArray, task_of_group: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Sums over groups of y^2, y m and m^2, each [tasks, thresholds]; `group` int [n], `task_of_group` its task.

    As the threshold falls, samples change one after another from the agent's outcome to the draft's. Each such
    change moves the sums by an amount that depends on its own group alone, so they are cumulative sums as well.
    """

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
