"""Estimates equal their textbook definitions, carry their denominator and survive having nothing to say."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from speceyes_lib.errors import UserError
from speceyes_lib.stats import intervals, resampling
from speceyes_lib.stats.intervals import proportion, wilson
from speceyes_lib.stats.paired import paired_test, speedup
from speceyes_lib.stats.proportions import (
    accuracy,
    cluster_bootstrap,
    funnel_shares,
    yes_no_scores,
)
from speceyes_lib.stats.ranking import auroc, risk_coverage, rolling_accuracy

SCORED = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.5, 0.8, 0.99]), st.booleans()), min_size=1, max_size=30
)


def columns(pairs):
    return [np.array(column) for column in zip(*pairs, strict=True)]


def draw(n: int, seed: int = 0, skill: float = 1.0):
    rng = np.random.default_rng(seed)
    score = rng.random(n).round(2)
    return score, rng.random(n) < (1 - skill) / 2 + skill * score


# --- proportions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low_pct", "high_pct"),  # scipy.stats.binomtest(...).proportion_ci(method="wilson")
    [
        (0, 10, 0.0, 27.7533),
        (5, 10, 23.6593, 76.3407),
        (500, 520, 94.1342, 97.4966),
        (10, 10, 72.2467, 100.0),
    ],
)
def test_proportion_has_the_wilson_interval(successes, n, low_pct, high_pct):
    estimate = proportion(successes, n)
    assert (estimate.low_pct, estimate.high_pct) == pytest.approx((low_pct, high_pct), abs=1e-3)


@given(st.integers(1, 400), st.data())
def test_wilson_agrees_with_scipy(n, data):
    from scipy.stats import binomtest

    successes = data.draw(st.integers(0, n))
    expected = binomtest(successes, n).proportion_ci(0.9, method="wilson")
    low, high = wilson(successes, n, 0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_estimate_shows_value_interval_and_denominator():
    assert str(proportion(500, 520)) == "96.2 % [94.1, 97.5] (n=520)"
    assert str(proportion(0, 0)) == "no estimate (n=0)"
    assert str(accuracy([True, False, True], ["a", "a", "a"])) == "66.7 % [no interval] (n=3)"


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(UserError, match="between 0 and n"):
        proportion(successes, n)


def test_verdict_that_is_neither_right_nor_wrong_is_refused():
    with pytest.raises(UserError, match=r"right\[1\] .* expected true or false"):
        accuracy([True, None])


def test_shares_multiply_and_carry_their_own_denominators():
    shares = funnel_shares(routed=[1, 1, 0, 0, 0], accepted=[0, 0, 1, 1, 0])
    assert (shares.beta.value_pct, shares.beta.n) == (60.0, 5)
    assert (shares.alpha.value_pct, shares.alpha.n) == (pytest.approx(200 / 3), 3)
    assert shares.accepted.value_pct == pytest.approx(shares.alpha.value_pct * shares.beta.value_pct / 100)


def test_sample_cannot_be_routed_and_accepted():
    with pytest.raises(UserError, match="Sample 1 is both routed"):
        funnel_shares([0, 1], [0, 1])


# --- bootstrap ----------------------------------------------------------------------------------------


def test_cluster_interval_is_wider_when_groups_agree_and_equal_when_groups_are_single_samples():
    _, right = draw(100)
    quadrupled, groups = np.repeat(right, 4), np.repeat(np.arange(100), 4)
    naive, clustered = accuracy(quadrupled), accuracy(quadrupled, groups)
    assert clustered.value_pct == naive.value_pct
    assert clustered.high_pct - clustered.low_pct == pytest.approx(
        2 * (naive.high_pct - naive.low_pct), rel=0.1
    )
    alone = accuracy(right, np.arange(100))
    assert (clustered.low_pct, clustered.high_pct) == (alone.low_pct, alone.high_pct)  # same draws, same seed


def test_bootstrap_is_seeded_and_the_seed_matters():
    _, right = draw(80)
    groups = np.arange(80) // 2
    assert accuracy(right, groups, seed=1) == accuracy(right, groups, seed=1)
    assert accuracy(right, groups, seed=1) != accuracy(right, groups, seed=2)


def test_bootstrap_does_not_depend_on_the_chunk_size(monkeypatch):
    score, right = draw(60)
    whole = auroc(score, right)
    monkeypatch.setattr(resampling, "_CHUNK_CELLS", 60 * 7)
    assert auroc(score, right) == whole


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(2).normal(5, 2, 400)
    mean = cluster_bootstrap(values)
    reach = 1.96 * values.std() / 20
    assert (mean.low, mean.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.03)


def test_all_right_in_groups_still_has_an_honest_interval():
    estimate = accuracy([True] * 40, np.arange(40) // 4)
    assert (estimate.low_pct, estimate.high_pct) == (proportion(10, 10).low_pct, 100.0)


def test_a_single_group_has_no_interval():
    score, right = draw(20)
    for estimate in (auroc(score, right, ["a"] * 20), speedup(score, score, ["a"] * 20)):
        assert math.isfinite(estimate.value)
        assert str(estimate).endswith("[no interval] (n=20)")


def test_groups_must_match_the_samples():
    with pytest.raises(UserError, match="2 entries for 3 samples"):
        accuracy([1, 0, 1], ["a", "b"])


# --- comparisons --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_p_value_is_the_exact_binomial_tail(pairs):
    a, b = columns(pairs)
    test = paired_test(a, b, draws=50)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    m = only_a + only_b
    tail = sum(math.comb(m, i) for i in range(min(only_a, only_b) + 1)) / 2**m
    assert (test.b, test.c, test.n) == (only_a, only_b, len(pairs))
    assert test.p_value == pytest.approx(min(1.0, 2 * tail))
    assert test.diff_pp == pytest.approx(100 * (a.mean() - b.mean()))
    assert test.low_pp <= test.diff_pp <= test.high_pp or math.isnan(test.low_pp)


def test_paired_interval_is_narrower_than_the_difference_of_independent_intervals():
    _, a = draw(400)
    b = a.copy()
    b[:10] = ~b[:10]
    test = paired_test(a, b)
    assert test.high_pp - test.low_pp < 0.5 * (accuracy(a).high_pct - accuracy(a).low_pct)


def test_systems_that_never_differ_are_not_called_certainly_equal():
    test = paired_test([True] * 98, [True] * 98)
    assert (test.diff_pp, test.p_value, test.method) == (0.0, 1.0, "Agresti-Min")
    assert test.high_pp == -test.low_pp == pytest.approx(1.96, abs=1e-3)  # z / (n + 2)


def test_paired_test_shows_the_discordant_counts():
    text = str(paired_test([1] * 30 + [0] * 10, [0] * 30 + [1] * 10))
    assert text.startswith("+50.0 pp [")
    assert text.endswith("McNemar p=0.002 (30 against 10 of n=40)")


def test_speedup_is_the_ratio_of_sums_and_its_interval_is_paired():
    rng = np.random.default_rng(4)
    run_s = rng.gamma(1, 1, 200)
    proportional = speedup(2 * run_s, run_s)  # every sample exactly twice as fast: no spread left
    assert (proportional.value, proportional.low, proportional.high) == pytest.approx((2, 2, 2))
    mixed = speedup([4.0, 0.0, 2.0], [1.0, 1.0, 1.0])
    assert mixed.value == 2.0
    assert mixed.low < 2.0 < mixed.high
    assert str(proportional) == "2.00x [2.00, 2.00] (n=200)"


@pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf])
def test_speedup_refuses_times_that_cannot_be(time_s):
    with pytest.raises(UserError, match=r"run_s\[1\] .* seconds"):
        speedup([1.0, 1.0], [1.0, time_s])


@given(
    st.lists(
        st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"])), min_size=1, max_size=25
    )
)
@settings(max_examples=50, deadline=None)
def test_yes_no_scores_agree_with_sklearn(pairs):
    truth, said = zip(*pairs, strict=True)
    scores = yes_no_scores(truth, said, draws=20)
    options = {"pos_label": "yes", "zero_division": np.nan}
    for ours, theirs in (
        (scores.precision, precision_score),
        (scores.recall, recall_score),
        (scores.f1, f1_score),
    ):
        assert ours.value_pct / 100 == pytest.approx(theirs(truth, said, **options), nan_ok=True)
    assert scores.true_yes + scores.false_yes + scores.true_no + scores.false_no == len(pairs)


def test_unknown_answer_is_wrong_a_miss_and_no_yes():
    scores = yes_no_scores(["yes", "yes", "no", "no"], ["yes", None, None, "no"])
    assert (scores.accuracy.value_pct, scores.recall.value_pct, scores.precision.value_pct) == (50, 50, 100)
    assert (scores.yes_ratio.value_pct, scores.unknown) == (25, 2)


def test_other_words_than_yes_and_no_are_refused():
    with pytest.raises(UserError, match="said holds 'Yes'"):
        yes_no_scores(["yes"], ["Yes"])


# --- rankings -----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_auroc_with_ties_equals_sklearn(pairs):
    score, right = columns(pairs)
    assume(right.any() and not right.all())
    assert auroc(score, right, draws=10).value == pytest.approx(roc_auc_score(right, score))


def test_auroc_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        right = rng.random(120) < 0.6
        score = rng.normal(right.astype(float), 1.0)  # true AUROC: Phi(1 / sqrt 2) = 0.7602
        estimate = auroc(score, right, draws=300)
        hits += estimate.low <= 0.7602 <= estimate.high
    assert 52 <= hits <= 60


def test_auroc_of_one_class_is_undefined_with_its_n():
    estimate = auroc([0.2, 0.9], [True, True])
    assert math.isnan(estimate.value)
    assert str(estimate) == "no estimate (n=2)"


def reference_aurc(score, right):
    """Mean over coverages of the risk, averaged over many random orders within ties."""
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(score)), -score))
        runs.append((np.cumsum(~right[order]) / np.arange(1, len(score) + 1)).mean())
    return np.mean(runs)


@pytest.mark.parametrize("seed", range(4))
def test_aurc_is_the_expectation_over_the_orders_of_ties(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, 40) / 5
    right = rng.random(40) < 0.4 + score / 2
    assert risk_coverage(score, right, draws=10).aurc.value == pytest.approx(
        reference_aurc(score, right), abs=0.01
    )


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_excess_aurc_is_zero_for_a_perfect_ranking_and_never_negative(pairs):
    score, right = columns(pairs)
    assert risk_coverage(score, right, draws=5).excess_aurc.value >= -1e-12
    perfect = risk_coverage(right + 0.001 * np.arange(len(right)) / len(right), right, draws=5)
    assert perfect.excess_aurc.value == pytest.approx(0, abs=1e-12)
    order = np.argsort(~right, kind="stable")
    assert perfect.aurc.value == pytest.approx(
        (np.cumsum(~right[order]) / np.arange(1, len(right) + 1)).mean()
    )


def test_aurc_bootstrap_value_of_a_draw_is_the_aurc_of_the_drawn_sample():
    score, right = draw(30)
    groups = np.arange(30) // 3
    result = risk_coverage(score, right, groups, draws=200)
    drawn = []
    for counts in resampling.draw_counts(10, 30, 200, intervals.SEED):
        for row in counts:
            index = np.repeat(np.arange(30), row[groups])
            drawn.append(risk_coverage(score[index], right[index], draws=1).aurc.value)
    assert (result.aurc.low, result.aurc.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_risk_coverage_curve_takes_tied_samples_together():
    curve = risk_coverage([0.9, 0.9, 0.5, 0.2], [True, False, True, False])
    assert curve.score.tolist() == [0.9, 0.5, 0.2]
    assert curve.coverage_pct.tolist() == [50, 75, 100]
    assert curve.risk_pct == pytest.approx([50, 100 / 3, 50])


def test_sample_without_score_is_left_out_of_the_ranking():
    score, right = [0.9, math.nan, 0.2], [True, True, False]
    assert (auroc(score, right).value, auroc(score, right).n) == (1.0, 2)
    assert risk_coverage(score, right).n == rolling_accuracy(score, right).n == 2


@settings(max_examples=60, deadline=None)
@given(SCORED, st.integers(1, 12), st.randoms())
def test_rolling_accuracy_moves_a_window_and_ignores_the_order_of_ties(pairs, window, random):
    score, right = columns(pairs)
    rolling = rolling_accuracy(score, right, window)
    random.shuffle(pairs)
    again = rolling_accuracy(*columns(pairs), window)
    np.testing.assert_allclose(again.accuracy_pct, rolling.accuracy_pct)
    assert rolling.window == min(window, len(pairs))
    assert len(rolling.score) == len(pairs) - rolling.window + 1
    assert (np.diff(rolling.score) >= -1e-12).all()
    assert (
        (rolling.low_pct <= rolling.accuracy_pct + 1e-9) & (rolling.accuracy_pct <= rolling.high_pct + 1e-9)
    ).all()


def test_rolling_accuracy_of_distinct_scores_is_the_plain_moving_mean():
    rolling = rolling_accuracy([0.4, 0.1, 0.3, 0.2], [True, False, True, False], window=2)
    assert rolling.accuracy_pct.tolist() == [0, 50, 100]
    assert rolling.score == pytest.approx([0.15, 0.25, 0.35])


# --- nothing to say -----------------------------------------------------------------------------------


def test_empty_input_gives_nan_with_n_0_and_json_without_nan():
    intervals = [
        accuracy([]),
        accuracy([], []),
        paired_test([], []),
        speedup([], []),
        cluster_bootstrap([]),
        auroc([], []),
        auroc([math.nan], [True]),
        risk_coverage([], [], []).aurc,
        risk_coverage([], []).excess_aurc,
        *dataclasses.astuple(funnel_shares([], [])),
        yes_no_scores([], []).f1,
        yes_no_scores([], [], []).precision,
    ]
    for estimate in intervals:
        if dataclasses.is_dataclass(estimate):
            assert estimate.n == 0
            assert str(estimate) == "no estimate (n=0)"
            assert None in json.loads(json.dumps(estimate.as_dict(), allow_nan=False)).values()
    assert len(risk_coverage([], []).score) == len(rolling_accuracy([], []).score) == 0


@pytest.mark.parametrize("estimator", [auroc, speedup, paired_test])
def test_single_sample_has_a_value_or_reason_but_no_interval(estimator):
    result = estimator([1.0], [1.0])
    assert result.n == 1
    assert "n=1" in str(result)


def test_infinite_score_is_refused():
    with pytest.raises(UserError, match=r"score\[0\] is infinite"):
        auroc([math.inf], [True])


def test_importing_metrics_does_not_load_scipy():
    code = "import sys, speceyes_lib.gating.gate, speceyes_lib.gating.separability; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
