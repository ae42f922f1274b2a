"""Every cell of a table equals the number it was made from; blank where there is none."""

from __future__ import annotations

import json
import re

import pytest
from synthetic_run import TASKS, make_run

from speceyes_lib import frames, tables
from speceyes_lib.paper import AVERAGE, SPLITS, reported


@pytest.fixture(scope="module")
def summary():
    return frames.summarise(frames.assemble(*make_run(per_task=16)), run="demo", gate={"score": "min"})


def test_the_long_form_holds_every_arm_and_split_of_the_summary(summary):
    long = tables.measured_results(summary)
    assert len(long) == len(summary["arms"]) * (len(TASKS) + 1)
    row = long[(long["method"] == "speceyes_min") & (long["split"] == TASKS[2])].iloc[0]
    entry = summary["arms"]["gated"]["splits"][TASKS[2]]
    assert (row["accuracy_pct"], row["speedup"], row["n"]) == (
        entry["accuracy_pct"],
        entry["speedup"],
        entry["n"],
    )


def test_the_reported_table_shows_the_papers_numbers_as_printed():
    table1 = reported("table1")
    table = tables.main_table(tables.reported_results(table1))
    assert list(table.columns.get_level_values(0)[::2]) == [tables.split_label(s) for s in (*SPLITS, AVERAGE)]
    for row in table1.itertuples():
        method = f"{row.method}_{row.confidence}" if row.confidence else row.method
        cells = table.loc[("reported", tables.agent_label(row.agent), tables.method_label(method))]
        cells = cells[tables.split_label(row.split)]
        assert float(cells["accuracy %"]) == row.accuracy_pct
        assert float(cells["speedup"].removesuffix("x")) == row.speedup


def test_measured_accuracies_carry_their_interval_unless_told_otherwise(summary):
    long = tables.measured_results(summary)
    cell = tables.main_table(long).iloc[0, 0]
    assert cell.startswith(tables.main_table(long, intervals=False).iloc[0, 0] + "\n[")


def test_the_compact_table_holds_the_same_cells(summary):
    table = tables.main_table(tables.measured_results(summary))
    compact = tables.compact(table)
    assert list(compact.columns) == list(dict.fromkeys(table.columns.get_level_values(0)))
    accuracy, speed = compact.iloc[2, 3].split("\n")
    assert (accuracy, speed) == (table.iloc[2, 6].replace("\n", " "), table.iloc[2, 7])


def test_a_split_that_did_not_run_stays_blank(summary):
    long = tables.measured_results(summary)
    gone = (long["method"] == "draft_only") & (long["split"] == TASKS[0])
    table = tables.main_table(long[~gone])
    row = table.loc[("measured", "demo", "Draft alone")]
    assert row[tables.split_label(TASKS[0])].tolist() == ["", ""]
    assert all(row[tables.split_label(TASKS[1])].tolist())


def test_the_headline_shows_intervals_counts_and_what_a_speedup_is_over(summary):
    table = tables.headline_table(summary)
    gated, entry = table.loc["SpecEyes (min)"], summary["arms"]["gated"]["pooled"]
    numbers = [float(x) for x in re.findall(r"[\d.]+", gated["accuracy % [95 %]"])]
    assert numbers == pytest.approx([entry[f"accuracy{e}_pct"] for e in ("", "_low", "_high")], abs=0.051)
    assert (gated["n"], gated["errors"], gated["over"]) == (entry["n"], 1, "Agent alone")
    assert table.loc["Agent alone", "speedup [95 %]"] == ""


def test_comparisons_auroc_and_first_look_have_their_denominators(summary):
    assert (tables.comparison_table(summary)["n"] > 0).all()
    assert all("n=" in c for c in tables.auroc_table(summary).columns)
    assert tables.first_look_table(summary)["n"].tolist()[2] == summary["first_look"]["all"]["n"]


def test_tables_of_a_run_with_one_arm_are_partial_not_broken():
    arms, judged = make_run(per_task=8)
    summary = frames.summarise(
        frames.assemble({"baseline": arms["baseline"]}, {"baseline": judged["baseline"]})
    )
    assert list(tables.headline_table(summary).index) == ["Agent alone"]
    assert tables.comparison_table(summary).empty


def test_the_latex_is_booktabs_with_escaped_text(summary):
    text = tables.to_latex(tables.headline_table(summary), caption="Headline", label="tab:headline")
    assert r"\toprule" in text
    assert r"\bottomrule" in text
    assert not re.search(r"(?<!\\)%", text)


def test_the_same_table_gives_the_same_html(summary):
    summary = json.loads(json.dumps(summary))
    table = tables.main_table(tables.measured_results(summary))
    assert tables.styled(table, "x").to_html() == tables.styled(table.copy(), "x").to_html()


@pytest.mark.parametrize(
    ("arm", "label"),
    [
        ("gated", "SpecEyes (log)"),
        ("gated_batched", "SpecEyes (log), batched"),
        ("baseline_batched", "Agent alone, batched"),
        ("router_only", "Router, no gate"),
    ],
)
def test_an_arm_is_called_by_its_method(arm, label):
    assert tables.method_label(tables.method_of(arm, "log")) == label
