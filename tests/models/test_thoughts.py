"""Thoughts are cut by one rule, from the text of a reply and from its tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.models.base import Generation, answer_only
from speceyes_lib.models.thoughts import end_of_thoughts, visible_tokens, without_thoughts
from speceyes_lib.runs.evidence import Evidence


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" B ", "B"),
        ("<think>A</think> B", "B"),
        ("<think>A</think>\n<answer>B</answer>", "<answer>B</answer>"),
        ("A</think>B", "B"),
        ("A</think>C</think>B", "B"),
        ("<think>A", ""),
        ("<think>A <answer>B</answer>", "<answer>B</answer>"),
        ("<think>A <tool_call>{}", "<tool_call>{}"),
        ("<think>A <code>x</code>", "<code>x</code>"),
        ("<think>A <answer>C</answer></think><answer>B</answer>", "<answer>B</answer>"),
        ("First <think>A</think> then", "First   then"),
        ("[THINK]A[/THINK]B", "B"),
        ("◁think▷A◁/think▷B", "B"),
        ("<reasoning>A</reasoning>B", "B"),
        ("<|begin_of_thought|>A<|end_of_thought|>B", "B"),
        ("I think <b>B</b>", "I think <b>B</b>"),
    ],
)
def test_the_answer_is_what_stands_outside_thoughts(text, answer):
    assert without_thoughts(text) == answer


parts = st.lists(
    st.sampled_from(["<think>", "</think>", "[THINK]", "<answer>", "A", "B ", " ", "</", "é"]), max_size=9
)


@given(parts)
@settings(deadline=None)
def test_tokens_are_kept_as_their_text_is_however_it_is_split(tokens):
    text = "".join(tokens)
    for split in (tokens, list(text)):
        kept = "".join(split[i] for i in visible_tokens(split))
        assert "".join(kept.split()) == "".join(without_thoughts(text).split())


@given(parts)
@settings(deadline=None)
def test_a_closed_thought_in_front_changes_nothing(tokens):
    text = "".join(tokens)
    assert without_thoughts("<think>It is A.</think>" + text) == without_thoughts(text)
    assert end_of_thoughts("A</think>" + text) >= len("A</think>")


def generation(*texts: str) -> Generation:
    n = len(texts)
    top = -np.arange(2.0 * n).reshape(n, 2)
    evidence = Evidence(range(n), texts, top[:, 0], np.zeros((n, 2)), top)
    return Generation("x", "".join(texts), tuple(range(n)), "stop", 1.0, 1, evidence)


def test_an_answer_keeps_the_evidence_of_its_own_tokens_and_the_cost_of_all():
    whole = generation("<think>", "A", "</", "think>", "B", " red")
    cut = answer_only(whole)
    assert (cut.text, cut.evidence.token_texts, cut.token_ids) == ("B red", ("B", " red"), whole.token_ids)
    np.testing.assert_array_equal(cut.evidence.top_logprobs, whole.evidence.top_logprobs[4:])
    plain = generation("B", " red")
    assert answer_only(plain).evidence is plain.evidence


def test_a_thought_without_an_answer_is_a_failure_that_shows_it():
    cut = answer_only(generation("<think>", "Maybe", " A"))
    assert (cut.text, cut.evidence, cut.finish_reason) == ("", None, "error")
    assert "'<think>Maybe A'" in cut.error.message
    assert "turn the model's thoughts off" in cut.error.message
    assert answer_only(generation()).error is None
