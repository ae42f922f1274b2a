"""A gate setting beside a pinned one, of the same run or another: what flips, and differences on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..stats.intervals import Estimate
from ..stats.paired import PairedTest, paired_test
from ..stats.resampling import linearised_difference, linearised_ratio

FLIPS = {"better": "right now, wrong there", "worse": "wrong now, right there", "same": "the same verdict"}


def beside(decided: pd.DataFrame, pinned: pd.DataFrame) -> pd.DataFrame:
    """The decisions of a setting with those of the pinned one.

    Args:
        decided: `outcomes.decisions` of the present setting.
        pinned: those of the pinned setting, maybe of another run.

    Returns:
        `decided`, all its rows, with the columns

        there: the pinned decision ("": the pinned run does not have the sample).
        right_there: whether the pinned answer is right (missing: not judged, or not there).
        flip: "" where both settings use the same model and have the same verdict, otherwise a key of `FLIPS`.
    """
    other = pinned.set_index("id").reindex(decided["id"]).reset_index()
    there, right_there = other["decision"].fillna(""), other["right"].astype("boolean")
    right = decided["right"].astype("boolean").reset_index(drop=True)
    known = right.notna() & right_there.notna()
    better = (known & right.fillna(False) & ~right_there.fillna(False)).to_numpy(dtype=bool)
    worse = (known & ~right.fillna(False) & right_there.fillna(False)).to_numpy(dtype=bool)
    model = (there != "") & (other["used"] != decided["used"].reset_index(drop=True))
    flip = np.select([better, worse, model.to_numpy(dtype=bool)], ["better", "worse", "same"], default="")
    return decided.assign(there=there.to_numpy(), right_there=right_there.array, flip=flip)


@dataclass(frozen=True)
class Comparison:
    """The present setting less the pinned one, on the samples that both have. Intervals are linearised.

    `accuracy` and `coverage` are McNemar tests; accuracy is None where a setting lacks answers. `risk_pp` is the
    difference of the shares of wrong drafts among the accepted ones. `faster` is the pinned setting's predicted seconds
    over the present ones.
    """

    n: int
    accuracy: PairedTest | None
    coverage: PairedTest
    risk_pp: Estimate
    faster: Estimate
    flips: dict[str, int]


def compare(both: pd.DataFrame, pinned: pd.DataFrame, complete: bool = True) -> Comparison:
    """The comparison of a setting with the pinned one.

    Args:
        both: of `beside`.
        pinned: the pinned setting's decisions.
        complete: both settings have all answers that they need; otherwise accuracy and seconds are not compared.
    """
    both = both[both["there"] != ""]
    other = pinned.set_index("id").loc[both["id"]]
    groups = pd.factorize(both["group"])[0]
    known = (both["right"].notna() & both["right_there"].notna()).to_numpy()
    right, right_there = both["right"][known].astype(bool), both["right_there"][known].astype(bool)
    accepted, accepted_there = (
        (frame["decision"] == "accepted").to_numpy(dtype=float) for frame in (both, other)
    )
    wrong, wrong_there = (~frame["draft_right"].fillna(False).to_numpy(dtype=bool) for frame in (both, other))
    seconds, seconds_there = both["wall_s"].to_numpy(), other["wall_s"].to_numpy()
    timed = np.isfinite(seconds) & np.isfinite(seconds_there)
    timed &= complete
    faster = linearised_ratio(seconds_there[timed], seconds[timed], groups[timed])
    risks = (accepted * wrong, accepted), (accepted_there * wrong_there, accepted_there)
    return Comparison(
        n=len(both),
        accuracy=paired_test(right.to_numpy(), right_there.to_numpy(), groups[known], None)
        if complete
        else None,
        coverage=paired_test(accepted > 0, accepted_there > 0, groups, None),
        risk_pp=linearised_difference(*risks, groups).times_100("pp"),
        faster=Estimate(faster.value, faster.low, faster.high, faster.n, "x", faster.method),
        flips={name: int((both["flip"] == name).sum()) for name in FLIPS},
    )
