"""The notebooks about reinforcement learning run on any logs of verl: complete ones, a console log, dumps alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from training_runs import write_run, write_runs

from speceyes_lib.errors import DataError
from speceyes_lib.params import RECORDED_TRAINING
from speceyes_lib.workflow.execute import execute
from tests.notebooks.test_executed import outputs, text_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """Runs of two arms, and parts of one of them as users have them."""
    folder = tmp_path_factory.mktemp("logs")
    write_runs(folder / "all", ("bonus", "rate_too_high"), seeds=2, steps=8)
    for part in ("console.log", "metrics.jsonl", "rollouts"):
        source, target = folder / "all/bonus-0" / part, folder / part.split(".")[0] / part
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return folder


@pytest.fixture
def quick_figures(monkeypatch) -> None:
    """Figures take most of the time: they are drawn, but not laid out, and saved as blank pictures."""

    def save(self, target, **_) -> None:
        kind = "PDF" if str(target).endswith("pdf") else "PNG"
        Image.new("RGB", (96, 96)).save(target, kind, dpi=(96, 96))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
    monkeypatch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda *_: None)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def cells_run(name: str, **parameters) -> dict:
    """What the code cells of a notebook leave behind, run in this process: a kernel of its own takes seconds."""
    names = dict(parameters)
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            exec(compile(cell.source, name, "exec"), names)
    return names


def shown_by_papermill(
    name: str, folder: Path, parameters: dict, figures: int
) -> list[nbformat.NotebookNode]:
    """What a notebook shows: no error, warning or path of the checkout, so many figures, a widget in an explorer."""
    execute(NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb", parameters)
    shown = outputs(nbformat.read(folder / f"{name}.ipynb", 4))
    for output in shown:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert str(NOTEBOOKS.parent) not in text_of(output)
        assert "Warning" not in text_of(output)
    assert sum("image/png" in output.get("data", {}) for output in shown) == figures
    live = [o for o in shown if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert len(live) == name.startswith("explore_")
    return shown


@pytest.mark.parametrize(("name", "figures"), [("read_training_run", 7), ("explore_training", 0)])
def test_it_runs_by_papermill_without_error_or_warning(name, figures, logs, tmp_path):
    shown = shown_by_papermill(name, tmp_path, {"path": str(logs / "all")}, figures)
    # a trajectory is shown, and as text
    assert ("&lt;answer&gt;" in "\n".join(map(text_of, shown))) == (name != "read_training_run")


@pytest.mark.parametrize(
    ("what", "bands", "trajectories"),
    [("all", 11, 512), ("console", 6, 0), ("metrics", 6, 0), ("rollouts", 6, 128)],
)
def test_a_part_of_the_logs_is_enough(what, bands, trajectories, logs, runs, quick_figures):
    names = cells_run("read_training_run", path=str(logs / what))
    assert names["bands"]["key"].nunique() == bands
    assert len(names["runs"].rollouts) == trajectories
    assert len(list((runs / "training/figures").glob("*.png"))) == 7
    explored = cells_run("explore_training", path=str(logs / what))
    assert len(explored["explorer"].samples.rows) == (4 if trajectories else 0)
    assert bool(explored["explorer"].message.value) == (not trajectories)
    studied = cells_run("study_deepeyes_recipe", path=str(logs / what))
    assert len(studied["results"]) == 0


@pytest.mark.parametrize("name", ["read_training_run", "explore_training", "study_deepeyes_recipe"])
def test_a_folder_that_holds_no_run_is_one_sentence(name, tmp_path):
    with pytest.raises(DataError, match=r"there is no such file or folder"):
        cells_run(name, path=str(tmp_path / "none"))


def test_damaged_logs_are_read_as_far_as_they_go_and_every_fault_is_named(
    tmp_path, runs, quick_figures, capsys
):
    folder = write_run(tmp_path / "run", "bonus", 0, steps=6)
    (folder / "rollouts/7.jsonl").touch()
    (folder / "rollouts/8.jsonl").write_text('{"output": "x", "score": 2.0, "step": 8}\nprose\n')
    metrics = (folder / "metrics.jsonl").read_text().splitlines()
    metrics += [
        '{"step": 5, "data": {"critic/score/mean": 1.0}}',
        '{"step": 6, "data": {"actor/entropy": null}}',
    ]
    (folder / "metrics.jsonl").write_text("\n".join([*metrics, '{"step": 7, "da']))
    with (folder / "console.log").open("a") as console:
        console.write(
            "step:7 - actor/entropy:nan - actor/grad_norm:inf - critic/score/mean:0.5 - actor/lr:1e"
        )
    names = cells_run("read_training_run", path=str(folder))
    faults = [str(problem) for problem in names["runs"].problems]
    for part in (
        "7.jsonl: holds no trajectory",
        "8.jsonl, line 2: not valid JSON",
        "metrics.jsonl, line 7: step 5 comes again after step 6: the run was restarted, and the later lines count",
        "metrics.jsonl, line 9: not valid JSON",
        "console.log, line 7: ends within a line",
    ):
        assert [fault for fault in faults if part in fault], part
    count = names["runs"].counts().iloc[0]
    assert (count["last"], count["trajectories"], count["not_finite"]) == (8, 97, 3)
    assert f"{len(faults)} problems" in capsys.readouterr().out
    assert (runs / "training/figures/training_metrics.png").is_file()


def test_two_runs_in_one_folder_and_logs_of_other_programs_are_one_sentence(logs, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(logs / "rollouts/rollouts", tmp_path / "both" / name)
    with pytest.raises(DataError, match="are of two runs; name the folder of one of them"):
        cells_run("read_training_run", path=str(tmp_path / "both"))
    (tmp_path / "other.log").write_text("Epoch 1/3: loss 0.25\n")
    with pytest.raises(
        DataError, match=r"other\.log: holds no metrics and no trajectories.*expected console lines"
    ):
        cells_run("read_training_run", path=str(tmp_path / "other.log"))


def test_the_recorded_runs_are_shown_with_their_held_out_questions_and_their_funnel(runs, quick_figures):
    names = cells_run("study_deepeyes_recipe", path=RECORDED_TRAINING, run="recipe")
    assert {"bonus", "no_bonus"} <= set(names["runs"].counts()["arm"])
    assert len(names["results"]) > 0
    drawn = (runs / "recipe/figures/speculation_by_agent.png").is_file()
    assert drawn == (len(names["runs"].speculation) > 0)
