"""Waits that stand for servers far away: drawn per call from a seeded table, and so equal in every arm.

A profile is the share of its time that an agent without speculation waits, for tools that take no time themselves. What
they take comes on top, so the measured share of tools is larger. The wait of a call depends only on the profile, the
seed and the canonical call.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from ..errors import UserError, nearest
from .declared import Call, Workspace

WAITS = "waits"  # name of the resource
# profile -> share of the time in tools; as reported for agents of these kinds
PROFILES = {"none": 0.0, "long_thinking": 0.05, "science": 0.36, "research": 0.50, "coding": 0.60}
SPREAD = 0.6  # of the logarithm of a wait
_MEAN = math.exp(SPREAD**2 / 2)


@dataclass(frozen=True)
class Waits:
    """The waits of a profile.

    Attributes:
        mean_s: mean seconds of a wait.
        seed: of the table.
    """

    mean_s: float
    seed: int = 0

    def seconds(self, canonical: str) -> float:
        """How long this call waits."""
        rng = random.Random(f"wait {self.seed} {canonical}")
        return self.mean_s * rng.lognormvariate(0.0, SPREAD) / _MEAN


def waits_of(profile: str, think_s: float, waiting_share: float, seed: int = 0) -> Waits:
    """The waits that are the profile's share of the time of a run without speculation, if tools take none.

    Args:
        profile: of `PROFILES`.
        think_s: mean seconds of the actor per step, all steps counted.
        waiting_share: calls that wait per step.
        seed: of the table.

    Raises:
        UserError: there is no such profile.
    """
    if profile not in PROFILES:
        known = ", ".join(PROFILES)
        raise UserError(f"profile: {profile!r} is unknown{nearest(profile, PROFILES)}; known are {known}")
    share = PROFILES[profile]
    return Waits(share / (1 - share) * think_s / waiting_share, seed)


def waiting(call: Call, workspace: Workspace) -> float:
    """Seconds that a call waits first: those of the workspace's table, 0 without one."""
    waits = workspace.resources.get(WAITS)
    return waits.seconds(call.canonical) if waits is not None else 0.0
