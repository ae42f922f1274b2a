"""The workflow on the repository in small: real snakemake, papermill and kernels, work of milliseconds."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workflow_home import WORK, environment, make_home, ran, run, write_notebook

from speceyes_lib.params import ConfidenceParams
from speceyes_lib.workflow.parameters_cell import cell

CONFIG = "configs/small.yaml"
BOTH = "pope/random hr/hr_bench_4k"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run that was done once, in a folder as people name theirs; the tests below continue from it and finish it."""
    home = make_home(tmp_path_factory.mktemp("home") / "Zoë O'Neil (thesis)" / "spec eyes")
    done = run(home, "reproduce", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "first.txt").write_text(done.stdout)
    (home / "order.txt").write_text("\n".join(ran(home)))
    return home


def records(home: Path) -> dict[str, bytes]:
    runs = home / "data" / "runs"
    return {p.relative_to(runs).as_posix(): p.read_bytes() for p in sorted(runs.rglob("records.jsonl"))}


def test_a_run_does_every_job_once_and_ends_with_the_headline(home):
    order, printed = (home / "order.txt").read_text().splitlines(), (home / "first.txt").read_text()
    assert sorted(order) == sorted(
        [
            f"00_prepare_data small {BOTH}",
            *(
                f"{notebook} {name} {BOTH}"
                for notebook in list(WORK)[1:4]
                for name in ("small", "small_validation")
            ),
            f"04_threshold small_validation {BOTH}",
            f"04_confidence_analysis small {BOTH}",
            f"04_certified_thresholds small {BOTH}",
            f"04_costs small {BOTH}",
            f"05_paper_figures small {BOTH}",
        ]
    )
    assert printed.count(": done in") == len(order)
    assert "90.0 [80.0, 95.0]" in printed
    assert "data/runs/small/index.html" in printed


def test_the_threshold_is_chosen_before_it_is_used(home):
    order = (home / "order.txt").read_text().splitlines()
    chosen = order.index(f"04_threshold small_validation {BOTH}")
    assert chosen < order.index(f"02_gated_agent_eval small {BOTH}")


def test_executed_notebooks_are_kept_and_name_no_folder_of_the_machine(home):
    executed = sorted((home / "data" / "runs" / "small" / "notebooks").glob("*.ipynb"))
    assert [p.stem for p in executed] == sorted(WORK.keys() - {"04_threshold"})
    assert not [p.name for p in executed if str(home) in p.read_text()]


def test_a_finished_run_has_nothing_to_do(home):
    done = run(home, "reproduce", CONFIG)
    assert (done.returncode, ran(home)) == (0, [])
    assert "nothing to do" in done.stdout
    assert "90.0 [80.0, 95.0]" in done.stdout
    assert "12 of 12 jobs finished" in run(home, "status", CONFIG).stdout


def test_a_changed_parameter_repeats_only_what_it_touches(home):
    path = home / CONFIG
    path.write_text(path.read_text() + "confidence: {bootstrap: 500}\n")
    before = records(home)
    assert run(home, "reproduce", CONFIG).returncode == 0
    assert ran(home) == [f"04_confidence_analysis small {BOTH}"]
    assert records(home) == before


def test_a_job_that_fails_leaves_its_notebook_to_read_and_the_run_continues_when_mended(home):
    notebook = home / "notebooks" / "04_confidence_analysis.ipynb"
    whole = notebook.read_text()
    broken = "from speceyes_lib.errors import StageError\nraise StageError('no such thing; run 03 first')"
    write_notebook(notebook, cell(ConfidenceParams), broken)
    done = run(home, "reproduce", CONFIG)
    assert done.returncode == 1
    assert "failed after" in done.stdout
    assert "StageError: no such thing; run 03 first" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    executed = list((home / "data" / "runs").glob("small*/notebooks/04_confidence_analysis.ipynb"))
    assert any("no such thing" in p.read_text() for p in executed)
    notebook.write_text(whole)
    ran(home)
    assert run(home, "reproduce", CONFIG).returncode == 0
    assert not [line for line in ran(home) if line.startswith(("00", "01"))]


def test_killed_amid_a_stage_it_continues_without_any_help(home, tmp_path):
    """kill -9 of the whole command while notebook 02 works; no unlocking, no cleaning up by hand."""
    before = records(home)
    small = home / "data" / "runs" / "small"
    for manifest in (small / "02_collect").rglob("manifest.json"):
        manifest.unlink()
    for stage in (small / "02_collect", small / "02_gated"):
        for path in stage.rglob("records.jsonl"):
            path.write_bytes(b"")
    command = [sys.executable, "-m", "speceyes_lib", "reproduce", CONFIG]
    slow = environment(home, TEST_SECONDS_A_SAMPLE="1.5")
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=home, env=slow, stdout=out, stderr=out)
        begun = small / "02_collect" / "pope" / "random" / "records.jsonl"
        deadline = time.monotonic() + 1800
        while not begun.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
    kept = begun.read_bytes()
    assert kept, (tmp_path / "out.txt").read_text()
    assert len(kept.splitlines()) < 6
    done = run(home, "reproduce", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    assert records(home) == before
    assert begun.read_bytes().startswith(kept)


def test_two_runs_at_once_are_refused(tmp_path):
    home = make_home(tmp_path)
    (home / "data" / "runs").mkdir(parents=True)
    with (home / "data" / "runs" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(home, "reproduce", CONFIG)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "another `speceyes reproduce` works" in done.stderr


def test_a_notebook_runs_in_this_environments_kernel(tmp_path):
    home = make_home(tmp_path)
    write_notebook(home / "notebooks" / "which.ipynb", "n: int = 1\n", "import sys; print(sys.prefix, n)")
    assert run(home, "stage", "which", "--set", "n=3").returncode == 0
    executed = json.loads((home / "data" / "runs" / "by_hand" / "notebooks" / "which.ipynb").read_text())
    texts = ["".join(o["text"]) for c in executed["cells"] for o in c["outputs"]]
    assert texts == [f"{home / '.venv'} 3\n"]
    assert os.path.samefile(texts[0].split()[0], sys.prefix)
