"""Arms: the ways in which a run asks the agent, and the names of the routers."""

from __future__ import annotations

from dataclasses import dataclass

from .records import RunMode

DRAFT_STAGE = "01_draft"
ARMS = ("collect", "baseline", "gated", "baseline_batched", "gated_batched", "specreason")
DEFAULT_ARMS = ("collect", "baseline", "gated", "gated_batched")  # collect replaces baseline_batched
BATCHED = "_batched"


@dataclass(frozen=True)
class Arm:
    """One way to run the benchmark."""

    name: str
    run_mode: RunMode
    agent_batch_size: int
    batched: (
        bool  # agents advance together, and nothing already computed is computed again; else as in the paper
    )
    without_tool: bool
    router_small: bool

    @property
    def stage(self) -> str:
        """Name of its stage folder."""
        return f"02_{self.name}"


ROUTERS = ("large", "small", "none")
