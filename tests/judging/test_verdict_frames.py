"""Verdicts as frames: who decided what, and how far they agree."""

from __future__ import annotations

import pytest
from judged import judged

from speceyes_lib.judging.human import reviewed
from speceyes_lib.judging.verdict_frames import (
    agreement,
    counted,
    model_replies,
    verdict_frame,
)
from speceyes_lib.runs.records import Failure, HumanCheck, JudgeCall, JudgedRecord


def rated(number: int, answer: str, model: str | None = None, person: str | None = None):
    """A V* answer, truth A, that a rule decides; the model and a person may have judged it as well."""
    record = judged(f"vstar/direct_attributes/{number}", answer)
    verdict = record.verdicts[0]
    if model:
        verdict = verdict.model_copy(
            update={"judge": JudgeCall(model="judge", verdict=model, reply="Judgement: 1")}
        )
    if person:
        check = HumanCheck(verdict=person, reason="seen", author="ana", time_utc="2026-01-01")
        verdict = reviewed(verdict, {(verdict.id, verdict.answer): check})
    return record.model_copy(update={"verdicts": (verdict,)})


RATED = [
    rated(0, "A", "right", "right"),
    rated(1, "A", "right", "right"),
    rated(2, "A", "wrong", "right"),
    rated(3, "B", "wrong", "wrong"),
    rated(4, "B", "wrong", "right"),
    rated(5, "A"),
]


def test_kappa_and_confusion_of_each_two_raters():
    table = agreement(verdict_frame(RATED))
    rule_model = table.loc["rule / model"]
    assert (rule_model["n"], rule_model["agree_pct"]) == (5, 80.0)
    # agreement 0.8; by chance 0.6*0.4 + 0.4*0.6 = 0.48
    assert rule_model["kappa"] == pytest.approx((0.8 - 0.48) / (1 - 0.48))
    assert [rule_model[c] for c in ("right_right", "right_wrong", "wrong_right", "wrong_wrong")] == [
        2,
        1,
        0,
        2,
    ]
    assert table.loc["model / human", "n"] == 5
    assert table.loc["rule / human", "wrong_right"] == 1


def test_kappa_is_undefined_not_perfect_where_all_agree():
    row = agreement(verdict_frame([rated(0, "A", "right"), rated(1, "A", "right")])).loc["rule / model"]
    assert row["kappa"] is None or row["kappa"] != row["kappa"]
    assert row["agree_pct"] == 100.0


def test_an_answer_that_several_arms_gave_is_rated_once():
    both = [*RATED, *RATED]
    assert agreement(verdict_frame(both)).loc["rule / model", "n"] == 5


def test_replies_are_counted_by_answer_and_their_tokens_by_question():
    def sent(number: int, answer: str) -> JudgedRecord:
        record = rated(number, answer, "right")
        call = record.verdicts[0].judge.model_copy(update={"prompt_tokens": 100, "completion_tokens": 5})
        return record.model_copy(
            update={"verdicts": (record.verdicts[0].model_copy(update={"judge": call}),)}
        )

    records = {
        i: sent(i, answer) for i, answer in enumerate(["A", "A", "B"])
    }  # 0 and 1 are the same question
    row = model_replies(records.values()).loc["right"]
    assert (row["answers"], row["prompt_tokens"], row["completion_tokens"]) == (3, 200, 10)


def test_a_model_that_gave_no_reply_rated_nothing():
    record = judged("vstar/direct_attributes/0", "scarlet")
    call = JudgeCall(model="judge", verdict="undecided", failure=Failure(type="timeout", message="no answer"))
    silent = record.model_copy(
        update={
            "verdicts": (record.verdicts[0].model_copy(update={"judge": call, "rule_verdict": "undecided"}),)
        }
    )
    assert verdict_frame([silent])["by_model"].tolist() == [None]


def test_only_paper_drops_failed_samples():
    frame = verdict_frame(
        [judged("vstar/direct_attributes/0", None), judged("vstar/direct_attributes/1", "A")]
    )
    assert (len(counted(frame, "strict")), len(counted(frame, "paper"))) == (2, 1)
