"""Predicted seconds of a gate setting, from the seconds of one recorded run; effects of batching included.

A batched call of the router, the draft model or the agent takes

    fixed + per_step * (tokens of its longest answer) + sum over its samples of what each adds

`fixed` and `per_step` are fitted to the recorded calls (non-negative least squares on relative errors). What a sample
adds is its recorded share of its call, minus its part of the fixed cost. So at the recorded batch size the model
returns the recorded seconds, and the fit decides only what another batch size saves or costs. An agent that runs one
sample at a time is charged what the arm `baseline` measured for the sample.

Several agents at once are the engine of the `_batched` arms, which computes on a turn only what is new. So a later turn
adds less there than one sample at a time, and both are fitted apart. A first turn adds less where the same model routed
the sample before, because the router's call began alike. What that saves is the mean over the samples that both
`gated_batched` and the instrumented pass, whose first turns reuse nothing, have measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..runs.records import AgentRecord

ASSUMES = (
    "Phases run one after another, as in the paper: the seconds of all phases add up.",
    "A sample costs the same in every setting; only the calls it shares with others change.",
    "Batches are filled in the order of the samples, within a task; only drafted samples take part in a draft call.",
    "Agents that advance together fill their calls turn by turn; a task's last call of a turn may be smaller.",
    "A picture is decoded once; a second model's view of another size is not charged apart.",
    "Agents that advance together are those of the `_batched` arms: a turn computes only what is new.",
    "Loading and warming up the models is not included.",
)
SERIAL_ARMS = ("baseline", "gated")  # agents one at a time, unless the run's parameters say otherwise
BATCHED_ARMS = ("collect", "baseline_batched", "gated_batched")


@dataclass(frozen=True, eq=False)
class CallCost:
    """Costs of the calls of one phase."""

    added_s: NDArray[
        np.float64
    ]  # that each sample adds to its call, [n] or, for the agent, [n, turns]; nan: no call
    tokens: NDArray[np.float64]  # of each sample's answer, in the same shape
    fixed_s: float  # of a call; 0 where all recorded calls have one size and cannot show it
    per_step_s: float  # per token of the longest answer
    sizes: tuple[int, int]  # samples in the smallest and in the largest recorded call
    calls: int  # recorded calls
    r2: float  # coefficient of determination of the fit; nan where nothing was fitted

    def take(self, index: NDArray) -> CallCost:
        """The same fit for the samples of a mask or at some positions."""
        return replace(self, added_s=self.added_s[index], tokens=self.tokens[index])

    def shares(self, who: NDArray[np.bool_], tasks: NDArray, batch_size: int) -> NDArray[np.float64]:
        """Seconds charged to each sample, float64 [n], when each task's samples are called in batches, in their order.

        Args:
            who: bool [n], samples that take part.
            tasks: of the samples [n]; the samples of a task stand together.
            batch_size: samples in a call.
        """
        shares = np.zeros(len(who))
        if not who.any():
            return shares
        starts = np.flatnonzero(np.append(True, tasks[1:] != tasks[:-1]))
        place = np.arange(len(tasks)) - np.repeat(starts, np.diff(np.append(starts, len(tasks))))
        batch = np.cumsum(place % batch_size == 0)[who]
        first = np.flatnonzero(np.append(True, batch[1:] != batch[:-1]))
        members = np.diff(np.append(first, len(batch)))
        longest = np.maximum.reduceat(self.tokens[who], first)
        overhead = (self.fixed_s + self.per_step_s * longest) / members
        shares[who] = self.added_s[who] + np.repeat(overhead, members)
        return shares

    def extrapolated(self, size: int) -> str:
        """The recorded sizes, as text, where a call of this many samples is not among them; else empty."""
        low, high = self.sizes
        return (
            "" if low <= size <= high else f"recorded {low}" if low == high else f"recorded {low} to {high}"
        )


@dataclass(frozen=True, eq=False)
class AgentPlan:
    """Seconds of the agent as sums over samples and calls."""

    linear_s: NDArray[np.float64]  # of each sample, independent of the other samples [n]
    size: int = 1  # agents that run at once
    takes_turn: NDArray[np.bool_] | None = None  # [n, turns]; None where agents run one at a time
    call_s: Mapping[str, NDArray[np.float64]] | None = (
        None  # task -> fixed seconds of a call at each turn [turns]
    )

    def shares(self, who: NDArray[np.bool_], tasks: NDArray) -> NDArray[np.float64]:
        """Seconds charged to each sample, float64 [n]; 0 where it does not go to the agent (`who`, bool [n])."""
        seconds = np.where(who, self.linear_s, 0.0)
        for task, call_s in (self.call_s or {}).items():
            turns = self.takes_turn & (who & (tasks == task))[:, None]
            members = turns.sum(axis=0)
            overhead = -(-members // self.size) * call_s / np.maximum(members, 1)
            seconds += turns @ overhead
        return seconds


@dataclass(frozen=True, eq=False)
class CostModel:
    """Fitted costs of a run of n samples. Arrays [n] are seconds; nan where a sample was not timed."""

    decode_s: NDArray[np.float64]  # reading, decoding and resizing the picture, in the instrumented pass [n]
    baseline_decode_s: NDArray[np.float64]  # the same in the arm `baseline` [n]
    tool_s: NDArray[np.float64]  # the agent's tools [n]
    router: Mapping[str, CallCost]  # "large", "small" -> the calls of this router
    draft: CallCost  # calls of the draft model
    agent: CallCost  # batched calls of the agent
    serial_s: NDArray[np.float64]  # the agent's turns, one sample at a time [n]
    serial_recorded: bool  # whether all of `serial_s` is recorded; if not, the rest follows from `agent`
    routed_saves_s: float = (
        np.nan
    )  # of a first turn in the batched engine, by the router's call; nan: not recorded
    assumes: tuple[str, ...] = ASSUMES  # what a prediction assumes, in sentences

    @property
    def fits(self) -> pd.DataFrame:
        """A row per phase, with how many calls of which sizes it was fitted to.

        Columns: phase, fixed_ms, per_step_ms, own_ms (mean of what a sample adds; nan: no call), smallest_call and
        largest_call (samples), calls, r2.
        """
        phases = {f"router ({name})": cost for name, cost in self.router.items()}
        rows = []
        for phase, cost in (phases | {"draft": self.draft, "agent": self.agent}).items():
            own_s = float(np.nanmean(cost.added_s)) if np.isfinite(cost.added_s).any() else np.nan
            milliseconds = (1e3 * cost.fixed_s, 1e3 * cost.per_step_s, 1e3 * own_s)
            rows.append((phase, *milliseconds, *cost.sizes, cost.calls, cost.r2))
        sizes = ("smallest_call", "largest_call", "calls")
        return pd.DataFrame(rows, columns=["phase", "fixed_ms", "per_step_ms", "own_ms", *sizes, "r2"])

    def take(self, index: NDArray) -> CostModel:
        """The same fits for the samples of a mask or at some positions."""
        columns = ("decode_s", "baseline_decode_s", "tool_s", "serial_s")
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in columns},
            router={name: cost.take(index) for name, cost in self.router.items()},
            draft=self.draft.take(index),
            agent=self.agent.take(index),
        )

    def notes(self, router: str, batch_size: int, agent_batch_size: int) -> str:
        """Which parts of a prediction are not backed by recorded calls of such a size; empty where all are."""
        extrapolated = []
        batched = {f"{router} router": self.router.get(router)} if router != "none" else {}
        for phase, cost in (batched | {"draft": self.draft}).items():
            if cost is None:
                extrapolated.append(f"the {phase} was not timed")
            elif cost.calls and (recorded := cost.extrapolated(batch_size)):
                extrapolated.append(f"{phase} in batches of {batch_size}, {recorded}")
        if agent_batch_size == 1:
            if not self.serial_recorded:
                extrapolated.append("agents one at a time, recorded together only")
        else:
            if recorded := self.agent.extrapolated(agent_batch_size):
                extrapolated.append(f"{agent_batch_size} agents at once, {recorded}")
            if router == "large" and np.isnan(self.routed_saves_s):
                extrapolated.append("what the router's call saves the agent, not recorded")
        return f"extrapolated: {'; '.join(extrapolated)}" if extrapolated else ""

    def router_shares(
        self, router: str, who: NDArray[np.bool_], tasks: NDArray, batch_size: int
    ) -> NDArray[np.float64]:
        """Seconds of the router, as in `CallCost.shares`; nan where this router ("large", "small") was not timed."""
        if router == "none":
            return np.zeros(len(who))
        cost = self.router.get(router)
        return np.full(len(who), np.nan) if cost is None else cost.shares(who, tasks, batch_size)

    def agents(self, tasks: NDArray, in_parallel: int, router: str = "none") -> AgentPlan:
        """How the agent's seconds add up, for any choice of samples that go to it.

        Args:
            tasks: of the samples [n].
            in_parallel: agents at once.
            router: the model that routed the samples before ("large", "small"), "none" where they were not routed.
        """
        if in_parallel == 1:
            return AgentPlan(self.serial_s + self.tool_s)
        cost = self.agent
        takes_turn = np.isfinite(cost.added_s)
        call_s = {}
        for task in dict.fromkeys(tasks):
            members = takes_turn & (tasks == task)[:, None]
            steps = [
                _mean_longest(cost.tokens[members[:, turn], turn], in_parallel)
                for turn in range(members.shape[1])
            ]
            call_s[task] = cost.fixed_s + cost.per_step_s * np.array(steps)
        added_s = cost.added_s.copy()
        if router == "large" and not np.isnan(self.routed_saves_s):
            added_s[:, 0] = np.maximum(added_s[:, 0] - self.routed_saves_s, 0.0)
        linear = np.where(takes_turn.any(axis=1), np.nansum(added_s, axis=1), np.nan) + self.tool_s
        return AgentPlan(linear, in_parallel, takes_turn, call_s)


def _mean_longest(tokens: NDArray, size: int) -> float:
    """Mean over calls of `size` samples, in order, of the longest answer in each."""
    if not len(tokens):
        return 0.0
    return float(np.maximum.reduceat(tokens, np.arange(0, len(tokens), size)).mean())


@dataclass(eq=False, slots=True)  # a run has some 100,000
class _Part:
    """A sample's part in a call."""

    sample: int
    call: tuple  # equal for the samples of a call, and of calls that took equally long
    share_s: float
    size: int
    tokens: int
    kind: (
        int  # a task, or what an agent's turn computes: samples of one kind are assumed to add about the same
    )
    turn: int = 0


