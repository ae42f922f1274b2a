"""The gate accepts strictly above its threshold, and the threshold follows the stated rule."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.gating.gate import accepts, candidate_thresholds, count_accepted, gated_right
from speceyes_lib.gating.threshold import choose_threshold

# confidence (few distinct values, so that ties are common; nan = no score), draft right, agent right, routed
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 0.6, 0.75, 0.9, 1.0, math.nan]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


def columns(samples):
    return [np.array(column) for column in zip(*samples, strict=True)]


def test_gate_accepts_strictly_above_the_threshold_and_never_without_a_confidence():
    assert accepts([0.96, 0.97, 0.98, math.nan, None], 0.97).tolist() == [False, False, True, False, False]
    assert accepts(0.98, 0.97)
    assert not accepts(1.0, 1.0)


def test_gate_refuses_a_threshold_that_is_nan():
    with pytest.raises(UserError, match="threshold is nan"):
        accepts([0.5], math.nan)


def test_routed_samples_keep_the_agents_answer_whatever_the_confidence():
    right = gated_right(
        [0.99, 0.99, 0.5], [True, True, True], [False, False, False], 0.9, [False, True, False]
    )
    assert right.tolist() == [True, False, False]


def test_lowest_threshold_not_below_the_agent_is_chosen():
    confidence = [0.6, 0.7, 0.8, 0.9]
    draft_right = [False, True, True, True]
    point = choose_threshold(confidence, draft_right, agent_right=[True] * 4)
    assert point.threshold == pytest.approx(0.65)
    assert (point.accepted.value, point.accuracy.value, point.baseline_accuracy.value) == (75.0, 100.0, 100.0)
    generous = choose_threshold(confidence, draft_right, agent_right=[True] * 4, delta_pp=25.0)
    assert (generous.threshold, generous.accuracy.value) == (0.0, 75.0)


@settings(max_examples=200, deadline=None)
@given(samples=SAMPLES, delta_pp=st.sampled_from([0.0, 1.0, 10.0, 50.0]))
def test_choice_equals_a_search_by_brute_force(samples, delta_pp):
    confidence, draft, agent, routed = columns(samples)
    point = choose_threshold(confidence, draft, agent, routed, delta_pp)

    def funnel_pct(threshold):
        return 100 * gated_right(confidence, draft, agent, threshold, routed).mean()

    allowed = [t for t in point.curve.threshold if funnel_pct(t) >= 100 * agent.mean() - delta_pp - 1e-9]
    scored = ~routed & ~np.isnan(confidence)
    assert point.threshold == (min(allowed) if scored.any() else 1.0)
    assert point.accuracy.value == pytest.approx(funnel_pct(point.threshold))
    assert point.accepted.value == pytest.approx(
        100 * (accepts(confidence, point.threshold) & ~routed).mean()
    )
    assert point.curve.accuracy_pct.tolist() == pytest.approx([funnel_pct(t) for t in point.curve.threshold])
    assert (np.diff(point.curve.accepted_pct) <= 0).all()


ONE_ULP_APART = [0.75, np.nextafter(0.75, 1), np.nextafter(np.nextafter(0.75, 1), 1)]


@given(st.lists(st.floats(0.0, 1.0), max_size=8))
@example(ONE_ULP_APART)
def test_candidates_separate_every_two_distinct_scores_even_neighbouring_floats(scores):
    candidates = candidate_thresholds(scores)
    accepted = {int(accepts(scores, t).sum()) for t in candidates}
    assert accepted == {sum(s > t for s in scores) for t in [0.0, *scores, 1.0]}
    assert list(candidates) == sorted(set(candidates))


@given(samples=SAMPLES, thresholds=st.lists(st.sampled_from([0.0, 0.5, 0.55, 0.75, 0.9, 1.0]), max_size=5))
def test_counting_by_one_sort_equals_counting_at_each_threshold(samples, thresholds):
    score, draft, *_ = columns(samples)
    counts, sums = count_accepted(score, draft.astype(int), np.array(thresholds, dtype=float))
    assert counts.tolist() == [int(accepts(score, t).sum()) for t in thresholds]
    assert sums.tolist() == [int(draft[accepts(score, t)].sum()) for t in thresholds]


def test_order_of_the_samples_does_not_matter():
    rng = np.random.default_rng(5)
    confidence, draft, agent = rng.random(60).round(1), rng.random(60) < 0.7, rng.random(60) < 0.8
    shuffled = rng.permutation(60)
    first = choose_threshold(confidence, draft, agent)
    second = choose_threshold(confidence[shuffled], draft[shuffled], agent[shuffled])
    assert first.as_dict() == second.as_dict()


@pytest.mark.parametrize(
    ("confidence", "routed"), [([], []), ([0.9, 0.8], [True, True]), ([math.nan, math.nan], [False, False])]
)
def test_without_any_confidence_nothing_is_accepted(confidence, routed):
    right = [True] * len(confidence)
    point = choose_threshold(confidence, right, right, routed)
    assert point.threshold == 1.0
    assert point.n == len(confidence)
    assert point.accepted.n == len(confidence)
    json.dumps(point.as_dict(), allow_nan=False)


def test_operating_point_states_rule_and_denominators():
    point = choose_threshold([0.6, 0.9], [False, True], [True, True], [False, False])
    assert "lowest threshold" in point.rule
    assert "at most 0 percentage points" in point.rule
    assert str(point).count("(n=2)") == 3
    assert point.n_drafted == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": [0.5, 1.5]}, r"must lie in \[0, 1\]"),
        ({"confidence": [0.5]}, "lengths differ: confidence 1, draft_right 2"),
        ({"draft_right": [True, None]}, r"draft_right\[1\] .* expected true or false"),
        ({"agent_right": [2, 1]}, r"agent_right\[0\] is 2"),
        ({"delta_pp": -1.0}, "delta_pp must be at least 0"),
        ({"delta_pp": math.nan}, "delta_pp must be at least 0"),
    ],
)
def test_impossible_input_is_refused(arguments, message):
    given_ = {"confidence": [0.5, 0.9], "draft_right": [True, True], "agent_right": [True, True]}
    with pytest.raises(UserError, match=message):
        choose_threshold(**(given_ | arguments))
