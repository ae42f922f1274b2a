"""Notebook helpers: parameters are checked, a mistake reads as one sentence, progress leaves one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from matplotlib.figure import Figure
from papermill.exceptions import PapermillExecutionError

from speceyes_lib import paths
from speceyes_lib.errors import ConfigError, JobError
from speceyes_lib.params import DraftParams
from speceyes_lib.report import formatting
from speceyes_lib.workflow import notebook
from speceyes_lib.workflow.execute import execute

HEAD = """
import time
from speceyes_lib.errors import DataError
from speceyes_lib.workflow.notebook import Progress, handover, show_figure, start
params = start("01_small_model_inference", globals())
"""


def run_cells(folder, *cells: str, parameters: dict | None = None) -> nbformat.NotebookNode:
    """Execute code cells by papermill, as the workflow does, and return the executed copy, failed or not."""
    first = nbformat.v4.new_code_cell("batch_size: int = 8", metadata={"tags": ["parameters"]})
    source = nbformat.v4.new_notebook(cells=[first, *(nbformat.v4.new_code_cell(c) for c in cells)])
    source.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(source, folder / "in.ipynb")
    try:
        papermill.execute_notebook(
            folder / "in.ipynb", folder / "out.ipynb", parameters=parameters or {}, progress_bar=False
        )
    except PapermillExecutionError as error:
        (folder / "error.txt").write_text(str(error))
    return nbformat.read(folder / "out.ipynb", as_version=4)


def outputs(executed: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in executed.cells for output in cell.get("outputs", [])]


# ------------------------------------------------------------------ in a real kernel


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> list[nbformat.NotebookNode]:
    """Header, two legs of progress, a figure, then a mistake of the user's: one kernel for the tests below."""
    folder = tmp_path_factory.mktemp("executed")
    progress = """
with Progress("drafted") as progress:
    for task in ("vstar/direct_attributes", "pope/random"):
        for done in range(6):
            progress(done, 5, task)
            time.sleep(0.01)
"""
    figure = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\nshow_figure(figure)"
    mistake = "def load():\n    raise DataError('scene.json: field options is missing; add it')\nload()"
    cells = [HEAD, progress, figure, mistake]
    return [*outputs(run_cells(folder, *cells)), (folder / "error.txt").read_text()]


def test_progress_leaves_exactly_one_clean_line(executed):
    lines = [
        o.data["text/plain"] for o in executed[:-1] if "drafted" in o.get("data", {}).get("text/plain", "")
    ]
    assert len(lines) == 1
    assert re.match(r"drafted 10 of 10 samples in \d+\.\d s ", lines[0])
    assert not [o for o in executed[:-1] if o.output_type == "stream"]


def test_a_figure_is_shown_once(executed):
    assert len([o for o in executed[:-1] if "image/png" in o.get("data", {})]) == 1


def test_a_saved_figure_is_shown_from_its_file_as_wide_as_in_print(tmp_path, monkeypatch):
    figure = Figure(figsize=(3.5, 2))
    figure.savefig(tmp_path / "saved.png", dpi=200)
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    notebook.show_figure(tmp_path / "saved.png")
    (image,) = shown
    assert image.data == (tmp_path / "saved.png").read_bytes()
    assert image.width == 3.5 * 96


def test_the_header_shows_run_versions_and_parameters_but_no_machine_folder(executed):
    text = next(o.data["text/html"] for o in executed[:-1] if "text/html" in o.get("data", {}))
    assert "run <b>demo</b> · commit " in text
    assert "torch 2.12.1" in text
    assert "<td>batch_size</td><td><code>8</code></td>" in text
    assert str(paths.resolve(".")) not in text


def test_a_users_mistake_is_one_sentence_without_traceback_and_fails_the_run(executed):
    *shown, papermill_error = executed
    (error,) = [o for o in shown if o.output_type == "error"]
    assert error.traceback == ["DataError: scene.json: field options is missing; add it"]
    assert "scene.json: field options is missing" in papermill_error
    assert "Traceback" not in papermill_error


def test_a_misspelt_papermill_parameter_is_refused_with_the_nearest_name(tmp_path):
    (error,) = outputs(run_cells(tmp_path, HEAD, parameters={"batchsize": 4}))
    assert error.ename == "ConfigError"
    assert "batchsize: there is no such key (did you mean 'batch_size'?)" in error.evalue