def fit(
    arms: Mapping[str, Mapping[str, AgentRecord]],
    ids: Sequence[str],
    tasks: Sequence[str],
    routers: Mapping[str, str],
) -> CostModel | None:
    """The cost model fitted to the records of a run; None where nothing was timed.

    Args:
        arms: arm -> its records by id; the first arm is the instrumented pass.
        ids: of the samples, in their order [n].
        tasks: of the samples [n].
        routers: arm -> its router ("large", "small", "none").
    """
    if not any(r.timed and r.wall_s > 0 for records in arms.values() for r in records.values()):
        return None
    n, place = len(ids), {id_: i for i, id_ in enumerate(ids)}
    kinds = pd.factorize(np.asarray(tasks, dtype=object))[0].tolist()
    calls: dict[str, list[_Part]] = {"large": [], "small": [], "draft": []}
    turns: dict[str, list[_Part]] = {arm: [] for arm in arms}

    def part(i: int, arm: str, seconds: float, size: int, tokens: int | None, **which: int) -> _Part:
        call = (arm, kinds[i], seconds, size)
        return _Part(i, call, seconds, size, tokens or 0, **{"kind": kinds[i]} | which)

    for arm, records in arms.items():
        for i, record in ((place[id_], r) for id_, r in records.items() if id_ in place and r.timed):
            for router, reply in ((routers[arm], record.router), ("small", record.router_small)):
                if reply is not None:
                    calls[router].append(part(i, arm, reply.router_s, reply.batch_size, 0))
            if (draft := record.draft) is not None and draft.timed:
                calls["draft"].append(part(i, arm, draft.draft_s, draft.batch_size, draft.n_tokens))
            for number, turn in enumerate(record.trajectory.turns if record.trajectory else ()):
                goes_on = arm in BATCHED_ARMS and (number > 0 or _is_routed(arm, routers))
                which = {"kind": 2 * number + goes_on, "turn": number}
                turns[arm].append(part(i, arm, turn.turn_s, turn.batch_size, turn.n_tokens, **which))
    preferred = next((turns[arm] for arm in (*BATCHED_ARMS, *SERIAL_ARMS) if turns.get(arm)), [])
    agent = _fitted([p for parts in turns.values() for p in parts], preferred, n, by_turn=True)
    routed = [p for arm, parts in turns.items() if _is_routed(arm, routers) for p in parts if p.turn == 0]
    agent.added_s[_failed_before_agent(arms, place), 0] = 0.0
    serial = _serial(arms, place)
    takes_turn = np.isfinite(agent.added_s)
    turn_s = np.where(takes_turn, agent.added_s + agent.fixed_s + agent.per_step_s * agent.tokens, 0.0)
    derived = np.where(takes_turn.any(axis=1), turn_s.sum(axis=1), np.nan)
    instrumented = next(iter(arms.values()))
    baseline = {**instrumented, **arms.get("baseline", {})}  # it may have run a part of the samples only
    return CostModel(
        decode_s=_column(instrumented, ids, "decode_s"),
        baseline_decode_s=_column(baseline, ids, "decode_s"),
        tool_s=_column(baseline, ids, "tool_s"),
        router={name: _fitted(calls[name], calls[name], n) for name in ("large", "small") if calls[name]},
        draft=_fitted(calls["draft"], calls["draft"], n),
        agent=agent,
        serial_s=np.where(np.isnan(serial), derived, serial),
        serial_recorded=not np.isnan(serial).any(),
        routed_saves_s=_saved(agent, routed) if preferred and preferred[0].kind == 0 else np.nan,
    )


