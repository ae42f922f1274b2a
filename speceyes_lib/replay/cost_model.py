"""What a gate setting would take, from what one run took: seconds per phase, batch effects included.

A batched call of the router, the draft model or the agent lasts

    fixed + per_step * (tokens of its longest answer) + sum over its samples of what each adds

`fixed` and `per_step` are fitted to the recorded calls (non-negative least squares on relative errors). What a
sample adds is not fitted: it is the share the sample was charged less its part of the fixed cost. So at the
batch size that was recorded the model returns the recorded seconds, and a fit decides only what another batch
size saves or costs. Agents one at a time are charged what `baseline` measured for each sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..runs.records import AgentRecord, Trajectory

ASSUMES = (
    "Phases run one after another, as in the paper: the seconds of all phases add up.",
    "A sample costs the same in every setting; only the calls it shares with others change.",
    "Batches are filled in the order of the samples, within a task; only drafted samples take part in a draft call.",
    "Agents that advance together fill their calls turn by turn; a task's last call of a turn may be smaller.",
    "A picture is decoded once; a second model's view of another size is not charged apart.",
    "Loading and warming up the models is not included.",
)
SERIAL_ARMS = ("baseline", "gated")  # agents one at a time, unless the run was told otherwise
BATCHED_ARMS = ("collect", "baseline_batched", "gated_batched")


@dataclass(frozen=True, eq=False)
class CallCost:
    """The calls of one phase. `own_s` and `tokens` are [n] or, for the agent, [n, turns]; nan: no such call.

    sizes: smallest and largest recorded call, in samples. fitted: whether calls of several sizes were
    recorded; if not, the fixed part cannot be told apart, and is 0.
    """

    own_s: NDArray[np.float64]
    tokens: NDArray[np.float64]
    fixed_s: float
    per_step_s: float
    sizes: tuple[int, int]
    calls: int
    r2: float

    @property
    def fitted(self) -> bool:
        return self.sizes[0] < self.sizes[1]

    def beyond(self, size: int) -> bool:
        """Whether a call of this many samples is outside of what was recorded."""
        return not self.sizes[0] <= size <= self.sizes[1]

    def take(self, at: NDArray) -> CallCost:
        return replace(self, own_s=self.own_s[at], tokens=self.tokens[at])


@dataclass(frozen=True, eq=False)
class AgentPlan:
    """Agent seconds as sums: `linear_s` per sample, and for agents in parallel an overhead per call.

    takes_turn: bool [n, turns]; call_s: by task [turns], the fixed seconds of one call at that turn.
    Both are None when agents run one at a time.
    """

    linear_s: NDArray[np.float64]
    size: int = 1
    takes_turn: NDArray[np.bool_] | None = None
    call_s: Mapping[str, NDArray[np.float64]] | None = None

    def shares(self, who: NDArray[np.bool_], tasks: NDArray) -> NDArray[np.float64]:
        """Seconds charged to each sample [n] when the samples `who` go to the agent."""
        seconds = np.where(who, self.linear_s, 0.0)
        for task, call_s in (self.call_s or {}).items():
            turns = self.takes_turn & (who & (tasks == task))[:, None]
            members = turns.sum(axis=0)
            overhead = -(-members // self.size) * call_s / np.maximum(members, 1)
            seconds += turns @ overhead
        return seconds


@dataclass(frozen=True, eq=False)
class CostModel:
    """Fitted costs of a run of n samples. Arrays [n] are seconds; nan where a sample was not timed.

    decode_s, baseline_decode_s: read, decode, resize the picture, in the instrumented pass and in `baseline`.
    router: by router. serial_s: the agent's turns as they ran one at a time. agent: its batched calls.
    """

    decode_s: NDArray[np.float64]
    baseline_decode_s: NDArray[np.float64]
    tool_s: NDArray[np.float64]
    router: Mapping[str, CallCost]
    draft: CallCost
    agent: CallCost
    serial_s: NDArray[np.float64]
    serial_recorded: bool
    assumes: tuple[str, ...] = ASSUMES

    @property
    def fits(self) -> pd.DataFrame:
        """One row per phase: what was fitted, from how many calls of which sizes."""
        phases = {f"router ({name})": cost for name, cost in self.router.items()}
        rows = [
            {
                "phase": phase,
                "fixed_ms": 1e3 * cost.fixed_s,
                "per_step_ms": 1e3 * cost.per_step_s,
                "own_ms": 1e3 * float(np.nanmean(cost.own_s)) if np.isfinite(cost.own_s).any() else np.nan,
                "smallest_call": cost.sizes[0],
                "largest_call": cost.sizes[1],
                "calls": cost.calls,
                "r2": cost.r2,
            }
            for phase, cost in (phases | {"draft": self.draft, "agent": self.agent}).items()
        ]
        return pd.DataFrame(rows)

    def take(self, at: NDArray) -> CostModel:
        """The same fits for some of the samples."""
        return replace(
            self,
            **{
                name: getattr(self, name)[at]
                for name in ("decode_s", "baseline_decode_s", "tool_s", "serial_s")
            },
            router={name: cost.take(at) for name, cost in self.router.items()},
            draft=self.draft.take(at),
            agent=self.agent.take(at),
        )

    def notes(self, router: str, batch_size: int, agents_in_parallel: int) -> str:
        """What of a prediction is not backed by recorded calls of such a size; empty when all of it is."""
        told = []
        batched = {f"{router} router": self.router.get(router)} if router != "none" else {}
        for phase, cost in (batched | {"draft": self.draft}).items():
            if cost is None:
                told.append(f"the {phase} was not timed")
            elif cost.calls and cost.beyond(batch_size):
                told.append(f"{phase} in batches of {batch_size}, recorded {_range(cost.sizes)}")
        if agents_in_parallel == 1:
            if not self.serial_recorded:
                told.append("agents one at a time, recorded together only")
        elif self.agent.beyond(agents_in_parallel):
            told.append(f"{agents_in_parallel} agents at once, recorded {_range(self.agent.sizes)}")
        return f"extrapolated: {'; '.join(told)}" if told else ""

    def router_shares(
        self, router: str, who: NDArray[np.bool_], tasks: NDArray, batch_size: int
    ) -> NDArray[np.float64]:
        """Seconds of Phase I charged to each sample [n]; nan where this router was not timed."""
        if router == "none":
            return np.zeros(len(who))
        cost = self.router.get(router)
        return np.full(len(who), np.nan) if cost is None else _shares(cost, who, tasks, batch_size)

    def draft_shares(self, who: NDArray[np.bool_], tasks: NDArray, batch_size: int) -> NDArray[np.float64]:
        """Seconds of Phase II charged to each sample [n] when the samples `who` are drafted."""
        return _shares(self.draft, who, tasks, batch_size)

    def agents(self, tasks: NDArray, in_parallel: int) -> AgentPlan:
        """How the agent's seconds add up, for any choice of samples that go to it."""
        if in_parallel == 1:
            return AgentPlan(self.serial_s + self.tool_s)
        cost = self.agent
        takes_turn = np.isfinite(cost.own_s)
        longest = {
            task: np.array(
                [
                    _mean_longest(cost.tokens[(tasks == task) & takes_turn[:, turn], turn], in_parallel)
                    for turn in range(takes_turn.shape[1])
                ]
            )
            for task in dict.fromkeys(tasks)
        }
        linear = np.where(takes_turn.any(axis=1), np.nansum(cost.own_s, axis=1), np.nan) + self.tool_s
        call_s = {task: cost.fixed_s + cost.per_step_s * steps for task, steps in longest.items()}
        return AgentPlan(linear, in_parallel, takes_turn, call_s)


