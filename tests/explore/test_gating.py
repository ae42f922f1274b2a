"""The explorer shows the numbers of replay for a setting, and every click lists the samples that it names."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from explore_run import K_STORED, THRESHOLD, store_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import StageError, UserError
from speceyes_lib.explore import charts, gating, stills
from speceyes_lib.explore.gating import Gating
from speceyes_lib.explore.state import ALL, Chosen, GateView, in_task
from speceyes_lib.judging import human
from speceyes_lib.paths import stage_dir
from speceyes_lib.replay import outcomes, replay_data
from speceyes_lib.runs import recorded_run
from speceyes_lib.stats import paired

VIEW = GateView(threshold=0.9, k=K_STORED)
thresholds = st.floats(0.0, 1.0)
# the run is only read: one for all examples
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, scene_samples, benchmark_root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        store_run("small", scene_samples, benchmark_root)
        yield


@pytest.fixture
def data(runs) -> Gating:
    return Gating(recorded_run.open("small", strict=False))


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize("task", [ALL, "pope", "hr/hr_bench_4k"])
@pytest.mark.parametrize("protocol", ["", "paper"])
def test_the_numbers_are_those_of_replay(data, task, protocol):
    view = replace(VIEW, task=task, protocol=protocol)
    summary = gating.gate_summary(data, view)
    tasks = [t for t in data.run.tasks if in_task(t, task)]
    recorded = recorded_run.open("small", tasks=tasks)
    frame = outcomes.replay(replay_data.load(recorded, protocol or None), data.setting(view))
    row = frame[frame["task"] == outcomes.POOLED].iloc[0]
    assert summary.accuracy.value == row["accuracy_pct"]
    assert summary.accuracy.n == row["n"]
    assert summary.alpha.value == pytest.approx(100 * row["alpha"])
    assert summary.accepted.value == pytest.approx(100 * row["coverage"])
    assert summary.risk.value == pytest.approx(100 * row["selective_risk"], nan_ok=True)
    assert summary.speedup.value == pytest.approx(row["speedup"])
    assert summary.difference_pp.value == pytest.approx(row["accuracy_pct"] - row["baseline_accuracy_pct"])
    assert summary.speedup.low < summary.speedup.value < summary.speedup.high


def test_the_difference_is_the_paired_one(data):
    decided = data.decided(VIEW)
    known = paired.paired_test(decided["right"], decided["agent_right"], decided["group"])
    summary = gating.gate_summary(data, VIEW).difference_pp
    assert summary.value == pytest.approx(known.difference.value)
    assert summary.high - summary.low == pytest.approx(
        known.difference.high - known.difference.low, rel=0.35
    )  # 52 samples


def test_accepting_nothing_is_the_agent_alone(data):
    summary = gating.gate_summary(data, replace(VIEW, threshold=1.0))
    assert summary.difference_pp.value == 0
    assert summary.difference_pp.low < 0 < summary.difference_pp.high
    assert summary.accepted.value == 0
    assert math.isnan(summary.risk.value)
    page = gating.summary_html(summary, "strict")
    assert "none" in page
    assert "nan" not in page


def test_a_split_of_one_sample_has_values_and_no_interval_where_none_can_be(
    tmp_path, monkeypatch, scene_samples, benchmark_root
):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store_run("one", [scene_samples[-1]], benchmark_root, failed=0)
    data = Gating(recorded_run.open("one", strict=False))
    for threshold in (0.0, 1.0):
        view = replace(VIEW, threshold=threshold)
        summary = gating.gate_summary(data, view)
        assert summary.n == 1
        assert "nan" not in gating.summary_html(summary, "strict")
        assert charts.distribution(data.part(ALL, ""), view)["x"]["low"] < math.inf
        assert charts.trade_off(data.curve_of(view))["dots"]
        drawn = [charts.distribution(data.part(ALL, ""), view), charts.trade_off(data.curve_of(view))]
        assert len(charts.figure(drawn, [0.0, None], [None, gating.current_dot(summary)]).axes) == 2
        assert "nan" not in stills.gate_still(data, view).data.split("</style>")[1]


def test_what_the_run_lacks_is_named(data):
    with pytest.raises(replay_data.NotRecorded, match="the output of the small router is not recorded"):
        gating.gate_summary(data, replace(VIEW, router="small"))
    with pytest.raises(replay_data.NotRecorded, match="K = 4096"):
        data.decided(replace(VIEW, k=4096))


# ------------------------------------------------------------------ decisions and ledger


@shared
@given(threshold=thresholds)
def test_every_sample_is_in_one_cell_and_the_ledger_agrees_with_replay(runs, threshold):
    data, view = Gating(recorded_run.open("small", strict=False)), replace(VIEW, threshold=threshold)
    decided = data.decided(view)
    assert gating.decisions_of(decided).to_numpy().sum() == len(decided)
    totals = gating.ledger_totals(decided)["n"]
    known = outcomes.ledger(data.part(ALL, ""), data.setting(view))["outcome"].value_counts()
    for name in ("gained", "lost", "both wrong", "unknown"):
        assert totals[name] == known.get(name, 0)
    accepted = (decided["decision"] == "accepted").sum()
    assert totals[["gained", "lost", "both wrong", "both right", "unknown"]].sum() == accepted


@pytest.mark.parametrize("name", list(outcomes.OUTCOMES))
def test_a_ledger_entry_lists_as_many_samples_as_it_counts(data, name):
    decided = data.decided(VIEW)
    rows = gating.listed(decided, replace(VIEW, chosen=Chosen("outcome", name)))
    assert len(rows) == gating.ledger_totals(decided).loc[name, "n"]


@pytest.mark.parametrize("verdict", ["right", "wrong"])
@pytest.mark.parametrize("decision", gating.DECISIONS)
def test_a_cell_lists_as_many_samples_as_it_counts(data, decision, verdict):
    decided = data.decided(VIEW)
    rows = gating.listed(decided, replace(VIEW, chosen=Chosen("decision", f"{decision} {verdict}")))
    assert len(rows) == gating.decisions_of(decided).loc[decision, verdict]
    assert (rows["decision"] == decision).all()


# ------------------------------------------------------------------ charts


@pytest.mark.parametrize("score", ["min", "log"])
def test_every_draft_that_reaches_the_gate_is_in_one_bar_and_a_click_lists_it(data, score):
    view = replace(VIEW, score=score)
    decided = data.decided(view)
    chart = charts.distribution(data.part(ALL, ""), view)
    listed = []
    for bar in chart["bars"]:
        id_ = bar["id"]
        rows = gating.listed(
            decided, replace(view, chosen=Chosen("bar", id_["bar"], id_["low"], id_["high"]))
        )
        assert len(rows) == int(bar["title"].split()[0])
        listed += rows["id"].tolist()
    reached = decided[decided["decision"].isin(["accepted", "rejected"])]
    assert sorted(listed) == sorted(reached["id"])


@shared
@given(low=thresholds, high=thresholds)
def test_moving_the_threshold_lists_exactly_what_is_decided_differently(runs, low, high):
    data = Gating(recorded_run.open("small", strict=False))
    before, after = (
        data.decided(replace(VIEW, threshold=t)).set_index("id")["decision"] for t in (low, high)
    )
    rows = gating.listed(data.decided(VIEW), replace(VIEW, chosen=Chosen("moved", "", low, high)))
    assert set(rows["id"]) == set(before.index[before != after])


@shared
@given(threshold=thresholds, steps=st.sampled_from([1, -1]))
def test_a_step_changes_the_fewest_decisions_there_are(runs, threshold, steps):
    data = Gating(recorded_run.open("small", strict=False))
    part = data.part(ALL, "")
    reached = part.score("min", K_STORED)[charts.gated_mask(part, "large")]
    reached = reached[np.isfinite(reached)]
    at = charts.stepped(part, replace(VIEW, threshold=threshold), steps)
    changed = np.unique(reached[(reached > threshold) != (reached > at)])
    assert len(changed) <= 1
    if steps > 0 and (reached > threshold).any():
        assert len(changed) == 1
        assert at > threshold


def test_the_curve_holds_the_agent_alone_and_accepting_all(data):
    curve = data.curve_of(VIEW)
    assert curve["coverage"].iloc[-1] == 0
    assert curve["coverage"].iloc[0] == curve["coverage"].max()
    assert curve["coverage"].is_monotonic_decreasing
    chart = charts.trade_off(curve)
    summary = gating.gate_summary(data, VIEW)
    at = gating.current_dot(summary)
    assert chart["x"]["low"] <= at[0] <= chart["x"]["high"]
    assert chart["y"]["low"] <= at[1] <= chart["y"]["high"]


def test_without_times_the_curve_goes_over_coverage(data):
    curve = data.curve_of(VIEW).assign(speedup=math.nan)
    assert "coverage" in charts.trade_off(curve)["title"]


def test_the_ends_of_the_axis_are_confidences_again():
    for confidence in (0.01, 0.5, 0.97, 0.9999):
        assert charts.confidence_at(float(charts.log_odds(confidence))) == pytest.approx(confidence)
    assert np.isfinite(charts.log_odds(np.array([0.0, 1.0]))).all()


# ------------------------------------------------------------------ review


def test_a_random_sample_is_the_same_each_time_and_grows(data):
    decided = data.decided(VIEW)

    def ids(n, seed=0):
        return gating.listed(decided, replace(VIEW, chosen=Chosen("random", n=n, seed=seed)))["id"].tolist()

    assert len(ids(10)) == 10
    assert ids(10) == ids(10)
    assert set(ids(10)) < set(ids(30))
    assert ids(10) != ids(10, seed=1)
    assert len(ids(10**6)) == len(decided)


def test_disagreements_and_borderline_cases(data):
    decided = data.decided(VIEW)
    apart = gating.listed(decided, replace(VIEW, chosen=Chosen("disagree")))
    assert set(apart["id"]) == set(decided["id"][decided["draft_right"] != decided["agent_right"]])
    near = gating.listed(decided, replace(VIEW, chosen=Chosen("borderline", n=5)))
    reached = decided[decided["decision"].isin(["accepted", "rejected"]) & decided["confidence"].notna()]
    distance = np.abs(charts.log_odds(reached["confidence"].to_numpy()) - charts.log_odds(VIEW.threshold))
    assert near["id"].tolist() == reached["id"].iloc[np.argsort(distance, kind="stable")[:5]].tolist()


def test_sample_sizes_are_those_of_the_textbook():
    assert gating.sample_size(5, 10**9) == 385  # 1.96^2 / 4 / 0.05^2
    assert gating.sample_size(5, 1000) == 278  # with the finite population correction
    assert gating.sample_size(50, 3) == 2
    assert gating.sample_size(1, 0) == 0
    with pytest.raises(UserError, match="half-width"):
        gating.sample_size(0, 100)


@given(half_width=st.floats(0.5, 50), n=st.integers(1, 20_000))
def test_the_sample_is_large_enough_and_never_more_than_there_are(half_width, n):
    size = gating.sample_size(half_width, n)
    assert 1 <= size <= n
    if n > 1:
        reach = 196.0 * math.sqrt(0.25 / size * (n - size) / (n - 1))
        assert reach <= half_width * 1.001


def test_marks_are_counted_among_the_samples_they_are_on(data):
    ids = data.part(ALL, "").ids.tolist()
    none = pd.DataFrame(columns=["id", "mark"])
    assert gating.marks_text(none, ids, "all") == f"nothing marked yet in all (n={len(ids)})"
    marks = pd.DataFrame({"id": [ids[0], ids[1], "else/where/1"], "mark": ["sound", "unsound", "sound"]})
    assert gating.marks_text(marks, ids, "all").startswith(f"2 of {len(ids)} marked in all: sound 50.0 %")


def test_a_persons_verdict_changes_the_reviewed_numbers_only(
    tmp_path, monkeypatch, scene_samples, benchmark_root
):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store_run("judged", scene_samples, benchmark_root)
    before = gating.gate_summary(Gating(recorded_run.open("judged", strict=False)), VIEW)
    decided = Gating(recorded_run.open("judged", strict=False)).decided(VIEW)
    id_ = decided["id"][(decided["decision"] == "accepted") & decided["draft_right"]].iloc[0]
    answer = recorded_run.open("judged", strict=False).records("collect")[id_].draft.answer
    human.append_override("judged", id=id_, answer=answer, verdict="wrong", reason="it is not", author="me")
    data = Gating(recorded_run.open("judged", strict=False))
    assert gating.gate_summary(data, VIEW) == before
    reviewed = gating.gate_summary(data, VIEW, reviewed=True)
    assert reviewed.accuracy.value == pytest.approx(before.accuracy.value - 100 / before.n)
    assert "with 1 verdict" in gating.summary_html(before, "strict", reviewed, 1)
    human.append_override("judged", id=id_, answer=answer, verdict="right", reason="it is", author="me")
    assert gating.gate_summary(data, VIEW, reviewed=True) == reviewed
    data.read_checks()
    assert gating.gate_summary(data, VIEW, reviewed=True) == before


def test_marks_can_be_exported_with_what_they_are_on(tmp_path, monkeypatch, scene_samples, benchmark_root):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store_run("marked", scene_samples, benchmark_root)
    data = Gating(recorded_run.open("marked", strict=False))
    row = data.decided(VIEW).iloc[7]
    human.append_gating_mark(
        "marked", id=row["id"], mark="unsound", author="me", note="é, <b>", arm="collect"
    )
    exported = pd.read_csv(gating.export_review(data, VIEW))
    assert exported[["id", "decision", "mark", "reason"]].iloc[0].tolist() == [
        row["id"],
        row["decision"],
        "unsound",
        "é, <b>",
    ]


# ------------------------------------------------------------------ unfinished runs


def test_unfinished_tasks_are_left_out_and_named(tmp_path, monkeypatch, scene_samples, benchmark_root):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store_run("young", scene_samples, benchmark_root)
    (stage_dir("young", "02_collect", "pope/random") / "manifest.json").unlink()
    data = Gating(recorded_run.open("young", strict=False))
    assert "pope/random" not in data.usable_tasks()
    assert data.part(ALL, "").n < len(scene_samples)
    (note,) = data.notes()
    assert note.startswith("02_collect of pope/random is in progress")
    for task in data.run.tasks:
        (stage_dir("young", "03_judging/collect", task) / "manifest.json").unlink()
    with pytest.raises(StageError, match="no task whose answers and verdicts are finished"):
        Gating(recorded_run.open("young", strict=False)).data("")


def test_a_run_without_evidence_keeps_its_recorded_scores(
    tmp_path, monkeypatch, scene_samples, benchmark_root
):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store_run("bare", scene_samples, benchmark_root)
    for task in recorded_run.open("bare", strict=False).tasks:
        (stage_dir("bare", "01_draft", task) / "manifest.json").unlink()
    data = Gating(recorded_run.open("bare", strict=False))
    part = data.part(ALL, "")
    view = replace(VIEW, k=part.recorded_k, threshold=THRESHOLD)
    assert part.k_stored == 0
    assert gating.gate_summary(data, view).n == len(scene_samples)
    with pytest.raises(replay_data.NotRecorded):
        gating.gate_summary(data, replace(view, k=8))
