"""What an explorer shows, as values: every view is a function of one of these and of the run."""

from __future__ import annotations

from dataclasses import dataclass

from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE

ALL = "all"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which samples the list holds.

    `kind` is one of

    - "all";
    - "decision": `name` such as "accepted wrong" (what became of the draft, and its verdict);
    - "outcome": `name` of a ledger entry ("gained", "lost", …);
    - "bar": drafts that are `name` ("right" or "wrong") with a confidence in (low, high];
    - "moved": drafts whose decision differs between the thresholds `low` and `high`;
    - "disagree", "borderline", "random": the queues for review, the last two of `n` samples.
    """

    kind: str = ALL
    name: str = ""
    low: float = 0.0
    high: float = 1.0
    n: int = 0
    seed: int = 0


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
