"""Estimates carry value, interval, unit and denominator, also where there is no sample."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.stats.intervals import Estimate, proportion, wilson
from speceyes_lib.stats.paired import paired_test, speedup
from speceyes_lib.stats.proportions import accuracy, funnel_shares, mean, yes_no_scores
from speceyes_lib.stats.ranking import auroc, risk_coverage, rolling_accuracy


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
    assert (estimate.low, estimate.high) == pytest.approx((low_pct, high_pct), abs=1e-3)


@settings(deadline=None)
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


def test_empty_input_gives_nan_with_n_0_and_json_without_nan():
    shares = funnel_shares(0, 0, 0, proportion)
    estimates = [
        accuracy([]),
        accuracy([], []),
        paired_test([], []),
        speedup([], []),
        mean([]),
        auroc([], []),
        auroc([math.nan], [True]),
        risk_coverage([], [], []).aurc,
        risk_coverage([], []).excess_aurc,
        *(getattr(shares, name) for name in ("alpha", "beta", "accepted")),
        yes_no_scores([], []).f1,
        yes_no_scores([], [], []).precision,
    ]
    for estimate in estimates:
        assert str(estimate) == "no estimate (n=0)"
        stored = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
        assert stored["n"] == 0
        assert None in stored.values()
    assert len(risk_coverage([], []).score) == len(rolling_accuracy([], []).score) == 0


def test_importing_statistics_does_not_load_scipy():
    modules = ("gating.gate", "stats.paired", "stats.ranking")
    imports = ", ".join(f"speceyes_lib.{module}" for module in modules)
    code = f"import sys, {imports}; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("unit", "key", "text"),
    [
        ("%", "value_pct", "50.0 % [25.0, 75.0] (n=8)"),
        ("pp", "value_pp", "+50.0 pp [+25.0, +75.0] (n=8)"),
        ("x", "value", "50.00x [25.00, 75.00] (n=8)"),
        ("", "value", "50.000 [25.000, 75.000] (n=8)"),
    ],
)
def test_the_unit_of_an_estimate_is_in_its_text_and_in_its_keys(unit, key, text):
    estimate = Estimate(0.5, 0.25, 0.75, 8).times_100(unit)
    assert str(estimate) == text
    assert estimate.as_dict()[key] == 50.0
