"""One row per sample, joined right; the summary counts what happened, errors included."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from synthetic_run import TASKS, make_run

from speceyes_lib.analysis import sample_frame
from speceyes_lib.analysis.summary import auroc_by_score, groups_of, summarise, without_tool
from speceyes_lib.runs import records


@pytest.fixture(scope="module")
def run():
    return make_run(per_task=24)


@pytest.fixture(scope="module")
def frame(run):
    return sample_frame.assemble(*run)


def test_one_row_per_sample_in_a_fixed_order(frame):
    assert list(frame["task"].unique()) == list(TASKS)  # as the paper lists them
    assert all(part["id"].is_monotonic_increasing for _, part in frame.groupby("task"))
    assert frame["id"].is_unique
    assert len(frame) == 24 * len(TASKS)


def test_a_row_holds_what_its_own_records_say(run, frame):
    arms, judged = run
    row = frame.iloc[100]
    record = arms["collect"][row["id"]]
    assert row["draft_answer"] == record.draft.answer
    assert row["score_min"] == record.draft.scores["min"]
    assert row["agent_answer"] == record.trajectory.answer
    assert row["n_turns"] == len(record.trajectory.turns)
    assert row["target_fraction"] == judged["collect"][row["id"]].target_fraction
    result = {v.source: v.verdict == "right" for v in judged["collect"][row["id"]].verdicts}
    assert [row[f"{w}_right"] for w in ("draft", "agent", "first_look")] == [
        result[w] for w in ("draft", "agent", "first_look")
    ]
    gated = arms["gated"][row["id"]]
    assert row["gated_decision"] == gated.decision
    assert row["gated_wall_s"] == pytest.approx(gated.wall_s)


@pytest.mark.parametrize("name", ["baseline", "gated", "draft_only", "router_only", "gated_batched"])
def test_the_phases_of_every_arm_add_up_to_its_clock(frame, name):
    part = sample_frame.arm(frame, name)
    assert np.allclose(part[list(records.PHASES)].sum(axis=1), part["wall_s"])


def test_a_failed_sample_stays_in_the_frame_and_counts_as_wrong(frame):
    row = (
        frame.iloc[0]
        if frame.iloc[0]["gated_verdict"] == "error"
        else frame[frame["gated_verdict"] == "error"].iloc[0]
    )
    assert not row["gated_right"]
    summary = summarise(frame)
    task = summary["arms"]["gated"]["splits"][row["task"]]
    assert (task["n"], task["errors"]) == (24, 1)
    right = frame.loc[frame["task"] == row["task"], "gated_right"].sum()
    assert task["accuracy_pct"] == pytest.approx(100 * right / 24)


def test_the_paper_protocol_drops_errors_from_the_denominator(frame):
    paper = frame.copy()
    paper.attrs["protocol"] = "paper"
    pooled = summarise(paper)["arms"]["gated"]["pooled"]
    assert (pooled["n"], pooled["errors"]) == (len(frame) - 1, 1)


def test_the_router_alone_takes_every_draft_it_lets_through(frame):
    part = frame[frame["router_verdict"] == "no"]
    assert (part["router_only_answer"] == part["draft_answer"]).all()
    rest = frame[frame["router_verdict"] == "yes"]
    assert (rest["router_only_answer"] == rest["agent_answer"]).all()
    assert (rest["router_only_draft_s"] == 0).all()


def test_the_batched_baseline_is_the_instrumented_pass_without_its_router_unless_it_was_run(run):
    arms, judged = (
        {name: part for name, part in whole.items() if name != "baseline_batched"} for whole in run
    )
    frame = sample_frame.assemble(arms, judged)
    assert frame["baseline_batched_answer"].equals(frame["agent_answer"])
    spent = frame["collect_wall_s"] - frame["collect_router_s"]
    assert frame["baseline_batched_wall_s"].to_numpy() == pytest.approx(spent.to_numpy())
    really = sample_frame.assemble(*run)
    assert not really["baseline_batched_wall_s"].equals(frame["baseline_batched_wall_s"])


def test_the_summary_is_json_and_names_what_each_arm_did(frame):
    summary = summarise(frame, run="demo", gate={"threshold": 0.97})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    gated = summary["arms"]["gated"]
    assert set(gated["splits"]) == set(TASKS)
    for entry in (gated["pooled"], *gated["splits"].values()):
        assert entry["accuracy_low_pct"] <= entry["accuracy_pct"] <= entry["accuracy_high_pct"]
        assert entry["accepted_pct"] == pytest.approx(100 * entry["alpha"] * entry["beta"])
        assert entry["speedup_over"] == "baseline"
    assert summary["arms"]["gated_batched"]["pooled"]["speedup_over"] == "baseline_batched"
    assert "speedup" not in summary["arms"]["baseline"]["pooled"]
    assert "alpha" not in summary["arms"]["draft_only"]["pooled"]
    assert summary["missing"] == []


def test_specreason_is_shown_where_it_ran_and_measured_against_the_agent_alone(run):
    arms, judged = run
    with_it = sample_frame.assemble(
        {"baseline": arms["baseline"], "specreason": arms["baseline_batched"]},
        {"baseline": judged["baseline"], "specreason": judged["baseline_batched"]},
    )
    summary = summarise(with_it)
    entry = summary["arms"]["specreason"]["pooled"]
    assert entry["speedup_over"] == "baseline"
    assert entry["speedup"] == pytest.approx(
        summary["arms"]["baseline"]["pooled"]["wall_s"] / entry["wall_s"]
    )
    assert "specreason_vs_baseline" in summary["comparisons"]
    assert "specreason" not in summarise(sample_frame.assemble(*run))["missing"]


def test_the_speedup_is_the_ratio_of_the_two_clocks(frame):
    arms = summarise(frame)["arms"]
    gated, baseline = arms["gated"]["pooled"], arms["baseline"]["pooled"]
    assert gated["speedup"] == pytest.approx(baseline["wall_s"] / gated["wall_s"])


def test_the_average_weighs_every_split_the_same(run):
    frame = sample_frame.assemble(*run)
    keep = ~((frame["task"] == TASKS[0]) & (frame.index % 3 > 0))  # one split is much smaller
    summary = summarise(frame[keep].reset_index(drop=True))["arms"]["baseline"]
    splits = [s["accuracy_pct"] for s in summary["splits"].values()]
    assert summary["average"]["accuracy_pct"] == pytest.approx(np.mean(splits))
    assert summary["average"]["accuracy_pct"] != pytest.approx(summary["pooled"]["accuracy_pct"])


def test_clustered_samples_get_clustered_intervals(frame):
    hr, vstar = (frame[frame["task"] == t] for t in ("hr/hr_bench_4k", "vstar/direct_attributes"))
    assert groups_of(vstar) is None
    assert len(set(groups_of(hr))) == len(hr) // 4


def test_a_run_with_one_arm_tells_what_is_missing(run):
    arms, judged = run
    frame = sample_frame.assemble({"baseline": arms["baseline"]}, {"baseline": judged["baseline"]})
    summary = summarise(frame)
    assert list(summary["arms"]) == ["baseline"]
    assert {"gated", "draft_only", "router_only"} <= set(summary["missing"])
    assert "auroc" not in summary
    assert summary["comparisons"] == {}


def test_an_arm_that_ran_fewer_samples_is_compared_on_those(run):
    arms, judged = run
    few = dict(list(arms["gated"].items())[:10])
    frame = sample_frame.assemble(
        {"baseline": arms["baseline"], "gated": few},
        {"baseline": judged["baseline"], "gated": {i: judged["gated"][i] for i in few}},
    )
    summary = summarise(frame)
    assert summary["arms"]["gated"]["pooled"]["n"] == 10
    assert summary["comparisons"]["gated_vs_baseline"]["pooled"]["n"] == 10


def test_first_look_is_split_by_the_stated_size(frame):
    result = without_tool(frame, hard_below=0.5)
    looked = frame["first_look_verdict"].notna()
    assert result["hard"]["n"] == int((looked & (frame["target_fraction"] < 0.5)).sum())
    assert result["hard"]["n"] + result["easy"]["n"] == result["all"]["n"] == int(looked.sum())
    unknown = frame.assign(target_fraction=np.nan)
    result = without_tool(unknown)
    assert (result["hard"]["n"], result["n_size_unknown"]) == (0, result["all"]["n"])


def test_auroc_is_of_the_draft_also_for_what_the_router_lets_through(frame):
    result = auroc_by_score(frame)["min"]
    drafted = frame["score_min"].notna()
    assert result["pooled"]["n"] == int(drafted.sum())
    assert result["after_router"]["n"] == int((drafted & (frame["router_verdict"] == "no")).sum())
    assert 0.5 < result["pooled"]["value"] <= 1


def test_the_frame_survives_a_csv(frame, tmp_path):
    frame.to_csv(tmp_path / "frame.csv", index=False)
    assert len(pd.read_csv(tmp_path / "frame.csv")) == len(frame)
