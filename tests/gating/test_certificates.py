"""A certified threshold keeps its word on unseen data, as often as it says; an uncorrected one does not."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from speceyes_lib.errors import UserError
from speceyes_lib.gating import calibration_samples, certificates
from speceyes_lib.gating.calibration_samples import gate_samples
from speceyes_lib.gating.certificates import NOTHING, Certified
from speceyes_lib.gating.gate import count_accepted
from speceyes_lib.stats.resampling import Bootstrap

SPLITS = 200


# ------------------------------------------------------------------ a population whose risks are known
#
# The score u is uniform on [0, 1] and a draft is wrong with probability 0.5 (1 - u). Above a threshold t:
#   P(wrong | accepted) = 0.25 (1 - t)      P(accepted and wrong) = 0.25 (1 - t)^2
#   P(accepted | wrong) = (1 - t)^2
# The agent is right with probability 0.8 whatever the draft does: regret = 0.8 P(accepted and wrong).


def draw(n: int, seed: int, per_group: int = 1) -> calibration_samples.GateSamples:
    """Scores of one group lie close together; the distribution of a single sample is that of the formulas."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.uniform(size=-(-n // per_group)), per_group)[:n]
    score = (shared + 0.05 * rng.uniform(size=n)) % 1
    return gate_samples(
        score,
        rng.uniform(size=n) >= 0.5 * (1 - score),
        rng.uniform(size=n) < 0.8,
        groups=np.arange(n) // per_group,
    )


TRUE_RISK = {
    "selective": lambda t: 0.25 * (1 - t),
    "accepted_wrong": lambda t: 0.25 * (1 - t) ** 2,
    "regret": lambda t: 0.2 * (1 - t) ** 2,
    "wrong_passes": lambda t: (1 - t) ** 2,
}


def true_risks(rule: certificates.Rule, n: int, per_group: int = 1) -> np.ndarray:
    """The rule's risk, known exactly, over many random calibration and test halves of a population."""
    result = []
    for seed in range(SPLITS):
        population = draw(2 * n, seed, per_group)
        inside = calibration_samples.calibration_half(population.groups, population.strata, seed)
        chosen = rule.choose(population.take(inside), population.take(~inside), seed)
        result.append(0.0 if chosen.threshold >= NOTHING else TRUE_RISK[rule.risk](chosen.threshold))
    return np.array(result)


def rule(name: str, **targets: float) -> certificates.Rule:
    return next(r for r in certificates.certification_rules(**targets) if r.name == name)


DELTA = 0.1
SLACK = binom.ppf(0.999, SPLITS, DELTA) / SPLITS  # what chance allows on top of delta in so many splits


@pytest.mark.parametrize("per_group", [1, 4])
def test_the_selective_risk_exceeds_its_target_no_more_often_than_delta(per_group):
    certified = true_risks(rule("selective", risk=0.12, delta=DELTA), 400 * per_group, per_group)
    assert (certified > 0.12).mean() <= SLACK
    assert (certified > 0).mean() > 0.7  # and it is not kept by certifying nothing


def test_without_the_correction_the_selective_risk_exceeds_its_target_far_more_often():
    uncorrected = true_risks(rule("plug_in", risk=0.12), 400)
    assert (uncorrected > 0.12).mean() > SLACK


def test_testing_all_thresholds_without_a_sequence_breaks_the_promise():
    """The sequence is part of the correction: the lowest threshold that passes *some* test is picked by luck.

    All drafts are wrong equally often, a little more than the target: nothing may be certified.
    """
    target, broken, kept = 0.1, 0, 0
    for seed in range(SPLITS):
        rng = np.random.default_rng(seed)
        score, wrong = rng.uniform(size=400), rng.uniform(size=400) < 0.105
        sequence = certificates.threshold_sequence(rng.uniform(size=400), 400, target, DELTA)
        kept += certificates.learn_then_test(score, wrong, sequence, target, DELTA).certified
        each = [certificates.learn_then_test(score, wrong, [t], target, DELTA).certified for t in sequence]
        broken += any(each)
    assert kept / SPLITS <= SLACK < broken / SPLITS


