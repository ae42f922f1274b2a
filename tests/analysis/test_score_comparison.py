"""The table that compares scores, and how they see ties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scored_drafts import population

from speceyes_lib.analysis import score_comparison
from speceyes_lib.errors import UserError
from speceyes_lib.gating import scores
from speceyes_lib.stats.ranking import auroc, risk_coverage
from speceyes_lib.stats.resampling import Bootstrap


def test_near_ties_are_counted_where_they_belong():
    result = score_comparison.near_ties([0.05, 0.1, 0.6, 1.0, np.nan], [0, 0, 1, 1, 0])
    assert result["n"].tolist() == [1, 1, 0, 1, 1]
    assert result["n_wrong"].tolist() == [1, 1, 0, 0, 0]


def test_the_table_agrees_with_the_single_measures():
    table, right, groups = population()
    result = (
        score_comparison.compare_scores(table, right, groups, bootstrap=Bootstrap(draws=200, seed=3))
        .set_index("score")
        .loc["min"]
    )
    one_by_one = auroc(table["min"], right, groups, bootstrap=Bootstrap(draws=200, seed=3))
    assert result["auroc"] == pytest.approx(one_by_one.value)
    assert (result["auroc_low"], result["auroc_high"]) == pytest.approx((one_by_one.low, one_by_one.high))
    risk = risk_coverage(table["min"], right, groups, bootstrap=Bootstrap(draws=200, seed=3))
    assert result["excess_aurc"] == pytest.approx(risk.excess_aurc.value)
    assert result["auroc_gain"] == result["auroc_gain_low"] == result["auroc_gain_high"] == 0


def test_scale_changes_nothing_at_equal_coverage():
    table, right, _ = population()
    result = score_comparison.compare_scores(
        table.assign(mean=table["min"] ** 9), right, bootstrap=Bootstrap(draws=100), coverages=(0.3,)
    )
    first, second = result.set_index("score").loc[["min", "mean"]].to_numpy()[:, 2:].astype(float)
    assert np.array_equal(first, second, equal_nan=True)
    threshold = 0.7
    assert (table["min"] > threshold).sum() != (
        table["min"] ** 9 > threshold
    ).sum()  # but at equal thresholds


def test_a_constant_score_has_the_accuracy_of_all_samples_at_any_coverage():
    right = np.arange(30) % 3 > 0
    result = score_comparison.compare_scores(
        pd.DataFrame({"min": np.full(30, 0.5)}), right, bootstrap=Bootstrap(draws=100), coverages=(0.1, 0.9)
    ).iloc[0]
    assert result["accuracy_at_10_pct"] == result["accuracy_at_90_pct"] == pytest.approx(100 * right.mean())


def test_brier_and_calibration_error_by_hand():
    probability = np.array([0.2, 0.2, 0.9, 0.9, np.nan])
    right = np.array([False, False, True, False, True])
    result = score_comparison.compare_scores(
        pd.DataFrame({"log": probability}), right, bootstrap=Bootstrap(draws=100), n_bins=2
    ).iloc[0]
    assert result["brier"] == pytest.approx((2 * 0.04 + 0.01 + 0.81) / 4)
    assert result["ece"] == pytest.approx((2 * 0.2 + 2 * 0.4) / 4)


def test_a_score_without_values_is_left_out_and_lengths_must_fit():
    table, right, _ = population(40)
    assert score_comparison.compare_scores(
        table.assign(router=np.nan), right, bootstrap=Bootstrap(draws=100)
    )["score"].tolist() == [
        "min",
        "margin",
    ]
    assert score_comparison.compare_scores(table.iloc[:0], right[:0]).empty
    with pytest.raises(UserError, match="same samples"):
        score_comparison.compare_scores(table, right[1:])


def test_a_combination_of_scores_is_calibrated():
    table, right, groups = population()
    combined = table.assign(combination=scores.combination(table, right, groups))
    result = score_comparison.compare_scores(combined, right, groups, bootstrap=Bootstrap(draws=100))
    assert result.set_index("score").loc["combination", "ece"] < 0.1
