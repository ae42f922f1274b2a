"""Exits of a draft at intermediate layers, on answers of one to three tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speceyes_lib.replay import early_exit
from speceyes_lib.replay.early_exit import LayerPredictions

# two answers: one token that settles at layer 2, then two tokens, the second of which settles at the last layer
DATA = LayerPredictions(
    numbers=np.array([1, 2, 3, 4]),
    offsets=np.array([0, 1, 3]),
    predicted=np.array([[5, 7, 7, 7], [8, 8, 8, 8], [1, 2, 1, 9]]),
    probability=np.array([[0.6, 0.7, 0.9, 0.99], [0.8, 0.9, 0.9, 0.9], [0.2, 0.5, 0.7, 0.6]]),
)


def test_an_exit_at_one_layer_is_what_that_layer_predicts():
    at_two = early_exit.exits(DATA, 0.0, first=2)
    assert at_two.tokens.tolist() == [7, 8, 2]
    assert at_two.layers.tolist() == [2, 2]
    assert at_two.changed.tolist() == [False, True]
    assert at_two.checks.tolist() == [0, 0]  # the product at layer 2 takes the place of the last one
    assert at_two.exact.all()


def test_tokens_leave_where_they_are_sure_enough_and_pay_for_looking():
    sure = early_exit.exits(DATA, 0.7)
    assert sure.tokens.tolist() == [7, 8, 1]
    assert sure.layers.tolist() == [2, (1 + 3) / 2]
    assert sure.checks.tolist() == [1, (0 + 2) / 2]
    never = early_exit.exits(DATA, 1.1)
    assert never.tokens.tolist() == [7, 8, 9]
    assert never.layers.tolist() == [4, 4]
    assert never.checks.tolist() == [3, 3]
    assert not never.changed.any()


def test_the_ceiling_changes_no_answer_and_computes_as_little_as_that_allows():
    best = early_exit.best_exits(DATA)
    assert best.layers.tolist() == [2, (1 + 4) / 2]
    assert not best.changed.any()
    assert best.checks.tolist() == [0, 0]


def test_an_answer_with_tokens_behind_a_changed_one_is_not_exact():
    data = LayerPredictions(
        DATA.numbers, np.array([0, 3]), DATA.predicted[[0, 1, 2]], DATA.probability[[0, 1, 2]]
    )
    early = early_exit.exits(data, 0.0)
    assert early.tokens.tolist() == [5, 8, 1]
    assert (early.changed.tolist(), early.exact.tolist()) == ([True], [False])


@given(
    hnp.arrays(np.int64, (6, 5), elements=st.integers(0, 2)),
    hnp.arrays(np.float64, (6, 5), elements=st.floats(0, 1)),
    st.floats(0, 1.2),
    st.integers(1, 5),
)
def test_an_exit_lies_between_its_first_layer_and_the_last_and_the_ceiling_keeps_every_answer(
    predicted, p, threshold, first
):
    data = LayerPredictions(np.arange(1, 6), np.array([0, 1, 3, 6]), predicted, p)
    rule, best = early_exit.exits(data, threshold, first), early_exit.best_exits(data)
    assert ((rule.layers >= first - 1e-12) & (rule.layers <= 5)).all()
    assert ((rule.checks >= 0) & (rule.checks <= 5 - first)).all()
    assert (rule.exact | rule.changed).all()
    assert not best.changed.any()
    higher = early_exit.exits(data, threshold + 0.1, first)
    assert (higher.layers >= rule.layers - 1e-12).all()


@pytest.mark.parametrize(
    ("layers", "prompt", "tokens", "checks", "expected"),
    [
        (14, 0, 1, 0, 0.5),
        (14, 1000, 1, 1, 0.5 - 6 / (28 * 1001)),
        (28, 100, 2, 0, 0.0),
        (28, 0, 1, 3, -18 / 28),  # a short answer without a prompt pays more for looking than it can save
    ],
)
def test_what_leaving_saves_by_hand(layers, prompt, tokens, checks, expected):
    assert early_exit.saved_share(layers, 28, prompt, tokens, checks, head=6) == pytest.approx(expected)
