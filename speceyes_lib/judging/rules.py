"""Verdicts by rule under two protocols; every verdict names the rule that decided.

`strict` (the default): a rule decides only when it is certain (`option_reader`): by the letter of an option (`B`,
`(b)`, `B. blue`) or its words (`blue`), because models that were not trained on letters answer with words. Otherwise
the answer is `undecided`, or `unparsed` where it is empty. `paper`: the original's rules to the letter (`_paper`);
where the original asks a language model, the verdict is `undecided`. A failed sample is `error` under both. All three
count as wrong and are reported beside the accuracy, but the original leaves errors out of numerator and denominator.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from ..errors import ConfigError, nearest
from ..runs.records import VerdictValue
from ..tasks.benchmark import PaperRule
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS, Sample
from .option_reader import distinct, named_option

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
        hint = nearest(protocol, PROTOCOLS)
        raise ConfigError(f"protocol: no protocol {protocol!r}{hint}; there are {', '.join(PROTOCOLS)}")
    if failed:
        return Judgement("error", "failed")
    text = answer or ""
    if protocol == "paper":
        return _paper(sample, text)
    named, rule = named_option(text, sample.options)
    if named is None:
        return Judgement("unparsed" if rule == "empty" else "undecided", rule)
    names = distinct(sample.options) if sample.options is not None else None
    right = names[LETTERS.index(sample.answer)] if names else sample.answer.casefold()
    return Judgement("right" if named == right else "wrong", rule)


# ----------------------------------------------------------------------------------------------- paper


def _paper(sample: Sample, text: str) -> Judgement:
    """The original's rules, by what its rule for the benchmark is.

    equal_length (POPE): an answer as long as the right one must equal it, in case too ("Yes" for "yes" is wrong).
    standard_inside (V*): a letter alone, a letter with a dot, else the standard answer ("A. red") inside the answer.
    letter_anywhere (HR-Bench): as V*, but the bare letter *anywhere* is right: for A so are "C. Apple" and "Answer: C".
    """
    text, rule = paper_prediction(text), paper_rule(sample.benchmark, sample.options)
    if text is None:
        return Judgement("undecided", "boxed_without_brace")
    if rule == "equal_length":
        if len(text) == len(sample.answer):
            return Judgement("right" if text == sample.answer else "wrong", rule)
    elif len(text) == 1:
        return Judgement("right" if text == sample.answer else "wrong", "one_character")
    elif len(text) == 2 and "." in text:
        return Judgement("right" if sample.answer in text else "wrong", "letter_and_dot")
    elif rule == "letter_anywhere" and sample.answer in text:
        return Judgement("right", "letter_anywhere")
    elif rule == "standard_inside" and sample.standard in text:
        return Judgement("right", "standard_answer_inside")
    return Judgement("undecided", "asks_llm")


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
