"""The sentences follow from the numbers: change a number, and the sentence changes."""

from __future__ import annotations

import copy
import json

import pytest
from synthetic_run import make_run

from speceyes_lib.analysis import sample_frame
from speceyes_lib.analysis.summary import choose_threshold, drafted, funnel_at, summarise
from speceyes_lib.errors import ConfigError, StageError
from speceyes_lib.gating.threshold import read_operating_point
from speceyes_lib.report import findings


@pytest.fixture(scope="module")
def frame():
    return sample_frame.assemble(*make_run(per_task=16))


@pytest.fixture(scope="module")
def summary(frame):
    return summarise(frame, run="demo", gate={"score": "min"})


def with_test(summary, **values):
    changed = copy.deepcopy(summary)
    changed["comparisons"]["gated_vs_baseline"]["pooled"] |= values
    return changed


def test_a_difference_is_called_one_only_when_the_test_says_so(summary):
    chance = findings.comparison_finding(with_test(summary, diff_pp=-0.9, p_value=0.4))
    assert "0.9 points fewer" in chance
    assert "does not tell them apart" in chance
    real = findings.comparison_finding(with_test(summary, diff_pp=3.0, p_value=0.001))
    assert "3.0 points more" in real
    assert "chance does not explain" in real


def test_the_speed_in_the_sentence_is_the_ratio_of_the_clocks(summary):
    for arm in ("gated", "baseline"):
        assert summary["arms"][arm]["pooled"]["n"] == summary["n"]
    ratio = summary["arms"]["baseline"]["pooled"]["wall_s"] / summary["arms"]["gated"]["pooled"]["wall_s"]
    assert f"{ratio:.2f}x its speed" in findings.comparison_finding(summary)


def test_what_is_missing_is_said():
    arms, judged = make_run(per_task=8)
    summary = summarise(
        sample_frame.assemble({"baseline": arms["baseline"]}, {"baseline": judged["baseline"]})
    )
    assert "does not have both" in findings.comparison_finding(summary)
    assert "No first look" in findings.first_look_finding(summary)
    assert "Not in this run: Draft alone, SpecEyes (min)" in findings.summary_findings(summary)[-1]


def test_the_ranking_names_the_best_mode_and_the_weakest_split(summary):
    auroc = copy.deepcopy(summary["auroc"])
    auroc["log"]["pooled"]["value"] = 0.999
    auroc["min"]["splits"]["pope/random"]["value"] = 0.01
    text = findings.ranking_finding(auroc, "min")
    assert "log ranks best here (0.999)" in text
    assert "weakest split is POPE rand. (0.010)" in text


def test_modes_that_are_one_score_are_named(frame):
    drafts = drafted(frame)
    assert "No two modes" in findings.twin_finding(drafts, ["min", "mean", "log"])
    same = drafts.assign(score_mean=drafts["score_min"], score_bottom20=drafts["score_min"])
    text = findings.twin_finding(same, ["min", "mean", "bottom20", "log"])
    assert text.startswith("min, mean and bottom20 give every draft the same score")


def test_a_threshold_from_elsewhere_is_never_called_chosen_here(frame):
    here = choose_threshold(frame)
    alone = findings.threshold_finding(here)
    assert "no result to report" in alone
    used = {"threshold": 0.9, "chosen_on": {"run": "demo_validation"}}
    text = findings.threshold_finding(here, used, funnel_at(frame, 0.9))
    assert "0.9, chosen on run demo_validation" in text
    assert f"would pick {here.threshold:.6g}" in text


def test_the_funnel_computed_at_a_threshold_is_the_curve_at_that_point(frame):
    here = choose_threshold(frame)
    accuracy, accepted = funnel_at(frame, here.threshold)
    assert accuracy.value == pytest.approx(here.accuracy_pct)
    assert accepted.value == pytest.approx(here.accepted_pct)


def test_zooming_is_judged_on_hard_samples(summary):
    changed = copy.deepcopy(summary)
    changed["first_look"]["hard"]["gain"]["diff_pp"] = -4.0
    assert "-4.0 points" in findings.first_look_finding(changed)
    changed["first_look"]["hard"]["n"] = 0
    assert "No sample is known to be hard" in findings.first_look_finding(changed)


def test_judging_counts_what_the_rules_left_open():
    text = findings.judging_finding(
        {"gated": {"right": 7, "unparsed": 2}, "baseline": {"wrong": 1, "error": 1}}
    )
    assert text == "8 of 11 final answers were called right or wrong; 2 unparsed, 1 error."


def test_the_operating_point_survives_its_file(frame, tmp_path):
    here = choose_threshold(frame)
    path = tmp_path / "operating_point.json"
    path.write_text(json.dumps(here.as_dict() | {"chosen_on": {"run": "v", "score": "min"}}))
    told = read_operating_point(path)
    assert (told["threshold"], told["rule"], told["chosen_on"]["run"]) == (here.threshold, here.rule, "v")


def test_a_missing_or_damaged_operating_point_says_what_to_run(tmp_path):
    with pytest.raises(StageError, match="04_threshold"):
        read_operating_point(tmp_path / "operating_point.json")
    for text in ("{}", "not json", '{"threshold": 2}', '{"threshold": true}', '{"threshold": null}', "[1]"):
        (tmp_path / "operating_point.json").write_text(text)
        with pytest.raises(ConfigError, match="'threshold' is a number"):
            read_operating_point(tmp_path / "operating_point.json")
