"""When the gate pays, and where the time goes: arithmetic on the predicted seconds of a replayed setting.

Per sample, with T_route, T_draft and T_L the mean seconds of the router, of a draft and of the agent with its tools,
beta the share of samples that is drafted and alpha the share of drafts that is accepted, the gate saves time if

    alpha * beta * T_L  >  T_route + beta * T_draft

The left side takes the accepted samples to cost the agent as much as any; `saved_ms` is what they really cost it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..runs.records import PHASES
from .outcomes import POOLED, decisions
from .replay_data import Lacking, Population
from .settings import Setting

DECISIONS = ("accepted", "rejected", "routed", "draft_failed")


def phase_seconds(population: Population, setting: Setting) -> pd.DataFrame:
    """Predicted seconds of every sample and phase: `task decision`, the phases, and `alone_<phase>` without the gate.

    The phases sum to `wall_s` of `replay.decisions`, those without the gate to `baseline_wall_s`.

    Raises:
        Lacking: the run was not timed, or lacks what the setting needs.
    """
    cost, decided = population.cost, decisions(population, setting)
    if cost is None:
        raise Lacking("this run has no times: nothing can be said about what the gate saves")
    tasks, readable, decision = population.tasks, population.readable, decided["decision"].to_numpy()
    agents = cost.agents(tasks, setting.agents_in_parallel)
    zero = np.zeros(population.n)

    def agent_s(who: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tools = np.where(who, cost.tool_s, 0.0)
        return agents.shares(who, tasks) - tools, tools

    with_gate, tools = agent_s(readable & (decision != "accepted"))
    alone, alone_tools = agent_s(readable)
    columns = {
        "decode_s": cost.decode_s,
        "router_s": cost.router_shares(setting.router, readable, tasks, setting.batch_size),
        "draft_s": cost.draft_shares(readable & (decision != "routed"), tasks, setting.batch_size),
        "agent_s": with_gate,
        "tool_s": tools,
        "alone_decode_s": cost.baseline_decode_s,
        "alone_router_s": zero,
        "alone_draft_s": zero,
        "alone_agent_s": alone,
        "alone_tool_s": alone_tools,
    }
    return pd.DataFrame({"task": tasks, "decision": decision, **columns})


def break_even(seconds: pd.DataFrame) -> pd.DataFrame:
    """The break-even condition at the point of a setting, one row per task and one over all ("pooled").

    `alpha beta accepted` (fractions; accepted = alpha * beta), `route_ms draft_ms agent_ms` (the means above),
    `gain_ms` and `price_ms` (the two sides), `overhead` (price over T_L: the accepted share at which nothing is won),
    `saved_ms` (what the accepted samples cost the agent, per sample of all), `pays` and `n`.
    """
    parts = {POOLED: seconds, **dict(list(seconds.groupby("task", sort=False)))}
    return pd.DataFrame([{"task": task, **_condition(part)} for task, part in parts.items()])


def _condition(part: pd.DataFrame) -> dict[str, float | bool | int]:
    n = len(part)
    drafted, accepted = (part["decision"] != "routed").sum(), (part["decision"] == "accepted").sum()
    agent_s = part["alone_agent_s"] + part["alone_tool_s"]
    told = {
        "alpha": accepted / drafted if drafted else np.nan,
        "beta": drafted / n,
        "accepted": accepted / n,
        "route_ms": 1e3 * part["router_s"].mean(),
        "draft_ms": 1e3 * part["draft_s"].sum() / drafted if drafted else np.nan,
        "agent_ms": 1e3 * agent_s.mean(),
        "gain_ms": 1e3 * accepted / n * agent_s.mean(),
        "price_ms": 1e3 * (part["router_s"] + part["draft_s"]).mean(),
        "saved_ms": 1e3 * agent_s[part["decision"] == "accepted"].sum() / n,
        "n": n,
    }
    overhead = told["price_ms"] / told["agent_ms"] if told["agent_ms"] else np.nan
    return told | {"overhead": overhead, "pays": bool(told["gain_ms"] > told["price_ms"])}


def waterfall(seconds: pd.DataFrame) -> pd.DataFrame:
    """From the agent alone to the gated run, in milliseconds per sample: columns `step ms total`.

    `total` rows are levels, the others what is added or taken away. The steps sum exactly.
    """
    mean_ms = 1e3 * seconds.drop(columns=["task", "decision"]).mean()
    alone, gated = (mean_ms[[f"{prefix}{phase}" for phase in PHASES]].to_numpy() for prefix in ("alone_", ""))
    change = dict(zip(PHASES, gated - alone, strict=True))
    steps = [
        ("agent alone", alone.sum(), True),
        ("agent not asked", change["agent_s"] + change["tool_s"], False),
        ("router", change["router_s"], False),
        ("drafts", change["draft_s"], False),
        ("pictures", change["decode_s"], False),
        ("with the gate", gated.sum(), True),
    ]
    return pd.DataFrame(steps, columns=["step", "ms", "total"])


def time_by_decision(seconds: pd.DataFrame) -> pd.DataFrame:
    """Mean milliseconds per phase of the samples of each decision: columns `decision phase ms n`, and `alone_ms`.

    `alone_ms` is what the agent alone takes for the same samples, in all.
    """
    rows = []
    for decision in DECISIONS:
        part = seconds[seconds["decision"] == decision]
        if not len(part):
            continue
        alone_ms = 1e3 * part[[f"alone_{phase}" for phase in PHASES]].sum(axis=1).mean()
        rows += [
            {
                "decision": decision,
                "phase": phase,
                "ms": 1e3 * part[phase].mean(),
                "n": len(part),
                "alone_ms": alone_ms,
            }
            for phase in PHASES
        ]
    return pd.DataFrame(rows, columns=["decision", "phase", "ms", "n", "alone_ms"])
