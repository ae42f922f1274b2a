"""An imported run in the later stages: what its files tell is there, what they lack is absent."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import write_run

from speceyes_lib.analysis import confidence_data, results, sample_frame
from speceyes_lib.analysis.run_result import RunResult
from speceyes_lib.analysis.summary import choose_threshold, funnel_at, summarise
from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes import LATENCY
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.gating import certificates
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import ConfidenceParams, JudgingParams
from speceyes_lib.report import labels, table1, tables
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.plots import confidence, cost, gate
from speceyes_lib.runs import recorded_run
from speceyes_lib.stats.resampling import Bootstrap
from speceyes_lib.tasks import registry

TASKS = list(registry.TASKS)
SECONDS = {"baseline": 20.0, "gated": 8.0, "drafts": 2.0}  # per split


@pytest.fixture
def files(tmp_path, monkeypatch, scene_samples, benchmark_root) -> Path:
    """A run in the original's files, judged, with its seconds per split."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    write_run("ours", scene_samples, benchmark_root, ["collect", "baseline", "gated"], failed=1)
    out = tmp_path / "out"
    for path in export("ours", out):
        if "eval_results" in str(path):
            summary = path.with_name(LATENCY)
            seconds = json.loads(summary.read_text()) if summary.exists() else {}
            arm = "baseline" if "baseline" in path.name else "gated" if "_min_" in path.name else "drafts"
            summary.write_text(json.dumps(seconds | {path.name: SECONDS[arm]}))
    return out


def test_accuracy_and_speedup_are_the_originals_and_intervals_of_time_are_absent(files, benchmark_root):
    import_files("speceyes", [files], "theirs", str(benchmark_root))
    frame = sample_frame.samples(recorded_run.open("theirs", tasks=TASKS), ["collect", "baseline", "gated"])
    ours = sample_frame.samples(recorded_run.open("ours", tasks=TASKS), ["collect", "baseline", "gated"])
    ours.attrs["protocol"] = "paper"  # as the original counts: failed samples are dropped
    imported, recorded = (summarise(f, bootstrap=Bootstrap(draws=100)) for f in (frame, ours))
    json.dumps(imported, allow_nan=False)
    for arm in ("baseline", "gated", "draft_only", "router_only"):
        assert (
            imported["arms"][arm]["pooled"]["accuracy_pct"] == recorded["arms"][arm]["pooled"]["accuracy_pct"]
        )
        assert imported["arms"][arm]["pooled"]["errors"] == 1
    gated = imported["arms"]["gated"]["pooled"]
    assert gated["wall_s"] == 7 * SECONDS["gated"]
    assert gated["speedup"] == pytest.approx(20 / 8)
    assert (gated["speedup_low"], gated["speedup_high"]) == (None, None)
    assert imported["arms"]["draft_only"]["splits"][TASKS[0]]["speedup"] == pytest.approx(20 / 2)
    assert imported["arms"]["router_only"]["pooled"]["speedup"] is None
    assert (gated["alpha"], gated["beta"]) == tuple(
        recorded["arms"]["gated"]["pooled"][k] for k in ("alpha", "beta")
    )
    assert "baseline_batched" not in imported["arms"]  # no arm ran agents together
    assert imported["auroc"]["min"]["pooled"] == recorded["auroc"]["min"]["pooled"]


def test_tables_and_figures_take_what_is_there(files, benchmark_root):
    import_files("speceyes", [files], "theirs", str(benchmark_root))
    frame = sample_frame.samples(recorded_run.open("theirs", tasks=TASKS), ["collect", "baseline", "gated"])
    summary = summarise(frame, run="theirs", bootstrap=Bootstrap(draws=100))
    headline = as_text(results.arm_results(summary), tables.TABLES["headline"])
    assert headline.loc["SpecEyes (min)", "speedup [95 %]"] == "2.50x"
    assert headline.loc[labels.method_label("router_only"), "wall-clock s"] == ""
    shown = results.measured_results(summary)
    table1(shown).to_html()
    gate.accuracy_speedup(shown)
    gathered = confidence_data.gather_confidence(
        ConfidenceParams(run="theirs", tasks=TASKS, threshold_from="")
    )
    assert {"scores from evidence, other K", "times and speedups"} & set(gathered.missing)
    confidence.confidence_density(gathered.drafts, ["min", "log"])
    assert not certificates.certify(gathered.to_certify(), certificates.certification_rules(), 2).empty
    gate.accuracy_over_threshold(choose_threshold(frame).curve)
    times = RunResult(None, frame, summary).phase_times()
    assert times.empty
    cost.phase_times(times)


def test_an_import_without_verdicts_is_judged_like_a_run_of_ours(files, benchmark_root):
    import_files("speceyes", sorted(files.glob("eval_results_*")), "bare", str(benchmark_root))
    params = JudgingParams(run="bare", arms=["collect", "baseline", "gated"], data_root=str(benchmark_root))
    run_judging(params)
    bare = sample_frame.samples(recorded_run.open("bare", tasks=TASKS), params.arms)
    ours = sample_frame.samples(recorded_run.open("ours", tasks=TASKS), params.arms)
    columns = ["gated_verdict", "baseline_verdict", "draft_verdict", "score_min", "group", "kind"]
    pd.testing.assert_frame_equal(bare[columns], ours[columns])


def test_without_a_gated_file_no_router_is_assumed(files, benchmark_root):
    picked = [p for p in files.rglob("*.jsonl") if "_min_" not in p.name]
    import_files("speceyes", picked, "r", str(benchmark_root))
    frame = sample_frame.samples(recorded_run.open("r", tasks=TASKS), ["collect", "baseline"])
    assert frame["router_verdict"].isna().all()
    assert "router_only" not in sample_frame.arms_of(frame)
    _, accepted = funnel_at(frame, 0.0)
    assert accepted.value == pytest.approx(100 * frame["score_min"].notna().mean())
