"""What stages 04 and 05 write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..analysis.run_result import RunResult
from ..analysis.summary import funnel_at, operating_point_in_use, protocol_of, recorded_by
from ..gating.threshold import FILE as OPERATING_POINT_FILE
from ..gating.threshold import OperatingPoint
from ..params import (
    CollectParams,
    ConfidenceParams,
    FiguresParams,
    ReportedNumbersParams,
    StageParams,
    ThresholdParams,
)
from ..paths import resolve, run_dir
from ..runs import recorded_run
from ..runs.provenance import file_hash, folder_hash, text_hash
from ..runs.stage import finish_stage
from .album import Album
from .paper_table import table1, table1_latex

THRESHOLD, CONFIDENCE, FIGURES = "04_threshold", "04_confidence", "05_figures"


def open_album(params: StageParams, stage: str) -> Album:
    """The run's figure folder, with the origin that each figure saved in it will carry.

    The origin is that of the numbers, so that drawing the same again gives the same files: the commit that recorded the
    run, not the one that draws it. Without a run it is the hash of the reported numbers.
    """
    config = json.dumps(params.stage_config(), sort_keys=True)
    origin = {"run": params.run, "stage": stage, "config_sha256": text_hash(config), **recorded_by(params)}
    return Album(run_dir(params.run) / "figures", origin)


def training_album(run: str, stage: str, files: Sequence[Path]) -> Album:
    """The figure folder of a training run; the origin of its figures is the content of the files that were read."""
    digest = text_hash(json.dumps([file_hash(file) for file in files]))
    return Album(run_dir(run) / "figures", {"run": run, "stage": stage, "inputs_sha256": digest})


def write_threshold_stage(
    params: ThresholdParams, frame: pd.DataFrame, here: OperatingPoint, figures: Album
) -> Path:
    """Write `operating_point.json`, which hands the threshold on, and the manifest; returns the stage's folder."""
    chosen_on = {name: getattr(params, name) for name in ("run", "tasks", "score")}
    chosen_on["protocol"] = protocol_of(frame)
    files = {OPERATING_POINT_FILE: here.as_dict() | {"chosen_on": chosen_on}}
    return _finish(params, THRESHOLD, files, len(frame), figures)


def write_confidence_stage(
    params: ConfidenceParams,
    frame: pd.DataFrame,
    here: OperatingPoint,
    auroc: Mapping,
    figures: Album,
    more: Mapping | None = None,
) -> Path:
    """Write `confidence.json`, with the entries of `more`, and the manifest; returns the stage's folder."""
    used = operating_point_in_use(params, here)
    accuracy, accepted = funnel_at(frame, used["threshold"], params.score)
    confidence = {
        "score": params.score,
        "threshold": used["threshold"],
        "chosen_on": used.get("chosen_on", {}),
        "at_threshold": {"accuracy": accuracy.as_dict(), "accepted": accepted.as_dict()},
        "rule_applied_here": here.as_dict(),
        "auroc": auroc,
        **(more or {}),
    }
    return _finish(params, CONFIDENCE, {"confidence.json": confidence}, len(frame), figures)


def write_tables_stage(
    params: CollectParams, stage: str, tables: Mapping[str, pd.DataFrame], n: int, figures: Album
) -> Path:
    """Write each table as `<name>.csv`, and the manifest; returns the stage's folder. `n`: samples of the run."""
    files = {f"{name}.csv": table for name, table in tables.items()}
    return _finish(params, stage, files, n, figures)


def write_reported_numbers(params: ReportedNumbersParams, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write every table as CSV by its name, and the manifest; returns the stage's folder."""
    files = {f"{name}.csv": table for name, table in tables.items()}
    inputs = {"paper": folder_hash(resolve("data/paper"))}
    return finish_stage(
        params.run, "study_reported_numbers", params.stage_config(), files, len(tables), inputs
    )


def write_figures_stage(
    params: FiguresParams, run: RunResult | None, shown: pd.DataFrame, figures: Album
) -> Path:
    """Write Table 1 (CSV, LaTeX, HTML), `summary.json` at the run's root, and the manifest over all of it."""
    caption = "Accuracy in percent and speedup over the agent alone."
    clock = run.summary.get("clock_check", {}) if run is not None else None
    files: dict[str, Any] = {
        "table1.csv": shown,
        "table1.tex": table1_latex(shown, caption, "tab:table1"),
        "table1.html": table1(shown, caption, clock).to_html(),
    }
    if run is not None:
        files["../summary.json"] = run.summary
    arms, n = (params.arms, len(run.frame)) if run else ((), 0)
    return _finish(params, FIGURES, files, n, figures, arms)


def _finish(
    params: CollectParams | FiguresParams,
    stage: str,
    files: Mapping[str, Any],
    n: int,
    figures: Album,
    arms: Sequence[str] | None = None,
) -> Path:
    """Finish a stage that was computed from arms of the run (None: from `params.arm`)."""
    arms = [params.arm] if arms is None else arms
    inputs = recorded_run.open(params.run, tasks=params.tasks).inputs(arms) if arms else {}
    if arms and (threshold_from := getattr(params, "threshold_from", "")):
        inputs["threshold_from"] = file_hash(resolve(threshold_from))
    return finish_stage(params.run, stage, params.stage_config(), files, n, inputs, figures=figures.paths)