def _is_routed(arm: str, routers: Mapping[str, str]) -> bool:
    """Whether the router's call of an arm serves the first turn of its agent."""
    return arm == "gated_batched" and routers[arm] == "large"


def _saved(agent: CallCost, routed: Sequence[_Part]) -> float:
    """Mean seconds by which first turns add less than in the instrumented pass; nan without such turns."""
    saved = []
    longest = {p: max(q.tokens for q in members) for members in _calls(routed) for p in members}
    for p, steps in longest.items():
        added_s = p.share_s - (agent.fixed_s + agent.per_step_s * steps) / p.size
        saved.append(agent.added_s[p.sample, 0] - added_s)
    known = [seconds for seconds in saved if not np.isnan(seconds)]
    return max(0.0, float(np.mean(known))) if known else np.nan


def _column(records: Mapping[str, AgentRecord], ids: Sequence[str], name: str) -> NDArray[np.float64]:
    timed = {id_: getattr(record, name) for id_, record in records.items() if record.timed}
    return np.array([timed.get(id_, np.nan) for id_ in ids], dtype=np.float64)


def _failed_before_agent(
    arms: Mapping[str, Mapping[str, AgentRecord]], place: Mapping[str, int]
) -> list[int]:
    """Samples that failed before the agent got them, in every arm: the agent costs them nothing."""
    records = [(id_, r) for records in arms.values() for id_, r in records.items() if id_ in place]
    failed = {id_ for id_, r in records if r.status == "error" and not r.trajectory}
    with_turns = {id_ for id_, r in records if r.trajectory and r.trajectory.turns}
    return [place[id_] for id_ in failed - with_turns]


