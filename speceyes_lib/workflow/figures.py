"""Redrawing figures/ and the README's headline from the recorded run and the reported numbers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..demo import recorded
from ..errors import JobError
from ..paths import notebook_of, repo_root
from ..report import site
from ..report.figures import PUBLISHED
from ..runs.provenance import usable_cores


def redraw() -> list[Path]:
    """Files of figures/ and the README, redrawn without a model and without touching any run in data/runs.

    The recorded run is unpacked into a temporary folder, where the notebooks that draw published figures run: as many
    at a time as there are cores.

    Raises:
        DataError: the recorded run is missing or broken.
        JobError: a notebook failed.
    """
    stages = [[notebook_of(stage)] for stage in PUBLISHED]
    stages.append([notebook_of("05_figures"), "--set", "run=paper", "--set", "source=reported"])
    with tempfile.TemporaryDirectory() as folder, _runs_in(folder):
        recorded.unpack()
        with ThreadPoolExecutor(usable_cores()) as workers:
            list(workers.map(_run_notebook, reversed(stages)))  # the longest come last in the list
        runs = ("demo", "demo_validation", "paper")
        published = [*(path for run in runs for path in site.publish(run)), site.fill_readme("demo")]
    folder = repo_root() / "figures"
    listed = site.fill_block(folder / "README.md", "figures", site.figures_markdown())
    return [*draw_pipeline(folder / "pipeline"), *published, listed]


def draw_pipeline(folder: Path) -> list[Path]:
    """Write `<notebook>.png` for every notebook: the strip of all notebooks with this one marked; returns the files."""
    from ..report.plots.pipeline import BOXES, pipeline

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{notebook}.png" for notebook in BOXES]
    for path in paths:
        pipeline(path.stem).savefig(path, dpi=130, metadata={"Software": None})
    return paths


@contextmanager
def _runs_in(folder: str) -> Iterator[None]:
    """Within this block runs are in another folder, for this process and those it starts."""
    before = os.environ.get("SPECEYES_RUNS")
    os.environ["SPECEYES_RUNS"] = folder
    try:
        yield
    finally:
        del os.environ["SPECEYES_RUNS"]
        os.environ |= {} if before is None else {"SPECEYES_RUNS": before}


def _run_notebook(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "speceyes_lib", "stage", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise JobError(f"notebook {arguments[0]}")
