"""Every stage runs as committed, through papermill, on a few samples and the embedded models, and reads cleanly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from training_runs import write_runs

from speceyes_lib.report import site
from speceyes_lib.workflow.execute import JobError, execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# test_tool_notebooks.py runs the study of tool calls
STAGES = sorted(
    path.stem
    for path in (*NOTEBOOKS.glob("0*.ipynb"), *NOTEBOOKS.glob("study_*.ipynb"))
    if path.stem != "study_tool_speculation"
)
LIMIT = 4  # samples per task
EACH_TASK = 7 * LIMIT
SETTINGS = ["min > 0.97", "log > 0.9, batch 1"]
TASKS_OF_FEW = ["hr/hr_bench_4k"]  # where a notebook runs the models many times

PROGRESS_DEBRIS = re.compile(r"\d+%\||it/s|s/it|\r|\x1b\[")
PREDECESSOR = {  # notebook -> the one that a message has to name when its results are missing
    "02_gated_agent_eval": "01_small_model_inference",
    "03_judging": "02_gated_agent_eval",
    "04_threshold": "02_gated_agent_eval",
    "04_confidence_analysis": "02_gated_agent_eval",
    "04_certified_thresholds": "02_gated_agent_eval",
    "04_costs": "02_gated_agent_eval",
    "05_paper_figures": "02_gated_agent_eval",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of these tests; kernels inherit the setting."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(folder))
        yield folder


def run_notebook(name: str, executed: Path, **parameters) -> nbformat.NotebookNode:
    try:
        execute(NOTEBOOKS / f"{name}.ipynb", executed, parameters)
    finally:
        notebook = nbformat.read(executed, as_version=4)
    return notebook


@pytest.fixture(scope="module")
def executed(runs, benchmark_root) -> dict[str, nbformat.NotebookNode]:
    """The stages one after another, 02 and 03 twice: the threshold is chosen between the two."""
    folder = runs / "tiny" / "notebooks"
    data = {"data_root": str(benchmark_root)}
    point = {"threshold_from": str(runs / "tiny" / "04_threshold" / "operating_point.json")}
    arms = ["baseline", "gated", "baseline_batched", "gated_batched"]
    steps = [
        ("00_prepare_data", {**data, "kind": "check", "validation_root": ""}),
        ("01_small_model_inference", {**data, "limit": LIMIT}),
        ("02_gated_agent_eval", {**data, "limit": LIMIT, "arms": ["collect"]}),
        ("03_judging", {**data, "arms": ["collect"]}),
        ("04_threshold", {}),
        ("04_confidence_analysis", {"threshold_from": "", "bootstrap": 200}),
        ("04_certified_thresholds", {"threshold_from": "", "repeats": 2}),
        ("04_costs", {"threshold_from": ""}),
        ("02_gated_agent_eval", {**data, **point, "limit": LIMIT, "arms": arms}),
        ("03_judging", {**data, "arms": arms}),
        ("05_paper_figures", {**point, "bootstrap": 200}),
        (
            "study_replay_fidelity",
            {**data, "run": "fidelity", "tasks": TASKS_OF_FEW, "limit": 2, "settings": SETTINGS},
        ),
        ("study_position_bias", {"tasks": TASKS_OF_FEW, "orders": ["rotated_1"], "bootstrap": 200}),
        ("study_layer_gates", {"threshold_from": "", "repeats": 2, "bootstrap": 200}),
        (
            "study_second_draft",
            {"tasks": TASKS_OF_FEW, "ways": ["rotated_1"], "threshold_from": "", "bootstrap": 200},
        ),
        ("study_own_results", {"repeats": 2}),
        ("study_reported_numbers", {}),
        ("study_deepeyes_recipe", {"path": str(write_runs(runs / "logs", seeds=1, steps=6))}),
    ]
    done = {}
    for name, parameters in steps:
        key = name if name not in done else f"{name}_again"
        done[key] = run_notebook(name, folder / f"{key}.ipynb", **{"run": "tiny"} | parameters)
    return done


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(output: nbformat.NotebookNode) -> str:
    shown = {kind: data for kind, data in output.get("data", {}).items() if kind.startswith("text/")}
    return "\n".join([output.get("text", ""), *map(str, shown.values())])


def test_every_stage_ran(executed):
    assert {key.removesuffix("_again") for key in executed} == set(STAGES)


def test_executed_copies_hold_no_error_warning_or_progress_debris(executed):
    for name, notebook in executed.items():
        for output in outputs(notebook):
            assert output.output_type != "error", name
            assert output.get("name") != "stderr", f"{name}: {output.text}"
            text = text_of(output)
            assert not PROGRESS_DEBRIS.search(text), f"{name}: {text[:300]!r}"
            assert "Traceback" not in text, name
            assert "Warning" not in text, f"{name}: {text[:300]!r}"


def test_every_code_cell_was_run(executed):
    for name, notebook in executed.items():
        for cell in notebook.cells:
            assert cell.cell_type != "code" or cell.execution_count is not None, name


def test_long_work_leaves_one_progress_line(executed):
    for name, verb in (("01_small_model_inference", "drafted"), ("02_gated_agent_eval", "answered")):
        lines = [text_of(o).strip() for o in outputs(executed[name]) if text_of(o).strip().startswith(verb)]
        assert len(lines) == 1
        assert lines[0].startswith(f"{verb} {EACH_TASK} of {EACH_TASK} samples in ")


def test_outputs_name_no_folder_of_this_machine(executed):
    for name, notebook in executed.items():
        for output in outputs(notebook):
            assert str(NOTEBOOKS.parent) not in text_of(output), name


def test_figures_are_pictures_of_a_sensible_size(executed):
    widths = [
        output.metadata["image/png"]["width"]
        for notebook in executed.values()
        for output in outputs(notebook)
        if "width" in output.get("metadata", {}).get("image/png", {})
    ]
    assert len(widths) >= 5
    assert all(200 <= width <= 1400 for width in widths)


def test_the_run_ends_in_a_summary_with_all_arms(executed, runs):
    summary = json.loads((runs / "tiny" / "summary.json").read_text())
    for arm in ("baseline", "draft_only", "gated"):
        assert summary["arms"][arm]["pooled"]["n"] == EACH_TASK
        assert len(summary["arms"][arm]["splits"]) == 7
    assert summary["arms"]["gated"]["pooled"]["speedup"] > 0


def test_index_shows_headline_figures_and_every_notebook(executed):
    page = site.write_index("tiny").read_text()
    assert all(f"notebooks/{key}.html" in page for key in executed)
    assert "SpecEyes" in page
    assert "<figure" in page
    assert "failed</span>" not in page


def test_running_a_finished_stage_again_changes_nothing(executed, runs, benchmark_root, tmp_path):
    folder = runs / "tiny" / "01_draft"
    before = {path: path.read_bytes() for path in folder.rglob("records.jsonl")}
    parameters = {"data_root": str(benchmark_root), "limit": LIMIT}
    again = run_notebook("01_small_model_inference", tmp_path / "again.ipynb", run="tiny", **parameters)
    assert {path: path.read_bytes() for path in folder.rglob("records.jsonl")} == before
    text = "\n".join(map(text_of, outputs(again)))
    assert f"drafted {EACH_TASK} of {EACH_TASK} samples, all from an earlier session" in text


@pytest.mark.parametrize("name", PREDECESSOR)
def test_a_stage_before_its_predecessor_says_what_to_run_first(name, runs, benchmark_root, tmp_path):
    parameters: dict = {"run": "empty"}
    if name in ("02_gated_agent_eval", "03_judging"):
        parameters |= {"data_root": str(benchmark_root), "arms": ["collect"]}
    with pytest.raises(JobError, match=rf"StageError: .*{PREDECESSOR[name]}"):
        run_notebook(name, tmp_path / "failed.ipynb", **parameters)
    (error,) = [o for o in outputs(nbformat.read(tmp_path / "failed.ipynb", 4)) if o.output_type == "error"]
    assert len(error.traceback) == 1
    assert error.traceback[0].startswith("StageError: ")
