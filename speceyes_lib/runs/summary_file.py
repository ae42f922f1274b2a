"""The result of a run as notebook 05 leaves it at the run's root: a file that costs no heavy import to read."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import StageError
from ..paths import run_dir


def summary_file(run: str) -> Path:
    """data/runs/<run>/summary.json; its content is described in `analysis.summary.summarise`."""
    return run_dir(run) / "summary.json"


def read_summary(run: str) -> dict:
    """The run's summary.json. Raises StageError naming the notebook that writes it."""
    try:
        return json.loads(summary_file(run).read_text("utf-8"))
    except FileNotFoundError:
        raise StageError(
            f"run {run!r} has no summary.json; run notebooks/05_paper_figures.ipynb (or make reproduce) first"
        ) from None
    except json.JSONDecodeError as error:
        raise StageError(
            f"summary.json of run {run!r} is not JSON ({error}); run notebooks/05_paper_figures.ipynb again"
        ) from None
