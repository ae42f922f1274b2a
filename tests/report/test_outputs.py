"""Stages 04 and 05 read a finished run, write what they promise, and never hand on a threshold by mistake."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from synthetic_run import TASKS, THRESHOLD, make_run, write_answers, write_verdicts

from speceyes_lib.analysis import paper_comparison, run_result, sample_frame, summary
from speceyes_lib.errors import StageError
from speceyes_lib.gating.threshold import read_operating_point
from speceyes_lib.params import ConfidenceParams, FiguresParams, ThresholdParams
from speceyes_lib.paths import run_dir
from speceyes_lib.report import outputs as outputs_module
from speceyes_lib.report.outputs import (
    CONFIDENCE,
    FIGURES,
    write_confidence_stage,
    write_figures_stage,
    write_threshold_stage,
)
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.reading import read_manifest
from speceyes_lib.stats.resampling import Bootstrap


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run `r` and its validation run `v`, judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        for run, seed in (("r", 0), ("v", 1)):
            arms, judged = make_run(per_task=8, seed=seed)
            write_answers(run, arms)
            write_verdicts(run, judged)
        yield


def choose(run: str):
    params = ThresholdParams(run=run, tasks=list(TASKS))
    frame = sample_frame.samples(recorded_run.open(run, tasks=params.tasks), [params.arm])
    chosen = summary.choose_threshold(frame, params.score, params.delta_pp)
    album = outputs_module.open_album(params, outputs_module.THRESHOLD)
    album.draw("threshold_choice", chosen.curve, chosen.threshold)
    return chosen, write_threshold_stage(params, frame, chosen, album)


def confidence(run: str, threshold_from: str = ""):
    params = ConfidenceParams(run=run, tasks=list(TASKS), threshold_from=threshold_from, bootstrap=100)
    frame = sample_frame.samples(recorded_run.open(run, tasks=params.tasks), [params.arm])
    chosen = summary.choose_threshold(frame, params.score, params.delta_pp)
    album = outputs_module.open_album(params, CONFIDENCE)
    auroc = summary.auroc_by_score(frame, params.modes, bootstrap=Bootstrap(draws=100))
    album.draw("accuracy_over_threshold", chosen.curve, chosen.threshold)
    return chosen, write_confidence_stage(params, frame, chosen, auroc, album)


def test_a_loaded_run_is_the_assembled_one(runs):
    loaded = sample_frame.samples(recorded_run.open("r"), ["collect", "gated"])
    arms, judged = make_run(per_task=8)
    names = ("collect", "gated")
    direct = sample_frame.assemble({a: arms[a] for a in names}, {a: judged[a] for a in names})
    pd.testing.assert_frame_equal(loaded, direct)
    assert loaded.attrs["protocol"] == "strict"


def test_the_validation_run_hands_its_threshold_on(runs):
    chosen, folder = choose("v")
    stored = read_operating_point(folder / "operating_point.json")
    assert stored["threshold"] == chosen.threshold
    assert stored["chosen_on"] == {"run": "v", "tasks": list(TASKS), "score": "min", "protocol": "strict"}
    outputs = read_manifest("v", outputs_module.THRESHOLD).outputs
    assert {"operating_point.json", "../figures/threshold_choice.png"} <= set(outputs)


def test_a_threshold_from_elsewhere_is_used_and_none_handed_on(runs):
    _, validation = choose("v")
    point = str(validation / "operating_point.json")
    _, folder = confidence("r", point)
    assert {"confidence.json", "../figures/accuracy_over_threshold.png"} <= set(
        read_manifest("r", CONFIDENCE).outputs
    )
    assert not list(run_dir("r").rglob("operating_point.json"))
    stored = json.loads((folder / "confidence.json").read_text())
    assert stored["threshold"] == read_operating_point(point)["threshold"]
    assert stored["chosen_on"]["run"] == "v"


def test_the_summary_tells_the_gate_that_really_ran(runs):
    params = FiguresParams(run="r", tasks=list(TASKS), threshold_from="", bootstrap=100)
    run = run_result.summarised(params)
    assert run.summary["gate"]["threshold"] == THRESHOLD
    results = paper_comparison.gather_paper(params, run).results()
    assert set(results["source"]) == {"reported", "measured"}
    album = outputs_module.open_album(params, FIGURES)
    album.draw("accuracy_speedup", results, source="both")
    folder = write_figures_stage(params, run, results, album)
    assert json.loads((run_dir("r") / "summary.json").read_text()) == run.summary
    manifest = read_manifest("r", FIGURES)
    assert {"table1.csv", "table1.tex", "../summary.json"} <= set(manifest.outputs)
    assert manifest.counts.done == 8 * len(TASKS)
    assert len(manifest.inputs) == 2 * len(params.arms) * len(TASKS)
    origin = json.loads((run_dir("r") / "figures" / "accuracy_speedup.json").read_text())
    assert (origin["run"], origin["source"]) == ("r", "both")
    assert len(pd.read_csv(folder / "table1.csv")) == len(results)


def test_reported_numbers_need_no_run(runs):
    params = FiguresParams(run="never", tasks=list(TASKS), source="reported")
    assert run_result.summarised(params) is None
    results = paper_comparison.gather_paper(params, None).results()
    folder = write_figures_stage(params, None, results, outputs_module.open_album(params, FIGURES))
    assert (folder / "table1.tex").exists()
    assert not (run_dir("never") / "summary.json").exists()


def test_an_arm_that_was_not_judged_names_the_notebook(runs):
    write_answers("unjudged", {"baseline": make_run(per_task=2)[0]["baseline"]})
    with pytest.raises(StageError, match="03_judging"):
        sample_frame.samples(recorded_run.open("unjudged", tasks=[TASKS[0]]), ["baseline"])


def test_arms_under_different_protocols_are_not_compared(runs):
    arms, judged = make_run(per_task=2)
    write_answers("mixed", arms)
    write_verdicts("mixed", {"baseline": judged["baseline"]})
    write_verdicts("mixed", {"gated": judged["gated"]}, protocol="paper")
    with pytest.raises(StageError, match="different protocols"):
        sample_frame.samples(recorded_run.open("mixed"), ["baseline", "gated"])


def test_verdicts_of_other_samples_are_refused(runs):
    arms, _ = make_run(per_task=4, tasks=(TASKS[0],))
    _, judged = make_run(per_task=3, tasks=(TASKS[0],))
    write_answers("partial", {"gated": arms["gated"]})
    write_verdicts("partial", {"gated": judged["gated"]})
    with pytest.raises(StageError, match="not of the same samples"):
        sample_frame.samples(recorded_run.open("partial"), ["gated"])
