"""Arms: the ways in which a run asks the agent, the names of the routers, and the A/A line."""

from __future__ import annotations

from dataclasses import dataclass

from .provenance import text_hash
from .records import RunMode

DRAFT_STAGE = "01_draft"
CLOCK_STAGE = "clock/baseline"  # a part of the arm `baseline`, timed once more
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


def in_clock_slice(id_: str, share: float) -> bool:
    """Whether a sample belongs to the part of the samples, about this share, that is timed twice.

    It depends on the id alone, so that shards agree on it.
    """
    return int(text_hash(id_)[:8], 16) < share * 2**32
