"""Verdicts by rule under two protocols; every verdict names the rule that decided.

`strict` (ours, the default): a rule decides only when it is certain. An answer in which no option is certain is
`undecided`. It counts as wrong until a judging model or a person decides. An empty answer is `unparsed`, a failed
sample `error`; both count as wrong too. All three are reported beside the accuracy.

`paper` (the original's rules to the letter): see `_PAPER` below. Where the original asks a language model, the
verdict is `undecided`; a failed sample is `error`, which the original drops from numerator and denominator.

Both accept an option's letter (`B`, `(b)`, `B. blue`); `strict` also accepts its words (`blue`), in any case and
punctuation, because models that were not trained on letters answer with words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from ..errors import ConfigError, nearest
from ..runs.records import VerdictValue
from ..tasks.benchmark import PaperRule
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS, Sample

Protocol = Literal["strict", "paper"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
Reader = Callable[[str], tuple[int | str | None, str]]  # reply -> (what it names or None, rule)


class Judgement(NamedTuple):
    """A verdict and the name of the rule that gave it."""

    verdict: VerdictValue
    rule: str


def judge(
    sample: Sample, answer: str | None, protocol: Protocol = "strict", failed: bool = False
) -> Judgement:
    """The verdict on one answer, and the rule that decided.

    Args:
        sample: its benchmark, its options (None: yes or no) and its right answer are used.
        answer: as the model wrote it; None where there is none.
        protocol: see the module.
        failed: no answer could be produced (a recorded error).

    Raises:
        ConfigError: an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"protocol: no protocol {protocol!r}{nearest(protocol, PROTOCOLS)}; there are {', '.join(PROTOCOLS)}"
        )
    if failed:
        return Judgement("error", "failed")
    text = answer or ""
    if protocol == "paper":
        return _paper(sample, text)
    named, rule = named_option(text, sample.options)
    if named is None:
        return Judgement("unparsed" if rule == "empty" else "undecided", rule)
    return Judgement("right" if named == _right_name(sample) else "wrong", rule)


# ---------------------------------------------------------------------------------------------- strict

