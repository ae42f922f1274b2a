"""What an explorer shows, as values: every view is a function of one of these and of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE

ALL = "all"
PINNED = ("score", "k", "slope", "router", "threshold", "protocol")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which samples the list holds.

    `kind` is one of

    - "all";
    - "decision": `name` such as "accepted wrong" (what became of the draft, and its verdict);
    - "outcome": `name` of a ledger entry ("gained", "lost", …);
    - "bar": drafts that are `name` ("right" or "wrong") with a confidence in (low, high];
    - "moved": drafts whose decision differs between the thresholds `low` and `high`;
    - "flipped": samples that the pinned setting decides or answers differently; `name`: "" for all, or a key of
      `comparing.FLIPS`;
    - "disagree", "borderline", "random": the queues for review, the last two of `n` samples.
    """

    kind: str = ALL
    name: str = ""
    low: float = 0.0
    high: float = 1.0
    n: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """A gate setting of a run that stays in sight while another one is looked at. Fields as in `GateView`."""

    run: str
    score: str
    k: int
    slope: float
    router: str
    threshold: float
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate setting on a part of a run, and the samples looked at."""

    task: str = ALL  # ALL, a benchmark, or benchmark/split
    score: str = "min"
    k: int = DEFAULT_K
    slope: float = DEFAULT_SLOPE
    router: str = "large"
    threshold: float = 0.98
    protocol: str = ""  # empty: as the run was judged
    chosen: Chosen = Chosen()
    sample: str = ""
    pin: Pin | None = None
    search: str = ""  # in questions, options and answers, in any case
    order: str = "nearest"  # or a key of `gating.ORDERS`, "-" before it: downwards

    def gate(self) -> GateView:
        """The setting and the part alone: what decisions depend on."""
        return replace(self, chosen=Chosen(), sample="", pin=None, search="", order="nearest")

    def pinned(self, run: str) -> Pin:
        """A pin of this setting."""
        return Pin(run, **{name: getattr(self, name) for name in PINNED})

    def of_pin(self) -> GateView:
        """The pinned setting on this part."""
        return GateView(self.task, **{name: getattr(self.pin, name) for name in PINNED})


@dataclass(frozen=True, slots=True)
class TraceView:
    """Which trajectories of an arm are listed. Text is searched in questions, answers and turns, in any case."""

    arm: str = "collect"
    task: str = ALL
    turns: tuple[int, int] = (0, 99)
    least_ms: float = 0.0
    verdict: str = ALL  # ALL, or a verdict
    tool_errors: bool = False  # only those with a refused or failed tool call
    text: str = ""
    order: str = "id"  # id, slowest, most turns
    sample: str = ""


def in_task(task: str, chosen: str) -> bool:
    """Whether a task belongs to what was chosen: all, its benchmark, or itself."""
    return chosen in (ALL, task, task.split("/")[0])
