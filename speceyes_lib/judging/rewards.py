"""What a trajectory is paid in DeepEyes' reinforcement learning, and what a score consists of.

    score = 0.8 [right] - 0.2 [format error] + 1.2 [right and tool used]

The formula is that of the published recipe. Its variants differ in what counts as an answer, a tool call and a verdict:

recipe: verl's recipe to the letter. It pays for a call that could not be parsed, was refused, or stands in a thought;
    it reads "not correct" as a verdict for right; and a judge that cannot be reached makes the whole score 0.
original: the repository of DeepEyes. The last answer counts, and only a crop that came back is paid.
strict: the default here. As the recipe, but only a crop that came back is paid, a verdict is one word, and a judge
    that failed leaves the trajectory without a score instead of with 0.

Source: arXiv:2505.14362, section 3, and the recipe `deepeyes` of verl.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..errors import UserError, nearest
from ..tasks.sample import Sample
from .rules import judge

Variant = Literal["recipe", "original", "strict"]
VARIANTS: tuple[Variant, ...] = ("recipe", "original", "strict")
LONGEST_ANSWER = 999  # characters; the recipe takes longer ones for attempts to talk the judge over

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BLOCKS = re.compile(r"<(tool_call|tool_response)>.*?</\1>", re.DOTALL)
_AFTER_TOOL = re.compile(r"</tool_response>\s*assistant[ \t]*\n?([^\n]*)")
_ROLE_WORDS = re.compile(r"\b(?:user|assistant)\b")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


class Weights(NamedTuple):
    """Points for a right answer, for a format error, and for a right answer with the tool."""

    accuracy: float = 0.8
    format: float = -0.2
    tool: float = 1.2


RECIPE_WEIGHTS = Weights()
THINKLITE = "thinklite_eureka"  # a data source of puzzles, whose answers the original expects in \boxed{}
_THINKLITE_WEIGHTS = Weights(1.2, -0.4, 0.0)


@dataclass(frozen=True)
class Reward:
    """What one trajectory is paid.

    Attributes:
        answer: what was judged.
        right: the verdict; None: the judge failed.
        format_error: the response breaks the format.
        tool: the response counts as one that used the tool.
        variant: the rules.
        weights: points of the parts.
    """

    answer: str
    right: bool | None
    format_error: bool
    tool: bool
    variant: Variant
    weights: Weights = RECIPE_WEIGHTS

    @property
    def score(self) -> float | None:
        """The points; None: there are none, because the judge failed (`recipe` and `original` give 0 then)."""
        if self.right is None:
            return None if self.variant == "strict" else 0.0
        return _score(self.right, self.format_error, self.tool and self.right, self.weights)


def reward(
    text: str,
    is_right: Callable[[str], bool | None],
    *,
    variant: Variant = "strict",
    crops: int = 0,
    data_source: str = "",
    weights: Weights = RECIPE_WEIGHTS,
) -> Reward:
    """The reward of one trajectory.

    Args:
        text: all turns after the question, joined: the model's, and the tool's with their role words before them.
        is_right: answer -> its verdict, None where the judge failed. See `by_rule`.
        variant: the rules.
        crops: pictures that the tool gave back (`recipe` looks at tags instead).
        data_source: of the sample; `original` scores THINKLITE with weights of its own, without the tool.
        weights: points of the parts.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"reward {variant!r}: expected one of {', '.join(VARIANTS)}{nearest(variant, VARIANTS)}"
        )
    if variant == "original" and data_source == THINKLITE:
        boxed, weights = _BOXED.findall(text), _THINKLITE_WEIGHTS
        answer, format_error = (boxed[-1].strip(), False) if boxed else (text, True)
    else:
        answer, format_error = read_answer(text, last=variant == "original")
    right: bool | None = False
    if len(answer) <= LONGEST_ANSWER:
        right = is_right(answer)
    else:
        format_error = True
    tool = bool(_BLOCKS.search(text)) if variant == "recipe" else crops > 0
    return Reward(answer, right, format_error, tool, variant, weights)


def read_answer(text: str, last: bool = False) -> tuple[str, bool]:
    """The answer of a response, and whether its format is wrong.

    Args:
        text: see `reward`.
        last: of several answers the last one counts, as in the original; otherwise the first.

    Returns:
        The answer. Without a complete `<answer>` it is the first line after a tool's reply; else what stands after the
        thoughts; else the whole text.
    """
    error = text.count("<think>") != text.count("</think>")
    _, closed, body = text.rpartition("</think>")
    error |= body.count("<answer>") != body.count("</answer>")
    answers = [answer.strip() for answer in _ANSWER.findall(body)]
    if answers:
        answer = answers[-1 if last else 0]
        return (answer, error) if answer else (text, True)
    if after := _AFTER_TOOL.search(text):
        return after[1].strip(), True
    return (_ROLE_WORDS.sub("", _BLOCKS.sub("", body)).strip() if closed else text), True


def read_verdict(reply: str, variant: Variant = "strict") -> bool | None:
    """The verdict in a judging model's reply, which should be CORRECT or INCORRECT; None: there is none.

    `recipe` looks for the words anywhere, CORRECT first, and takes everything else for INCORRECT. `original` expects
    1 or 0.
    """
    if variant == "recipe":
        return bool(re.search(r"\bcorrect\b", reply, re.IGNORECASE))
    words = {"1": True, "0": False} if variant == "original" else {"correct": True, "incorrect": False}
    return words.get(reply.strip(" \t\r\n.*'\"`").casefold())


def by_rule(sample: Sample) -> Callable[[str], bool]:
    """The suite's own rule as `is_right`, for questions with options or with yes and no; undecided is not right."""
    return lambda answer: judge(sample, answer, "strict").verdict == "right"


def _score(right: bool, format_error: bool, tool: bool, weights: Weights) -> float:
    return round(weights.accuracy * right + weights.format * format_error + weights.tool * tool, 10)


_PARTS = {
    _score(right, error, tool, RECIPE_WEIGHTS): (right, error, tool)
    for right, error, tool in product((False, True), (False, True), (False, True))
    if right or not tool
}


def decompose(scores: ArrayLike) -> pd.DataFrame:
    """Scores taken apart again: each of the six possible ones has one decomposition.

    Args:
        scores: float [trajectories]. 0.0 is a wrong answer, or a judge that failed: `recipe` does not tell which.

    Returns:
        A row per trajectory: score; right, format_error and tool, 1 or 0 (`tool`: it was paid), nan where the score is
        none of the six.
    """
    values = np.asarray(scores, dtype=np.float64)
    unknown = (np.nan, np.nan, np.nan)
    rows = [_PARTS.get(round(value, 4), unknown) for value in values.ravel()]
    parts = pd.DataFrame(rows, columns=["right", "format_error", "tool"], dtype="float64")
    parts.insert(0, "score", values.ravel())
    return parts
