"""Verdicts by rule under two protocols; every verdict names the rule that decided.

`strict` (ours, the default): a rule decides only when it is certain (`option_reader`). An answer in which no option is
certain is `undecided`. It counts as wrong until a judging model or a person decides. An empty answer is `unparsed`, a
failed sample `error`; both count as wrong too. All three are reported beside the accuracy.

`paper` (the original's rules to the letter): see `_PAPER` below. Where the original asks a language model, the
verdict is `undecided`; a failed sample is `error`, which the original drops from numerator and denominator.

Both accept an option's letter (`B`, `(b)`, `B. blue`); `strict` also accepts its words (`blue`), in any case and
punctuation, because models that were not trained on letters answer with words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from ..errors import ConfigError, nearest
from ..runs.records import VerdictValue
from ..tasks.benchmark import PaperRule
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS, Sample
from .option_reader import named_option, words

Protocol = Literal["strict", "paper"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)


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
