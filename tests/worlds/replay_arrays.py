"""Replay data made of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speceyes_lib.gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES
from speceyes_lib.replay import replay_data
from speceyes_lib.replay.cost_model import CostModel


def from_arrays(
    *,
    draft_right: ArrayLike,
    agent_right: ArrayLike,
    routed: ArrayLike | Mapping[str, ArrayLike] | None = None,
    tasks: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    scores: Mapping[str, ArrayLike] | None = None,
    top_logprobs: NDArray | None = None,
    offsets: ArrayLike | None = None,
    cost: CostModel | None = None,
) -> replay_data.ReplayData:
    """Replay data of plain arrays. All but the verdicts may be left out.

    Args:
        draft_right: bool [n], or the codes RIGHT, WRONG, FAILED, ABSENT.
        agent_right: the same.
        routed: bool [n] of the large router, or by router.
        tasks: names [n]; None: one task.
        groups: names [n]; None: every sample is its own group.
        scores: by name float [n]; the paper's scores count as recorded at the default K and slope.
        top_logprobs: evidence, as in `separability.score_grid`.
        offsets: the same.
        cost: the cost model.
    """
    draft = np.asarray(draft_right).astype(np.int8)
    n = len(draft)
    routers = routed if isinstance(routed, Mapping) else {} if routed is None else {"large": routed}
    given = {name: np.asarray(values, dtype=np.float64) for name, values in (scores or {}).items()}
    return replay_data.ReplayData(
        ids=np.array([f"{i:07d}" for i in range(n)], dtype=object),
        tasks=np.array(["all"] * n if tasks is None else tasks, dtype=object),
        groups=np.arange(n).astype(object) if groups is None else np.asarray(groups, dtype=object),
        readable=np.ones(n, bool),
        routed={router: np.asarray(values).astype(np.int8) for router, values in routers.items()},
        draft=draft,
        agent=np.asarray(agent_right).astype(np.int8),
        top_logprobs=top_logprobs,
        offsets=None if offsets is None else np.asarray(offsets, dtype=np.int64),
        recorded={name: values for name, values in given.items() if name in PAPER_SCORES},
        recorded_k=DEFAULT_K,
        recorded_slope=DEFAULT_SLOPE,
        extra={name: values for name, values in given.items() if name not in PAPER_SCORES},
        cost=cost,
    )
