"""What is known of a score of drafts, and what it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Tokens(NamedTuple):
    """What per-token scores are computed from, arrays [all tokens]."""

    first: NDArray[np.float64]  # the two highest log-probabilities
    second: NDArray[np.float64]
    separability: NDArray[np.float64]  # sigmoid(slope * S), nan where unreadable
    top: NDArray  # the K highest log-probabilities [all tokens, K]


@dataclass(frozen=True, slots=True)
class Score:
    """One way to say how sure a draft is."""

    name: str  # as parameters, columns and records call it
    label: str  # for tables
    short: str  # for figures
    needs: str = "evidence"  # what it is computed from. With "evidence" alone the gate can use it
    is_probability: bool = False  # its value claims to be the probability of being right
    # value of every token [all tokens]; None for scores that are not pooled from tokens here
    of_tokens: Callable[[Tokens], NDArray[np.float64]] | None = None
    pool: np.ufunc = np.minimum  # how an answer's tokens are pooled
    # value of one answer from its K highest log-probabilities [tokens, K], instead of `of_tokens`
    of_answer: Callable[[NDArray[np.float64]], float] | None = None
    finish: Callable[[NDArray], NDArray] = np.asarray  # applied to the pooled value
