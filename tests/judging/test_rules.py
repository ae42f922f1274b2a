"""Every rule of both protocols, case by case; a rule decides only when it is certain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.agents.prompt_sets import LETTERS
from speceyes_lib.errors import ConfigError
from speceyes_lib.judging.rules import PROTOCOLS, judge, named_option

COLOURS = ("red", "blue", "dark red", "green")
SENTENCES = (
    "The color of the bin is red.",
    "The color of the bin is blue.",
    "The truck is left of the bin.",
    "The bin is left of the truck.",
)


def sample(benchmark: str, answer: str, options: tuple[str, ...] | None) -> SimpleNamespace:
    text = answer if options is None else options[LETTERS.index(answer)]
    return SimpleNamespace(
        id=f"{benchmark}/s/1",
        benchmark=benchmark,
        options=options,
        answer=answer,
        answer_text=text,
        question="What color?",
        meta={"group": "q1", "category": "single"},
        standard=text if options is None else f"{answer}. {text}",
    )


VSTAR = sample("vstar", "A", COLOURS)
HR = sample("hr", "B", COLOURS)
SENTENCE = sample("vstar", "A", SENTENCES)
YES = sample("pope", "yes", None)
NO = sample("pope", "no", None)

STRICT = [  # sample, answer, verdict, rule
    (VSTAR, "A", "right", "letter"),
    (VSTAR, "a", "right", "letter"),
    (VSTAR, "A.", "right", "letter"),
    (VSTAR, "(A)", "right", "letter"),
    (VSTAR, "**A**", "right", "letter"),
    (VSTAR, "B", "wrong", "letter"),
    (VSTAR, "Ａ", "right", "letter"),  # a full-width letter
    (VSTAR, "E", "undecided", "nothing_named"),  # no such option
    (VSTAR, "red", "right", "option_text"),
    (VSTAR, " Red. ", "right", "option_text"),
    (VSTAR, "dark red", "wrong", "option_text"),
    (VSTAR, "A. red", "right", "mention"),
    (VSTAR, "A) Red", "right", "mention"),
    (VSTAR, "B. red", "undecided", "contradictory"),
    (VSTAR, "It looks dark red to me", "wrong", "mention"),  # the longer option, not "red" inside it
    (VSTAR, "red or blue", "undecided", "contradictory"),
    (VSTAR, "dark red, maybe red", "undecided", "contradictory"),
    (VSTAR, "The reddish one", "undecided", "nothing_named"),  # whole words only
    (VSTAR, "Dark", "wrong", "part_of_option"),
    (VSTAR, "A star", "undecided", "nothing_named"),  # an article is not a letter
    (VSTAR, "A red star", "right", "mention"),
    (VSTAR, "I choose option A because of its colour", "right", "mention"),
    (VSTAR, "I choose A", "right", "mention"),
    (VSTAR, "B because it is far", "wrong", "mention"),
    (VSTAR, "Bad picture", "undecided", "nothing_named"),  # a letter inside a word is none
    (VSTAR, "It could be B or C, but the answer is A.", "right", "stated"),
    (VSTAR, "Considering blue and green. Answer: red", "right", "stated"),
    (VSTAR, "The answer is (b)", "wrong", "stated"),
    (VSTAR, "The answer is not red.", "undecided", "negated"),
    (VSTAR, "Answer: A. No wait, answer: B.", "undecided", "contradictory"),
    (VSTAR, "It isn't red", "undecided", "negated"),
    (VSTAR, "There is no red one", "undecided", "negated"),
    (VSTAR, r"so \boxed{A}", "right", "letter"),
    (VSTAR, r"blue? \boxed{\text{red}}", "right", "option_text"),
    (VSTAR, r"\boxed{A} or \boxed{B}", "undecided", "contradictory"),
    (VSTAR, "", "unparsed", "empty"),
    (VSTAR, None, "unparsed", "empty"),
    (VSTAR, "...", "unparsed", "empty"),
    (VSTAR, "unknown", "undecided", "nothing_named"),
    (SENTENCE, "The color of the bin is red", "right", "option_text"),
    (SENTENCE, "red", "right", "part_of_option"),
    (SENTENCE, "the bin is red", "right", "part_of_option"),
    (SENTENCE, "The bin is left of the truck", "wrong", "option_text"),  # the order of words counts
    (SENTENCE, "truck is left", "wrong", "part_of_option"),
    (SENTENCE, "the bin", "undecided", "nothing_named"),  # part of several options
    (sample("hr", "A", ("not red", "red")), "A. not red", "right", "mention"),  # "not" belongs to the option
    (
        sample("hr", "A", ("B", "A")),
        "A",
        "undecided",
        "contradictory",
    ),  # the letter of one, the text of another
    (sample("hr", "C", ("2", "3", "2.5")), "2.5", "right", "option_text"),
    (sample("hr", "A", ("2", "3", "2.5")), "There are 2.", "right", "mention"),
    (sample("hr", "B", ("left", "Left ", "right")), "left", "right", "option_text"),  # equal options are one
    (YES, "yes", "right", "yes_no"),
    (YES, "Yes.", "right", "yes_no"),
    (YES, "no", "wrong", "yes_no"),
    (NO, "No.", "right", "yes_no"),
    (NO, "No, there is no dog.", "right", "mention"),
    (NO, "no there is none", "right", "mention"),
    (YES, "Yes, I can see it", "right", "mention"),
    (YES, "There is no doubt: yes", "right", "mention"),
    (YES, "No doubt about it", "undecided", "nothing_named"),  # "no" as a determiner is no verdict
    (YES, "yes and no", "undecided", "contradictory"),
    (YES, "The answer is yes.", "right", "stated"),
    (YES, "The answer is not no", "undecided", "negated"),
    (YES, "I know", "undecided", "nothing_named"),
    (YES, "A", "undecided", "nothing_named"),
    (NO, "", "unparsed", "empty"),
]

LONG = sample("vstar", "A", ("The bin is red.", "The bin is blue."))
HR_A = sample("hr", "A", COLOURS)
HR_D = sample("hr", "D", COLOURS)

# the original's rules, in their order: each case names the benchmark's rule that decides it
PAPER = [
    # V*, 1: one character is compared with "A"
    (VSTAR, "A", "right", "one_character"),
    (VSTAR, "B", "wrong", "one_character"),
    (VSTAR, "a", "wrong", "one_character"),
    (VSTAR, "1", "wrong", "one_character"),
    (VSTAR, " ", "wrong", "one_character"),
    (VSTAR, ".", "wrong", "one_character"),
    # V*, 2: two characters, one of them a full stop: right iff there is an A
    (VSTAR, "A.", "right", "letter_and_dot"),
    (VSTAR, ".A", "right", "letter_and_dot"),
    (VSTAR, "B.", "wrong", "letter_and_dot"),
    (VSTAR, "a.", "wrong", "letter_and_dot"),
    (VSTAR, "..", "wrong", "letter_and_dot"),
    (VSTAR, "A)", "undecided", "asks_llm"),  # no full stop
    (VSTAR, "AB", "undecided", "asks_llm"),
    (VSTAR, "A\n", "undecided", "asks_llm"),
    # V*, 3: "A. " and the option's text somewhere in it
    (VSTAR, "A. red", "right", "standard_answer_inside"),
    (VSTAR, "Surely A. red!", "right", "standard_answer_inside"),
    (VSTAR, "A. reddish", "right", "standard_answer_inside"),  # a substring, not a word
    (VSTAR, "Not A. red but B. blue", "right", "standard_answer_inside"),
    (LONG, "A. The bin is red.", "right", "standard_answer_inside"),
    (LONG, "A. The bin is red", "undecided", "asks_llm"),  # the full stop belongs to the option
    # V*, 4: everything else is for the model
    (VSTAR, "red", "undecided", "asks_llm"),
    (VSTAR, "A. Red", "undecided", "asks_llm"),
    (VSTAR, "A.red", "undecided", "asks_llm"),
    (VSTAR, "The answer is A.", "undecided", "asks_llm"),
    (VSTAR, "(A)", "undecided", "asks_llm"),
    (VSTAR, "", "undecided", "asks_llm"),
    (VSTAR, None, "undecided", "asks_llm"),
    # all benchmarks: what stands in the first box replaces the prediction
    (VSTAR, r"\boxed{A}", "right", "one_character"),
    (VSTAR, r"first \boxed{B} then \boxed{A}", "wrong", "one_character"),
    (VSTAR, r"\boxed{A", "right", "one_character"),  # to the end where no brace closes
    (VSTAR, r"\boxed{A.} and more", "right", "letter_and_dot"),
    (VSTAR, r"\boxed{A. red}", "right", "standard_answer_inside"),
    (VSTAR, r"\boxed{}", "undecided", "asks_llm"),
    (VSTAR, r"\boxed{\text{A}}", "undecided", "asks_llm"),  # cut at the first brace: "\text{A"
    (VSTAR, r"\boxed A", "undecided", "boxed_without_brace"),
    (HR, r"\boxed{B}", "right", "one_character"),
    (HR, r"\boxed{C} though B", "wrong", "one_character"),
    (NO, r"\boxed{no}", "right", "equal_length"),
    (NO, r"\boxed", "undecided", "boxed_without_brace"),
    # HR-Bench, 1: one character is compared with the row's letter
    (HR, "B", "right", "one_character"),
    (HR, "A", "wrong", "one_character"),
    (HR, "b", "wrong", "one_character"),
    (HR_D, "D", "right", "one_character"),
    # HR-Bench, 2
    (HR, "B.", "right", "letter_and_dot"),
    (HR, ".B", "right", "letter_and_dot"),
    (HR, "C.", "wrong", "letter_and_dot"),
    (HR, "b.", "wrong", "letter_and_dot"),
    # HR-Bench, 3: the letter anywhere
    (HR_A, "C. Apple", "right", "letter_anywhere"),
    (HR_A, "Answer: C", "right", "letter_anywhere"),
    (HR_A, "A, B, C or D", "right", "letter_anywhere"),
    (HR, "Blue", "right", "letter_anywhere"),
    (HR, "B)", "right", "letter_anywhere"),
    (HR, "(B) blue", "right", "letter_anywhere"),
    (HR, "Not B", "right", "letter_anywhere"),
    (HR_D, "Dark red", "right", "letter_anywhere"),
    # HR-Bench, 4
    (HR, "blue", "undecided", "asks_llm"),
    (HR, "A. red", "undecided", "asks_llm"),
    (HR, "", "undecided", "asks_llm"),
    (HR_A, "the answer is c", "undecided", "asks_llm"),
    # POPE, 1: equal length is compared to the letter
    (YES, "yes", "right", "equal_length"),
    (YES, "Yes", "wrong", "equal_length"),
    (YES, "YES", "wrong", "equal_length"),
    (YES, "abc", "wrong", "equal_length"),
    (YES, "no.", "wrong", "equal_length"),
    (NO, "no", "right", "equal_length"),
    (NO, "No", "wrong", "equal_length"),
    (NO, "A.", "wrong", "equal_length"),
    # POPE, 2
    (YES, "yes.", "undecided", "asks_llm"),
    (YES, "no", "undecided", "asks_llm"),
    (YES, "Yes, there is", "undecided", "asks_llm"),
    (NO, "yes", "undecided", "asks_llm"),
    (NO, "No.", "undecided", "asks_llm"),
    (NO, "", "undecided", "asks_llm"),
]


def name(case):
    return f"{case[3]}-{case[0].benchmark}-{case[1]!r}"


@pytest.mark.parametrize("case", STRICT, ids=name)
def test_strict(case):
    who, answer, verdict, rule = case
    assert judge(who, answer) == (verdict, rule)


@pytest.mark.parametrize("case", PAPER, ids=name)
def test_paper(case):
    who, answer, verdict, rule = case
    assert judge(who, answer, "paper") == (verdict, rule)


def test_the_paper_table_covers_every_rule_of_every_benchmark():
    assert len(PAPER) >= 60
    rules = {(case[0].benchmark, case[3]) for case in PAPER}
    common = {(b, r) for b in ("vstar", "hr") for r in ("one_character", "letter_and_dot", "asks_llm")}
    named = {
        ("vstar", "standard_answer_inside"),
        ("hr", "letter_anywhere"),
        ("pope", "equal_length"),
        ("pope", "asks_llm"),
    }
    assert rules >= common | named | {("vstar", "boxed_without_brace"), ("pope", "boxed_without_brace")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_failed_sample_is_an_error_in_both_protocols(protocol):
    assert judge(VSTAR, "A", protocol, failed=True) == ("error", "failed")


def test_an_unknown_protocol_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'strict'"):
        judge(VSTAR, "A", "strickt")


@given(st.text(max_size=80), st.sampled_from([VSTAR, HR, SENTENCE, YES, NO]), st.sampled_from(PROTOCOLS))
def test_any_reply_gets_a_verdict_and_a_rule(text, who, protocol):
    verdict, rule = judge(who, text, protocol)
    assert rule
    assert verdict in {"right", "wrong", "undecided"} | ({"unparsed"} if protocol == "strict" else set())


@given(
    st.sampled_from(COLOURS),
    st.sampled_from(["{}", "{}.", " {} ", "**{}**", "({})", "Answer: {}", "It is {}."]),
)
def test_an_option_named_alone_is_found_in_any_dress_and_case(option, dress):
    for text in (dress.format(option), dress.format(option).upper()):
        assert named_option(text, COLOURS)[0] == COLOURS.index(option)
