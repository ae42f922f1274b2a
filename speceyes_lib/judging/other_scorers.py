"""How other programs score the same answers, reimplemented from their documented behaviour, quirks included.

They serve only for comparison. A scorer takes a target, a reply ("" where there is none) and whether the sample failed.
It returns `right`, `wrong`, `undecided` (it would ask a language model), `dropped` (it leaves failed samples out), or
None for a benchmark that it has no documented rules for. Programs that know no failed samples see an empty reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..runs.records import JudgedRecord
from ..tasks.sample import LETTERS, YES_NO
from .rules import judge

ScorerVerdict = Literal["right", "wrong", "undecided", "dropped"]


@dataclass(frozen=True)
class Target:
    """What a scorer knows of a sample.

    Attributes:
        benchmark: its name.
        options: in the order shown; None where the answer is yes or no.
        answer: the right letter, or "yes" or "no".
        standard: the standard answer ("A. red", "yes").
    """

    benchmark: str
    options: tuple[str, ...] | None
    answer: str
    standard: str

    @classmethod
    def of(cls, record: JudgedRecord, standard: str) -> Target:
        """The target of a judged record, with the standard answer of one of its verdicts."""
        benchmark = record.id.partition("/")[0]
        if standard in YES_NO:
            return cls(benchmark, None, standard, standard)
        return cls(benchmark, record.options, standard[:1], standard)

    @property
    def letters(self) -> str:
        """The letters of the options."""
        return LETTERS[: len(self.options or ())]


Scorer = Callable[[Target, str, bool], ScorerVerdict | None]  # target, reply, failed
DOCUMENTED = ("vstar", "hr", "pope")  # the benchmarks that lmms-eval and VLMEvalKit document rules for


# ------------------------------------------------------------------ ours, and the original's


def paper(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """The original's rules; it leaves failed samples out."""
    verdict = judge(target, reply, "paper", failed).verdict
    return "dropped" if verdict == "error" else verdict


def strict(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """Unparsed and failed answers count as wrong."""
    verdict = judge(target, reply, "strict", failed).verdict
    return "wrong" if verdict in ("error", "unparsed") else verdict


def deepeyes(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """DeepEyes' judge: for V* the original's rules, but a failed sample is wrong."""
    if target.benchmark != "vstar":
        return None
    return "wrong" if failed else paper(target, reply, failed)


# ------------------------------------------------------------------ lmms-eval

_LMMS_VSTAR = (
    re.compile(r"^\s*([A-D])"),  # also the first letter of a word
    re.compile(r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])"),  # also of the word that follows
    re.compile(r"\(([A-D])\)"),
    re.compile(r"([A-D])\s*[.)\]]"),  # also the last letter of a word
    re.compile(r"(?:^|\s)([A-D])(?:\s|$)"),
)
_PUNCTUATION = str.maketrans(
    dict.fromkeys(".()[],:;!*#{}", " ")
)  # VLMEvalKit's, for HR-Bench that of lmms-eval too


def lmms_eval(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """V*: the first pattern that matches the upper-cased reply; HR-Bench: a letter, else an option; POPE: equality."""
    if target.benchmark not in DOCUMENTED:
        return None
    if target.benchmark == "pope":
        return _score(reply.lower().strip() == target.answer)
    if target.benchmark == "vstar":
        return _score(_lmms_letter(reply.upper()) == target.answer)
    tokens = reply.translate(_PUNCTUATION).split()
    letters = set(tokens) & set(target.letters)
    if len(letters) == 1:
        return _score(letters == {target.answer})
    if not letters and "Z" in tokens:
        return "wrong"
    inside = _options_inside(target, reply)
    return _score(inside == [target.answer]) if len(inside) == 1 else "undecided"


def _lmms_letter(reply: str) -> str | None:
    for pattern in _LMMS_VSTAR:
        if match := pattern.search(reply):
            return match[1]
    anywhere = re.findall("[A-D]", reply)
    return anywhere[0] if len(anywhere) == 1 else None


def lmms_eval_yes_no(reply: str) -> str | None:
    """The word that lmms-eval compares; None for other texts."""
    text = reply.lower().strip()
    return text if text in ("yes", "no") else None


# ------------------------------------------------------------------ VLMEvalKit

_VLM_LAST = 4
_VLM_STATED = re.compile(r"(?i)answer\s+is\s+\**([A-D])")  # also the first letter of a word


def vlmevalkit(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """Without a judge: what its rules cannot resolve is wrong."""
    if target.benchmark not in DOCUMENTED:
        return None
    if target.benchmark == "pope":
        return _score(vlmevalkit_yes_no(reply) == target.answer)
    tokens = reply.translate(_PUNCTUATION).split()
    named = [c for c in target.letters if c in tokens]
    if len(named) == 1 and tokens.index(named[0]) >= len(tokens) - _VLM_LAST:
        return _score(named == [target.answer])
    if (match := _VLM_STATED.search(reply)) and match[1].upper() in target.letters:
        return _score(match[1].upper() == target.answer)
    if len(reply) <= 2 * sum(map(len, target.options)):
        return _score(_options_inside(target, reply) == [target.answer])
    return "wrong"


def vlmevalkit_yes_no(reply: str) -> str | None:
    """Yes or no where the text holds exactly one of the two words."""
    words = set(re.findall(r"[a-z]+", reply.lower())) & {"yes", "no"}
    return words.pop() if len(words) == 1 else None


# ------------------------------------------------------------------ POPE's own


def pope_own(target: Target, reply: str, failed: bool) -> ScorerVerdict | None:
    """The script of POPE's authors, for POPE only."""
    return _score(pope_own_yes_no(reply) == target.answer) if target.benchmark == "pope" else None


def pope_own_yes_no(reply: str) -> str:
    """No where "No", "not" or "no" stands before the first full stop; everything else, an empty reply too, is yes."""
    words = reply.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _options_inside(target: Target, reply: str) -> list[str]:
    """Letters of the options whose text stands in the reply."""
    options, reply = zip(target.letters, target.options, strict=True), reply.lower()
    return [letter for letter, text in options if text.lower() in reply]


def _score(right: bool) -> ScorerVerdict:
    return "right" if right else "wrong"


SCORERS: dict[str, Scorer] = {
    "paper": paper,
    "strict": strict,
    "DeepEyes judge": deepeyes,
    "lmms-eval": lmms_eval,
    "VLMEvalKit": vlmevalkit,
    "POPE's own": pope_own,
}
