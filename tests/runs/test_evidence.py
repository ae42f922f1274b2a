"""Evidence fits together or is refused where it is made."""

from __future__ import annotations

import numpy as np
import pytest

from speceyes_lib.runs.evidence import Evidence, LayerEvidence

TOP = np.array([[-0.1, -2.5, -np.inf], [-0.3, -0.3, -4.0]])


def evidence(**changed) -> Evidence:
    fields = {
        "token_ids": [7, 9],
        "token_texts": ["red", "."],
        "chosen_logprobs": [-0.1, -0.3],
        "top_ids": [[7, 1, 2], [9, 3, 4]],
        "top_logprobs": TOP,
    }
    return Evidence(**fields | changed)


def test_arrays_have_the_types_that_are_stored():
    e = evidence()
    assert (e.n_tokens, e.k, e.token_texts) == (2, 3, ("red", "."))
    assert (e.token_ids.dtype, e.top_ids.dtype) == (np.int32, np.int32)
    assert (e.chosen_logprobs.dtype, e.top_logprobs.dtype) == (np.float32, np.float32)


def test_ties_and_excluded_tokens_are_in_order():
    assert evidence(top_logprobs=[[-0.1, -np.inf, -np.inf], [-1.0, -1.0, -1.0]]).k == 3


def test_an_empty_answer_is_evidence_of_no_tokens():
    empty = Evidence([], [], [], np.zeros((0, 4)), np.zeros((0, 4)))
    assert (empty.n_tokens, empty.k) == (0, 4)


@pytest.mark.parametrize(
    "changed",
    [
        {"token_texts": ["red"]},
        {"chosen_logprobs": [-0.1]},
        {"top_ids": [[7, 1, 2]]},
        {"top_ids": [7, 9], "top_logprobs": [-0.1, -0.3]},
        {"top_logprobs": TOP[:, ::-1]},
    ],
)
def test_evidence_that_does_not_fit_is_refused(changed):
    with pytest.raises(ValueError, match=r"fit|sorted"):
        evidence(**changed)


def test_equality_is_of_every_value():
    assert evidence().equals(evidence())
    assert not evidence().equals(evidence(token_texts=["red", "!"]))
    assert not evidence().equals(evidence(chosen_logprobs=[-0.1, -0.31]))


# ------------------------------------------------------------------ layers

INSIDE = {
    "depth": 4,
    "numbers": [1, 3],
    "top_ids": [[[7, 1], [7, 2]], [[4, 9], [9, 4]]],
    "top_logprobs": [[[-0.5, -2.0], [-0.1, -np.inf]], [[-0.7, -0.8], [-0.2, -1.5]]],
    "chosen_logprobs": [[-0.5, -0.1], [-0.8, -0.2]],
    "hidden": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
}


def layers(**changed) -> LayerEvidence:
    return LayerEvidence(**INSIDE | changed)


def test_layers_belong_to_the_tokens_of_their_evidence():
    e = evidence(layers=layers())
    assert (e.layers.k, e.layers.width, e.layers.top_logprobs.dtype) == (2, 3, np.float16)
    second = e.of_tokens([1])
    assert (second.token_ids.tolist(), second.layers.hidden.tolist()) == ([9], [[4.0, 5.0, 6.0]])
    assert second.layers.top_ids.tolist() == [[[4, 9], [9, 4]]]
    with pytest.raises(ValueError, match="fit"):
        evidence(layers=second.layers)


def test_the_state_of_one_token_is_kept_or_of_none():
    assert layers().with_state_of(1).hidden.tolist() == [[4.0, 5.0, 6.0]]
    assert layers().with_state_of(None).hidden.shape == (0, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"numbers": [1, 2, 3]},
        {"chosen_logprobs": [[-0.5], [-0.8]]},
        {"top_logprobs": [[[-0.5], [-0.1]], [[-0.7], [-0.2]]]},
        {"hidden": [1.0, 2.0]},
    ],
)
def test_layers_that_do_not_fit_are_refused(changed):
    with pytest.raises(ValueError, match="fit"):
        layers(**changed)


def test_equality_is_of_the_layers_too():
    assert evidence(layers=layers()).equals(evidence(layers=layers()))
    assert not evidence(layers=layers()).equals(evidence())
    assert not evidence(layers=layers()).equals(evidence(layers=layers(depth=5)))
