"""A study that is killed without warning, again and again, ends with the results of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speceyes_lib.tool_speculation.records import read_runs

ROOT = Path(__file__).parents[2]
STUDY = (
    "from study_models import study; "
    "print(study(report=lambda line: print(line, flush=True), profiles=['science']), flush=True)"
)


def begun(home: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "worlds")])
    environment = {**os.environ, "SPECEYES_RUNS": str(home), "PYTHONPATH": paths}
    return subprocess.Popen([sys.executable, "-c", STUDY], stdout=subprocess.PIPE, text=True, env=environment)


def parents() -> dict[int, int]:
    """Process -> its parent, of all that run."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text("utf-8").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def below(pid: int) -> set[int]:
    tree, found = parents(), {pid}
    while more := {child for child, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {pid}


def results(home: Path) -> dict[tuple[str, str, str], tuple]:
    runs = [(path.parent.name, run) for path in sorted(home.rglob("runs.jsonl")) for run in read_runs(path)]
    keyed = {(part, run.task_id, run.arm): (run.messages, run.answer, run.error) for part, run in runs}
    assert len(keyed) == len(runs)  # nothing is there twice
    return keyed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_a_study_that_is_killed_at_any_moment_loses_nothing_and_leaves_no_process(tmp_path):
    home, rng, left = tmp_path / "killed", random.Random(0), set()
    for n in range(3):
        study = begun(home)
        records = home / "tools" / ("validation", "science", "science")[n] / "runs.jsonl"
        least = (0, 0, records.stat().st_size if records.exists() else 0)[n]
        while study.poll() is None and not (records.exists() and records.stat().st_size > least):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))  # somewhere in what comes next, which may be anything
        left |= below(study.pid)
        study.send_signal(signal.SIGKILL)
        study.communicate()
        assert study.returncode == -signal.SIGKILL
    whole = begun(home)
    out, _ = whole.communicate()
    assert whole.returncode == 0, out
    assert left
    deadline_s = time.monotonic() + 600  # Linux ends them, in its time
    while left & parents().keys() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not left & parents().keys()
    alone = begun(tmp_path / "alone")
    alone.communicate()
    killed, undisturbed = results(home), results(tmp_path / "alone")
    # arms that are not lossless read what a guess in time left them, so that pace and load decide what they say
    lossy = {"jaccard", "tool_name_only"}
    assert killed.keys() == undisturbed.keys()
    assert {key for key in killed if killed[key] != undisturbed[key] and key[2] not in lossy} == set()
