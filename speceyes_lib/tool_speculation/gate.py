"""How sure the speculator is of a guessed call, and where it is least sure.

Only the tokens of the call's name and of the values of its arguments count. Braces, quotes and names of arguments are
always certain. The separability of these tokens is that of `gating/separability.py`; for how sure a forked guess is,
the separability of the token at the fork counts with a minus, because the model preferred another one there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..gating.separability import DEFAULT_K, token_separability
from .models import CallComplete, Token

NAME = "name"  # as owner of tokens: the name of the tool
SCORES = ("separability_min", "separability_mean", "logprob_sum")
_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


@dataclass(frozen=True)
class ValueToken:
    """A token of the name or of an argument's value.

    index: in the tokens of the call. owner: `NAME`, or the name of the argument.
    separability, logprob: None where the server returned no alternatives.
    """

    index: int
    owner: str
    separability: float | None
    logprob: float | None


def value_tokens(call: CallComplete) -> list[ValueToken]:
    """The tokens of a call that say something, in order."""
    begins, position = [], -call.offset
    for token in call.tokens:
        begins.append(position)
        position += len(token.text)
    spans = value_spans(call.text)
    owners = []
    for index, (token, begin) in enumerate(zip(call.tokens, begins, strict=True)):
        end = begin + len(token.text)
        # an empty value lies between its quotes and belongs to the token that holds the second one
        owner = next(
            (o for o, a, b in spans if (begin < b and a < end) or (a == b and begin <= a < end)), None
        )
        if owner is not None:
            owners.append((index, owner))
    separability = _separability([call.tokens[index] for index, _ in owners])
    return [
        ValueToken(index, owner, value, call.tokens[index].logprob)
        for (index, owner), value in zip(owners, separability, strict=True)
    ]


def value_spans(text: str) -> list[tuple[str, int, int]]:
    """Where name and values of arguments are in the JSON text of a call: (owner, begin, end), without quotes."""
    spans, path, key, expect_key = [], [], None, False
    keys: list[Any] = []  # of the open objects
    for match in _JSON.finditer(text):
        piece = match[0]
        if piece in "{[":
            path.append(piece)
            keys.append(key)
            expect_key, key = piece == "{", None
        elif piece in "}]":
            if not path:
                break
            path.pop()
            key, expect_key = keys.pop(), False
        elif piece == ",":
            expect_key = bool(path) and path[-1] == "{"
        elif piece == ":":
            expect_key = False
        elif expect_key:
            key = piece[1:-1] if piece[0] == '"' else piece
        else:
            quoted = piece.startswith('"')
            begin, end = match.start() + quoted, match.end() - quoted
            if len(path) == 1 and key == "name":
                spans.append((NAME, begin, end))
            elif len(keys) > 1 and keys[1] == "arguments":
                # the argument is the key at depth 2: that of this value, or of the object or list that holds it
                spans.append((str(key if len(path) == 2 else keys[2]), begin, end))
    return spans


def call_scores(call: CallComplete) -> dict[str, float | str | None]:
    """How sure the model was of a call: the fields of `Guess.scores`. Empty without log-probabilities."""
    tokens = value_tokens(call)
    if not tokens or any(t.separability is None or not math.isfinite(t.separability) for t in tokens):
        return {}
    arguments = [t for t in tokens if t.owner != NAME]
    return {
        "separability_min": min(t.separability for t in tokens),
        "separability_mean": sum(t.separability for t in tokens) / len(tokens),
        "logprob_sum": sum(t.logprob for t in tokens),
        "weakest_argument": min(arguments, key=lambda t: t.separability).owner if arguments else None,
    }


def fork_prefixes(call: CallComplete, turn: Sequence[Token], count: int) -> list[tuple[Token, ...]]:
    """The beginnings of further guesses: the turn up to one of its weakest argument tokens, and there the runner-up.

    Args:
        call: the greedy guess.
        turn: all tokens of its turn.
        count: how many, weakest first; there may be fewer.
    """
    weakest = sorted(
        (t for t in value_tokens(call) if t.owner != NAME and t.separability is not None),
        key=lambda t: t.separability,
    )
    prefixes = []
    for token in weakest:
        place = call.first + token.index
        if len(prefixes) < count and (other := turn[place].runner_up()):
            prefixes.append((*turn[:place], other))
    return prefixes


def reaches(score: ArrayLike, least: float) -> NDArray[np.bool_]:
    """Which guesses may be executed: those whose score is at least `least`; a missing score (nan) never is."""
    return np.asarray(score, dtype=np.float64) >= least


@dataclass(frozen=True)
class Gate:
    """Which guesses are executed: those whose score reaches the threshold.

    Attributes:
        score: one of `SCORES`.
        threshold: for all tools; None executes every guess.
        thresholds: for single tools, by name, instead.
    """

    score: str = "separability_min"
    threshold: float | None = None
    thresholds: Mapping[str, float] | None = None

    def refusal(self, name: str, scores: Mapping[str, Any]) -> str | None:
        """Why a guess is not executed, or None."""
        least = (self.thresholds or {}).get(name, self.threshold)
        if least is None:
            return None
        value = scores.get(self.score)
        if value is None:
            return f"the model returned no log-probabilities, so {self.score} is not known"
        return None if reaches(value, least) else f"{self.score} {value:.3g} is below {least:.3g}"


def least_probability(saving_s: float, cost: float, seconds_per_cost: float = 1.0) -> float:
    """The least probability of a match at which executing a guess pays.

    A guess that matches saves `saving_s` and costs nothing extra, because its call was needed. One that does not
    costs `cost`, in units that are worth `seconds_per_cost` each. It pays from p with p * saving = (1 - p) * cost.

    Args:
        saving_s: seconds saved by a hit: the smaller of the tool's seconds and the head start, not negative.
        cost: of a miss: seconds of the tool, money, or calls of a quota.
        seconds_per_cost: 0 where misses are free.
    """
    price = seconds_per_cost * cost
    if min(saving_s, price) < 0:
        raise ValueError("saving and cost must not be negative")
    if saving_s == 0:
        return 1.0 if price else 0.0
    return price / (price + saving_s)


def _separability(tokens: Sequence[Token]) -> list[float | None]:
    """Separability of tokens, with a minus for those that the model did not prefer."""
    k = min((len(token.top_logprobs or ()) for token in tokens), default=0)
    if k < 2:
        return [None] * len(tokens)
    rows = -np.sort(-np.array([token.top_logprobs[:k] for token in tokens], np.float64))
    values = token_separability(rows, min(DEFAULT_K, k)).tolist()
    return [-value if token.rank else value for token, value in zip(tokens, values, strict=True)]
