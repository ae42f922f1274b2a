"""The same answers under every scorer; what each correction moves adds up to the whole difference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged

from speceyes_lib.judging import scorer_comparison
from speceyes_lib.judging.human import reviewed
from speceyes_lib.judging.scorer_comparison import (
    accuracy_by_scorer,
    compare_scorers,
    corrections,
    pope_by_scorer,
)
from speceyes_lib.report.plots.judging import correction_waterfall
from speceyes_lib.runs.records import HumanCheck, JudgeCall

RECORDS = [
    judged("vstar/direct_attributes/0", "A"),
    judged("vstar/direct_attributes/1", "red"),  # words: the original asks its model
    judged("vstar/direct_attributes/2", None),
    judged("hr/hr_bench_4k/0", "C. dark red", "A"),  # open under paper, wrong under strict
    judged("hr/hr_bench_4k/1", "Answer: C", "A"),  # the A of "Answer"
    judged("pope/random/0", "Yes", "yes"),  # equal length, other case
    judged("pope/random/1", "no", "no"),
]


def test_the_table_has_the_denominator_of_each_number():
    table = accuracy_by_scorer(compare_scorers(RECORDS))
    cells = {key: (pytest.approx(a), *map(int, rest)) for key, a, *rest in table.itertuples()}
    vstar, hr, pope = "vstar/direct_attributes", "hr/hr_bench_4k", "pope/random"
    assert cells[vstar, "paper"] == (50, 2, 1, 1)  # n, dropped, open
    assert cells[vstar, "strict"] == (200 / 3, 3, 0, 0)
    assert cells[vstar, "DeepEyes judge"] == (100 / 3, 3, 0, 1)
    assert (vstar, "POPE's own") not in cells  # no rules for it
    assert cells[hr, "paper"] == (50, 2, 0, 1)
    assert cells[hr, "strict"] == (0, 2, 0, 0)
    assert cells[pope, "paper"] == (50, 2, 0, 0)
    assert cells[pope, "strict"] == (100, 2, 0, 0)
    assert ("all", "lmms-eval") in cells
    assert ("all", "DeepEyes judge") not in cells


def test_the_steps_lead_from_one_protocol_to_the_other():
    steps = corrections(compare_scorers(RECORDS)).set_index("step")
    assert steps.loc["paper", "accuracy_pct"] == pytest.approx(100 * 3 / 6)
    assert steps.loc[scorer_comparison.FAILED, "moved_points"] == pytest.approx(100 * (3 / 7 - 3 / 6))
    letter = scorer_comparison.CORRECTIONS["letter_anywhere"]
    assert (steps.loc[letter, "gained"], steps.loc[letter, "lost"]) == (0, 1)
    assert steps.loc[scorer_comparison.CORRECTIONS["equal_length"], "gained"] == 1
    assert steps.loc[scorer_comparison.CORRECTIONS["asks_llm"], "gained"] == 1
    assert steps.loc["strict", "accuracy_pct"] == pytest.approx(100 * 4 / 7)


answers = st.one_of(
    st.none(), st.sampled_from(["A", "B.", "red", "A. red", "a", "no", "Yes", "yes, A", "Answer: C", ""])
)
places = st.sampled_from([("vstar/direct_attributes", "A"), ("hr/hr_bench_4k", "C"), ("pope/random", "no")])


@settings(deadline=None)  # frames of a loaded machine take longer than the default of 200 ms
@given(st.lists(st.tuples(places, answers), min_size=1, max_size=30))
def test_steps_add_up_and_every_count_is_that_of_its_samples(cases):
    records = [judged(f"{task}/{i}", answer, truth) for i, ((task, truth), answer) in enumerate(cases)]
    scored = compare_scorers(records)
    steps = corrections(scored)
    first, last = steps["accuracy_pct"].iloc[0], steps["accuracy_pct"].iloc[-1]
    assert last == pytest.approx(100 * (scored["strict"] == "right").mean())
    if (scored["paper"] != "dropped").any():
        assert first + steps["moved_points"].sum() == pytest.approx(last)
    assert (
        steps["gained"].sum() - steps["lost"].sum()
        == (scored["strict"] == "right").sum() - (scored["paper"] == "right").sum()
    )


def decided(record, model: str | None = None, person: str | None = None):
    verdict = record.verdicts[0]
    if model:
        call = JudgeCall(model="judge", verdict=model, reply="Judgement: 1")
        verdict = verdict.model_copy(
            update={"verdict": model, "decided_by": "llm", "rule_verdict": "undecided", "judge": call}
        )
    if person:
        check = HumanCheck(verdict=person, reason="seen", author="ana", time_utc="2026-01-01")
        verdict = reviewed(verdict, {(verdict.id, verdict.answer): check})
    return record.model_copy(update={"verdicts": (verdict,)})


def test_model_and_people_are_steps_of_their_own():
    records = [
        decided(judged("vstar/direct_attributes/0", "scarlet"), model="right"),
        decided(judged("vstar/direct_attributes/1", "A"), person="wrong"),
        judged("vstar/direct_attributes/2", "A"),
    ]
    steps = corrections(compare_scorers(records)).set_index("step")
    assert steps.loc[scorer_comparison.BY_MODEL, "gained"] == 1
    assert steps.loc[scorer_comparison.BY_PEOPLE, "lost"] == 1
    assert steps.loc["strict", "accuracy_pct"] == pytest.approx(200 / 3)


def test_records_without_a_standard_answer_are_left_out():
    blank = RECORDS[0].model_copy(update={"options": ()})
    assert len(compare_scorers([blank, RECORDS[1]])) == 1


def test_pope_is_measured_as_each_scorer_defines_it():
    answers = ["yes", "yes.", "no", "perhaps", "no"]
    truth = ["yes", "yes", "yes", "yes", "no"]
    records = [judged(f"pope/random/{i}", s, t) for i, (s, t) in enumerate(zip(answers, truth, strict=True))]
    table = pope_by_scorer(compare_scorers(records)).loc["pope/random"]
    shown = ["accuracy_pct", "recall_pct", "yes_pct", "neither"]
    assert table.loc["strict", shown].tolist() == [60, 50, 40, 1]
    # of the four that are yes: one literal yes, one literal no, two it cannot read and does not miss
    assert table.loc["lmms-eval", shown].tolist() == [40, 50, 80, 2]
    assert table.loc["POPE's own", shown[:3]].tolist() == [80, 75, 60]
    assert pope_by_scorer(compare_scorers(RECORDS[:1])).empty


def test_the_waterfall_shows_every_step_with_its_answers():
    steps = corrections(compare_scorers(RECORDS))
    figure = correction_waterfall(steps)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert len(texts) == len(steps)
    assert texts[0] == "50.0 %  (n=6)"
    assert any("(+0, −1)" in t for t in texts)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(steps["step"])