@pytest.mark.parametrize("per_group", [1, 4])
def test_a_binomial_bound_exceeds_its_target_no_more_often_than_delta(per_group):
    bounded = true_risks(rule("accepted_wrong_bound", loss=0.05, delta=DELTA), 400 * per_group, per_group)
    assert (bounded > 0.05).mean() <= SLACK
    expected = true_risks(rule("accepted_wrong", loss=0.05), 400 * per_group, per_group)
    assert (expected > 0.05).mean() > SLACK  # a bound on the mean alone does not promise that


@pytest.mark.parametrize(
    ("name", "targets"),
    [("accepted_wrong", {"loss": 0.05}), ("regret", {"loss": 0.05}), ("wrong_passes", {"passes": 0.3})],
)
@pytest.mark.parametrize("per_group", [1, 4])
def test_conformal_risk_control_keeps_its_target_on_average(name, targets, per_group):
    (target,) = targets.values()
    result = true_risks(rule(name, **targets), 60 * per_group, per_group)
    error = result.std() / math.sqrt(SPLITS)
    assert result.mean() <= target + 3 * error
    assert result.mean() > target / 3


def test_without_its_correction_the_average_lies_above_the_target():
    result = []
    for seed in range(SPLITS):
        part = draw(40, seed)
        lost = np.sort(part.score[part.wrong])[::-1]
        allowed = int(0.05 * 40)  # as many as the target says, instead of target (n + 1) - 1
        result.append(TRUE_RISK["accepted_wrong"](lost[allowed]))
    assert np.mean(result) - 3 * np.std(result) / math.sqrt(SPLITS) > 0.05


def test_a_guarantee_for_groups_needs_groups():
    """Four copies of every sample look like four times the evidence; taken for independent, they break the promise."""
    broken, kept = 0, 0
    for seed in range(SPLITS):
        once = draw(100, seed)
        copies = once.take(np.repeat(np.arange(100), 4))
        part = calibration_samples.one_per_group(copies.groups, seed)
        kept += certificates.binomial_bound(once.score, once.wrong, 0.08, DELTA).threshold < 1 - math.sqrt(
            0.32
        )
        naive = certificates.binomial_bound(copies.score, copies.wrong, 0.08, DELTA)
        broken += TRUE_RISK["accepted_wrong"](naive.threshold) > 0.08
        assert np.array_equal(copies.score[part], once.score)
    assert kept / SPLITS <= SLACK < broken / SPLITS


# ------------------------------------------------------------------ against MAPIE


@pytest.mark.parametrize("seed", range(4))
def test_learn_then_test_agrees_with_mapie(seed):
    """With p-values and sequential test of theirs; the errors are nudged, as they round n * (k / n) up to k + 1."""
    from mapie.risk_control.fwer_control import control_fwer
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    part, target = draw(300, seed), 0.15
    sequence = certificates.threshold_sequence(draw(300, seed + 100).score, 300, target, DELTA)
    ours = certificates.learn_then_test(part.score, part.wrong, sequence, target, DELTA)
    n, wrong = count_accepted(part.score, part.wrong.astype(float), sequence)
    p_values = compute_hoeffding_bentkus_p_value(np.maximum(wrong - 1e-9, 0) / n, n, [target], binary=True)[
        :, 0
    ]
    theirs = control_fwer(p_values, DELTA, "fixed_sequence")
    assert ours.certified == (len(theirs) > 0)
    assert ours.threshold == (sequence[theirs.max()] if len(theirs) else NOTHING)


