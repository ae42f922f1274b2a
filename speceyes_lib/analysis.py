"""What the notebooks of stages 04 and 05 do around their tables and figures: choose, write their stage."""

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
from .params import ConfidenceParams, FiguresParams, StageParams, ThresholdParams
from .paths import notebook_of, resolve, run_dir, stage_dir
from .provenance import environment, file_hash, folder_hash, text_hash
from .records import Counts
from .store import is_finished, read_manifest, write_stage
from .summary import summary_file

THRESHOLD, CONFIDENCE, FIGURES = "04_threshold", "04_confidence", "05_figures"


def album(params: StageParams, stage: str) -> Album:
    """The run's figure folder, with the origin that each figure saved in it will carry.

    Said is what the numbers come from, so that drawing the same again gives the same files: the commit is the one
    that recorded the run, not the one that draws it. Without a run it is the hash of the reported numbers.
    """
    config = json.dumps(params.stage_config(), sort_keys=True)
    origin = {"run": params.run, "stage": stage, "config_sha256": text_hash(config), **_recorded_by(params)}
    return Album(run_dir(params.run) / "figures", origin)


def _recorded_by(params: StageParams) -> dict[str, str]:
    if getattr(params, "source", "run") == "reported":
        return {"paper_sha256": folder_hash(resolve("data/paper"))}
    arms = getattr(params, "arms", None) or [getattr(params, "arm", "collect")]
    stage, task = f"02_{arms[0]}", params.tasks[0]
    # notebooks that measure something themselves have no such stage: their numbers are as old as their figures
    made = read_manifest(params.run, stage, task) if is_finished(params.run, stage, task) else None
    return {"commit": (environment() if made is None else made.environment).get("commit", "")}


# ------------------------------------------------------------------ 04


def operating_point_in_use(params: ConfidenceParams, here: OperatingPoint) -> dict:
    """The point of `threshold_from`, or the one chosen on this run where that is empty."""
    if params.threshold_from:
        return read_operating_point(params.threshold_from)
    return {**here.as_dict(), "chosen_on": {"run": params.run}}


def write_threshold_stage(
    params: ThresholdParams, frame: pd.DataFrame, here: OperatingPoint, figures: Album
) -> Path:
    """Write `operating_point.json`, which hands the threshold on, and the manifest; returns the stage's folder."""
    folder = stage_dir(params.run, THRESHOLD)
    folder.mkdir(parents=True, exist_ok=True)
    origin = {"run": params.run, "tasks": params.tasks, "score": params.score}
    write_operating_point(folder, here, origin | {"protocol": frames.protocol_of(frame)})
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
    return _finish(params, CONFIDENCE, folder, ["confidence.json"], figures, [params.arm], len(frame))


# ------------------------------------------------------------------ 05

# what the stages of one run share, by name in their manifests
RUN_INPUTS = ("code", "prompts", "draft_model", "agent_model")
TASK_INPUTS = ("data", "sample_ids")
GATE = ("score", "k", "slope", "router", "threshold")

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
    check_made_alike(params.run, params.tasks, params.arms)
    summary = frames.summarise(
        frame,
        run=params.run,
        gate=gate_of(params),
        hard_below=params.hard_below,
        draws=params.bootstrap,
        seed=params.seed,
    )
    return RunResult(frame, summary)


def check_made_alike(run: str, tasks: Sequence[str], arms: Sequence[str]) -> None:
    """Refuse to compare stages that were made from different things.

    Code, models, prompts and the gate's setting are those of the whole run, data and samples those of each task. What a
    stage does not tell (an imported one) is passed over. Raises StageError naming the first two stages that differ.
    """
    seen: dict[
        tuple[str, str], tuple[object, str]
    ] = {}  # (where it holds, name) -> value, the stage it was met in
    for arm in arms:
        for task in tasks:
            for kind in ("02", "03"):
                stage = f"02_{arm}" if kind == "02" else f"03_judging/{arm}"
                made = read_manifest(run, stage, task)
                facts = {(kind, name): made.inputs.get(name) for name in RUN_INPUTS}
                facts |= {(task, name): made.inputs.get(name) for name in TASK_INPUTS}
                if kind == "02" and arm.startswith("gated"):
                    facts |= {(kind, name): made.config.get(name) for name in GATE}
                for key, value in facts.items():
                    before, there = seen.setdefault(key, (value, stage)) if value is not None else (None, "")
                    if before != value:
                        raise StageError(
                            f"run {run}: {there} and {stage} ({task}) differ in their {key[1].replace('_', ' ')} "
                            f"and cannot be compared; run {notebook_of(kind)} again for both (if_changed=restart), or "
                            "name only what belongs together in arms and tasks"
                        )


def gate_of(params: FiguresParams) -> dict[str, Any]:
    """The gate as the run's gated arm used it, and where its threshold is from; `score` alone without that arm."""
    if "gated" not in params.arms:
        return {"score": params.score}
    config = read_manifest(params.run, "02_gated", params.tasks[0]).config
    gate = {name: config.get(name) for name in GATE}
    if params.threshold_from:
        point = read_operating_point(params.threshold_from)
        if point["threshold"] == gate["threshold"]:  # else the run was given a threshold of its own
            gate |= {"rule": point.get("rule"), "chosen_on": point.get("chosen_on", {}).get("run")}
    return gate


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
    params: ThresholdParams | ConfidenceParams | FiguresParams,
    stage: str,
    folder: Path,
    files: list[str],
    figures: Album,
    arms: Sequence[str],
    n: int,
) -> Path:
    inputs = frames.inputs_of(params.run, params.tasks, arms)
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


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
