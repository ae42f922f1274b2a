"""Brier score, calibration error and reliability bins of a small sample, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from speceyes_lib.errors import UserError
from speceyes_lib.stats.calibration import CalibrationBins, brier_terms, reliability

PROBABILITY = np.array([0.2, 0.2, 0.9, 0.9, np.nan])
RIGHT = np.array([False, False, True, False, True])


def test_brier_score_and_calibration_error_by_hand():
    assert np.nanmean(brier_terms(PROBABILITY, RIGHT)) == pytest.approx((2 * 0.04 + 0.01 + 0.81) / 4)
    error = CalibrationBins(PROBABILITY, RIGHT, n_bins=2).error(np.ones((1, 5), int))
    assert error == pytest.approx([(2 * 0.2 + 2 * 0.4) / 4])


def test_reliability_bins_are_equally_filled_and_ties_share_a_bin():
    curve = reliability(PROBABILITY, RIGHT, n_bins=2)
    assert curve.promised_pct == pytest.approx([20, 90])
    assert curve.accuracy_pct == pytest.approx([0, 50])
    assert curve.n_bin.tolist() == [2, 2]
    assert reliability(np.full(5, 0.3), RIGHT, n_bins=4).n_bin.tolist() == [5]


def test_a_score_that_is_no_probability_has_no_calibration():
    with pytest.raises(UserError, match="no calibration"):
        reliability([1.2], [True])
