"""How a task is run: what is speculated, when a guess serves, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..tools.declared import SAFE, Effect
from .gate import Gate
from .matching import JACCARD_THRESHOLD, STRATEGIES, Strategy, strategy_of

Policy = Literal["off", "concurrent", "original", "shadow"]


class SpeculationSettings(BaseModel):
    """One way to run tasks.

    Attributes:
        policy: off (the baseline), concurrent (a guess never delays the actor), original (each step waits for the
            speculator and its tool; first call only, one step, nothing is cancelled), shadow (guesses run to their end
            and never serve, so that any setting can be replayed).
        strategy: when a guess stands for a call; a name of `STRATEGIES`.
        jaccard_threshold: of the strategy jaccard.
        guesses: calls guessed per step; those after the first are forks of it.
        look_ahead: how many further steps are guessed once the result of a guess is there.
        score, threshold, thresholds: of the gate; thresholds of single tools go before. None executes every guess.
        warm_up: tools prepare themselves as soon as their name is known.
        effects: what may be executed in advance.
        guess_slots: guesses executed at the same time. Calls of the actor need no slot.
        guess_tokens: how many tokens the speculator may write in a turn.
        cached_results: of guesses, kept for later steps.
        max_steps: turns of the actor before it has to answer without tools.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    policy: Policy = "concurrent"
    strategy: str = "exact"
    jaccard_threshold: Annotated[float, Field(ge=0, le=1)] = JACCARD_THRESHOLD
    guesses: Annotated[int, Field(ge=1, le=8)] = 1
    look_ahead: Annotated[int, Field(ge=0, le=8)] = 0
    score: Literal["separability_min", "separability_mean", "logprob_sum"] = "separability_min"
    threshold: float | None = None
    thresholds: dict[str, float] = {}
    warm_up: bool = False
    effects: frozenset[Effect] = SAFE
    guess_slots: Annotated[int, Field(ge=1)] = 2
    guess_tokens: Annotated[int, Field(ge=1)] = 512
    cached_results: Annotated[int, Field(ge=1)] = 64
    max_steps: Annotated[int, Field(ge=1)] = 15

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STRATEGIES:
            raise ValueError(f"choose one of {', '.join(STRATEGIES)}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.policy == "original" and (self.guesses > 1 or self.look_ahead or self.warm_up):
            raise ValueError("the original policy makes one guess for one step, without warming up")
        return self

    @property
    def matching(self) -> Strategy:
        """The strategy itself."""
        return strategy_of(self.strategy)

    @property
    def gate(self) -> Gate:
        """The gate itself."""
        return Gate(self.score, self.threshold, self.thresholds)

    @property
    def lossless(self) -> bool:
        """True if the actor reads what it would read without speculation, byte for byte."""
        return self.policy in ("off", "shadow") or (self.matching.lossless and self.effects <= SAFE)

    def recorded(self) -> dict[str, Any]:
        """The settings for records, with what follows from them."""
        values = self.model_dump(mode="json") | {"lossless": self.lossless}
        return values | {"effects": sorted(values["effects"])}


BASELINE = SpeculationSettings(policy="off")


def comparison_arms(threshold: float | None = None, **common: Any) -> dict[str, SpeculationSettings]:
    """The arms of a comparison, by name.

    Args:
        threshold: of the gate, chosen on other tasks. None leaves out the gated arms.
        common: settings of all arms, such as max_steps.
    """
    gate = {"threshold": threshold}
    arms: dict[str, dict[str, Any]] = {
        "baseline": {"policy": "off"},
        "exact": {},
        "exact_gate": gate,
        "exact_gate_fork": gate | {"guesses": 2},
        "exact_gate_fork_warm": gate | {"guesses": 2, "warm_up": True},
        "look_ahead": {"look_ahead": 2},
        "jaccard": {"strategy": "jaccard"},
        "tool_name_only": {"strategy": "tool_name_only"},
        "none": {"strategy": "none"},
        "original": {"policy": "original"},
    }
    return {
        name: SpeculationSettings(**common, **values)
        for name, values in arms.items()
        if threshold is not None or "gate" not in name
    }