def _serial(arms: Mapping[str, Mapping[str, AgentRecord]], place: Mapping[str, int]) -> NDArray[np.float64]:
    """The agent's seconds per sample where it ran one sample at a time; nan elsewhere."""
    serial = np.full(len(place), np.nan)
    for arm in reversed(SERIAL_ARMS):  # the baseline comes last: it counts where both ran
        for id_, record in arms.get(arm, {}).items():
            path = record.trajectory
            if id_ not in place or not record.timed or (path is None and record.status == "ok"):
                continue
            if path is None or all(turn.batch_size == 1 for turn in path.turns):
                serial[place[id_]] = path.agent_s if path else 0.0
    return serial


def _fitted(parts: Sequence[_Part], preferred: Sequence[_Part], n: int, by_turn: bool = False) -> CallCost:
    """The cost of the calls of `parts`. What each sample adds comes from its first one of the `preferred` parts."""
    turns = 1 + max((p.turn for p in preferred), default=0)
    shape = (n, turns) if by_turn else (n,)
    added_s, tokens = np.full(shape, np.nan), np.zeros(shape)
    calls = _calls(parts)
    longest = [max(p.tokens for p in members) for members in calls]
    steps = {p: steps for members, steps in zip(calls, longest, strict=True) for p in members}
    sizes = [members[0].size for members in calls] or [0]
    fixed_s, per_step_s, r2 = 0.0, 0.0, np.nan
    if min(sizes) < max(sizes):
        fixed_s, per_step_s, r2 = _solve(calls, longest)
    for p in preferred:
        at = (p.sample, p.turn) if by_turn else p.sample
        if np.isnan(added_s[at]):
            overhead = fixed_s + per_step_s * steps.get(p, p.tokens)
            added_s[at] = max(0.0, p.share_s - overhead / p.size)
            tokens[at] = p.tokens
    return CallCost(added_s, tokens, fixed_s, per_step_s, (min(sizes), max(sizes)), len(calls), r2)


