"""What notebooks 04 and 05 do around their tables and figures: choose, write their stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from . import frames, table1, tables
from .errors import StageError
from .figures import Album
from .gate import OperatingPoint
from .operating_point import FILE as OPERATING_POINT_FILE
from .operating_point import read_operating_point, write_operating_point
from .paper import reported
from .params import ConfidenceParams, FiguresParams, StageParams
from .paths import resolve, run_dir, stage_dir
from .provenance import environment, file_hash, text_hash
from .records import Counts
from .store import read_manifest, write_stage

CONFIDENCE, FIGURES = "04_confidence", "05_figures"


def album(params: StageParams, stage: str) -> Album:
    """The run's figure folder, with the origin that each figure saved in it will carry."""
    config = json.dumps(params.stage_config(), sort_keys=True)
    commit = environment().get("commit", "")
    origin = {"run": params.run, "stage": stage, "commit": commit, "config_sha256": text_hash(config)}
    return Album(run_dir(params.run) / "figures", origin)


# ------------------------------------------------------------------ 04


def operating_point_in_use(params: ConfidenceParams, here: OperatingPoint) -> dict:
    """The point of `threshold_from`, or the one chosen on this run where that is empty."""
    if params.threshold_from:
        return read_operating_point(params.threshold_from)
    return {**here.as_dict(), "chosen_on": {"run": params.run}}


def write_confidence_stage(
    params: ConfidenceParams,
    frame: pd.DataFrame,
    here: OperatingPoint,
    auroc: Mapping,
    figures: Album,
    more: Mapping | None = None,
) -> Path:
    """Write `confidence.json`, the operating curve and, where it was chosen here, `operating_point.json`.

    `more` is put beside the rest in `confidence.json`.

    A threshold chosen on the run it is reported on is never handed on: with `threshold_from` the file is not
    written, so nothing can pick it up by mistake.
    """
    folder = stage_dir(params.run, CONFIDENCE)
    folder.mkdir(parents=True, exist_ok=True)
    used = operating_point_in_use(params, here)
    accuracy, accepted = frames.funnel_at(frame, used["threshold"], params.score)
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
    files = ["confidence.json"]
    if not params.threshold_from:
        origin = {"run": params.run, "tasks": params.tasks, "score": params.score}
        write_operating_point(folder, here, origin | {"protocol": frames.protocol_of(frame)})
        files.append(OPERATING_POINT_FILE)
    else:
        (folder / OPERATING_POINT_FILE).unlink(missing_ok=True)
    return _finish(params, CONFIDENCE, folder, files, figures, [params.arm], len(frame))


# ------------------------------------------------------------------ 05

SOURCES = {"run": "measured", "reported": "reported", "both": "both"}  # parameter -> word on the figures


@dataclass(frozen=True)
class RunResult:
    """A finished run in its two forms: a row per sample, and the summary of them all."""

    frame: pd.DataFrame
    summary: dict

    @property
    def score(self) -> str:
        return tables.score_of(self.summary)

    @property
    def n_failed(self) -> int:
        """Samples that failed in at least one arm."""
        verdicts = self.frame[[f"{arm}_verdict" for arm in frames.arms_of(self.frame)]]
        return int((verdicts == "error").any(axis=1).sum())


def summarised(params: FiguresParams) -> RunResult | None:
    """Read and summarise the run; None where only reported numbers are asked for."""
    if params.source == "reported":
        return None
    frame = frames.load_run(params.run, params.tasks, params.arms)
    summary = frames.summarise(
        frame,
        run=params.run,
        gate=gate_of(params),
        hard_below=params.hard_below,
        draws=params.bootstrap,
        seed=params.seed,
    )
    return RunResult(frame, summary)


def read_summary(run: str) -> dict:
    """The run's summary.json. Raises StageError naming the notebook that writes it."""
    path = run_dir(run) / "summary.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise StageError(
            f"run {run!r} has no summary.json: run notebooks/05_paper_figures.ipynb (or make reproduce) first"
        ) from None
    except json.JSONDecodeError as error:
        raise StageError(
            f"summary.json of run {run!r} is not JSON ({error}): run notebooks/05_paper_figures.ipynb again"
        ) from None


def gate_of(params: FiguresParams) -> dict[str, Any]:
    """The gate as the run's gated arm used it, and where its threshold is from; `score` alone without that arm."""
    if "gated" not in params.arms:
        return {"score": params.score}
    config = read_manifest(params.run, "02_gated", params.tasks[0]).config
    gate = {name: config.get(name) for name in ("score", "k", "slope", "router", "threshold")}
    if params.threshold_from:
        point = read_operating_point(params.threshold_from)
        if point["threshold"] == gate["threshold"]:  # else the run was given a threshold of its own
            gate |= {"rule": point.get("rule"), "chosen_on": point.get("chosen_on", {}).get("run")}
    return gate


def results(source: str, run: RunResult | None) -> pd.DataFrame:
    """The long form of what is shown: reported, measured, or both below each other (`tables.COLUMNS`)."""
    parts = [] if source == "run" else [tables.reported_results(reported("table1"))]
    if run is not None:
        parts.append(tables.measured_results(run.summary))
    return pd.concat(parts, ignore_index=True)


def write_figures_stage(
    params: FiguresParams, run: RunResult | None, shown: pd.DataFrame, figures: Album
) -> Path:
    """Write Table 1 (CSV, LaTeX, HTML), `summary.json` at the run's root, and the manifest over all of it."""
    folder = stage_dir(params.run, FIGURES)
    folder.mkdir(parents=True, exist_ok=True)
    caption = "Accuracy in percent and speedup over the agent alone."
    shown.to_csv(folder / "main_table.csv", index=False, lineterminator="\n", float_format="%.10g")
    (folder / "main_table.tex").write_text(table1.latex(shown, caption, "tab:main"), "utf-8")
    (folder / "main_table.html").write_text(table1.html(shown, caption), "utf-8")
    files = ["main_table.csv", "main_table.tex", "main_table.html"]
    if run is not None:
        _write_json(run_dir(params.run) / "summary.json", run.summary)
        files.append("../summary.json")
    arms, n = ([], 0) if run is None else (params.arms, len(run.frame))
    return _finish(params, FIGURES, folder, files, figures, arms, n)


def _finish(
    params: ConfidenceParams | FiguresParams,
    stage: str,
    folder: Path,
    files: list[str],
    figures: Album,
    arms: Sequence[str],
    n: int,
) -> Path:
    inputs = frames.inputs_of(params.run, params.tasks, arms)
    if arms and params.threshold_from:
        inputs["threshold_from"] = file_hash(resolve(params.threshold_from))
    write_stage(
        folder,
        stage=stage,
        config=params.stage_config(),
        files=[*files, *(f"../figures/{path.name}" for path in figures.paths)],
        counts=Counts(expected=n, done=n),
        inputs=inputs,
    )
    return folder


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
