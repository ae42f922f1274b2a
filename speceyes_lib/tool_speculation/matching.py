"""When a guessed call stands for the call that the actor makes.

Strategies compare the arguments as they were written. The lossless ones also demand equal canonical calls, so that the
actor reads what it would have read without speculation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigError, nearest

JACCARD_THRESHOLD = 0.7  # of the original, where it is fixed
# words without meaning of their own, which the original leaves out
_STOP_WORDS = frozenset(
    re.findall(r"\w+", "the a an and or but in on at to for of with by from as is was are")
)


class Comparable(Protocol):
    """What is compared: calls, and the records of guesses and of calls made."""

    name: str
    canonical: str
    given: dict[str, Any]


@dataclass(frozen=True)
class Strategy:
    """A way to compare.

    Attributes:
        name: in settings and records. label: for readers.
        lossless: it serves only results of the very call that was made.
        score: (guess, wanted) -> how alike they are, 0 to 1.
        graded: scores between 0 and 1 occur; a threshold decides.
    """

    name: str
    label: str
    lossless: bool
    score: Callable[[Comparable, Comparable], float]
    graded: bool = False

    def match(
        self, guess: Comparable, wanted: Comparable, threshold: float = JACCARD_THRESHOLD
    ) -> float | None:
        """The score of a guess that may stand for the wanted call, else None."""
        score = self.score(guess, wanted)
        return score if score >= (threshold if self.graded else 1.0) else None


def exact_arguments(guess: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """True for the same names and values. Blanks around texts do not count, case does; defaults are not filled in."""
    return guess.keys() == wanted.keys() and all(_same(guess[name], wanted[name]) for name in wanted)


def jaccard_arguments(guess: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """How alike two sets of arguments are, 0 to 1: texts by their words, other values by equality, mean over names.

    Where one side has no text among its values, they must be equal.
    """
    if not all(any(isinstance(v, str) for v in values.values()) for values in (guess, wanted)):
        return float(dict(guess) == dict(wanted))
    if guess.keys() != wanted.keys():
        return 0.0
    return sum(_likeness(guess[name], wanted[name]) for name in wanted) / len(wanted)


def _same(guess: Any, wanted: Any) -> bool:
    if isinstance(guess, str) and isinstance(wanted, str):
        return guess.strip() == wanted.strip()
    if isinstance(guess, list | dict) and isinstance(wanted, list | dict):
        return json.dumps(guess, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return guess == wanted


def _likeness(guess: Any, wanted: Any) -> float:
    if type(guess) is not type(wanted):
        return 0.0
    if not isinstance(guess, str):
        return float(guess == wanted)
    a, b = (frozenset(re.findall(r"\w+", text.lower())) - _STOP_WORDS for text in (guess, wanted))
    if not a and not b:
        return 1.0
    return len(a & b) / len(a | b) if a and b else 0.0


def _named(compare: Callable[[Comparable, Comparable], float]) -> Callable[[Comparable, Comparable], float]:
    return lambda guess, wanted: float(compare(guess, wanted)) if guess.name == wanted.name else 0.0


def _canonical(guess: Comparable, wanted: Comparable) -> bool:
    return guess.canonical == wanted.canonical != ""


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "exact",
            "exact",
            True,
            _named(lambda g, w: _canonical(g, w) and exact_arguments(g.given, w.given)),
        ),
        Strategy("normalised", "normalised", True, _named(_canonical)),
        Strategy(
            "jaccard", "Jaccard", False, _named(lambda g, w: jaccard_arguments(g.given, w.given)), graded=True
        ),
        Strategy("tool_name_only", "tool name only", False, _named(lambda g, w: True)),
        Strategy("none", "none", True, lambda g, w: 0.0),
    )
}


def strategy_of(name: str) -> Strategy:
    """The strategy of this name. Raises ConfigError with the nearest one."""
    if name not in STRATEGIES:
        raise ConfigError(
            f"strategy: {name!r} is unknown{nearest(name, STRATEGIES)}; choose one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
