"""The outcome of any gate setting, from one instrumented pass: nothing is run again.

A `collect` run holds, for every sample, the draft with its evidence, the router's word, the agent's answer and
what each cost. Every threshold, score, K, slope, router and batch size is then a function of that record:

    population("demo")            the run as columns
    grid(threshold=…, k=…)        settings, one row each
    replay(population, settings)  decisions counted, accuracies, shares, predicted seconds: a row per setting and task
    decisions, ledger             the same for one setting, sample by sample

A setting that needs what the run did not record is refused by name, and the others are done.

How it is fast: for a score, the samples are sorted once; every count, and every sum of seconds, over the samples
above a threshold is a cumulative sum. A further threshold then costs a binary search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .confidence import DEFAULT_K, DEFAULT_SLOPE
from .cost_model import AgentPlan, CostModel
from .errors import UserError, nearest
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

__all__ = [
    "ABSENT", "FAILED", "RIGHT", "WRONG", "CostModel", "Lacking", "Population", "Setting", "curve", "decisions",
    "from_arrays", "grid", "ledger", "pooled_in_chunks", "population", "replay",
]  # fmt: skip

ROUTERS = ("large", "small", "none")
POOLED, AVERAGE = "pooled", "average"  # rows over all samples, and the unweighted mean of the tasks


@dataclass(frozen=True)
class Setting:
    """One way to run the gate. `router`: who answers Phase I; "none" drafts everything."""

    score: str = "min"
    k: int = DEFAULT_K
    slope: float = DEFAULT_SLOPE
    threshold: float = 0.98
    router: str = "large"
    batch_size: int = 16
    agents_in_parallel: int = 1

    def __str__(self) -> str:
        told = f"{self.score} > {self.threshold:g}, K {self.k}, router {self.router}, batch {self.batch_size}"
        return told if self.agents_in_parallel == 1 else f"{told}, {self.agents_in_parallel} agents"


AXES = tuple(f.name for f in fields(Setting))
Settings = pd.DataFrame | Setting | Iterable[Setting]


def grid(**axes: ArrayLike) -> pd.DataFrame:
    """Every combination of the values given, one setting a row; an axis left out has `Setting`'s default.

    Raises UserError for an axis that settings do not have.
    """
    for name in axes:
        if name not in AXES:
            raise UserError(
                f"settings have no axis {name!r}{nearest(name, AXES)}; there are {', '.join(AXES)}."
            )
    values = {name: np.atleast_1d(np.asarray(axes.get(name, getattr(Setting, name)))) for name in AXES}
    return pd.DataFrame(list(product(*(v.tolist() for v in values.values()))), columns=AXES)


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
    asked = _frame_of(settings)
    columns: dict[str, list[NDArray]] = {name: [] for name in ("setting", "place", "task", *_TOLD)}
    axes = [name for name in AXES if name != "threshold"]
    for values, rows in asked.groupby(axes, sort=False, dropna=False):
        setting = Setting(**dict(zip(axes, values, strict=True)))
        thresholds = rows["threshold"].to_numpy(dtype=np.float64)
        for place, (task, told) in enumerate(_outcomes(population, setting, thresholds, level)):
            told |= {"setting": rows.index.to_numpy(), "place": place, "task": task}
            for name, column in columns.items():
                column.append(np.broadcast_to(np.asarray(told[name]), len(rows)))
    if not len(asked):
        return pd.DataFrame(columns=["setting", *AXES, "task", *_TOLD])
    told = pd.DataFrame({name: np.concatenate(column) for name, column in columns.items()})
    told = told.sort_values(["setting", "place"], ignore_index=True).drop(columns="place")
    return pd.concat(
        [told[["setting"]], asked.loc[told["setting"]].reset_index(drop=True), told.iloc[:, 1:]], axis=1
    )


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


# ------------------------------------------------------------------------------------------------- settings


def _frame_of(settings: Settings) -> pd.DataFrame:
    if isinstance(settings, Setting):
        settings = [settings]
    if not isinstance(settings, pd.DataFrame):
        settings = pd.DataFrame([asdict(s) for s in settings], columns=AXES)
    grid(**dict.fromkeys(settings.columns, 0))  # names the axis that does not exist
    told = {name: settings[name] if name in settings else getattr(Setting, name) for name in AXES}
    return pd.DataFrame(told, index=settings.index).reset_index(drop=True)


def _between(confidence: NDArray) -> NDArray[np.float64]:
    """`candidate_thresholds`; for scores on another scale: below all of them, and at each."""
    if ((confidence >= 0) & (confidence <= 1)).all():
        return candidate_thresholds(confidence)
    distinct = np.unique(confidence)  # "accepted" is strictly above
    return np.append(distinct[0] - 1.0, distinct)


def _nullable(codes: NDArray) -> pd.arrays.BooleanArray:
    return pd.arrays.BooleanArray(codes == RIGHT, codes == ABSENT)


# ----------------------------------------------------------------------------------------- one score, any threshold


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

    def cost_note(self, seconds: NDArray) -> str:
        """What the predicted seconds are not backed by; empty where they are."""
        cost, s = self.population.cost, self.setting
        if cost is None or self.why:
            return "not timed" if cost is None else ""
        if np.isnan(seconds).any():
            return "some samples were not timed"
        return cost.notes(s.router, int(s.batch_size), int(s.agents_in_parallel))

    def plan(self) -> tuple[NDArray, NDArray, AgentPlan] | None:
        """Seconds [n] before the agent with the gate and without it, and how the agent's add up; None: no cost."""
        p, s = self.population, self.setting
        if p.cost is None:
            return None
        drafts = p.cost.draft_shares(self.drafted, p.tasks, int(s.batch_size))
        router = p.cost.router_shares(s.router, p.readable, p.tasks, int(s.batch_size))
        return (
            p.cost.decode_s + router + drafts,
            p.cost.baseline_decode_s,
            p.cost.agents(p.tasks, int(s.agents_in_parallel)),
        )

    def charged(self, to_agent: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
        """Predicted seconds [n] of each sample, with the gate and without; nan without timings."""
        if (plan := self.plan()) is None:
            nothing = np.full(self.population.n, np.nan)
            return nothing, nothing
        before, baseline, agents = plan
        tasks, readable = self.population.tasks, self.population.readable
        return before + agents.shares(to_agent, tasks), baseline + agents.shares(readable, tasks)


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


def _outcomes(
    population: Population, setting: Setting, thresholds: NDArray, level: float
) -> Iterator[tuple[str, dict[str, NDArray | str]]]:
    """(task, columns over the thresholds) for every task, then pooled and average."""
    view = _View(population, setting)
    plan = None if view.why else view.plan()
    told = [_swept(view, plan, of, thresholds, level) for of in population.task_slices]
    pooled = _swept(view, None, slice(0, population.n), thresholds, level)
    for name in ("wall_s", "baseline_wall_s"):  # calls are made task by task
        pooled[name] = sum((part[name] for part in told), np.zeros(len(thresholds)))
    average = pooled | {"accuracy_low_pct": np.nan, "accuracy_high_pct": np.nan, "interval": "none"}
    for part in (*told, pooled):
        with np.errstate(invalid="ignore", divide="ignore"):
            part["speedup"] = part["baseline_wall_s"] / part["wall_s"]
    for name in ("accuracy_pct", "baseline_accuracy_pct", "speedup"):
        average[name] = np.mean([part[name] for part in told], axis=0) if told else np.nan
    for task, part in zip([*population.task_names, POOLED, AVERAGE], [*told, pooled, average], strict=True):
        refused = part["reason"] != ""
        part["cost_note"] = view.cost_note(part["wall_s"] + part["baseline_wall_s"])
        part["status"] = np.where(refused, "refused", "ok")
        for name in _NUMBERS if refused.any() else ():
            part[name] = np.where(refused, np.nan, part[name])
        yield task, part


def _swept(
    view: _View, plan: tuple | None, of: slice, thresholds: NDArray, level: float
) -> dict[str, NDArray]:
    """The columns of `replay` for some of the samples, over thresholds in any order.

    Samples that can be accepted are sorted by falling confidence; `at` says how many of them each threshold
    accepts, and every sum over the accepted ones is looked up in a cumulative sum.
    """
    p = view.population
    agent = p.agent[of]
    can = of.start + np.flatnonzero(view.eligible[of])
    can = can[np.argsort(-view.confidence[can], kind="stable")]
    at = np.searchsorted(-view.confidence[can], -thresholds, side="left")  # how many are strictly above

    def taken(values: NDArray) -> NDArray:
        """Sum over the accepted of values given for the candidates, per threshold."""
        return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])[at]

    draft_right, agent_right = p.draft[can] == RIGHT, p.agent[can] == RIGHT
    n, drafted = len(agent), float((~view.routed[of]).sum())
    n_failed = float((agent == FAILED).sum())
    accepted, right_alone = at.astype(np.float64), float((agent == RIGHT).sum())
    errors = n_failed - taken(p.agent[can] == FAILED)
    right = right_alone + taken(draft_right.astype(np.int8) - agent_right)
    drops = p.protocol == "paper"
    counted = n - errors if drops else np.full(len(at), float(n))
    share, low, high, interval = _interval(view, of, can, at, right, counted, level)
    unknown = taken(p.agent[can] == ABSENT) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = np.nan if (agent == ABSENT).any() else np.divide(right_alone, n - n_failed if drops else n)
        told = {
            "n": counted.astype(np.int64),
            "n_errors": errors,
            "n_unscored": float((view.drafted[of] & np.isnan(view.confidence[of])).sum()),
            "accuracy_pct": 100.0 * share,
            "accuracy_low_pct": 100.0 * low,
            "accuracy_high_pct": 100.0 * high,
            "interval": interval,
            "baseline_accuracy_pct": 100.0 * np.full(len(at), alone),
            "drafted": drafted,
            "accepted": accepted,
            "alpha": accepted / drafted,
            "beta": np.divide(drafted, n),
            "coverage": accepted / n,
            "selective_risk": taken(~draft_right) / accepted,
            "gained": np.where(unknown, np.nan, taken(draft_right & ~agent_right)),
            "lost": np.where(unknown, np.nan, taken(agent_right & ~draft_right)),
        }
    told["wall_s"], told["baseline_wall_s"] = _seconds(view, plan, of, can, taken, len(at))
    told["reason"] = _reasons(view, of, can, taken, thresholds)
    return told


