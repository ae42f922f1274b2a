"""The profile of Kubernetes without a cluster: what it submits, and that what it submits does the work."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import workflow_home
import yaml

from speceyes_lib.paths import PACKAGE

CHECKOUT = PACKAGE.parent


@pytest.fixture
def home(tmp_path):
    """A small repository with the committed profile, which looks at jobs more often."""
    made = workflow_home.make_home(tmp_path / "home")
    shutil.copytree(CHECKOUT / "profiles/kubernetes", made / "profiles/kubernetes")
    profile = made / "profiles/kubernetes/config.yaml"
    quick = {"seconds-between-status-checks": 1, "latency-wait": 5, "retries": 0}
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | quick))
    config = made / "configs/small.yaml"
    gpus = config.read_text().replace("group_by: run", "group_by: run, gpus_per_job: 2")
    config.write_text(gpus + "gate: {threshold: 0.9}\nvalidation: {root: ''}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(CHECKOUT / "tests/worlds/kubectl")
    return made


def reproduce(home: Path, **more: str):
    variables = {
        "PATH": f"{home.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "KUBECTL_FOLDER": str(home.parent / "jobs"),
    }
    arguments = ("reproduce", "configs/small.yaml", "--profile", "profiles/kubernetes")
    return workflow_home.run(home, *arguments, **variables | more)


def test_a_run_on_kubernetes_is_whole_and_its_jobs_are_valid(home):
    ended = reproduce(home)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    records = [p.read_text().splitlines() for p in (home / "data/runs").rglob("records.jsonl")]
    assert [len(lines) for lines in records] == [
        6
    ] * 10  # two splits of one draft and of two arms, judged as well

    jobs = [json.loads(p.read_text()) for p in sorted((home.parent / "jobs").glob("*.json"))]
    assert len(jobs) == 8
    names = [job["metadata"]["name"] for job in jobs]
    assert len(set(names)) == len(names)
    for job in jobs:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", job["metadata"]["name"])
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", job["metadata"]["labels"]["rule"])
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["restartPolicy"] == "Never"
        assert job["spec"]["backoffLimit"] == 0
        assert [(m["name"], m["mountPath"]) for m in container["volumeMounts"]] == [("checkout", str(home))]
        assert container["workingDir"] == str(home)
        model = bool(re.search("01|02", job["metadata"]["labels"]["rule"]))
        wanted = {"cpu": "8", "memory": "64000M", "nvidia.com/gpu": "2"}
        small = {"cpu": "1", "memory": "6000M"}
        assert container["resources"]["requests"] == (wanted if model else small)
        assert "cpu" not in container["resources"]["limits"]


def test_a_failed_job_and_a_refused_one_end_the_run_with_their_reason(home):
    notebook = home / "notebooks/01_small_model_inference.ipynb"
    notebook.write_text(
        notebook.read_text().replace("for task in p.tasks", "raise OSError('no disk')\\nfor task in p.tasks")
    )
    failed = reproduce(home)
    assert failed.returncode != 0
    assert "se-small-01-small-model-inference-" in failed.stdout  # for kubectl logs
    assert "no disk" in (home / "data/runs/small/workflow.log").read_text()
    refusing = home.parent / "refusing"
    refusing.mkdir()
    (refusing / "kubectl").write_text("#!/bin/sh\necho 'jobs.batch is forbidden' >&2; exit 1\n")
    (refusing / "kubectl").chmod(0o755)
    refused = reproduce(home, PATH=f"{refusing}{os.pathsep}{os.environ['PATH']}")
    assert refused.returncode != 0
    assert "forbidden" in (home / "data/runs/small/workflow.log").read_text()
