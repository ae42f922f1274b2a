"""Verdicts as frames: who decided what, and how far they agree."""

from __future__ import annotations

import pandas as pd
import pytest
from judged import judged

from speceyes_lib.judging.human import reviewed
from speceyes_lib.judging.verdict_frames import (
    agreement,
    counted,
    counts_by_arm,
    deciders,
    left_open,
    model_replies,
    session_cost,
    verdict_frame,
    with_and_without_people,
)
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.tables import VERDICTS
from speceyes_lib.runs.records import Counts, Failure, HumanCheck, JudgeCall, JudgedRecord, Manifest


def rated(number: int, answer: str, model: str | None = None, person: str | None = None):
    """A V* answer, truth A, that a rule decides; the model and a person may have been asked as well."""
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


def test_kappa_is_undefined_not_perfect_where_all_say_the_same():
    told = agreement(verdict_frame([rated(0, "A", "right"), rated(1, "A", "right")])).loc["rule / model"]
    assert told["kappa"] is None or told["kappa"] != told["kappa"]
    assert told["agree_pct"] == 100.0


def test_an_answer_that_several_arms_gave_is_rated_once():
    both = [*RATED, *RATED]
    assert agreement(verdict_frame(both)).loc["rule / model", "n"] == 5


def test_replies_are_counted_by_answer_and_their_tokens_by_question():
    def asked(number: int, said: str) -> JudgedRecord:
        record = rated(number, said, "right")
        call = record.verdicts[0].judge.model_copy(update={"prompt_tokens": 100, "completion_tokens": 5})
        return record.model_copy(
            update={"verdicts": (record.verdicts[0].model_copy(update={"judge": call}),)}
        )

    counts = Counts(expected=3, done=3)
    manifest = Manifest(
        stage="03_judging/gated", counts=counts, timing={"session_s": 1.5, "judge_requests": 2}
    )
    records = {i: asked(i, said) for i, said in enumerate(["A", "A", "B"])}  # the same is asked of 0 and 1
    told = model_replies(records.values()).loc["right"]
    assert (told["answers"], told["prompt_tokens"], told["completion_tokens"]) == (3, 200, 10)
    assert session_cost([manifest, manifest]) == {"judge_requests": 4}


def test_a_model_that_gave_no_reply_rated_nothing():
    record = judged("vstar/direct_attributes/0", "scarlet")
    call = JudgeCall(model="judge", verdict="undecided", failure=Failure(type="timeout", message="no answer"))
    silent = record.model_copy(
        update={
            "verdicts": (record.verdicts[0].model_copy(update={"judge": call, "rule_verdict": "undecided"}),)
        }
    )
    assert verdict_frame([silent])["by_model"].tolist() == [None]


def test_who_decided_is_counted_by_rule_and_verdict():
    table = deciders(verdict_frame([*RATED, judged("vstar/direct_attributes/9", "red or blue")]))
    assert table.loc[("human", "letter"), "right"] == 4
    assert table.loc[("rule", "letter"), "right"] == 1
    assert table.loc[("nobody", "contradictory"), "undecided"] == 1


def test_only_paper_drops_failed_samples():
    frame = verdict_frame(
        [judged("vstar/direct_attributes/0", None), judged("vstar/direct_attributes/1", "A")]
    )
    assert (len(counted(frame, "strict")), len(counted(frame, "paper"))) == (2, 1)


def test_verdicts_are_counted_by_arm():
    frame = pd.concat(
        [
            verdict_frame(RATED, "gated"),
            verdict_frame([judged("vstar/direct_attributes/9", None)], "baseline"),
        ]
    )
    counts = counts_by_arm(frame)
    assert list(counts.index) == ["gated", "baseline"]
    assert counts.loc["gated", ["right", "wrong", "error", "n"]].tolist() == [5, 1, 0, 6]
    assert counts.loc["baseline", ["right", "error", "n"]].tolist() == [0, 1, 1]


def test_accuracy_with_and_without_people_has_its_counts_beside_it():
    told = with_and_without_people(verdict_frame(RATED, "gated"), "strict").loc["gated"]
    assert told["with_pct"] == pytest.approx(100 * 5 / 6)
    assert told["without_pct"] == pytest.approx(100 * 4 / 6)
    assert (told["n"], told["checked"], told["overruled"]) == (6, 5, 1)


def test_what_nobody_could_tell_is_left_open_and_a_failure_is_not():
    answers = ["A", "red or blue", "", None]
    frame = verdict_frame([judged(f"vstar/direct_attributes/{i}", a) for i, a in enumerate(answers)])
    assert left_open(frame)["answer"].tolist() == ["red or blue", ""]
    assert as_text(left_open(frame), VERDICTS)["decided by"].tolist() == ["nobody", "rule"]