Taken = Callable[[NDArray], NDArray]


def _seconds(
    view: _View, plan: tuple | None, of: slice, can: NDArray, taken: Taken, n: int
) -> tuple[NDArray, NDArray]:
    """Predicted seconds of one task with the gate, per threshold, and without it."""
    if plan is None:
        return np.full(n, np.nan), np.full(n, np.nan)
    before, baseline, agents = plan
    asked = view.population.readable[of]
    linear = np.where(asked, agents.linear_s[of], 0.0).sum()
    wall = before[of].sum() + linear - taken(agents.linear_s[can])
    alone = baseline[of].sum() + linear
    if agents.call_s is not None:
        call_s = agents.call_s[view.population.tasks[of.start]]
        everyone = agents.takes_turn[of][asked].sum(axis=0)
        fallbacks = everyone - taken(agents.takes_turn[can])
        wall = wall + np.ceil(fallbacks / agents.size) @ call_s
        alone = alone + np.ceil(everyone / agents.size) @ call_s
    return wall, np.full(n, alone)


def _reasons(view: _View, of: slice, can: NDArray, taken: Taken, thresholds: NDArray) -> NDArray[np.object_]:
    """Per threshold what the run lacks; "" where it lacks nothing."""
    reasons = np.full(len(thresholds), view.why, dtype=object)
    if view.why:
        return reasons
    p = view.population
    unrouted, undrafted = int(view.unrecorded[of].sum()), int(view.undrafted[of].sum())
    unjudged = taken(p.draft[can] == ABSENT)
    no_agent = (p.agent[of] == ABSENT).sum() - taken(p.agent[can] == ABSENT)
    lacking = unrouted + undrafted + unjudged + no_agent > 0
    for i in np.flatnonzero(lacking | ~np.isfinite(thresholds)):
        reasons[i] = _threshold_fault(thresholds[i]) or _shortage(
            unrouted, undrafted, int(unjudged[i]), int(no_agent[i]), view.setting.router
        )
    return reasons


