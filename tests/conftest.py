"""Fixtures that tests of several modules share: the embedded models and a small benchmark."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched at test time

import pytest
from hypothesis import HealthCheck, settings

# no test depends on how busy the machine is
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

MODELS = Path(__file__).parents[1] / "data/demo/models"


@pytest.fixture(scope="session")
def tiny_draft():
    """The embedded draft model, as the pipeline loads it."""
    from speceyes_lib.models.transformers import TransformersBackend

    return TransformersBackend(MODELS / "draft", role="draft", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tiny_agent():
    """The embedded agent, as the pipeline loads it."""
    from speceyes_lib.models.transformers import TransformersBackend

    return TransformersBackend(MODELS / "agent", role="agent", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def benchmark_root(tmp_path_factory) -> Path:
    """A benchmark in the official layouts: 6 samples per V* split, 8 per HR split, 8 per POPE split."""
    from speceyes_lib.demo.benchmark import generate

    root = tmp_path_factory.mktemp("benchmark")
    generate(root, seed=7, sizes={"vstar": 6, "hr": 2, "pope": 4})
    return root


@pytest.fixture(scope="session")
def scene_samples(benchmark_root) -> list:
    """All 52 samples of the small benchmark, easy and hard, all kinds of questions."""
    from speceyes_lib.tasks.registry import TASKS, load_task

    return [sample for task in TASKS for sample in load_task(task, benchmark_root)]


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory, scene_samples, benchmark_root) -> Path:
    """A folder of runs with one in it, `small` as `explore_run` stores it: tests copy it, which is much faster."""
    from explore_run import store_run

    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(folder))
        store_run("small", scene_samples, benchmark_root)
    return folder
