"""Two protocols that score an answer to a task of GAIA, and where they differ.

`original`  of the original's tool agent: equal texts, but for case and for spaces around punctuation
`official`  of GAIA: numbers by value, lists element by element, texts without white space and punctuation

Both are reimplemented from their documented behaviour, quirks included. What the quirks do is in their docstrings.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Mapping

import pandas as pd

from ..errors import UserError, nearest
from ..tasks.gaia import WITHHELD

_AROUND = re.compile(r"\s*([,;.!?])\s*")
_UNITS = str.maketrans("", "", "$%,")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def original_right(truth: str, predicted: str | None) -> bool:
    """Whether the texts are equal in lower case, stripped, and without spaces around , ; . ! ?

    So "$5" is wrong for "5", "5.0" is wrong for "5", and a final full stop counts. A missing answer is wrong.
    """
    return predicted is not None and _folded(truth) == _folded(predicted)


def official_right(truth: str, predicted: str | None) -> bool:
    """Whether the answer is right by the rules of GAIA's own scorer.

    1. The truth parses as a number: $, % and commas of the answer are removed, and the numbers are compared. What does
       not parse counts as infinity. "1e3", "inf" and "nan" parse, so "about 5" is right for "inf" and nothing is for
       "nan". "5." equals 5, "3 km" does not equal 3.
    2. Else the truth holds a comma or semicolon: both are split there. The lists must be as long, and equal element by
       element: numbers by rule 1, texts without white space in lower case, with their punctuation. "1,234" as truth is
       a list of two.
    3. Else: texts without white space and punctuation, in lower case.

    A missing answer is the text "None".
    """
    text = "None" if predicted is None else predicted
    if _parses(truth):
        return _number(text) == float(truth)
    if re.search("[,;]", truth):
        expected, given = (re.split("[,;]", value) for value in (truth, text))
        return len(expected) == len(given) and all(map(_same_element, expected, given))
    return _squeezed(truth).translate(_PUNCTUATION) == _squeezed(text).translate(_PUNCTUATION)


PROTOCOLS: dict[str, Callable[[str, str | None], bool]] = {
    "original": original_right,
    "official": official_right,
}


def is_right(truth: str, predicted: str | None, protocol: str = "official") -> bool | None:
    """Whether the answer is right by this protocol; None where the truth is withheld.

    Raises:
        UserError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(
            f"protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}{nearest(protocol, PROTOCOLS)}"
        )
    return None if truth == WITHHELD else PROTOCOLS[protocol](truth, predicted)


def compare_protocols(truths: Mapping[str, str], answers: Mapping[str, str | None]) -> pd.DataFrame:
    """Every answer under both protocols, those that they score differently first.

    Args:
        truths: task_id -> right answer; a task whose answer is withheld ("?") is left out.
        answers: task_id -> answer, None or absent where there is none.

    Returns:
        Index: task_id. Columns: truth, predicted, original and official (bool), rule of the official protocol that
        decides ("number", "list" or "text"), differ (bool).
    """
    rows = {}
    for task, truth in truths.items():
        if truth != WITHHELD:
            answer = answers.get(task)
            rows[task] = (
                truth,
                answer,
                *(right(truth, answer) for right in PROTOCOLS.values()),
                _rule(truth),
            )
    columns = ["truth", "predicted", *PROTOCOLS, "rule"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task_id")
    frame = frame.assign(differ=frame["original"] != frame["official"])
    return frame.sort_values("differ", ascending=False, kind="stable")


def _rule(truth: str) -> str:
    return "number" if _parses(truth) else "list" if re.search("[,;]", truth) else "text"


def _folded(text: str) -> str:
    return _AROUND.sub(r"\1", text.lower().strip())


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    text = text.translate(_UNITS)
    return float(text) if _parses(text) else math.inf


def _same_element(expected: str, given: str) -> bool:
    return _number(given) == float(expected) if _parses(expected) else _squeezed(expected) == _squeezed(given)