def _range(sizes: tuple[int, int]) -> str:
    low, high = sizes
    return f"{low}" if low == high else f"{low} to {high}"


def _shares(cost: CallCost, who: NDArray, tasks: NDArray, batch_size: int) -> NDArray[np.float64]:
    """What the samples `who` are charged when each task's samples are called in batches, in their order."""
    shares = np.zeros(len(who))
    if not who.any():
        return shares
    starts = np.flatnonzero(np.append(True, tasks[1:] != tasks[:-1]))
    place = np.arange(len(tasks)) - np.repeat(starts, np.diff(np.append(starts, len(tasks))))
    new_batch = place % batch_size == 0
    batch = np.cumsum(new_batch)[who]
    first = np.flatnonzero(np.append(True, batch[1:] != batch[:-1]))
    members = np.diff(np.append(first, len(batch)))
    longest = np.maximum.reduceat(cost.tokens[who], first)
    overhead = (cost.fixed_s + cost.per_step_s * longest) / members
    shares[who] = cost.own_s[who] + np.repeat(overhead, members)
    return shares


def _mean_longest(tokens: NDArray, size: int) -> float:
    """Mean over calls of `size` samples, in order, of the longest answer in each."""
    if not len(tokens):
        return 0.0
    return float(np.maximum.reduceat(tokens, np.arange(0, len(tokens), size)).mean())


