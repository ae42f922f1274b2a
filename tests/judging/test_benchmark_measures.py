"""Each benchmark is measured as its authors do, on numbers small enough to check by hand."""

from __future__ import annotations

import itertools

import pytest
from judged import judged

from speceyes_lib.judging.benchmark_measures import OVERALL, by_benchmark, measures_of, yes_no_answers
from speceyes_lib.judging.human import reviewed
from speceyes_lib.judging.verdict_frames import verdict_frame
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.tables import measure_columns
from speceyes_lib.runs.records import HumanCheck


def measures(records, protocol: str = "strict") -> dict:
    """(split, measure) -> (value, n)."""
    long = measures_of(verdict_frame(records), protocol)
    return {(r.split, r.measure): (pytest.approx(r.value_pct, nan_ok=True), r.n) for r in long.itertuples()}


VSTAR = [judged(f"vstar/direct_attributes/{i}", a) for i, a in enumerate(["A", "A", "B", None])] + [
    judged(f"vstar/relative_position/{i}", a) for i, a in enumerate(["A", "B"])
]


def test_vstar_overall_is_weighted_by_samples_not_by_splits():
    measured = measures(VSTAR)
    assert measured["direct_attributes", "accuracy"] == (50.0, 4)
    assert measured["relative_position", "accuracy"] == (50.0, 2)
    assert measured[OVERALL, "accuracy"] == (50.0, 6)
    more = [*VSTAR, judged("vstar/relative_position/2", "A")]
    assert measures(more)[OVERALL, "accuracy"] == (400 / 7, 7)  # the mean of the splits would be 58.3


def test_paper_leaves_failed_samples_out_of_the_denominator():
    records = [judged(r.id, r.verdicts[0].answer, protocol="paper") for r in VSTAR]
    measured = measures(records, "paper")
    assert measured["direct_attributes", "accuracy"] == (200 / 3, 3)


def hr(question: int, answers: str, kind: str) -> list:
    """The four orders of one question; the right letter moves with the order; "x" fails."""
    return [
        judged(
            f"hr/hr_bench_4k/{4 * question + i}",
            None if a == "x" else a,
            "ABCD"[i],
            group=f"q{question}",
            kind=kind,
        )
        for i, a in enumerate(answers)
    ]


HR = [*hr(0, "ABCD", "single"), *hr(1, "AAAA", "single"), *hr(2, "ABCx", "cross")]


def test_hr_bench_by_rows_by_kind_and_by_question():
    measured = measures(HR)
    assert measured["hr_bench_4k", "accuracy"] == (100 * 8 / 12, 12)
    assert measured["hr_bench_4k", "single"] == (100 * 5 / 8, 8)
    assert measured["hr_bench_4k", "cross"] == (75.0, 4)
    assert measured["hr_bench_4k", "cycle_consistent"] == (100 / 3, 3)


def test_a_question_with_a_failed_order_is_not_consistent_under_paper_either():
    records = [
        judged(r.id, v.answer, v.standard[0], group=r.group, kind=r.kind, protocol="paper")
        for r in HR
        for v in r.verdicts
    ]
    measured = measures(records, "paper")
    assert measured["hr_bench_4k", "accuracy"] == (100 * 8 / 11, 11)
    assert measured["hr_bench_4k", "cross"] == (100.0, 3)
    assert measured["hr_bench_4k", "cycle_consistent"] == (100 / 3, 3)


def test_a_question_without_all_orders_does_not_count_in_that_measure():
    assert measures(HR[:-1])["hr_bench_4k", "cycle_consistent"] == (50.0, 2)


def test_hr_bench_intervals_are_clustered_by_question():
    long = measures_of(
        verdict_frame([*hr(0, "ABCD", "single"), *hr(1, "xxxx", "single"), *hr(2, "ABAA", "single")])
    )
    row = long[long["measure"] == "accuracy"].iloc[0]
    assert row["interval"] == "cluster bootstrap"
    assert (row["low_pct"], row["high_pct"]) == (0.0, 100.0)  # three questions, whatever their twelve rows


def pope(answers: list[str | None], truth: list[str]) -> list:
    return [judged(f"pope/random/{i}", s, t) for i, (s, t) in enumerate(zip(answers, truth, strict=True))]


POPE = pope(
    ["yes", "Yes.", "no", "no", "yes", "perhaps", None], ["yes", "yes", "yes", "no", "no", "yes", "no"]
)


def test_pope_has_yes_as_the_positive_class_and_the_ratio_of_predicted_yes():
    measured = measures(POPE)
    assert measured["random", "accuracy"] == (100 * 3 / 7, 7)
    assert measured["random", "precision"] == (100 * 2 / 3, 3)
    assert measured["random", "recall"] == (50.0, 4)
    assert measured["random", "f1"] == (100 * 4 / 7, 7)
    assert measured["random", "yes_ratio"] == (100 * 3 / 7, 7)


def test_no_answer_of_yes_gives_no_precision_rather_than_a_zero():
    measured = measures(pope(["no"], ["yes"]))
    assert measured["random", "precision"] == (float("nan"), 0)
    assert measured["random", "recall"] == (0.0, 1)


def test_where_a_person_decided_the_word_follows_from_the_verdict():
    record = pope(["perhaps"], ["yes"])[0]
    check = HumanCheck(verdict="right", reason="means yes", author="ana", time_utc="2026-01-01")
    verdict = reviewed(record.verdicts[0], {(record.id, "perhaps"): check})
    now = record.model_copy(update={"verdicts": (verdict,)})
    assert list(yes_no_answers(verdict_frame([record]))) == [None]
    assert list(yes_no_answers(verdict_frame([now]))) == ["yes"]


def test_tables_hold_a_count_beside_every_figure_and_follow_the_order_given():
    frames = {"gated": verdict_frame([*VSTAR, *HR, *POPE]), "baseline": verdict_frame(VSTAR)}
    wide = by_benchmark({arm: measures_of(frame) for arm, frame in frames.items()})
    assert wide["vstar"].loc[("direct_attributes", "baseline"), "accuracy_n"] == 4
    tables = {name: as_text(table, measure_columns(table, name)) for name, table in wide.items()}
    assert list(tables) == ["vstar", "hr", "pope"]
    assert list(tables["vstar"].index) == list(
        itertools.product(["V* direct", "V* relative", OVERALL], ["SpecEyes", "Agent alone"])
    )
    assert list(tables["pope"].columns) == [
        "accuracy %",
        "precision %",
        "recall %",
        "F1 %",
        "predicted yes %",
    ]
    assert list(tables["hr"].columns) == ["accuracy %", "single %", "cross %", "all 4 orders right %"]
    assert all("n=" in cell for table in tables.values() for cell in table.to_numpy().ravel())


def test_an_empty_frame_measures_nothing():
    assert measures_of(verdict_frame([])).empty
    assert by_benchmark({"gated": measures_of(verdict_frame([]))}) == {}