def test_a_kernel_that_is_ended_from_outside_is_a_failed_job_with_a_remedy(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("n: int = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "dies.ipynb")
    with pytest.raises(JobError, match=r"ended from outside; .* run it again to resume"):
        execute(tmp_path / "dies.ipynb", tmp_path / "executed.ipynb", {})


def test_no_kernel_outlives_a_command_that_was_killed(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("pid_file: str = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import os, time, pathlib\n"
            "pathlib.Path(pid_file + '.new').write_text(str(os.getpid()))\n"
            "os.rename(pid_file + '.new', pid_file)\n"
            "time.sleep(600)"
        ),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "works.ipynb")
    pid_file = tmp_path / "pid"
    code = (
        # orphans become children of this process, as below a session's manager, and not of process 1
        "import ctypes, os, pathlib, sys, time; from speceyes_lib.workflow.execute import execute\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"
        "if os.fork():\n"
        "    time.sleep(600)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "(folder / 'command').write_text(str(os.getpid()))\n"
        "execute(folder / 'works.ipynb', folder / 'out.ipynb', {'pid_file': str(folder / 'pid')})"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as reaper:
        try:
            wait_for(pid_file.exists)
            os.kill(int((tmp_path / "command").read_text()), signal.SIGKILL)
            state = Path(f"/proc/{pid_file.read_text()}/stat")
            wait_for(lambda: not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z")
        finally:
            reaper.kill()


def wait_for(so) -> None:
    """Wait until something is so; fail when it is not after minutes."""
    until_s = time.monotonic() + 240
    while not so():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_job_whose_parent_has_ended_does_not_begin(tmp_path):
    command = [
        sys.executable,
        "-m",
        "speceyes_lib",
        "job",
        "notebook",
        "a.ipynb",
        str(tmp_path / "b.ipynb"),
        "x",
    ]
    done = subprocess.run(command, env=os.environ | {"SPECEYES_PARENT": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL


# ------------------------------------------------------------------ parameters


def test_a_script_gives_parameters_by_its_globals():
    params = notebook.start(DraftParams, {"batch_size": 4, "unrelated": 1})
    assert (params.batch_size, params.run) == (4, "demo")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["", "batch_size: int = 4"], {"batch_size": 4}),
        (
            ["batch_size: int = 4", "# Parameters\nbatch_size = 5\nk_store = 96\n"],
            {"batch_size": 5, "k_store": 96},
        ),
        (["batch_size: int = 4\nk_store = 96"], {"batch_size": 4, "k_store": 96}),
        (["%matplotlib inline", "import os", "k = 3", "limit = len('abc')"], {}),
    ],
)
def test_a_notebook_gives_parameters_by_its_parameters_cells(cells, expected):
    """Other names of the notebook are not parameters, even where they have the name of one."""
    namespace = {"_ih": cells}
    for source in cells:
        exec(source.replace("%matplotlib inline", ""), namespace)
    params = notebook.start(DraftParams, namespace)
    assert params == DraftParams(**expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": "8"}, "batch_size: Input should be a valid integer, got '8'"),
        ({"batch_size": True}, "batch_size: Input should be a valid integer, got True"),
        ({"k": 300}, "k = 300 is more than k_store = 128"),
        ({"tasks": ["vstar/direct_atributes"]}, "did you mean 'vstar/direct_attributes'?"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected(given, message):
    with pytest.raises(ConfigError) as error:
        notebook.start(DraftParams, given)
    assert message in str(error.value)
    assert str(error.value).startswith("this notebook's parameters: ")


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError, match=r"batch_size.*slope"):
        notebook.start(DraftParams, {"batch_size": 0, "slope": -1.0})


# ------------------------------------------------------------------ in a script


def test_progress_in_a_script_prints_one_line_at_the_end(capsys):
    with notebook.Progress("judged") as progress:
        progress(0, 2, "a")
        progress(2, 2, "a")
    printed = capsys.readouterr().out
    assert printed.startswith("judged 2 of 2 samples in ")
    assert printed.count("\n") == 1


def test_progress_counts_what_an_earlier_session_did_but_not_in_the_rate(capsys, monkeypatch):
    clock_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock_s)
    with notebook.Progress("drafted") as progress:
        progress(60, 100, "a")
        clock_s = 10.0
        progress(100, 100, "a")
    assert capsys.readouterr().out == (
        "drafted 100 of 100 samples in 10 s (4/s), 60 of them from an earlier session\n"
    )


def test_progress_reports_when_nothing_was_left_to_do(capsys):
    with notebook.Progress("drafted") as progress:
        progress(72, 72, "a")
    assert capsys.readouterr().out == "drafted 72 of 72 samples, all from an earlier session\n"


def interrupted_after(done: int, total: int) -> None:
    with notebook.Progress("drafted") as progress:
        progress(0, total)
        progress(done, total)
        raise KeyboardInterrupt


def test_interrupted_progress_reports_where_it_stopped(capsys):
    with pytest.raises(KeyboardInterrupt):
        interrupted_after(3, 10)
    assert capsys.readouterr().out.startswith("stopped: drafted 3 of 10 samples in ")


def test_handover_lists_files_and_the_next_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    folder = tmp_path / "demo" / "01_draft"
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("x" * 1500)
    (folder / "manifest.json").write_text("{}")
    (folder / ".lock").touch()
    for kind in ("png", "csv"):
        (folder / f"front.{kind}").touch()
    notebook.handover([folder], "02_gated_agent_eval")
    assert capsys.readouterr().out == (
        "- `data/runs/demo/01_draft/`: front (csv, png), records.jsonl (2 kB)\n"
        "- Next: `02_gated_agent_eval.ipynb`\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (41.2, "41 s"),
        (59.7, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_naturally(seconds, text):
    assert formatting.duration(seconds) == text