def test_its_controller_is_never_bolder_than_learn_then_test():
    from mapie.risk_control import BinaryClassificationController, precision

    result = []
    for seed in range(6):
        part, target = draw(300, seed), 0.15
        sequence = certificates.threshold_sequence(draw(300, seed + 100).score, 300, target, DELTA)
        ours = certificates.learn_then_test(part.score, part.wrong, sequence, target, DELTA)
        controller = BinaryClassificationController(
            lambda x: np.column_stack([1 - x, x]),
            precision,
            target_level=1 - target,
            confidence_level=1 - DELTA,
            list_predict_params=sequence,
            fwer_method="fixed_sequence",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where nothing can be controlled
            valid = controller.calibrate(part.score, part.draft_right.astype(int)).valid_predict_params
        theirs = min(valid) if valid is not None and len(valid) else NOTHING
        assert theirs >= ours.threshold - 1e-12
        result.append(theirs == ours.threshold)
    assert any(result)


@pytest.mark.parametrize("target", [0.04, 0.1])
def test_conformal_risk_control_agrees_with_mapie(target):
    from mapie.risk_control.methods import find_best_predict_param, get_r_hat_plus

    part = draw(120, 5)
    ours = certificates.conformal_risk_control(part.score, part.wrong, part.groups, target)
    thresholds = np.concatenate([[0.0], np.sort(part.score)])
    risks = part.wrong[:, None] * (part.score[:, None] > thresholds)
    _, bound = get_r_hat_plus(risks.astype(float), thresholds, "crc", None, None, None)
    # theirs asks for a bound strictly below the target
    theirs = find_best_predict_param(thresholds, bound, np.array([target + 1e-9]))
    assert ours.threshold == pytest.approx(float(theirs[0]))


def test_the_binomial_p_value_is_mapies():
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    errors = np.array([0, 1, 5, 12])
    theirs = compute_hoeffding_bentkus_p_value(errors / 80, 80, [0.1], binary=True)[:, 0]
    assert binom.cdf(errors, 80, 0.1) == pytest.approx(theirs)


# ------------------------------------------------------------------ small cases by hand


def test_how_many_samples_a_proof_needs():
    assert certificates.fewest_samples(0.05, 0.1) == 45  # 0.95^45 < 0.1 < 0.95^44
    assert certificates.most_errors(44, 0.05, 0.1) == -1
    assert certificates.most_errors(45, 0.05, 0.1) == 0
    assert certificates.most_errors(0, 0.05, 0.1) == -1
    n = certificates.fewest_samples(0.05, 0.1, errors=1)
    assert certificates.most_errors(n, 0.05, 0.1) == 1 > certificates.most_errors(n - 1, 0.05, 0.1)


def test_too_few_samples_certify_nothing_and_say_how_many_are_missing():
    few = draw(30, 0)
    half = draw(30, 1)
    for name in ("selective", "accepted_wrong_bound", "accepted_wrong", "regret"):
        chosen = rule(name, risk=0.05, loss=0.02).choose(few, half, 0)
        assert not chosen.certified
        assert chosen.threshold == NOTHING
        assert chosen.reason
    assert "45 would be needed" in rule("selective").choose(few, half, 0).reason
    none = few.take(np.zeros(30, bool))
    assert not rule("selective").choose(none, none, 0).certified


def test_the_lowest_threshold_that_keeps_within_the_errors_allowed():
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, np.nan])
    loss = np.array([0, 1, 0, 1, 1, 1], bool)
    # 6 groups, target 0.3: 0.3 * 7 - 1 = 1.1 errors allowed, so the second one (0.6) must not be accepted
    assert certificates.conformal_risk_control(score, loss, np.arange(6), 0.3) == Certified(0.6, True, 6)
    assert certificates.conformal_risk_control(score, loss, np.arange(6), 0.9) == Certified(0.0, True, 6)
    assert certificates.conformal_risk_control(score, loss, np.arange(6), 0.1).reason.endswith("needs 9")
    # in one group with the first, the error at 0.8 counts half
    assert certificates.conformal_risk_control(score, loss, [0, 0, 1, 2, 3, 4], 0.45).threshold == 0.5


def test_a_wrong_draft_among_the_surest_stops_the_sequence_at_once():
    score = np.linspace(0.99, 0.5, 100)
    wrong = np.zeros(100, bool)
    sequence = certificates.threshold_sequence(score, 100, 0.05, 0.1)
    assert certificates.learn_then_test(score, wrong, sequence, 0.05, 0.1) == Certified(0.0, True, 100)
    wrong[:10] = True
    refused = certificates.learn_then_test(score, wrong, sequence, 0.05, 0.1)
    assert not refused.certified
    assert "10 of the" in refused.reason


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.01, 0.5))
def test_a_looser_target_never_gives_a_higher_threshold(loss, target):
    score = np.linspace(0.99, 0.01, len(loss))
    groups = np.arange(len(loss))
    strict = certificates.conformal_risk_control(score, loss, groups, target)
    loose = certificates.conformal_risk_control(score, loss, groups, min(0.99, 1.5 * target))
    assert loose.threshold <= strict.threshold


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(0, 9))
def test_halves_keep_groups_whole_and_strata_even(groups, seed):
    groups = np.array(groups)
    strata = groups % 3  # groups lie in one stratum each
    inside = calibration_samples.calibration_half(groups, strata, seed)
    for group in np.unique(groups):
        assert len(set(inside[groups == group])) == 1
    for stratum in np.unique(strata):
        members = np.unique(groups[strata == stratum])
        chosen = sum(inside[groups == group][0] for group in members)
        assert abs(2 * chosen - len(members)) <= 1
    assert np.array_equal(inside, calibration_samples.calibration_half(groups, strata, seed))


