"""Arms: the ways in which a run asks the agent, and the names of the routers."""

from __future__ import annotations

from dataclasses import dataclass

from .records import RunMode

DRAFT_STAGE = "01_draft"
ARMS = ("collect", "baseline", "gated", "baseline_batched", "gated_batched", "specreason")
DEFAULT_ARMS = (
    "collect",
    "baseline",
    "gated",
    "gated_batched",
)  # collect holds what baseline_batched would tell
BATCHED = "_batched"


@dataclass(frozen=True)
class Arm:
    """One way to run the benchmark: its name (stage folder `02_<name>`), run mode and agent batching.

    batched: agents advance together, and nothing already computed is computed again. Otherwise the paper's setting.
    """

    name: str
    run_mode: RunMode
    agent_batch_size: int
    batched: bool
    without_tool: bool
    router_small: bool

    @property
    def stage(self) -> str:
        return f"02_{self.name}"


ROUTERS = ("large", "small", "none")
