"""The audit of the reported numbers: its tables follow from the numbers, and change with them."""

from __future__ import annotations

import pandas as pd
import pytest

from speceyes_lib.analysis import audit
from speceyes_lib.analysis.reported import TABLES, read_reported
from speceyes_lib.tasks.registry import SIZES


@pytest.fixture
def paper() -> dict[str, pd.DataFrame]:
    return {name: read_reported(name) for name in TABLES}


def change(paper, table: str, column: str, value: float, **where) -> None:
    frame = paper[table]
    rows = pd.Series(True, index=frame.index)
    for key, wanted in where.items():
        rows &= frame[key] == wanted
    assert rows.sum() == 1, where
    frame.loc[rows, column] = value


MIN_4K = {"agent": "deepeyes", "method": "speceyes", "confidence": "min", "split": "hr/hr_bench_4k"}


def test_every_check_has_a_table(paper):
    tables = audit.audit_reported(paper)
    assert len(tables) == 7
    assert all(len(table) for table in tables.values())


def test_an_average_that_is_not_the_mean_is_named(paper):
    assert audit.averages(paper["table1"])["agrees"].all()
    change(paper, "table1", "accuracy_pct", 85.0, agent="deepeyes", method="baseline", split="average")
    table = audit.averages(paper["table1"])
    assert table.loc[~table["agrees"], ["agent", "method"]].to_numpy().tolist() == [["deepeyes", "baseline"]]


def test_the_operating_points_are_located_in_the_threshold_sweep(paper):
    blocks = audit.operating_points(paper).drop_duplicates(["agent", "benchmark"])
    assert {(r.agent, r.benchmark): r.block for r in blocks.itertuples()} == {
        ("deepeyes", "vstar"): (0.98,),
        ("deepeyes", "hr"): (0.97,),
        ("deepeyes", "pope"): (0.97,),
        ("thyme", "vstar"): (0.98,),
        ("thyme", "hr"): (0.98,),
        ("thyme", "pope"): (0.97,),
    }


def test_a_block_that_no_threshold_explains_has_none(paper):
    change(paper, "table1", "accuracy_pct", 99.0, **MIN_4K)
    blocks = audit.operating_points(paper).drop_duplicates(["agent", "benchmark"])
    unexplained = blocks[blocks["block"] == ()]
    assert unexplained[["agent", "benchmark"]].to_numpy().tolist() == [["deepeyes", "hr"]]


def test_one_threshold_is_averaged_only_where_all_splits_report_it(paper):
    table = audit.one_threshold(paper).set_index(["agent", "threshold"])
    assert table.loc[("deepeyes", 0.98), "accuracy_pct"] == pytest.approx(
        paper["ablation_threshold"].query("agent == 'deepeyes' and threshold == 0.98")["accuracy_pct"].mean()
    )
    assert table.loc[("deepeyes", 0.995), "n_splits"] == 4
    assert pd.isna(table.loc[("deepeyes", 0.995), "accuracy_pct"])


def test_points_reported_twice_are_compared_and_a_changed_one_is_seen(paper):
    def accuracy_off(pair: str) -> list[float]:
        table = audit.repeated_points(paper).query("pair == @pair")
        return table.loc[
            table["accuracy_pct_difference"].abs() > audit.HALF_UNIT, "accuracy_pct_difference"
        ].tolist()

    assert accuracy_off("table 1, baseline of the threshold sweep") == []
    assert accuracy_off("table 1, K sweep at 64") == []
    change(paper, "ablation_topk", "accuracy_pct", 70.0, agent="deepeyes", split="hr/hr_bench_4k", top_k=64)
    assert accuracy_off("table 1, K sweep at 64") == [pytest.approx(-5.85)]


def test_the_batch_size_behind_the_table_is_the_one_with_its_speedup(paper):
    table = audit.batch_sizes(paper).set_index("split")["batch_sizes"]
    assert table["pope/random"] == (8,)
    assert table["vstar/direct_attributes"] == ()


@pytest.mark.parametrize(
    ("accuracy_pct", "size", "fits"),
    [(90.43, 115, 115), (73.91, 76, 69), (75.85, 800, 795), (80.01, 800, None), (100.0, 76, 76)],
)
def test_denominators_are_those_of_which_a_count_rounds_to_the_percentage(accuracy_pct, size, fits):
    possible = audit.possible_denominators(accuracy_pct, size)
    assert max(possible, default=None) == fits
    for n in possible:
        assert min(abs(100 * count / n - accuracy_pct) for count in range(n + 1)) < 0.0051


def test_missing_samples_are_counted_and_charged(paper):
    table = audit.denominators(paper).query("table == 'table1' and split == 'hr/hr_bench_4k'")
    row = table[(table["agent"] == "deepeyes") & (table["confidence"] == "min")].iloc[0]
    assert (row["largest"], row["right"], row["dropped"]) == (795, 603, 5)
    assert row["strict_pct"] == pytest.approx(100 * 603 / 800)
    nowhere = table[table["largest"] == 0]
    assert nowhere[["agent", "method", "accuracy_pct"]].to_numpy().tolist() == [
        ["thyme", "specreason", 80.01]
    ]


def test_differences_say_what_no_pairing_can_make_significant(paper):
    table = audit.differences(paper["table1"])
    assert set(table["n"]) <= set(SIZES.values())
    row = table.query(
        "agent == 'deepeyes' and confidence == 'min' and split == 'vstar/relative_position'"
    ).iloc[0]
    # 68 right against 63: five samples that all went one way
    assert row["p_paired_least"] == pytest.approx(2 * 0.5**5)
    assert row["p_unpaired"] > row["p_paired_least"]
    change(paper, "table1", "accuracy_pct", 99.0, **MIN_4K)
    changed = audit.differences(paper["table1"]).query("agent == 'deepeyes' and confidence == 'min'")
    assert changed.set_index("split").loc["hr/hr_bench_4k", "difference_pp"] == pytest.approx(23.15)
