"""Whether training an agent to use its tool makes speculation pay: several agents in the same funnel.

Each agent ran on the same samples as the instrumented arm `collect`, with the same draft model; every threshold is
replayed from that. E[T] = T_J + beta T_S + (1 - beta alpha) T_L: an agent that works longer makes an accepted draft
save more.

Source: SpecEyes (arXiv:2603.23483), section 3; arXiv:2505.14362 (DeepEyes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..gating.gate import accepts
from ..runs.recorded_run import RecordedRun
from ..stats import proportions
from ..stats.intervals import Estimate
from ..stats.paired import speedup
from .sample_frame import right_of, routed, samples

THRESHOLDS = (0.5, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)


def agent_samples(recorded: RecordedRun) -> pd.DataFrame:
    """What one agent and its funnel did: a row per sample of the arm `collect`.

    Returns:
        id, task, group; draft_right, agent_right, routed (the router sends it to the agent), score (`min` of the
        draft), zoomed, n_turns, tokens (that the agent wrote); router_s, draft_s, agent_s (with its tools).
    """
    frame = samples(recorded, ["collect"])
    paths = recorded.records("collect")
    tokens = [
        sum(turn.n_tokens for turn in path.turns) if (path := paths[id_].trajectory) else 0
        for id_ in frame["id"]
    ]
    return pd.DataFrame(
        {
            **{name: frame[name] for name in ("id", "task", "group")},
            "draft_right": right_of(frame, "draft"),
            "agent_right": right_of(frame, "agent"),
            "routed": routed(frame),
            "score": frame["score_min"],
            "zoomed": frame["zoomed"].astype(bool),
            "n_turns": frame["n_turns"],
            "tokens": tokens,
            "router_s": frame["collect_router_s"],
            "draft_s": frame["draft_s"],
            "agent_s": frame["collect_agent_s"] + frame["collect_tool_s"],
        }
    )


def agents_table(agents: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How deep each agent works: a row per agent, every number with its 95 % interval.

    Args:
        agents: name -> `agent_samples`, or its file.

    Returns:
        Index: agent. n; accuracy, zoom_rate, routed (percent); turns, tokens (per sample), agent_s (seconds), each with
        `_low` and `_high`.
    """
    rows = {}
    for name, table in agents.items():
        group = table["group"]
        measured = {
            "accuracy": proportions.accuracy(table["agent_right"], group),
            "zoom_rate": proportions.accuracy(table["zoomed"], group),
            "routed": proportions.accuracy(table["routed"], group),
            "turns": proportions.mean(table["n_turns"], group),
            "tokens": proportions.mean(table["tokens"], group),
            "agent_s": proportions.mean(table["agent_s"], group),
        }
        rows[name] = {"n": len(table)} | _columns(measured)
    return pd.DataFrame(rows).T.rename_axis("agent")


def speculation(
    agents: Mapping[str, pd.DataFrame],
    thresholds: Sequence[float] = THRESHOLDS,
    routers: Sequence[str] = ("own", "none"),
) -> pd.DataFrame:
    """What the gate would do with each agent: a row per agent, router and threshold.

    Args:
        agents: name -> `agent_samples`, or its file.
        thresholds: a draft is accepted above.
        routers: "own": the agent itself routes, as in the paper; "none": every sample is drafted.

    Returns:
        agent, router, threshold; accepted, accuracy (percent, of the funnel), lost (percentage points against the agent
        alone), speedup (of seconds) and token_speedup (of the tokens that the agent writes, a clock that no other work
        on the machine disturbs), each with `_low` and `_high`.
    """
    rows = []
    for name, table in agents.items():
        group = table["group"]
        for router in routers:
            drafted = ~table["routed"].astype(bool) if router == "own" else pd.Series(True, table.index)
            routing_s = table["router_s"] if router == "own" else 0.0
            for threshold in thresholds:
                accepted = drafted & accepts(table["score"], threshold)
                right = np.where(accepted, table["draft_right"], table["agent_right"]).astype(bool)
                funnel_s = (
                    routing_s + table["draft_s"].where(drafted, 0.0) + table["agent_s"].mask(accepted, 0.0)
                )
                loss = proportions.mean(100.0 * (table["agent_right"].astype(float) - right), group)
                measured = {
                    "accepted": proportions.accuracy(accepted, group),
                    "accuracy": proportions.accuracy(right, group),
                    "lost": loss,
                    "speedup": speedup(table["agent_s"], funnel_s, group),
                }
                if not accepted.all():
                    written = table["tokens"].mask(accepted, 0)
                    measured["token_speedup"] = speedup(table["tokens"], written, group)
                rows.append({"agent": name, "router": router, "threshold": threshold} | _columns(measured))
    return pd.DataFrame(rows)


def _columns(measured: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        name + end: value
        for name, estimate in measured.items()
        for end, value in {"": estimate.value, "_low": estimate.low, "_high": estimate.high}.items()
    }