def _interval(
    view: _View, of: slice, can: NDArray, at: NDArray, right: NDArray, counted: NDArray, level: float
) -> tuple[NDArray, NDArray, NDArray, str]:
    """Accuracy as a fraction with its interval, per threshold.

    With y right and m counted answers in a group, the variance of the share p is that of the sums of
    y - p m. As the threshold falls, samples change one after another from the agent's outcome to the draft's;
    each change moves the sums of y^2, y m and m^2 over groups by an amount that depends on its own group only,
    so they are cumulative sums as well.
    """
    p = view.population
    with np.errstate(invalid="ignore", divide="ignore"):
        share = right / counted
    group, agent = p.group_codes[of], p.agent[of]
    sizes = np.bincount(group)
    n_groups = int((sizes > 0).sum())
    if n_groups == len(group):
        return share, *wilson(right, counted, level), "Wilson"

    def counts(codes: NDArray) -> NDArray[np.float64]:
        return (codes != FAILED).astype(np.float64) if p.protocol == "paper" else np.ones(len(codes))

    y0, m0 = np.bincount(group, agent == RIGHT), np.bincount(group, counts(agent))
    dy = (p.draft[can] == RIGHT).astype(np.float64) - (p.agent[can] == RIGHT)
    dm = counts(p.draft[can]) - counts(p.agent[can])
    y, m = _before(p.group_codes[can], (y0, m0), (dy, dm))
    yy, ym, mm = (
        (float(a0 @ b0) + np.concatenate([[0.0], np.cumsum(a * db + b * da + da * db)]))[at]
        for a0, b0, a, b, da, db in ((y0, y0, y, y, dy, dy), (y0, m0, y, m, dy, dm), (m0, m0, m, m, dm, dm))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.maximum(yy - 2 * share * ym + share**2 * mm, 0.0)
        variance = n_groups / max(n_groups - 1, 1) * spread / counted**2
        effect = variance / (share * (1 - share) / counted)
    # nothing varies at 0 and 100 %: every group counts once, as in `estimates.clustered_share`
    constant = (right == 0) | (right == counted)
    n_effective = np.where(constant, np.minimum(counted, n_groups), counted / np.fmax(effect, 1.0))
    low, high = wilson(np.where(right == counted, n_effective, share * n_effective), n_effective, level)
    return share, low, high, "Wilson, design effect of groups"


def _before(
    group: NDArray, start: tuple[NDArray, ...], steps: tuple[NDArray, ...]
) -> Iterator[NDArray[np.float64]]:
    """Each group's running value just before each of its steps: its start plus its earlier steps."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))  # where the next group begins
    lengths = np.diff(np.append(first, len(group)))
    for values, step in zip(start, steps, strict=True):
        running = np.cumsum(step[order]) - step[order]
        before = np.empty(len(group))
        before[order] = running - np.repeat(running[first], lengths)
        yield values[group] + before
