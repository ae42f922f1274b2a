"""What stages 04 and 05 write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..analysis import sample_frame
from ..analysis.audit import Finding
from ..analysis.summary import RunResult, funnel_at, operating_point_in_use, protocol_of, recorded_by
from ..gating.threshold import FILE as OPERATING_POINT_FILE
from ..gating.threshold import OperatingPoint, write_operating_point
from ..params import (
    ConfidenceParams,
    FiguresParams,
    GateAnalysisParams,
    ReportedNumbersParams,
    StageParams,
    ThresholdParams,
)
from ..paths import resolve, run_dir, stage_dir
from ..runs.provenance import file_hash, folder_hash, text_hash
from ..runs.records import Counts
from ..runs.stage import write_stage
from ..runs.summary_file import summary_file
from . import table1
from .album import Album

THRESHOLD, CONFIDENCE, FIGURES = "04_threshold", "04_confidence", "05_figures"
CERTIFIED, COSTS = "04_certified_thresholds", "04_costs"
REPORTED_NUMBERS = "study_reported_numbers"


def album(params: StageParams, stage: str) -> Album:
    """The run's figure folder, with the origin that each figure saved in it will carry.

    Said is what the numbers come from, so that drawing the same again gives the same files: the commit is the one
    that recorded the run, not the one that draws it. Without a run it is the hash of the reported numbers.
    """
    config = json.dumps(params.stage_config(), sort_keys=True)
    origin = {"run": params.run, "stage": stage, "config_sha256": text_hash(config), **recorded_by(params)}
    return Album(run_dir(params.run) / "figures", origin)


def write_threshold_stage(
    params: ThresholdParams, frame: pd.DataFrame, here: OperatingPoint, figures: Album
) -> Path:
    """Write `operating_point.json`, which hands the threshold on, and the manifest; returns the stage's folder."""
    folder = stage_dir(params.run, THRESHOLD)
    folder.mkdir(parents=True, exist_ok=True)
    origin = {"run": params.run, "tasks": params.tasks, "score": params.score}
    write_operating_point(folder, here, origin | {"protocol": protocol_of(frame)})
    return _finish(params, THRESHOLD, folder, [OPERATING_POINT_FILE], figures, [params.arm], len(frame))


def write_confidence_stage(
    params: ConfidenceParams,
    frame: pd.DataFrame,
    here: OperatingPoint,
    auroc: Mapping,
    figures: Album,
    more: Mapping | None = None,
) -> Path:
    """Write `confidence.json` and the manifest; returns the stage's folder. `more` goes into the file, too."""
    folder = stage_dir(params.run, CONFIDENCE)
    folder.mkdir(parents=True, exist_ok=True)
    used = operating_point_in_use(params, here)
    accuracy, accepted = funnel_at(frame, used["threshold"], params.score)
    _write_json(
        folder / "confidence.json",
        {
            "score": params.score,
            "threshold": used["threshold"],
            "chosen_on": used.get("chosen_on", {}),
            "at_threshold": {"accuracy": accuracy.as_dict(), "accepted": accepted.as_dict()},
            "rule_applied_here": here.as_dict(),
            "auroc": auroc,
            **(more or {}),
        },
    )
    return _finish(params, CONFIDENCE, folder, ["confidence.json"], figures, [params.arm], len(frame))


def write_tables_stage(
    params: GateAnalysisParams, stage: str, tables: Mapping[str, pd.DataFrame], n: int, figures: Album
) -> Path:
    """Write each table as `<name>.csv`, and the manifest; returns the stage's folder. `n`: samples of the run."""
    folder = stage_dir(params.run, stage)
    files = _write_tables(folder, tables)
    return _finish(params, stage, folder, files, figures, [params.arm], n)


def write_reported_numbers(params: ReportedNumbersParams, findings: Sequence[Finding]) -> Path:
    """Write the table of every finding as CSV, and the manifest; returns the stage's folder."""
    folder = stage_dir(params.run, REPORTED_NUMBERS)
    files = _write_tables(folder, {finding.name.replace(" ", "_"): finding.table for finding in findings})
    write_stage(
        folder,
        stage=REPORTED_NUMBERS,
        config=params.stage_config(),
        files=files,
        counts=Counts(expected=len(files), done=len(files)),
        inputs={"paper": folder_hash(resolve("data/paper"))},
    )
    return folder


def write_figures_stage(
    params: FiguresParams, run: RunResult | None, shown: pd.DataFrame, figures: Album
) -> Path:
    """Write Table 1 (CSV, LaTeX, HTML), `summary.json` at the run's root, and the manifest over all of it."""
    folder = stage_dir(params.run, FIGURES)
    folder.mkdir(parents=True, exist_ok=True)
    caption = "Accuracy in percent and speedup over the agent alone."
    shown.to_csv(folder / "table1.csv", index=False, lineterminator="\n", float_format="%.10g")
    (folder / "table1.tex").write_text(table1.latex(shown, caption, "tab:table1"), "utf-8")
    (folder / "table1.html").write_text(table1.html(shown, caption), "utf-8")
    files = ["table1.csv", "table1.tex", "table1.html"]
    if run is not None:
        _write_json(summary_file(params.run), run.summary)
        files.append("../summary.json")
    arms, n = ([], 0) if run is None else (params.arms, len(run.frame))
    return _finish(params, FIGURES, folder, files, figures, arms, n)


def _finish(
    params: ThresholdParams | GateAnalysisParams | FiguresParams,
    stage: str,
    folder: Path,
    files: list[str],
    figures: Album,
    arms: Sequence[str],
    n: int,
) -> Path:
    inputs = sample_frame.inputs_of(params.run, params.tasks, arms)
    if arms and (threshold_from := getattr(params, "threshold_from", "")):
        inputs["threshold_from"] = file_hash(resolve(threshold_from))
    write_stage(
        folder,
        stage=stage,
        config=params.stage_config(),
        files=[*files, *(f"../figures/{path.name}" for path in figures.paths)],
        counts=Counts(expected=n, done=n),
        inputs=inputs,
    )
    return folder


def _write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.10g")
    return [f"{name}.csv" for name in tables]


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
