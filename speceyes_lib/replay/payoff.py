"""When the gate saves time, and where the time goes: arithmetic on the predicted seconds of a replayed setting.

With T_route, T_draft and T_L the mean seconds of the router, of a draft and of the agent with its tools, beta the share
of samples that is drafted and alpha the share of drafts that is accepted, the gate saves time if
alpha * beta * T_L > T_route + beta * T_draft. The left side assumes that the accepted samples cost the agent as much as
any other; `saved_ms` is what they do cost.

Source: the speedup model of SpecEyes (arXiv:2603.23483), solved for a speedup above 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..runs.records import PHASES
from ..stats.proportions import funnel_shares
from .outcomes import POOLED, decisions
from .replay_data import NotRecorded, ReplayData
from .settings import Setting

DECISIONS = ("accepted", "rejected", "routed", "draft_failed")


def phase_seconds(data: ReplayData, setting: Setting) -> pd.DataFrame:
    """Predicted seconds of every sample and phase, with the gate and of the agent alone.

    Returns:
        A row per sample: task, decision, a column for each of `PHASES` (seconds with the gate, which sum to `wall_s` of
        `outcomes.decisions`), and `alone_<phase>` (seconds of the agent alone, which sum to `baseline_wall_s`).

    Raises:
        NotRecorded: the run was not timed, or lacks what the setting needs.
    """
    cost, decided = data.cost, decisions(data, setting)
    if cost is None:
        raise NotRecorded("this run has no times, so what the gate saves is not known")
    tasks, readable, decision = data.tasks, data.readable, decided["decision"].to_numpy()
    zero = np.zeros(data.n)

    def agent_and_tools(who: np.ndarray, router: str) -> tuple[np.ndarray, np.ndarray]:
        tool_s = np.where(who, cost.tool_s, 0.0)
        agents = cost.agents(tasks, setting.agent_batch_size, router)
        return agents.shares(who, tasks) - tool_s, tool_s

    agent_s, tool_s = agent_and_tools(readable & (decision != "accepted"), setting.router)
    alone_agent_s, alone_tool_s = agent_and_tools(readable, "none")
    columns = {
        "decode_s": cost.decode_s,
        "router_s": cost.router_shares(setting.router, readable, tasks, setting.batch_size),
        "draft_s": cost.draft.shares(readable & (decision != "routed"), tasks, setting.batch_size),
        "agent_s": agent_s,
        "tool_s": tool_s,
        "alone_decode_s": cost.baseline_decode_s,
        "alone_router_s": zero,
        "alone_draft_s": zero,
        "alone_agent_s": alone_agent_s,
        "alone_tool_s": alone_tool_s,
    }
    return pd.DataFrame({"task": tasks, "decision": decision, **columns})


def break_even(seconds: pd.DataFrame) -> pd.DataFrame:
    """Both sides of the break-even condition, a row per task and one for all of them ("pooled").

    Args:
        seconds: see `phase_seconds`.

    Returns:
        Columns: task; alpha, beta, accepted (fractions; accepted = alpha * beta); route_ms, draft_ms, agent_ms
        (T_route, T_draft, T_L in milliseconds); gain_ms and price_ms (the left and the right side); saved_ms (what the
        accepted samples cost the agent, per sample); n; overhead (price / T_L: the accepted share at which nothing is
        gained); pays (bool).
    """
    parts = {POOLED: seconds, **dict(list(seconds.groupby("task", sort=False)))}
    return pd.DataFrame([{"task": task, **_condition(part)} for task, part in parts.items()])


def _condition(part: pd.DataFrame) -> dict[str, float | bool | int]:
    n = len(part)
    n_drafted, n_accepted = (part["decision"] != "routed").sum(), (part["decision"] == "accepted").sum()
    agent_s = part["alone_agent_s"] + part["alone_tool_s"]
    sides = {
        **funnel_shares(n_accepted, n_drafted, n)._asdict(),
        "route_ms": 1e3 * part["router_s"].mean(),
        "draft_ms": 1e3 * part["draft_s"].sum() / n_drafted if n_drafted else np.nan,
        "agent_ms": 1e3 * agent_s.mean(),
        "gain_ms": 1e3 * n_accepted / n * agent_s.mean(),
        "price_ms": 1e3 * (part["router_s"] + part["draft_s"]).mean(),
        "saved_ms": 1e3 * agent_s[part["decision"] == "accepted"].sum() / n,
        "n": n,
    }
    overhead = sides["price_ms"] / sides["agent_ms"] if sides["agent_ms"] else np.nan
    return sides | {"overhead": overhead, "pays": bool(sides["gain_ms"] > sides["price_ms"])}


def waterfall(seconds: pd.DataFrame) -> pd.DataFrame:
    """From the agent alone to the gated run, step by step.

    Args:
        seconds: see `phase_seconds`.

    Returns:
        Columns: step; ms, milliseconds per sample; total, true for the first and the last row, which are levels. The
        other rows are changes, and the first row plus all changes is the last row.
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
    """Mean milliseconds per phase of the samples of each decision.

    Args:
        seconds: see `phase_seconds`.

    Returns:
        Columns: decision, phase, ms, n (samples of the decision), alone_ms (mean of the agent alone over all phases for
        the same samples).
    """
    rows = []
    for decision in DECISIONS:
        part = seconds[seconds["decision"] == decision]
        if not len(part):
            continue
        alone_ms = 1e3 * part[[f"alone_{phase}" for phase in PHASES]].sum(axis=1).mean()
        shared = {"n": len(part), "alone_ms": alone_ms}
        rows += [
            {"decision": decision, "phase": phase, "ms": 1e3 * part[phase].mean(), **shared}
            for phase in PHASES
        ]
    return pd.DataFrame(rows, columns=["decision", "phase", "ms", "n", "alone_ms"])
