"""How many replicas of each model? The funnel as queues, simulated with the service times of a recorded run.

A request is a chain of calls: router (large model), draft (small), and for what is routed or rejected the agent's
turns (large); decoding pictures and running tools take time but no replica. Each model has a pool of replicas with
one queue, first come, first served. A free replica takes what waits, up to its batch limit, as one call, and is
busy for

    (largest fixed part of the members) + (sum of what each member adds)

both as `cost_model` fitted them to the recorded calls. Requests are recorded samples, drawn with replacement and a
seed. They arrive at random (Poisson) at a given rate, or come from a fixed number of users who each ask again as
soon as they are answered. Simulated with SimPy.

What it leaves out: networks, failing replicas, memory limits, and whatever a server does more cleverly than
waiting in line. It says what the recorded costs imply, not what another machine would measure.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from .cost_model import CallCost
from .outcomes import decisions
from .replay_data import Lacking, Population
from .settings import Setting

SMALL, LARGE, ASIDE, NONE = 0, 1, 2, -1  # which pool a call goes to; ASIDE: takes time but no replica
WARM_UP = 0.2  # share of the requests at the start that is not measured: queues fill first


@dataclass(frozen=True, eq=False)
class Workload:
    """n kinds of requests, each a chain of up to m calls; arrays [n, m].

    pool: SMALL, LARGE, ASIDE or NONE (no further call). own_s: what the call adds to a batch.
    fixed_s: what it costs however many share it.
    """

    pool: NDArray[np.int8]
    own_s: NDArray[np.float64]
    fixed_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pool)

    def seconds(self, pool: int, batch: int = 1) -> float:
        """Mean seconds that a request keeps a replica of the pool busy, in full batches of like calls."""
        spent = np.where(self.pool == pool, self.own_s + self.fixed_s / batch, 0.0)
        return float(spent.sum(axis=1).mean()) if len(self) else math.nan


@dataclass(frozen=True)
class Fleet:
    """Replicas of the small and the large model, how many requests each answers in one call, and GPUs of each."""

    small: int
    large: int
    small_batch: int = 16
    large_batch: int = 16
    small_gpus: float = 1.0
    large_gpus: float = 1.0

    def __post_init__(self) -> None:
        for name, low in (("small", 0), ("large", 0), ("small_batch", 1), ("large_batch", 1)):
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, got {getattr(self, name)}.")

    @property
    def gpus(self) -> float:
        return self.small * self.small_gpus + self.large * self.large_gpus


@dataclass(frozen=True)
class Outcome:
    """What a fleet does with a workload, warm-up left out.

    Utilisation is the share of time that the pool's replicas are busy; batches are the mean size of a call.
    """

    throughput_per_s: float
    mean_s: float
    p50_s: float
    p95_s: float
    small_utilisation: float
    large_utilisation: float
    small_batch: float
    large_batch: float
    n: int


# ------------------------------------------------------------------ what a recorded run asks of a fleet


def funnel_workload(population: Population, setting: Setting) -> Workload:
    """The calls of every sample of a run under a gate setting.

    Raises:
        Lacking: the run has no times, or not what the setting needs.
    """
    cost = _cost(population)
    decided = decisions(population, setting)["decision"].to_numpy()
    router = cost.router.get(setting.router)
    if setting.router != "none" and router is None:
        raise Lacking(f"the {setting.router} router was not timed in this run")
    steps = [_aside(cost.decode_s)]
    if router is not None:
        steps += _calls(LARGE if setting.router == "large" else SMALL, router, np.ones(population.n, bool))
    steps += _calls(SMALL, cost.draft, decided != "routed")
    to_agent = decided != "accepted"
    steps += _calls(LARGE, cost.agent, to_agent)
    steps.append(_aside(np.where(to_agent, cost.tool_s, 0.0)))
    return _workload(steps, population.readable)


def agent_workload(population: Population) -> Workload:
    """The calls of every sample when the agent answers everything."""
    cost = _cost(population)
    everyone = np.ones(population.n, bool)
    steps = [_aside(cost.baseline_decode_s), *_calls(LARGE, cost.agent, everyone), _aside(cost.tool_s)]
    return _workload(steps, population.readable)


def _cost(population: Population) -> Any:
    if population.cost is None:
        raise Lacking("this run has no times; a fleet cannot be planned from it")
    return population.cost


def _calls(pool: int, cost: CallCost, who: NDArray[np.bool_]) -> list[tuple[NDArray, NDArray, NDArray]]:
    """One step per call (the agent has one per turn): pool, own and fixed seconds of each sample."""
    own = cost.own_s.reshape(len(cost.own_s), -1)
    fixed = cost.fixed_s + cost.per_step_s * cost.tokens.reshape(own.shape)
    made = who[:, None] & np.isfinite(own)
    return [
        (
            np.where(made[:, t], pool, NONE),
            np.where(made[:, t], own[:, t], 0.0),
            np.where(made[:, t], fixed[:, t], 0.0),
        )
        for t in range(own.shape[1])
    ]


def _aside(seconds: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    taken = np.nan_to_num(seconds)
    return np.where(taken > 0, ASIDE, NONE), taken, np.zeros(len(taken))


def _workload(steps: Sequence[tuple[NDArray, NDArray, NDArray]], readable: NDArray[np.bool_]) -> Workload:
    pool, own_s, fixed_s = (np.stack(parts, axis=1)[readable] for parts in zip(*steps, strict=True))
    return Workload(pool.astype(np.int8), own_s, fixed_s)


# ------------------------------------------------------------------ the simulation


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

    def call(self, own_s: float, fixed_s: float) -> Any:
        done = self.env.event()
        self.waiting.append((own_s, fixed_s, done))
        if self.idle:
            self.idle.popleft().succeed()
        return done

    @property
    def clocks(self) -> tuple[float, int, int]:
        """Seconds that replicas were busy so far, calls and requests they finished."""
        return self._busy_s + self.busy * (self.env.now - self._since_s), self.calls, self.served

    def _turn(self, change: int) -> None:
        """A replica becomes busy or free."""
        self._busy_s, self._since_s = self.clocks[0], self.env.now
        self.busy += change

    def _replica(self) -> Generator:
        while True:
            while not self.waiting:
                woken = self.env.event()
                self.idle.append(woken)
                yield woken
            members = [self.waiting.popleft() for _ in range(min(self.batch, len(self.waiting)))]
            seconds = max(fixed for _, fixed, _ in members) + sum(own for own, _, _ in members)
            self._turn(+1)
            yield self.env.timeout(seconds)
            self._turn(-1)
            self.calls += 1
            self.served += len(members)
            for _, _, done in members:
                done.succeed()


def simulate(
    workload: Workload,
    fleet: Fleet,
    *,
    users: int | None = None,
    arrivals_per_s: float | None = None,
    requests: int = 4000,
    seed: int = 0,
) -> Outcome:
    """Let a fleet answer `requests` requests, the first fifth of them unmeasured; either `users` or `arrivals_per_s`.

    Where requests arrive faster than they can be answered the queue grows for as long as the simulation runs, and
    the latencies say so.

    Raises:
        UserError: neither or both of users and arrivals, a value that makes no sense, or a pool that is needed
            and has no replica.
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
    chains = [
        [call for call in zip(*row, strict=True) if call[0] != NONE]
        for row in zip(
            workload.pool.tolist(), workload.own_s.tolist(), workload.fixed_s.tolist(), strict=True
        )
    ]
    ended: list[tuple[float, float]] = []  # when, after how long
    skip = max(int(WARM_UP * requests), users or 0)  # whatever all users asked at once at the start is over
    before: dict[int, tuple] = {}  # the pools' clocks when the warm-up was over
    finished = env.event()
    numbers = itertools.count()

    def answer() -> Generator:
        began = env.now
        for pool, own_s, fixed_s in chains[kinds[next(numbers) % len(kinds)]]:
            yield env.timeout(own_s) if pool == ASIDE else pools[pool].call(own_s, fixed_s)
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
    told: dict[str, float] = {}
    for pool, name, replicas in ((SMALL, "small", fleet.small), (LARGE, "large", fleet.large)):
        busy, calls, served = np.subtract(pools[pool].clocks, before[pool])
        told[f"{name}_utilisation"] = busy / (span_s * replicas) if replicas and span_s else math.nan
        told[f"{name}_batch"] = served / calls if calls else math.nan
    return Outcome(
        throughput_per_s=len(measured) / span_s if span_s else math.inf,
        mean_s=float(measured[:, 1].mean()),
        p50_s=float(np.quantile(measured[:, 1], 0.5)),
        p95_s=float(np.quantile(measured[:, 1], 0.95)),
        n=len(measured),
        **told,
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
    """Every way to divide `gpus` between the two models: one row per fleet, most requests per second and GPU first.

    Args:
        users: closed concurrency, large enough to keep the fleet busy.
        fleet: batch limits and GPUs per replica (its replica counts are ignored).

    Raises:
        UserError: no division leaves a replica of each model that the workload calls.
    """
    like = fleet or Fleet(1, 1)
    needs = [(workload.pool == pool).any() for pool in (SMALL, LARGE)]
    rows = []
    for large in range(int(gpus // like.large_gpus) + 1):
        small = int((gpus - large * like.large_gpus) // like.small_gpus)
        if (needs[0] and not small) or (needs[1] and not large):
            continue
        if not needs[0] and large < gpus // like.large_gpus:
            continue  # a model that is not called leaves everything to the other
        own = Fleet(
            small if needs[0] else 0,
            large,
            like.small_batch,
            like.large_batch,
            like.small_gpus,
            like.large_gpus,
        )
        told = simulate(workload, own, users=users, requests=requests, seed=seed)
        rows.append(
            {
                "small": own.small,
                "large": own.large,
                "gpus": own.gpus,
                **vars(told),
                "per_gpu_per_s": told.throughput_per_s / own.gpus,
            }
        )
    if not rows:
        raise UserError(f"{gpus} GPUs do not hold a replica of each model that is called.")
    return pd.DataFrame(rows).sort_values("per_gpu_per_s", ascending=False, ignore_index=True)
