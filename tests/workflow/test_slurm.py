"""Jobs of a run in SLURM's queue, and what a user sees of them."""

from __future__ import annotations

import os

import pytest
from workflow_home import make_home, run

from speceyes_lib.workflow.reproduce import cluster_lines
from speceyes_lib.workflow.slurm import QueuedJob, jobs_in, prefix

QUEUE = """\
17|RUNNING|1:05|node3|small_53-ab|rule_small_01_small_model_inference_1of2|/home/zoe/spec|eyes
18|PENDING|0:00|(Priority)|small_53-ab|rule_small_03_judging_wildcards_|/home/zoe/spec|eyes
19|RUNNING|0:10|node4|small_validation_77|rule_x|/home/zoe/spec|eyes
20|RUNNING|0:10|node4|small_53-ab|rule_x|/home/zoe/other
21|RUNNING|0:10|node4|interactive|(null)|/home/zoe/spec|eyes
"""


def test_jobs_of_the_run_and_the_checkout_are_listed():
    assert jobs_in(QUEUE, "small", "/home/zoe/spec|eyes") == [
        QueuedJob("17", "RUNNING", "1:05", "node3", "small_01_small_model_inference_1of2"),
        QueuedJob("18", "PENDING", "0:00", "(Priority)", "small_03_judging"),
    ]
    assert [job.id for job in jobs_in(QUEUE, "small_validation", "/home/zoe/spec|eyes")] == ["19"]
    assert jobs_in("", "small", "/") == []


@pytest.mark.parametrize(
    ("run", "begins"), [("demo", "demo"), ("a.b c-d_e", "a-b-c-d_e"), ("x" * 60, "x" * 50)]
)
def test_names_of_runs_become_names_of_jobs(run, begins):
    assert prefix(run) == begins


MESSAGES = """\
Building DAG of jobs...
rule small_02_gated_agent_eval:
    jobid: 4
Job 4 has been submitted with SLURM jobid 12 (log: /home/zoe/slurm_logs/rule_small_02_gated_agent_eval/12.log).
Finished jobid: 3 (Rule: small_01_small_model_inference)
Error in rule small_02_gated_agent_eval:
    message: SLURM-job '12' failed, SLURM status is: 'OUT_OF_MEMORY'
    jobid: 4
    input: notebooks/02_gated_agent_eval.ipynb
    log: data/runs/small/notebooks/02_gated_agent_eval.ipynb (check log file(s) for error details)
    external_jobid: 12

Shutting down, this might take some time.
"""


def test_a_user_sees_what_was_submitted_and_done_and_why_a_job_failed():
    shorten = cluster_lines()
    assert [text for line in MESSAGES.splitlines() if (text := shorten(line))] == [
        "small_02_gated_agent_eval: SLURM job 12",
        "small_01_small_model_inference: done",
        "Error in rule small_02_gated_agent_eval:",
        "    message: SLURM-job '12' failed, SLURM status is: 'OUT_OF_MEMORY'",
        "    log: data/runs/small/notebooks/02_gated_agent_eval.ipynb (check log file(s) for error details)",
        "    external_jobid: 12",
    ]


@pytest.mark.parametrize(
    ("squeue", "log", "shown"),
    [
        ("exit 1", "Job 4 has been submitted with SLURM jobid 12 (log: x).", "SLURM's queue is unknown"),
        (
            "exit 1",
            "Job 4 runs here",
            "",
        ),  # only SLURM's client is installed: nothing of it concerns this run
        ("echo '7|RUNNING|0:10|node3|small_1|rule_small_03_judging|'\"$SPECEYES_HOME\"", "", "node3"),
    ],
)
def test_status_shows_the_queue_of_runs_that_use_it(tmp_path, squeue, log, shown):
    home = make_home(tmp_path / "home")
    messages = home / "data/runs/small/workflow.log"
    messages.parent.mkdir(parents=True, exist_ok=True)
    messages.write_text(log)
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{squeue}\n")
    program.chmod(0o755)
    status = run(home, "status", "configs/small.yaml", PATH=f"{program.parent}:{os.environ['PATH']}")
    assert status.returncode == 0
    assert shown in status.stdout + status.stderr
    assert shown or "SLURM" not in status.stdout + status.stderr
    assert "0 of" in status.stdout