def _calls(parts: Iterable[_Part]) -> list[list[_Part]]:
    """The parts call by call; a call with unrecorded members is left out.

    Samples with equal shares shared a call. Where two calls took equally long, each is given the next samples.
    """
    by_share: dict[tuple, list[_Part]] = {}
    for part in parts:
        if part.share_s > 0:
            by_share.setdefault(part.call, []).append(part)
    calls = []
    for members in by_share.values():
        size = members[0].size
        if len(members) % size == 0:
            calls += [members[at : at + size] for at in range(0, len(members), size)]
    return calls


def _solve(calls: Sequence[Sequence[_Part]], longest: Sequence[int]) -> tuple[float, float, float]:
    """fixed_s, per_step_s and R2 of the module's formula; a sample adds a constant of its kind and some per token."""
    from scipy.optimize import nnls

    seconds = np.array([members[0].share_s * members[0].size for members in calls])
    kinds = 1 + max(p.kind for members in calls for p in members)
    counts = np.zeros((len(calls), kinds))
    for row, members in enumerate(calls):
        np.add.at(counts[row], [p.kind for p in members], 1.0)
    tokens = np.array([sum(p.tokens for p in members) for members in calls], dtype=np.float64)
    design = np.column_stack([np.ones(len(calls)), longest, tokens, counts])
    solution, _ = nnls(design / seconds[:, None], np.ones(len(calls)))
    residual = seconds - design @ solution
    spread = ((seconds - seconds.mean()) ** 2).sum()
    r2 = float(1 - (residual**2).sum() / spread) if spread else np.nan
    return float(solution[0]), float(solution[1]), r2
