"""Scores beside the paper's four, on answers of a few tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_drafts import population

from speceyes_lib.gating import scores
from speceyes_lib.gating.separability import flatten_answers, score_answer
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.stats.ranking import auroc


def logprobs(*probabilities: float) -> list[float]:
    return [float(np.log(p)) for p in probabilities]


def one(*tokens: list[float], k: int = 3) -> dict[str, float]:
    result = scores.score_answers(np.array(tokens), [0, len(tokens)], k=k)
    return {name: float(values[0]) for name, values in result.items()}


# ------------------------------------------------------------------ from evidence


def test_scores_of_a_two_token_answer_by_hand():
    result = one(logprobs(0.8, 0.1, 0.05), logprobs(0.5, 0.3, 0.2))
    assert result["min_prob"] == pytest.approx(0.5)
    assert result["sequence"] == pytest.approx(0.4)
    assert result["log"] == pytest.approx(np.sqrt(0.4))
    assert result["margin"] == pytest.approx(0.2)
    entropy = -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2))
    assert result["entropy"] == pytest.approx(1 - entropy / np.log(3))
    # gap of the second token: log(5/3), so (0.5 - 0.3) / (0.5 + 0.3) = 1/4
    assert result["tie_aware"] == pytest.approx(result["min"] * 0.25)


def test_entropy_is_of_the_stored_alternatives_renormalised():
    assert one(logprobs(0.4, 0.1, 0.1))["entropy"] == pytest.approx(
        one(logprobs(4 / 6, 1 / 6, 1 / 6))["entropy"]
    )
    assert one(logprobs(1 / 3, 1 / 3, 1 / 3))["entropy"] == pytest.approx(0)


def test_an_answer_without_tokens_or_with_a_nan_has_no_score_and_a_masked_rival_is_none():
    top, offsets = flatten_answers(
        [np.empty((0, 3)), [[np.nan, -1.0, -2.0]], [[0.0, -np.inf, -np.inf]], [logprobs(0.6, 0.3, 0.1)]]
    )
    result = scores.score_answers(top, offsets, k=3)
    for name, values in result.items():
        assert np.isnan(values[:2]).all(), name
        assert np.isfinite(values[2:]).all(), name
        assert values[2] == pytest.approx(1), name


@given(
    st.lists(
        st.lists(st.floats(-30, 30), min_size=6, max_size=6).map(lambda z: sorted(z, reverse=True)),
        min_size=1,
        max_size=5,
    )
)
def test_scores_stay_in_bounds_and_order(logits):
    z = np.array(logits)
    top = (
        z
        - np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
        - z.max(axis=1, keepdims=True)
    )
    result = one(*top.tolist(), k=6)
    for name, value in result.items():
        assert -1e-9 <= value <= 1 + 1e-9, name
    assert result["tie_aware"] <= result["min"] + 1e-12
    assert result["sequence"] <= result["min_prob"] + 1e-12 <= result["log"] + 1e-9
    assert result["margin"] <= result["min_prob"] + 1e-12


def test_the_options_score_reads_letters_words_and_split_words():
    def evidence(texts, chosen, alternatives, probabilities):
        ids = {text: i for i, text in enumerate(texts)}
        return Evidence(
            [ids[c] for c in chosen],
            tuple(chosen),
            [0.0] * len(chosen),
            [[ids[a] for a in row] for row in alternatives],
            [logprobs(*row) for row in probabilities],
        )

    vocabulary = ["A", "B", "red", " re", "d", "blue", "x", "The"]
    stored = {
        "letter": evidence(vocabulary, ["B"], [["B", "A", "x"]], [[0.6, 0.2, 0.1]]),
        "word": evidence(vocabulary, ["red"], [["red", "blue", "x"]], [[0.5, 0.25, 0.2]]),
        "split": evidence(
            vocabulary, [" re", "d"], [[" re", "blue", "x"], ["d", "x", "A"]], [[0.3, 0.1, 0.1]] * 2
        ),
        "neither": evidence(vocabulary, ["The"], [["The", "A", "B"]], [[0.9, 0.05, 0.01]]),
        "knows": evidence(vocabulary, ["blue", "x", "A"], [["blue", "x", "A"]] * 3, [[0.5, 0.3, 0.1]] * 3),
    }
    offered = ("red", "blue")
    ids = ["letter", "word", "split", "neither", "absent"]
    result = scores.option_score(stored, ids, [offered] * len(ids))
    assert result[:3] == pytest.approx([0.75, 2 / 3, 0.75])
    assert np.isnan(result[3:]).all()
    assert np.isnan(scores.option_score(stored, ["word"], [()])).all()  # options not recorded


def test_the_router_is_sure_when_no_outweighs_yes():
    result = scores.router_score([-3.0, -0.1, np.nan], [-0.1, -3.0, -1.0])
    assert result[0] > 0.9
    assert result[1] < 0.1
    assert np.isnan(result[2])


def test_the_geometry_of_ties_is_the_published_one():
    def tied(k: int, ways: int) -> float:
        """The score of one token with as many equal best alternatives, the others equal far below."""
        return round(score_answer([[0.0] * ways + [-30.0] * (k - ways)], "min", k), 3)

    assert [tied(64, ways) for ways in (2, 3, 4)] == [0.991, 0.965, 0.936]
    assert [tied(k, 2) for k in (96, 32, 20)] == [0.997, 0.964, 0.927]


def test_only_separability_is_blind_to_a_tie():
    rest = -np.sort(-np.random.default_rng(0).normal(-12, 1, 62))
    z = np.stack([[0.0, -gap, *rest] for gap in (0.0, 0.5, 3.0)])  # a token of each answer
    top = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    values = scores.score_answers(top, range(4))
    assert (values["min"] > 0.97).all()  # the thresholds in use accept all of them
    assert values["tie_aware"][0] == values["margin"][0] == 0
    assert (np.diff(values["tie_aware"]) > 0).all()


def test_the_smallest_margin_is_that_of_the_closest_tie():
    top, offsets = flatten_answers([[logprobs(0.6, 0.2), logprobs(0.4, 0.4)], np.empty((0, 2))])
    assert scores.smallest_margin(top, offsets)[0] == pytest.approx(0)
    assert np.isnan(scores.smallest_margin(top, offsets)[1])


# ------------------------------------------------------------------ the combination


def test_the_combination_ranks_better_than_either_part():
    table, right, groups = population()
    combined = scores.combination(table, right, groups)
    assert auroc(combined, right).value > max(auroc(table[name], right).value for name in table)
    assert np.array_equal(combined, scores.combination(table, right, groups))  # seeded


def test_no_sample_is_scored_by_a_model_that_saw_its_group():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 4)
    right = np.repeat(
        rng.uniform(size=60) < 0.5, 4
    )  # one truth per group, and features that give the group away
    table = pd.DataFrame(np.repeat(rng.uniform(0.1, 0.9, (60, 30)), 4, axis=0))
    leaking = scores.combination(table, right, None)
    kept_apart = scores.combination(table, right, groups)
    assert auroc(leaking, right).value > 0.8
    assert auroc(kept_apart, right).value < 0.65


def test_a_combination_needs_right_and_wrong_drafts_and_bears_holes():
    table, right, groups = population(80)
    assert np.isnan(scores.combination(table, np.ones(80), groups)).all()
    table.loc[3, "min"] = table.loc[5] = np.nan
    combined = scores.combination(table.assign(router=np.nan), right, groups)
    assert np.isfinite(combined[3])
    assert np.flatnonzero(np.isnan(combined)).tolist() == [5]
