"""Runs on a real SLURM of one node: the same records as here, whatever ends a job, and nothing left in the queue.

Skipped where none can be started; `make slurm-check` installs what is missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import slurm_node
import yaml
from workflow_home import environment, make_home

from speceyes_lib.paths import PACKAGE
from tests.inference.test_stages import untimed

pytestmark = pytest.mark.skipif(bool(why := slurm_node.why_not()), reason=f"no real SLURM: {why}")

SMALL = """
name: small
prompts: demo
arms: [collect]
data: {{kind: demo, root: {data}, seed: 2026, limit: 4, tasks: [vstar/direct_attributes]}}
validation: {{root: ''}}
gate: {{threshold: 0.9}}
models: {{draft: data/demo/models/draft, agent: data/demo/models/agent, dtype: float32}}
workflow: {{group_by: run, shards: 2}}
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    with slurm_node.node(tmp_path_factory.mktemp("slurm")):
        yield


def profile(folder: Path) -> Path:
    """The committed profile, with sizes that this machine has and a short poll."""
    values = yaml.safe_load((PACKAGE.parent / "profiles/slurm/config.yaml").read_text())
    values["slurm-init-seconds-before-status-checks"] = 5
    sizes = {
        "slurm_partition": "test",
        "slurm_account": "lab",
        "runtime": 30,
        "mem_mb": 2000,
        "cpus_per_task": 1,
    }
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(values | {"default-resources": sizes}))
    return folder / "profile"


def begin(home: Path, *arguments: str, **more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "speceyes_lib", *map(str, arguments)]
    variables = environment(home, **{"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path]), **more})
    return subprocess.Popen(
        command, cwd=home, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def done(process: subprocess.Popen) -> str:
    printed = process.communicate(timeout=1500)[0]
    assert process.returncode == 0, printed
    return printed


def in_queue(states: str) -> dict[str, str]:
    """Jobs of these states: their rule by their id."""
    command = ["squeue", "--noheader", "--format=%i %k", f"--states={states}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in shown.splitlines())


def wait_for(condition: Callable[[], object]) -> object:
    while not (value := condition()):
        time.sleep(0.5)
    return value


LIVE = "PENDING,RUNNING,COMPLETING"


def records(runs: Path) -> dict[str, list]:
    paths = [p for p in sorted(runs.rglob("records.jsonl")) if "shards" not in p.parts]
    return {
        p.relative_to(runs).as_posix(): [untimed(json.loads(line)) for line in p.read_text().splitlines()]
        for p in paths
    }


def test_records_of_sharded_cancelled_and_timed_out_jobs_are_those_of_a_local_run(tmp_path):
    config, where = tmp_path / "small.yaml", profile(tmp_path)
    config.write_text(SMALL.format(data=tmp_path / "benchmark"))
    checkout = PACKAGE.parent
    local = begin(checkout, "reproduce", config, SPECEYES_RUNS=str(tmp_path / "local"))
    done(local)
    run = begin(checkout, "reproduce", config, "--profile", where, SPECEYES_RUNS=str(tmp_path / "cluster"))
    ended: set[str] = set()  # each rule once: the profile tries a job twice
    for end in (["scancel"], ["scontrol", "update", "EndTime=now"]):
        ((job, rule), *_) = wait_for(
            lambda: [item for item in in_queue("RUNNING").items() if item[1] not in ended]
        )
        ended.add(rule)
        subprocess.run([*end, f"JobId={job}" if "update" in end else job], check=True)
    printed = done(run)
    assert printed.count("SLURM job") >= 10 + 2  # two were submitted a second time
    assert records(tmp_path / "cluster") == records(tmp_path / "local")
    assert in_queue(LIVE) == {}


def test_no_job_outlives_its_run_however_that_ends_and_the_next_start_finishes_it(tmp_path):
    home, where = make_home(tmp_path / "home"), profile(tmp_path)
    config = home / "configs" / "small.yaml"
    config.write_text(config.read_text() + "gate: {threshold: 0.9}\nvalidation: {root: ''}\n")
    slow = {"TEST_SECONDS_A_SAMPLE": "0.5"}

    def start() -> subprocess.Popen:
        process = begin(home, "reproduce", config, "--profile", where, **slow)
        wait_for(lambda: in_queue(LIVE))
        return process

    for end in (signal.SIGTERM, signal.SIGKILL):
        process = start()
        process.send_signal(end)
        process.communicate()
        wait_for(lambda: not in_queue(LIVE))
    start()
    status = done(begin(home, "status", config))
    assert "SLURM job" in status
    assert "stopped" in done(begin(home, "stop", config))
    assert in_queue(LIVE) == {}
    process = start()
    (snakemake,) = children(process.pid)
    os.kill(snakemake, signal.SIGSTOP)  # it cannot cancel the job when its parent ends
    for pid in (process.pid, snakemake):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    (orphan,) = in_queue(LIVE)
    printed = done(begin(home, "reproduce", config, "--profile", where))
    assert f"of an earlier start: {orphan}" in printed
    assert in_queue(LIVE) == {}


def children(pid: int) -> list[int]:
    return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
