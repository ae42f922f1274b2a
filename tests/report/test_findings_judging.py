"""Sentences on verdicts follow from the numbers, whatever these are."""

from __future__ import annotations

import pandas as pd
from judged import judged

from speceyes_lib.judging.scorer_comparison import compare_scorers, corrections, differing
from speceyes_lib.judging.verdict_frames import model_replies
from speceyes_lib.report.findings_judging import agreement_finding, model_finding, scorer_finding


def test_no_model_no_people_is_said():
    assert "No judging model was asked" in model_finding(model_replies([]), {})
    nothing = pd.DataFrame([{"n": 0, "agree_pct": None, "kappa": None}], index=["rule / model"])
    assert "not known" in agreement_finding(nothing)


def test_what_the_model_left_open_is_said_with_what_it_cost():
    replies = pd.DataFrame(
        {"answers": [7, 2, 1], "unreadable": [0, 2, 0]}, index=["right", "unparsed", "no reply: timeout"]
    )
    cost = {"judge_requests": 6, "judge_tokens": 630, "judge_from_cache": 4}
    text = model_finding(replies, cost)
    assert "asked about 10 answers; 1 of them got no reply, and 2 a reply that holds no judgement" in text
    assert "sent 6 requests (630 tokens); 4 replies were at hand" in text


def test_an_undefined_kappa_is_not_called_agreement():
    table = pd.DataFrame(
        [{"n": 3, "agree_pct": 100.0, "kappa": None}, {"n": 5, "agree_pct": 80.0, "kappa": 0.6}],
        index=["rule / model", "rule / human"],
    )
    text = agreement_finding(table)
    assert "rule / model: 100.0 % of 3 answers (kappa undefined, all say the same)" in text
    assert "rule / human: 80.0 % of 5 answers (kappa 0.60)" in text


def test_the_scorers_sentence_has_both_denominators_and_the_largest_step():
    answers = ["A", "red", "red", None, "B"]
    records = [judged(f"vstar/direct_attributes/{i}", a) for i, a in enumerate(answers)]
    scored = compare_scorers(records)
    text = scorer_finding(scored, differing(scored), corrections(scored))
    assert "25.0 % of n=4 right and would ask a language model about 2" in text
    assert "60.0 % of n=5 right" in text
    assert "+40.0 points" in text
    same = compare_scorers([judged("vstar/direct_attributes/0", "A")])
    assert scorer_finding(same, differing(same), corrections(same)).endswith("100.0 % of n=1 right.")