_WORD = re.compile(r"\w+(?:['’]\w+)*(?:\.\d+)?", re.UNICODE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
# "the answer is …", "Answer: …": what follows, up to the end of the sentence, is the reply's own conclusion
_STATED = re.compile(r"(?i)\b(?:answer|choice)\s*(?:is\b|:|=)\s*:?([^\n;]*?)(?=[.!?](?:\s|$)|\n|;|$)")
_NEGATION = re.compile(r"\b(?:no|not|never|neither|nor|none|cannot|except|without)\b|n['’]t\b")
# a capital that stands alone; A and I are also English words, so they need punctuation or the end after them
_LETTER = re.compile(r"(?<![\w'’\-])([A-Z])(?![\w'’\-])")
_ENGLISH = "AI"
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_LETTER_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_KEYED = re.compile(r"\b(?i:option|choice)\s+([A-Z])\b")
# "no" is a verdict when nothing or a clause follows, and a mere determiner before a noun ("no doubt")
_YES_NO_WORD = re.compile(
    r"(?i)\b(yes\b|no\b(?=\s*(?:$|[^\w\s])|\s+(?:there|it|i|the|this|that|we|they|he|she)\b))"
)
_NOT_YES_NO = re.compile(r"(?i)\bnot\W+(?:yes|no)\b")


@lru_cache(maxsize=16384)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, compatibility forms, case and punctuation folded."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def named_option(text: str, options: tuple[str, ...] | None) -> tuple[int | str | None, str]:
    r"""The option that a reply names, as (index or "yes"/"no", rule); None where it names none or several.

    Options of equal text are one option (the first of them). Where a reply has text inside `\boxed{}`, only that text
    is read. The first rule that applies decides:

    - `empty`: the reply has no words.
    - `letter`, `option_text`, `yes_no`: the reply is nothing else.
    - `stated`: "the answer is …": what follows decides, whatever stands before it.
    - `mention`: the letters and option texts found in the reply are of one option. A shorter option inside a
      longer one ("red" in "dark red") is not a mention of its own.
    - `part_of_option`: the reply is a run of words of exactly one option ("red" for "The bin is red.").
    - `contradictory`, `negated`, `nothing_named`: no option is certain.

    Args:
        text: the reply.
        options: their texts in the order shown; None where the answer is yes or no.
    """
    text = unicodedata.normalize("NFKC", text)
    if boxed := _BOXED.findall(text):
        text = " ; ".join(boxed)
    text = _LATEX_TEXT.sub(r"\1", text).strip()
    if not words(text):
        return None, "empty"
    exact, mentioned = _YES_NO if options is None else _choice(tuple(options))
    named, rule = exact(text)
    if rule != "nothing_named":
        return named, rule
    conclusions = [s for s in _STATED.findall(text) if words(s)]
    readings = [r if (r := exact(s))[1] != "nothing_named" else mentioned(s) for s in conclusions]
    for doubt in ("negated", "contradictory"):
        if doubt in (r for _, r in readings):
            return None, doubt
    named, rule = _exactly_one({name for name, _ in readings if name is not None}, "stated")
    return (named, rule) if rule != "nothing_named" else mentioned(text)


def _yes_no_alone(text: str) -> tuple[str | None, str]:
    return _exactly_one(set(words(text)), "yes_no", several="nothing_named", of={"yes", "no"})


def _yes_no_mentioned(text: str) -> tuple[str | None, str]:
    if _NOT_YES_NO.search(text):
        return None, "negated"
    return _exactly_one({m.casefold() for m in _YES_NO_WORD.findall(text)}, "mention")


_YES_NO = (_yes_no_alone, _yes_no_mentioned)


@lru_cache(maxsize=4096)
def _choice(options: tuple[str, ...]) -> tuple[Reader, Reader]:
    """(exact, mentioned): the two readers of replies to one set of options, built once per set."""
    texts = [words(o) for o in options]
    first = [texts.index(t) if t else i for i, t in enumerate(texts)]  # equal texts are one option
    letters = LETTERS[: len(options)]

    def by_letter(candidates: Iterable[str]) -> set[int]:
        return {first[letters.index(c)] for c in map(str.upper, candidates) if c in letters}

    def exact(text: str) -> tuple[int | None, str]:
        reply = words(text)
        by_text = {first[i] for i, t in enumerate(texts) if t and t == reply}
        alone = _LETTER_ALONE.fullmatch(text)
        letter = by_letter([alone[1]]) if alone else set()
        return _exactly_one(by_text | letter, "option_text" if by_text else "letter")

    def mentioned(text: str) -> tuple[int | None, str]:
        reply = list(words(text))
        named: set[int] = set()
        # the longest option first, and its words are used up, so that a shorter one inside it is not found again
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            width = len(texts[i])
            for start in range(len(reply) - width + 1 if width else 0):
                if tuple(reply[start : start + width]) == texts[i]:
                    named.add(first[i])
                    reply[start : start + width] = [""] * width
        bare = (
            m[1]
            for m in _LETTER.finditer(text)
            if m[1] not in _ENGLISH or not re.match(r"\s+\w", text[m.end() :])
        )
        named |= by_letter([*bare, *_BRACKETED.findall(text), *_KEYED.findall(text)])
        if _NEGATION.search(" ".join(reply)):  # outside option texts: "not red" may be an option
            return None, "negated"
        if not named:
            inside = {first[i] for i, t in enumerate(texts) if _is_run(words(text), t)}
            return _exactly_one(inside, "part_of_option", several="nothing_named")
        return _exactly_one(named, "mention")

    return exact, mentioned


def _is_run(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _exactly_one(named: set, rule: str, several: str = "contradictory", of: set | None = None) -> tuple:
    if len(named) == 1 and (of is None or named <= of):
        return next(iter(named)), rule
    return None, several if named else "nothing_named"


def _right_name(sample: Sample) -> int | str:
    if sample.options is None:
        return sample.answer.casefold()
    texts = [words(o) for o in sample.options]
    index = LETTERS.index(sample.answer)
    return texts.index(texts[index]) if texts[index] else index


# ----------------------------------------------------------------------------------------------- paper


def _paper(sample: Sample, text: str) -> Judgement:
    prediction = paper_prediction(text)
    if prediction is None:
        return Judgement("undecided", "boxed_without_brace")
    return _PAPER[paper_rule(sample.benchmark, sample.options)](sample, prediction)


def paper_rule(benchmark: str, options: tuple[str, ...] | None = ()) -> PaperRule:
    """The paper's rule for a benchmark; for one that it does not use, its rule for questions of the same kind.

    Args:
        benchmark: its name; it need not be registered.
        options: of the sample; None where the answer is yes or no.
    """
    known = BENCHMARKS.get(benchmark)
    if known is not None and known.paper_rule:
        return known.paper_rule
    return "equal_length" if options is None else "standard_inside"


def paper_prediction(text: str) -> str | None:
    r"""The part of a reply that the original judges, by rule or by its model.

    A reply that contains `\boxed` is replaced by what stands between the first `\boxed{` and the next `}`. Without the
    brace the original raises IndexError and has no verdict: None here.
    """
    if "\\boxed" not in text:
        return text
    return text.split("\\boxed{", 1)[1].split("}", 1)[0] if "\\boxed{" in text else None


def _paper_letter(letter: str, text: str) -> Judgement | None:
    if len(text) == 1:
        return _is(text == letter, "one_character")
    if len(text) == 2 and "." in text:
        return _is(letter in text, "letter_and_dot")
    return None


def _standard_inside(sample: Sample, text: str) -> Judgement:
    """V*: letter alone, letter with a dot, the standard answer ("A. red") as a substring, else the LLM."""
    if (decided := _paper_letter(sample.answer, text)) is not None:
        return decided
    if sample.standard in text:
        return Judgement("right", "standard_answer_inside")
    return Judgement("undecided", "asks_llm")


def _letter_anywhere(sample: Sample, text: str) -> Judgement:
    """HR-Bench: as V*, but the bare letter *anywhere* is right: for truth A so are "C. Apple" and "Answer: C"."""
    if (decided := _paper_letter(sample.answer, text)) is not None:
        return decided
    if sample.answer in text:
        return Judgement("right", "letter_anywhere")
    return Judgement("undecided", "asks_llm")


def _equal_length(sample: Sample, text: str) -> Judgement:
    """POPE: equal length: exact, case-sensitive equality ("Yes" for "yes" is wrong), else the LLM."""
    if len(text) == len(sample.answer):
        return _is(text == sample.answer, "equal_length")
    return Judgement("undecided", "asks_llm")


_PAPER: dict[PaperRule, Callable[[Sample, str], Judgement]] = {
    "standard_inside": _standard_inside,
    "letter_anywhere": _letter_anywhere,
    "equal_length": _equal_length,
}


def _is(right: bool, rule: str) -> Judgement:
    return Judgement("right" if right else "wrong", rule)
