"""Other programs' scoring rules, quirk by quirk."""

from __future__ import annotations

import pytest

from speceyes_lib.judging.other_scorers import SCORERS, Target, pope_own_yes_no, vlmevalkit_yes_no

OPTIONS = ("red", "blue", "dark red", "green")


def target(benchmark: str, answer: str) -> Target:
    if benchmark == "pope":
        return Target("pope", None, answer, answer)
    return Target(benchmark, OPTIONS, answer, f"{answer}. {OPTIONS['ABCD'.index(answer)]}")


CASES = [  # scorer, benchmark, right answer, reply, score
    ("lmms-eval", "vstar", "B", "Blue", "right"),  # a leading letter, even of a word
    ("lmms-eval", "vstar", "D", "dark red", "right"),
    ("lmms-eval", "vstar", "A", "red", "wrong"),  # no pattern but the single letter D in it
    ("lmms-eval", "vstar", "D", "red", "right"),
    ("lmms-eval", "vstar", "B", "the answer is b", "right"),  # upper-cased first
    ("lmms-eval", "vstar", "A", "The answer is (A)", "right"),
    ("lmms-eval", "vstar", "A", "I think: (A), not (B)", "right"),  # the first match
    ("lmms-eval", "vstar", "B", "It must be B) then", "right"),
    ("lmms-eval", "vstar", "C", "so C it is", "right"),
    ("lmms-eval", "vstar", "A", "unknown", "wrong"),
    ("lmms-eval", "vstar", "A", "", "wrong"),
    ("lmms-eval", "vstar", "B", "It is optional (B)", "right"),  # OPTION within a word is no option
    ("lmms-eval", "vstar", "B", "My choice: blue", "right"),  # the letter after the word, even of a word
    ("lmms-eval", "vstar", "D", "Something red.", "right"),  # the last letter of a word before a full stop
    ("lmms-eval", "vstar", "C", "it's 'C', or (B)", "wrong"),  # a letter alone has blanks around it
    ("lmms-eval", "hr", "B", "It is B.", "right"),
    ("lmms-eval", "hr", "B", "B-side, red", "wrong"),  # no token of its own
    ("lmms-eval", "hr", "B", "Z", "wrong"),
    ("lmms-eval", "hr", "B", "A or B", "undecided"),  # two letters, no option
    ("lmms-eval", "hr", "B", "blue", "right"),
    ("lmms-eval", "hr", "A", "dark red", "undecided"),  # "red" is inside it as well
    ("lmms-eval", "hr", "B", "azure", "undecided"),
    ("lmms-eval", "pope", "yes", " Yes\n", "right"),
    ("lmms-eval", "pope", "yes", "yes.", "wrong"),
    ("VLMEvalKit", "vstar", "A", "A", "right"),
    ("VLMEvalKit", "vstar", "A", "(A) red", "right"),
    ("VLMEvalKit", "vstar", "B", "A or B", "wrong"),  # two letters, and no option's text
    ("VLMEvalKit", "vstar", "C", "C is what I would say here", "wrong"),  # too far from the end, too long
    ("VLMEvalKit", "vstar", "A", "It says A or B, the answer is A", "right"),
    ("VLMEvalKit", "vstar", "C", "C as one can see", "wrong"),  # before the last four tokens
    ("VLMEvalKit", "vstar", "C", "C one can see", "right"),
    ("VLMEvalKit", "vstar", "B", "A is out, so the answer is **B** I would say after a look", "right"),
    ("VLMEvalKit", "vstar", "D", "The answer is dark, A or not, as far as I can tell from here", "right"),
    ("VLMEvalKit", "hr", "B", "blue", "right"),
    ("VLMEvalKit", "hr", "A", "red", "right"),
    ("VLMEvalKit", "hr", "C", "dark red", "wrong"),  # "red" is inside it as well
    ("VLMEvalKit", "hr", "B", "blue " * 12, "wrong"),  # longer than twice the options
    ("VLMEvalKit", "pope", "no", "No, there is not", "right"),
    ("VLMEvalKit", "pope", "no", "yes and no", "wrong"),
    ("VLMEvalKit", "pope", "no", "nothing", "wrong"),
    ("POPE's own", "pope", "no", "No, there is none", "right"),
    ("POPE's own", "pope", "no", "It is not there", "right"),
    ("POPE's own", "pope", "yes", "", "right"),  # everything else is yes, silence included
    ("POPE's own", "pope", "no", "NO", "wrong"),  # not one of the three spellings
    ("POPE's own", "pope", "no", "Well. No", "wrong"),  # after the first full stop
    ("POPE's own", "vstar", "A", "A", None),
    ("DeepEyes judge", "vstar", "A", "A.", "right"),
    ("DeepEyes judge", "vstar", "A", "red", "undecided"),
    ("DeepEyes judge", "hr", "A", "A", None),
    ("paper", "hr", "A", "C. Apple", "right"),
    ("strict", "hr", "A", "C. Apple", "wrong"),
    ("strict", "hr", "A", "", "wrong"),
    ("paper", "pope", "yes", "Yes", "wrong"),
    ("strict", "pope", "yes", "Yes", "right"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[3][:20]!r}")
def test_documented_behaviour(case):
    scorer, benchmark, answer, reply, score = case
    assert SCORERS[scorer](target(benchmark, answer), reply, False) == score


def test_a_failed_sample_is_dropped_counted_as_wrong_or_taken_for_silence():
    failed = {name: scorer(target("vstar", "A"), "", True) for name, scorer in SCORERS.items()}
    assert failed == {
        "paper": "dropped",
        "strict": "wrong",
        "DeepEyes judge": "wrong",
        "lmms-eval": "wrong",
        "VLMEvalKit": "wrong",
        "POPE's own": None,
    }
    assert SCORERS["POPE's own"](target("pope", "yes"), "", True) == "right"


def test_yes_and_no_are_read_differently():
    assert [pope_own_yes_no(s) for s in ("no", "Yes", "maybe", "nope")] == ["no", "yes", "yes", "yes"]
    assert [vlmevalkit_yes_no(s) for s in ("NO!", "Yes", "maybe", "nope")] == ["no", "yes", None, None]