def test_a_picture_asked_about_in_several_splits_stays_in_one_half():
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    strata = np.array(["x", "y", "x", "y", "x", "x"])
    for seed in range(5):
        inside = calibration_samples.calibration_half(groups, strata, seed)
        assert inside[0] == inside[1] != inside[2] == inside[3]
        assert inside[4] != inside[5]


def test_the_outcome_of_a_threshold_by_hand():
    part = gate_samples(
        score=[0.9, 0.8, 0.3, 0.7],
        draft_right=[1, 0, 0, 1],
        agent_right=[1, 1, 0, 0],
        routed=[0, 0, 0, 1],
        groups=[0, 1, 1, 2],
        times=([1, 1, 1, 9], [4, 4, 4, 4], [3, 3, 3, 3]),
    )
    result = certificates.threshold_outcome(part, 0.5)
    assert result["coverage_pct"] == 50
    assert result["accuracy_pct"] == 25  # right, wrong, agent wrong, routed and agent wrong
    assert result["agent_pct"] == 50
    assert result["selective_pct"] == pytest.approx(100 / 3)  # weights 1 and 1/2, the latter is wrong
    assert result["accepted_wrong_pct"] == result["regret_pct"] == pytest.approx(100 / 6)
    assert result["wrong_passes_pct"] == 50
    assert result["speedup"] == pytest.approx(12 / 10)
    nothing = certificates.threshold_outcome(part, NOTHING)
    assert nothing["coverage_pct"] == 0
    assert math.isnan(nothing["selective_pct"])
    assert nothing["accuracy_pct"] == nothing["agent_pct"]


def test_the_window_defers_where_the_threshold_is_uncertain():
    half = draw(200, 3)
    plain = certificates.deferral_threshold(half, bootstrap=Bootstrap(level=0.5, draws=200))
    assert certificates.deferral_threshold(half, bootstrap=Bootstrap(level=0.95, draws=200)) >= plain
    assert certificates.deferral_threshold(half) == certificates.deferral_threshold(half)
    sure = gate_samples(np.linspace(0.1, 0.9, 50), np.ones(50), np.ones(50))
    assert certificates.deferral_threshold(sure) == 0.0
    assert certificates.deferral_threshold(sure.take(np.zeros(50, bool))) == NOTHING


def test_held_out_measures_every_rule_on_samples_it_did_not_see():
    population = draw(300, 7)
    halves = certificates.certify(
        population, certificates.certification_rules(risk=0.15, loss=0.1), repeats=3, seed=1
    )
    names = {r.name for r in certificates.certification_rules()} | {"per_split", "per_split_on_test"}
    assert set(halves["rule"]) == names
    assert (halves.groupby("rule").size() == 3).all()
    assert (halves["n_calibration"] + halves["n_test"] == 300).all()
    flattered = halves[halves["rule"] == "per_split_on_test"]
    assert (
        flattered["accuracy_pct"] >= flattered["agent_pct"]
    ).all()  # by construction, and no proof of anything
    again = certificates.certify(
        population, certificates.certification_rules(risk=0.15, loss=0.1), repeats=3, seed=1
    )
    assert halves.equals(again)


def test_mistakes_are_reported():
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        gate_samples([1.5], [True], [True])
    with pytest.raises(UserError, match="target must lie"):
        certificates.conformal_risk_control([0.5], [True], [0], 5)
    with pytest.raises(UserError, match="delta must lie"):
        certificates.learn_then_test([0.5], [True], [0.1], 0.1, 0)