# ------------------------------------------------------------------------------------------------- fitting


@dataclass(frozen=True, eq=False)
class _Part:
    """One sample's part in one call: who, in which call (its equal share tells them apart), of what kind."""

    sample: int
    call: tuple
    share_s: float
    size: int
    tokens: int
    kind: int  # samples of one kind are taken to add about the same: a task's pictures, an agent's n-th turn
    turn: int = 0


def fit(
    arms: Mapping[str, Mapping[str, AgentRecord]],
    ids: Sequence[str],
    tasks: Sequence[str],
    routers: Mapping[str, str],
) -> CostModel | None:
    """Fit the model to the records of a run; None where nothing was timed.

    Args:
        arms: by arm name its records by id; the first one is the instrumented pass.
        ids, tasks: the samples in their order.
        routers: by arm name who was asked in Phase I ("large", "small", "none").
    """
    main = next(iter(arms.values()))
    place = {id_: i for i, id_ in enumerate(ids)}
    task_kind = {task: kind for kind, task in enumerate(dict.fromkeys(tasks))}
    kinds = [task_kind[task] for task in tasks]
    calls: dict[str, list[_Part]] = {"large": [], "small": [], "draft": []}
    agent_parts: dict[str, list[_Part]] = {}
    for arm, records in arms.items():
        own = [(place[id_], r) for id_, r in records.items() if id_ in place and r.timed]
        for i, r in own:
            for who, said in ((routers[arm], r.router), ("small", r.router_small)):
                if said is not None:
                    key = (arm, kinds[i], said.router_s, said.batch_size)
                    calls[who].append(_Part(i, key, said.router_s, said.batch_size, 0, kinds[i]))
            if (d := r.draft) is not None and d.timed:
                key = (arm, kinds[i], d.draft_s, d.batch_size)
                calls["draft"].append(_Part(i, key, d.draft_s, d.batch_size, d.n_tokens or 0, kinds[i]))
        agent_parts[arm] = [
            _Part(
                i,
                (arm, kinds[i], t.turn_s, t.batch_size),
                t.turn_s,
                t.batch_size,
                t.n_tokens or 0,
                turn,
                turn,
            )
            for i, r in own
            for turn, t in enumerate(r.trajectory.turns if r.trajectory else ())
        ]
    if not any(r.timed and r.wall_s > 0 for records in arms.values() for r in records.values()):
        return None
    n = len(ids)
    first = next((agent_parts[arm] for arm in (*BATCHED_ARMS, *SERIAL_ARMS) if agent_parts.get(arm)), [])
    agent = _fitted([p for parts in agent_parts.values() for p in parts], first, n, by_turn=True)
    agent.own_s[_never_asked(arms, place), 0] = 0.0
    serial = _serial(arms, place)
    takes_turn = np.isfinite(agent.own_s)
    alone = np.where(takes_turn, agent.own_s + agent.fixed_s + agent.per_step_s * agent.tokens, 0.0).sum(
        axis=1
    )
    derived = np.where(takes_turn.any(axis=1), alone, np.nan)
    baseline = arms.get("baseline") or main
    return CostModel(
        decode_s=_column(main, place, lambda r: r.decode_s),
        baseline_decode_s=_column(baseline, place, lambda r: r.decode_s),
        tool_s=_column(baseline, place, lambda r: r.tool_s),
        router={who: _fitted(calls[who], calls[who], n) for who in ("large", "small") if calls[who]},
        draft=_fitted(calls["draft"], calls["draft"], n),
        agent=agent,
        serial_s=np.where(np.isnan(serial), derived, serial),
        serial_recorded=not np.isnan(serial).any(),
    )


