"""How other programs score the same answers: each reimplemented from its documented behaviour, quirks included.

For comparison only; no verdict of ours comes from here. A scorer takes what was asked and what was said and gives
`right`, `wrong`, `undecided` (it would ask a language model), `dropped` (it leaves failed samples out), or None for
a benchmark it has no documented rules for. Programs that know no failed samples see an empty answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..runs.records import JudgedRecord
from ..tasks.sample import LETTERS, YES_NO
from .rules import judge

Score = Literal["right", "wrong", "undecided", "dropped"]


@dataclass(frozen=True)
class Asked:
    """What a scorer knows of a sample: `options` as shown (None: yes/no), `answer` the right letter or yes/no."""

    benchmark: str
    options: tuple[str, ...] | None
    answer: str
    standard: str

    @classmethod
    def of(cls, record: JudgedRecord, standard: str) -> Asked:
        """From a judged record and the standard answer of one of its verdicts ("A. red", "yes")."""
        benchmark = record.id.partition("/")[0]
        if standard in YES_NO:
            return cls(benchmark, None, standard, standard)
        return cls(benchmark, record.options, standard[:1], standard)

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options or ())]


Scorer = Callable[[Asked, str, bool], Score | None]  # asked, said ("" = nothing), failed
DOCUMENTED = ("vstar", "hr", "pope")  # the benchmarks that lmms-eval and VLMEvalKit document rules for


# ------------------------------------------------------------------ ours, and the original's


def paper(asked: Asked, said: str, failed: bool) -> Score | None:
    verdict = judge(asked, said, "paper", failed).verdict
    return "dropped" if verdict == "error" else verdict


def strict(asked: Asked, said: str, failed: bool) -> Score | None:
    """Unparsed and failed answers count as wrong."""
    verdict = judge(asked, said, "strict", failed).verdict
    return "wrong" if verdict in ("error", "unparsed") else verdict


def deepeyes(asked: Asked, said: str, failed: bool) -> Score | None:
    """DeepEyes' judge: for V* the original's rules, but a failed sample is wrong."""
    if asked.benchmark != "vstar":
        return None
    return "wrong" if failed else paper(asked, said, failed)


# ------------------------------------------------------------------ lmms-eval

_LMMS_VSTAR = (
    re.compile(r"^\s*([A-D])"),  # also the first letter of a word
    re.compile(r"(?:ANSWER|CHOICE|OPTION)\s*(?:IS)?\s*:?\s*([A-D])"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"([A-D])[.)\]]"),
    re.compile(r"\b([A-D])\b"),
)


def lmms_eval(asked: Asked, said: str, failed: bool) -> Score | None:
    """V*: the first pattern that matches the upper-cased reply; HR-Bench: a letter, else an option; POPE: equality."""
    if asked.benchmark not in DOCUMENTED:
        return None
    if asked.benchmark == "pope":
        return _score(said.lower().strip() == asked.answer)
    if asked.benchmark == "vstar":
        return _score(_lmms_letter(said.upper()) == asked.answer)
    letters = {w for w in re.findall(r"\b[A-Z]\b", said) if w in asked.letters}
    if len(letters) == 1:
        return _score(letters == {asked.answer})
    inside = [c for c, text in zip(asked.letters, asked.options, strict=True) if text.lower() in said.lower()]
    return _score(inside == [asked.answer]) if len(inside) == 1 else "undecided"


def _lmms_letter(said: str) -> str | None:
    for pattern in _LMMS_VSTAR:
        if match := pattern.search(said):
            return match[1]
    anywhere = re.findall("[A-D]", said)
    return anywhere[0] if len(anywhere) == 1 else None


def lmms_eval_yes_no(said: str) -> str | None:
    """The word it compares: only a literal "no" is a no."""
    text = said.lower().strip()
    return text if text in ("yes", "no") else None


# ------------------------------------------------------------------ VLMEvalKit

_VLM_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_VLM_LAST = 5
_VLM_STATED = re.compile(r"(?i)answer\s+is\s*:?\s*\(?([A-Z])\b")


def vlmevalkit(asked: Asked, said: str, failed: bool) -> Score | None:
    """Without a judge: what its rules cannot resolve is wrong."""
    if asked.benchmark not in DOCUMENTED:
        return None
    if asked.benchmark == "pope":
        return _score(vlmevalkit_yes_no(said) == asked.answer)
    tokens = said.translate(_VLM_PUNCTUATION).split()
    found = [c for c in asked.letters if c in tokens]
    if len(found) == 1 and tokens.index(found[0]) >= len(tokens) - _VLM_LAST:
        return _score(found == [asked.answer])
    if (match := _VLM_STATED.search(said)) and match[1].upper() in asked.letters:
        return _score(match[1].upper() == asked.answer)
    if len(said) <= 2 * sum(map(len, asked.options)):
        inside = [
            c for c, text in zip(asked.letters, asked.options, strict=True) if text.lower() in said.lower()
        ]
        return _score(inside == [asked.answer])
    return "wrong"


def vlmevalkit_yes_no(said: str) -> str | None:
    """Yes or no where the text holds exactly one of the two words."""
    words = set(re.findall(r"[a-z]+", said.lower())) & {"yes", "no"}
    return words.pop() if len(words) == 1 else None


# ------------------------------------------------------------------ POPE's own


def pope_own(asked: Asked, said: str, failed: bool) -> Score | None:
    return _score(pope_own_yes_no(said) == asked.answer) if asked.benchmark == "pope" else None


def pope_own_yes_no(said: str) -> str:
    """No where "No", "not" or "no" stands before the first full stop; everything else, silence included, is yes."""
    words = said.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _score(right: bool) -> Score:
    return "right" if right else "wrong"


SCORERS: dict[str, Scorer] = {
    "paper": paper,
    "strict": strict,
    "DeepEyes judge": deepeyes,
    "lmms-eval": lmms_eval,
    "VLMEvalKit": vlmevalkit,
    "POPE's own": pope_own,
}
