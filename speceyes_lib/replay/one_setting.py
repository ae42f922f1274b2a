"""One gate setting checked against what a run recorded, and the view of the samples that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gating.gate import accepts
from ..runs.arms import ROUTERS
from .cost_model import AgentPlan
from .replay_data import ABSENT, FAILED, NotRecorded, ReplayData
from .settings import Setting


@dataclass(frozen=True, eq=False)
class _Plan:
    """Seconds [n] of each sample before the agent and how the agent's add up, with the gate and without (`alone`)."""

    before_s: NDArray[np.float64]
    baseline_s: NDArray[np.float64]
    agents: AgentPlan
    alone: AgentPlan


class _View:
    """One setting on the data, for every threshold: samples routed, samples that can be accepted, their cost."""

    def __init__(self, data: ReplayData, setting: Setting) -> None:
        self.data, self.setting = data, setting
        n = data.n
        self.why = ""  # reason why no threshold can be evaluated
        self.confidence, self.routed = np.full(n, np.nan), np.zeros(n, bool)
        self.unrecorded = np.zeros(n, bool)  # samples without the router's output
        try:
            _check(setting)
            self.confidence = data.score(setting.score, setting.k, setting.slope)
            if setting.router != "none":
                if setting.router not in data.routed:
                    known = ", ".join(data.routed) or "none"
                    raise NotRecorded(
                        f"the output of the {setting.router} router is not recorded (recorded: {known})"
                    )
                outputs = data.routed[setting.router]
                self.routed, self.unrecorded = outputs == 1, outputs == ABSENT
        except NotRecorded as error:
            self.why = str(error)
        drafted = ~self.routed & data.readable
        self.undrafted = drafted & (data.draft == ABSENT) & np.isnan(self.confidence)
        self.eligible = drafted & (data.draft != FAILED) & ~np.isnan(self.confidence)
        self.drafted = drafted

    def fault(self, threshold: float) -> str:
        """Why this threshold decides nothing, whatever is recorded of the answers; empty when it does."""
        return self.why or _threshold_fault(threshold)

    def lacks(self, threshold: float) -> str:
        """What the run lacks for this threshold; empty when nothing."""
        if fault := self.fault(threshold):
            return fault
        accepted = self.eligible & accepts(self.confidence, threshold)
        return _shortage(
            int(self.unrecorded.sum()),
            int(self.undrafted.sum()),
            int((accepted & (self.data.draft == ABSENT)).sum()),
            int((~accepted & (self.data.agent == ABSENT)).sum()),
            self.setting.router,
        )

    def cost_note(self) -> str:
        """What the predicted seconds are not backed by; empty where they are."""
        cost, s = self.data.cost, self.setting
        if cost is None or self.why:
            return "" if self.why else "not timed"
        return cost.notes(s.router, int(s.batch_size), int(s.agent_batch_size))

    def plan(self) -> _Plan | None:
        """What the setting takes, whatever the score and threshold; None without timings."""
        p, s = self.data, self.setting
        if p.cost is None:
            return None
        drafts = p.cost.draft.shares(self.drafted, p.tasks, int(s.batch_size))
        router = p.cost.router_shares(s.router, p.readable, p.tasks, int(s.batch_size))
        agents = p.cost.agents(p.tasks, int(s.agent_batch_size), s.router)
        alone = p.cost.agents(p.tasks, int(s.agent_batch_size))
        return _Plan(p.cost.decode_s + router + drafts, p.cost.baseline_decode_s, agents, alone)

    def charged(self, to_agent: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
        """Predicted seconds [n] of each sample, with the gate and without; nan without timings."""
        if (plan := self.plan()) is None:
            nothing = np.full(self.data.n, np.nan)
            return nothing, nothing
        tasks, readable = self.data.tasks, self.data.readable
        return (
            plan.before_s + plan.agents.shares(to_agent, tasks),
            plan.baseline_s + plan.alone.shares(readable, tasks),
        )


def _check(setting: Setting) -> None:
    if setting.router not in ROUTERS:
        raise NotRecorded(f"no router {setting.router!r}; there are {', '.join(ROUTERS)}")
    for name in ("batch_size", "agent_batch_size"):
        value = getattr(setting, name)
        if not (math.isfinite(value) and value == int(value) and value >= 1):
            raise NotRecorded(f"{name} is {value}; expected a whole number of at least 1")


def _threshold_fault(threshold: float) -> str:
    finite = math.isfinite(threshold)
    return "" if finite else f"the threshold is {threshold}; give a number, 1 to accept nothing"


def _shortage(unrouted: int, undrafted: int, unjudged: int, no_agent: int, router: str) -> str:
    for count, what in (
        (unrouted, f"the output of the {router} router is not recorded"),
        (undrafted, "no draft is recorded, which this setting would ask for,"),
        (unjudged, "the accepted draft has no verdict"),
        (no_agent, "the agent's answer is not recorded"),
    ):
        if count:
            return f"{what} for {count} sample{'s' * (count > 1)}"
    return ""
