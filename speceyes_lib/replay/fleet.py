"""How many replicas of each model: the funnel as queues, simulated with the service times of a recorded run.

A request is a chain of calls: router (large model), draft (small model), and for a routed or rejected sample the
agent's turns (large model). Decoding pictures and running tools take time but no replica. Each model has a pool of
replicas with one queue, first come, first served. A free replica takes what waits, up to its batch limit, as one call.
The call takes the most fixed seconds of its members plus the sum of what each adds, as `cost_model` fitted both.

The simulation leaves out networks, failing replicas, memory limits, and any other scheduling of a server. It computes
what the recorded costs imply, not what another machine would measure.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .cost_model import CallCost, CostModel
from .outcomes import decisions
from .replay_data import NotRecorded, ReplayData
from .settings import Setting

# what a call needs: a replica of the small or the large model, time but no replica (ASIDE), or there is no call
SMALL, LARGE, ASIDE, NONE = 0, 1, 2, -1
WARM_UP = 0.2  # share of the requests at the start that is not measured: queues fill first


@dataclass(frozen=True, eq=False)
class Workload:
    """n kinds of requests, each a chain of up to m calls."""

    pool: NDArray[np.int8]  # what each call needs: SMALL, LARGE, ASIDE or NONE [n, m]
    added_s: NDArray[np.float64]  # seconds that the call adds to a batch [n, m]
    fixed_s: NDArray[np.float64]  # seconds that the batch takes however many calls share it [n, m]

    def __len__(self) -> int:
        return len(self.pool)

    def seconds(self, pool: int, batch: int = 1) -> float:
        """Mean seconds that a request keeps a replica of the pool busy, in full batches of equal calls."""
        busy_s = np.where(self.pool == pool, self.added_s + self.fixed_s / batch, 0.0)
        return float(busy_s.sum(axis=1).mean()) if len(self) else math.nan


@dataclass(frozen=True)
class Fleet:
    """Replicas of both models."""

    small: int  # replicas of the small model
    large: int  # replicas of the large model
    small_batch: int = 16  # requests that a small replica answers in one call, at most
    large_batch: int = 16  # the same of a large replica
    small_gpus: float = 1.0  # GPUs of a small replica; a fraction where replicas share one
    large_gpus: float = 1.0  # GPUs of a large replica

    def __post_init__(self) -> None:
        for name, low in (("small", 0), ("large", 0), ("small_batch", 1), ("large_batch", 1)):
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, got {getattr(self, name)}.")

    @property
    def gpus(self) -> float:
        """GPUs of all replicas."""
        return self.small * self.small_gpus + self.large * self.large_gpus


@dataclass(frozen=True)
class FleetResult:
    """What a fleet does with a workload, the warm-up left out."""

    throughput_per_s: float  # requests answered per second
    mean_s: float  # mean latency of a request
    p50_s: float  # median latency
    p95_s: float  # 95th percentile of the latency
    small_utilisation: float  # share of the time that the small replicas are busy; nan without one
    large_utilisation: float  # the same of the large replicas
    small_batch: float  # mean requests per call of the small replicas; nan without a call
    large_batch: float  # the same of the large replicas
    n: int  # requests measured


def funnel_workload(data: ReplayData, setting: Setting) -> Workload:
    """The calls of every readable sample of a run under a gate setting.

    Raises:
        NotRecorded: the run has no times, or lacks what the setting needs.
    """
    cost = _cost(data)
    decided = decisions(data, setting)["decision"].to_numpy()
    router = cost.router.get(setting.router)
    if setting.router != "none" and router is None:
        raise NotRecorded(f"the {setting.router} router was not timed in this run")
    steps = [_aside(cost.decode_s)]
    if router is not None:
        steps += _calls(LARGE if setting.router == "large" else SMALL, router)
    to_agent = decided != "accepted"
    steps += _calls(SMALL, cost.draft, decided != "routed") + _calls(LARGE, cost.agent, to_agent)
    steps.append(_aside(np.where(to_agent, cost.tool_s, 0.0)))
    return _workload(steps, data.readable)


def agent_workload(data: ReplayData) -> Workload:
    """The calls of every readable sample when the agent answers everything. Raises as `funnel_workload`."""
    cost = _cost(data)
    steps = [_aside(cost.baseline_decode_s), *_calls(LARGE, cost.agent), _aside(cost.tool_s)]
    return _workload(steps, data.readable)


def _cost(data: ReplayData) -> CostModel:
    if data.cost is None:
        raise NotRecorded("this run has no times; a fleet cannot be planned from it")
    return data.cost


def _calls(
    pool: int, cost: CallCost, who: NDArray[np.bool_] | None = None
) -> list[tuple[NDArray, NDArray, NDArray]]:
    """A step per call (the agent has one per turn): pool, added and fixed seconds of each sample. who: None: all."""
    added_s = cost.added_s.reshape(len(cost.added_s), -1)
    fixed_s = cost.fixed_s + cost.per_step_s * cost.tokens.reshape(added_s.shape)
    called = np.isfinite(added_s) if who is None else who[:, None] & np.isfinite(added_s)
    parts = np.where(called, pool, NONE), np.where(called, added_s, 0.0), np.where(called, fixed_s, 0.0)
    return list(zip(*(part.T for part in parts), strict=True))


def _aside(seconds: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """A step that takes time but no replica."""
    seconds = np.nan_to_num(seconds)
    return np.where(seconds > 0, ASIDE, NONE), seconds, np.zeros(len(seconds))


def _workload(steps: Sequence[tuple[NDArray, NDArray, NDArray]], readable: NDArray[np.bool_]) -> Workload:
    pool, added_s, fixed_s = (np.stack(parts, axis=1)[readable] for parts in zip(*steps, strict=True))
    return Workload(pool.astype(np.int8), added_s, fixed_s)


class _Pool:
    """Replicas of one model behind one queue."""

    def __init__(self, env: Any, replicas: int, batch: int) -> None:
        self.env, self.batch = env, batch
        self.waiting: deque[tuple[float, float, Any]] = deque()
        self.idle: deque[Any] = deque()
        self.calls = self.served = self.busy = 0
        self._busy_s = self._since_s = 0.0
        for _ in range(replicas):
            env.process(self._replica())

    def call(self, added_s: float, fixed_s: float) -> Any:
        """Queue a call; the event that it returns fires when the call is answered."""
        done = self.env.event()
        self.waiting.append((added_s, fixed_s, done))
        if self.idle:
            self.idle.popleft().succeed()
        return done

    @property
    def clocks(self) -> tuple[float, int, int]:
        """Seconds that replicas were busy so far, calls and requests that they finished."""
        return self._busy_s + self.busy * (self.env.now - self._since_s), self.calls, self.served

    def _set_busy(self, change: int) -> None:
        """Count a replica that becomes busy (+1) or idle (-1)."""
        self._busy_s, self._since_s = self.clocks[0], self.env.now
        self.busy += change

    def _replica(self) -> Generator:
        while True:
            while not self.waiting:
                work_arrives = self.env.event()
                self.idle.append(work_arrives)
                yield work_arrives
            members = [self.waiting.popleft() for _ in range(min(self.batch, len(self.waiting)))]
            seconds = max(fixed for _, fixed, _ in members) + sum(added for added, _, _ in members)
            self._set_busy(+1)
            yield self.env.timeout(seconds)
            self._set_busy(-1)
            self.calls += 1
            self.served += len(members)
            for _, _, done in members:
                done.succeed()


def simulate_fleet(
    workload: Workload,
    fleet: Fleet,
    *,
    users: int | None = None,
    arrivals_per_s: float | None = None,
    requests: int = 4000,
    seed: int = 0,
) -> FleetResult:
    """Throughput, latencies and utilisation of a fleet that answers requests of a workload.

    Where requests arrive faster than they are answered, queue and latencies grow as long as the simulation runs.

    Args:
        workload: requests are drawn from it with replacement.
        fleet: that answers them.
        users: closed system: so many users, each with one request at a time. Either this or arrivals_per_s.
        arrivals_per_s: open system: mean rate of a Poisson process.
        requests: simulated, of which the first fifth is not measured; at least twice the users are simulated.
        seed: of the draws and arrivals.

    Raises:
        UserError: neither or both of users and arrivals, a value out of range, or a pool that is needed and has no
            replica.
    """
    import simpy

    if (users is None) == (arrivals_per_s is None):
        raise UserError("Give either users (closed) or arrivals_per_s (open), not both.")
    if (users if users is not None else arrivals_per_s) <= 0 or requests < 10 or not len(workload):
        raise UserError("users, arrivals and the workload must not be empty, and requests at least 10.")
    for pool, name, replicas in ((SMALL, "small", fleet.small), (LARGE, "large", fleet.large)):
        if replicas == 0 and (workload.pool == pool).any():
            raise UserError(f"the workload calls the {name} model, but the fleet has no replica of it.")

    env, random = simpy.Environment(), np.random.default_rng(seed)
    requests = max(requests, 2 * (users or 0))
    kinds = random.integers(0, len(workload), 2 * requests).tolist()
    pools = {
        SMALL: _Pool(env, fleet.small, fleet.small_batch),
        LARGE: _Pool(env, fleet.large, fleet.large_batch),
    }
    columns = (workload.pool.tolist(), workload.added_s.tolist(), workload.fixed_s.tolist())
    chains = [
        [call for call in zip(*row, strict=True) if call[0] != NONE] for row in zip(*columns, strict=True)
    ]
    ended: list[tuple[float, float]] = []  # (time, latency) of every answered request, in seconds
    skip = max(int(WARM_UP * requests), users or 0)  # the first requests of all users come at the same moment
    before: dict[int, tuple] = {}  # the pools' clocks when the warm-up ended
    finished = env.event()
    numbers = itertools.count()

    def answer() -> Generator:
        began = env.now
        for pool, added_s, fixed_s in chains[kinds[next(numbers) % len(kinds)]]:
            yield env.timeout(added_s) if pool == ASIDE else pools[pool].call(added_s, fixed_s)
        ended.append((env.now, env.now - began))
        if len(ended) == skip:
            before.update({number: pool.clocks for number, pool in pools.items()})
        if len(ended) == requests:
            finished.succeed()

    def user() -> Generator:
        while True:
            yield from answer()

    def arrivals() -> Generator:
        while True:
            yield env.timeout(random.exponential(1.0 / arrivals_per_s))
            env.process(answer())

    for _ in range(users or 0):
        env.process(user())
    if arrivals_per_s is not None:
        env.process(arrivals())
    env.run(finished)

    measured = np.array(ended[skip:])
    span_s = env.now - ended[skip - 1][0]
    of_pools: dict[str, float] = {}
    for pool, name, replicas in ((SMALL, "small", fleet.small), (LARGE, "large", fleet.large)):
        busy, calls, served = np.subtract(pools[pool].clocks, before[pool])
        of_pools[f"{name}_utilisation"] = busy / (span_s * replicas) if replicas and span_s else math.nan
        of_pools[f"{name}_batch"] = served / calls if calls else math.nan
    return FleetResult(
        throughput_per_s=len(measured) / span_s if span_s else math.inf,
        mean_s=float(measured[:, 1].mean()),
        p50_s=float(np.quantile(measured[:, 1], 0.5)),
        p95_s=float(np.quantile(measured[:, 1], 0.95)),
        n=len(measured),
        **of_pools,
    )


def best_ratio(
    workload: Workload,
    gpus: int,
    *,
    users: int = 256,
    fleet: Fleet | None = None,
    requests: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every way to divide GPUs between the two models, simulated; the best fleet first.

    `fleet` gives batch limits and GPUs per replica; its numbers of replicas are ignored. The other arguments are those
    of `simulate_fleet`; `users` should be enough to keep the fleet busy.

    Returns:
        A row per fleet: small and large (replicas), gpus, the fields of `FleetResult`, and per_gpu_per_s, requests per
        second and GPU, in descending order.

    Raises:
        UserError: no division leaves a replica of each model that the workload calls.
    """
    like = fleet or Fleet(1, 1)
    needs_small, needs_large = ((workload.pool == pool).any() for pool in (SMALL, LARGE))
    rows = []
    for large in range(int(gpus // like.large_gpus) + 1):
        small = int((gpus - large * like.large_gpus) // like.small_gpus)
        if (needs_small and not small) or (needs_large and not large):
            continue
        if not needs_small and large < gpus // like.large_gpus:
            continue  # a model that is not called leaves all GPUs to the other
        divided = replace(like, small=small if needs_small else 0, large=large)
        result = simulate_fleet(workload, divided, users=users, requests=requests, seed=seed)
        per_gpu_per_s = result.throughput_per_s / divided.gpus
        row = {"small": divided.small, "large": divided.large, "gpus": divided.gpus}
        rows.append(row | vars(result) | {"per_gpu_per_s": per_gpu_per_s})
    if not rows:
        raise UserError(f"{gpus} GPUs are too few for one replica of each model that is called; give more.")
    return pd.DataFrame(rows).sort_values("per_gpu_per_s", ascending=False, ignore_index=True)
