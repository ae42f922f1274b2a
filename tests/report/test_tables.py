"""Every cell of a table equals the number it was made from; blank where there is none."""

from __future__ import annotations

import re

import pytest
from synthetic_run import TASKS, make_run

from speceyes_lib.analysis import results, sample_frame
from speceyes_lib.analysis.run_result import RunResult
from speceyes_lib.analysis.summary import summarise
from speceyes_lib.report import labels, tables
from speceyes_lib.report.columns import as_text


@pytest.fixture(scope="module")
def summary():
    return summarise(sample_frame.assemble(*make_run(per_task=16)), run="demo", gate={"score": "min"})


def test_the_long_form_holds_every_arm_and_split_of_the_summary(summary):
    long = results.measured_results(summary)
    assert len(long) == len(summary["arms"]) * (len(TASKS) + 1)
    row = long[(long["method"] == "speceyes_min") & (long["split"] == TASKS[2])].iloc[0]
    entry = summary["arms"]["gated"]["splits"][TASKS[2]]
    assert (row["accuracy_pct"], row["speedup"], row["n"]) == (
        entry["accuracy_pct"],
        entry["speedup"],
        entry["n"],
    )


def test_the_headline_shows_intervals_counts_and_what_a_speedup_is_over(summary):
    table = as_text(results.arm_results(summary), tables.TABLES["headline"])
    gated, entry = table.loc["SpecEyes (min)"], summary["arms"]["gated"]["pooled"]
    numbers = [float(x) for x in re.findall(r"[\d.]+", gated["accuracy % [95 %]"])]
    assert numbers == pytest.approx([entry[f"accuracy{e}_pct"] for e in ("", "_low", "_high")], abs=0.051)
    assert (gated["n"], gated["errors"], gated["over"]) == (str(entry["n"]), "1", "Agent alone")
    assert table.loc["Agent alone", "speedup [95 %]"] == ""


def test_comparisons_auroc_and_first_look_have_their_denominators(summary):
    compared = RunResult(None, None, summary).comparisons()
    looks = RunResult(None, None, summary).first_look()
    auroc = results.auroc_results(summary["auroc"])
    assert (compared["n"] > 0).all()
    assert looks.loc["all", "n"] == summary["first_look"]["all"]["n"]
    assert looks.loc["hard", "diff_pp"] == summary["first_look"]["hard"]["gain"]["diff_pp"]
    assert auroc.loc["after router", "min"] == summary["auroc"]["min"]["after_router"]["value"]
    for table, columns in (
        (compared, tables.TABLES["comparisons"]),
        (looks, tables.TABLES["first_look"]),
        (auroc, tables.auroc_columns(auroc)),
    ):
        shown = as_text(table, columns)
        assert shown["n"].tolist() == [f"{n:.0f}" for n in table["n"]]
        assert not any("nan" in cell for cell in shown.to_numpy().ravel())


def test_tables_of_a_run_with_one_arm_are_partial_not_broken():
    arms, judged = make_run(per_task=8)
    summary = summarise(
        sample_frame.assemble({"baseline": arms["baseline"]}, {"baseline": judged["baseline"]})
    )
    assert list(as_text(results.arm_results(summary), tables.TABLES["headline"]).index) == ["Agent alone"]
    assert as_text(RunResult(None, None, summary).comparisons(), tables.TABLES["comparisons"]).empty


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
    assert labels.method_label(results.method_of(arm, "log")) == label
