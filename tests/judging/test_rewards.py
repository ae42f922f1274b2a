"""The reward of a trajectory, branch by branch, under the rules of the recipe, of the original and of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.judging.rewards import (
    LONGEST_ANSWER,
    THINKLITE,
    VARIANTS,
    by_rule,
    decompose,
    read_answer,
    read_verdict,
    reward,
)
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.sample import Sample

CALL = '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 9, 9]}}\n</tool_call>'
CROP = "\nuser\n<tool_response>\nThe box [0, 0, 9, 9].\n</tool_response>\nassistant\n"
REFUSED = "\nuser\n<tool_response>\nError: the box is too small.\n</tool_response>\nassistant\n"
ANSWER = "<think>I look.</think><answer>red</answer>"
# name: text, crops that came back, then (right, wrong) of the recipe, of the original, and of strict
VECTORS = {
    "thought and answer": (ANSWER, 0, (0.8, 0.0), (0.8, 0.0), (0.8, 0.0)),
    "one crop": (f"<think>a</think>{CALL}{CROP}{ANSWER}", 1, (2.0, 0.0), (2.0, 0.0), (2.0, 0.0)),
    "two crops": (f"{CALL}{CROP}{CALL}{CROP}{ANSWER}", 2, (2.0, 0.0), (2.0, 0.0), (2.0, 0.0)),
    "call that cannot be parsed": (
        "<think>a</think><tool_call>zoom!</tool_call><answer>red</answer>",
        0, (2.0, 0.0), (0.8, 0.0), (0.8, 0.0),
    ),
    "call within a thought": (
        f"<think>I could {CALL}.</think><answer>red</answer>", 0, (2.0, 0.0), (0.8, 0.0), (0.8, 0.0),
    ),
    "refused call": (f"{CALL}{REFUSED}{ANSWER}", 0, (2.0, 0.0), (0.8, 0.0), (0.8, 0.0)),
    "call that is not closed": (f"<tool_call>zoom {ANSWER}", 0, (0.8, 0.0), (0.8, 0.0), (0.8, 0.0)),
    "thought that is not closed": (
        "<think>a<answer>red</answer>", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2),
    ),
    "thought closed twice": (
        "<think>a</think></think><answer>red</answer>", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2),
    ),
    "answer that is not closed": ("<think>a</think><answer>red", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2)),
    "two answers": (
        "<think>a</think><answer>red</answer><answer>red</answer>", 0, (0.8, 0.0), (0.8, 0.0), (0.8, 0.0),
    ),
    "no tags": ("red", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2)),
    "thought without answer": ("<think>a</think>red", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2)),
    "crop, then a line without tags": (f"{CALL}{CROP}red\nblue", 1, (1.8, -0.2), (1.8, -0.2), (1.8, -0.2)),
    "empty answer": ("<think>a</think><answer> </answer>", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2)),
    "nothing": ("", 0, (0.6, -0.2), (0.6, -0.2), (0.6, -0.2)),
    "long answer": (
        f"<think>a</think><answer>{'x' * (LONGEST_ANSWER + 1)}</answer>",
        0, (-0.2, -0.2), (-0.2, -0.2), (-0.2, -0.2),
    ),
    "longest answer": (
        f"<think>a</think><answer>{'x' * LONGEST_ANSWER}</answer>", 0, (0.8, 0.0), (0.8, 0.0), (0.8, 0.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", VECTORS)
def test_every_branch_pays_what_its_rules_say(name, variant):
    text, crops, *points = VECTORS[name]
    for right, expected in zip((True, False), points[VARIANTS.index(variant)], strict=True):
        assert reward(text, lambda answer, r=right: r, variant=variant, crops=crops).score == expected


@pytest.mark.parametrize("name", VECTORS)
def test_a_judge_that_fails_pays_0_by_the_recipe_and_nothing_here(name):
    text, crops, *_ = VECTORS[name]
    rewards = {v: reward(text, lambda answer: None, variant=v, crops=crops) for v in VARIANTS}
    expected = {"recipe": 0.0, "original": 0.0, "strict": None}
    if name == "long answer":  # no judge is called
        expected = dict.fromkeys(VARIANTS, -0.2)
    assert {variant: paid.score for variant, paid in rewards.items()} == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer>red</answer><answer>blue</answer>", "red"),
        (f"{CALL}{CROP}red\nblue", "red"),
        ("<think>a</think>red", "red"),
        (f"<think>a</think>{CALL} user assistant red", "red"),
        ("red", "red"),
        ("<answer></answer>", "<answer></answer>"),
        ("<think><answer>blue</answer></think><answer>red</answer>", "red"),
    ],
)
def test_the_answer_is_read_where_the_recipe_reads_it(text, answer):
    assert read_answer(text)[0] == answer


def test_the_original_takes_the_last_answer():
    text = "<think>a</think><answer>red</answer><answer>blue</answer>"
    assert (read_answer(text)[0], read_answer(text, last=True)[0]) == ("red", "blue")


def test_the_original_scores_puzzles_without_the_tool():
    paid = {
        text: reward(text, lambda answer: answer == "7", variant="original", crops=1, data_source=THINKLITE)
        for text in (r"so \boxed{3}, no, \boxed{ 7 }", r"\boxed{3}", "7", "seven")
    }
    assert [r.score for r in paid.values()] == [1.2, 0.0, 0.8, -0.4]


@pytest.mark.parametrize(
    ("reply", "recipe", "original", "strict"),
    [
        ("CORRECT", True, None, True),
        ("**Correct.**", True, None, True),
        ("INCORRECT", False, None, False),
        ("incorrect\n", False, None, False),
        ("not correct", True, None, None),
        ("CORRECT or INCORRECT?", True, None, None),
        ("The answer is INCORRECT", False, None, None),
        ("", False, None, None),
        ("I cannot say", False, None, None),
        ("1", False, True, None),
        ("0", False, False, None),
    ],
)
def test_a_verdict_is_read_as_each_variant_reads_it(reply, recipe, original, strict):
    assert [read_verdict(reply, v) for v in VARIANTS] == [recipe, original, strict]


def test_the_rule_of_the_suite_can_be_the_judge():
    place = {
        "id": "vstar/direct_attributes/x",
        "benchmark": "vstar",
        "split": "direct_attributes",
        "key": "x",
    }
    picture = ImageRef(Path("x.png"))
    is_right = by_rule(Sample(**place, question="Which?", options=("red", "blue"), answer="A", image=picture))
    assert [reward(f"<think>a</think><answer>{a}</answer>", is_right).score for a in ("A", "red", "B", "?")] == [
        0.8, 0.8, 0.0, 0.0,
    ]  # fmt: skip


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match=r"'strikt': expected one of recipe, original, strict \(did you mean"):
        reward("x", lambda answer: True, variant="strikt")


def test_scores_decompose_into_what_they_were_made_of():
    parts = decompose([-0.2, 0.0, 0.6, 0.8, 1.8, 2.0, 0.7, np.nan])
    assert parts["right"].tolist()[:6] == [0, 0, 1, 1, 1, 1]
    assert parts["format_error"].tolist()[:6] == [1, 0, 1, 0, 1, 0]
    assert parts["tool"].tolist()[:6] == [0, 0, 0, 0, 1, 1]
    assert parts.iloc[6:, 1:].isna().all(axis=None)


TAGS = ("<think>", "</think>", "<answer>", "</answer>", CALL, CROP, REFUSED, "red", "\n", "assistant")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(TAGS), max_size=12), st.booleans(), st.integers(0, 2), st.sampled_from(VARIANTS)
)
def test_any_text_has_one_of_six_scores_which_decomposes_to_its_parts(pieces, right, crops, variant):
    paid = reward("".join(pieces), lambda answer: right, variant=variant, crops=crops)
    parts = decompose([paid.score]).iloc[0]
    assert parts["score"] == paid.score
    assert parts[["right", "format_error", "tool"]].tolist() == [
        paid.right, paid.format_error, paid.right and paid.tool,
    ]  # fmt: skip