def _column(records: Mapping[str, AgentRecord], place: Mapping[str, int], seconds) -> NDArray[np.float64]:
    column = np.full(len(place), np.nan)
    for id_, record in records.items():
        if id_ in place and record.timed:
            column[place[id_]] = seconds(record)
    return column


def _never_asked(arms: Mapping[str, Mapping[str, AgentRecord]], place: Mapping[str, int]) -> list[int]:
    """Samples that failed before the agent was asked: it costs them nothing."""
    failed = {
        i for records in arms.values() for i, r in records.items() if r.status == "error" and not r.trajectory
    }
    asked = {
        i for records in arms.values() for i, r in records.items() if r.trajectory and r.trajectory.turns
    }
    return [place[i] for i in failed - asked if i in place]


def _serial(arms: Mapping[str, Mapping[str, AgentRecord]], place: Mapping[str, int]) -> NDArray[np.float64]:
    """The agent's seconds per sample as it ran alone; nan where it did not."""
    serial = np.full(len(place), np.nan)
    for arm in reversed(SERIAL_ARMS):  # the baseline's last: it counts where both ran
        for id_, record in arms.get(arm, {}).items():
            path = record.trajectory
            if id_ not in place or not record.timed or (path is None and record.status == "ok"):
                continue
            if _alone(path):
                serial[place[id_]] = path.agent_s if path else 0.0
    return serial


def _alone(path: Trajectory | None) -> bool:
    return path is None or all(turn.batch_size == 1 for turn in path.turns)


def _fitted(parts: Sequence[_Part], own: Sequence[_Part], n: int, by_turn: bool = False) -> CallCost:
    """Fit the calls that `parts` are of; `own` are the parts whose shares say what each sample adds.

    Where a sample has several (an arm that ran again), the first one counts.
    """
    turns = 1 + max((p.turn for p in own), default=0)
    shape = (n, turns) if by_turn else (n,)
    own_s, tokens = np.full(shape, np.nan), np.zeros(shape)
    calls = _calls(parts)
    longest = [max(p.tokens for p in members) for members in calls]
    steps = {p: steps for members, steps in zip(calls, longest, strict=True) for p in members}
    sizes = [members[0].size for members in calls] or [0]
    fixed_s, per_step_s, r2 = 0.0, 0.0, np.nan
    if min(sizes) < max(sizes):
        fixed_s, per_step_s, r2 = _solve(calls, longest)
    for p in own:
        at = (p.sample, p.turn) if by_turn else p.sample
        if np.isnan(own_s[at]):
            overhead = fixed_s + per_step_s * steps.get(p, p.tokens)
            own_s[at] = max(0.0, p.share_s - overhead / p.size)
            tokens[at] = p.tokens
    return CallCost(own_s, tokens, fixed_s, per_step_s, (min(sizes), max(sizes)), len(calls), r2)


def _calls(parts: Iterable[_Part]) -> list[list[_Part]]:
    """The parts call by call; a call of which some members are not on record is left out.

    Equal shares tell which samples shared a call. Where two calls lasted equally long, each took the next ones.
    """
    found: dict[tuple, list[_Part]] = {}
    for part in parts:
        if part.share_s > 0:
            found.setdefault(part.call, []).append(part)
    calls = []
    for members in found.values():
        size = members[0].size
        if len(members) % size == 0:
            calls += [members[at : at + size] for at in range(0, len(members), size)]
    return calls


def _solve(calls: Sequence[Sequence[_Part]], longest: Sequence[int]) -> tuple[float, float, float]:
    """fixed_s, per_step_s and R2 of the module's formula with one own part per kind and one per token."""
    from scipy.optimize import nnls

    seconds = np.array([members[0].share_s * members[0].size for members in calls])
    kinds = 1 + max(p.kind for members in calls for p in members)
    counts = np.zeros((len(calls), kinds))
    for row, members in enumerate(calls):
        np.add.at(counts[row], [p.kind for p in members], 1.0)
    tokens = np.array([sum(p.tokens for p in members) for members in calls], dtype=np.float64)
    design = np.column_stack([np.ones(len(calls)), longest, tokens, counts])
    solution, _ = nnls(design / seconds[:, None], np.ones(len(calls)))
    left = seconds - design @ solution
    spread = ((seconds - seconds.mean()) ** 2).sum()
    return float(solution[0]), float(solution[1]), float(1 - (left**2).sum() / spread) if spread else np.nan
