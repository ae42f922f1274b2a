"""A repository in small: notebooks of the real names and parameters whose work takes milliseconds.

They write real stage folders through the real store, so that config, papermill, Snakefile and resume are
tested as they are; only the models' work is replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from speceyes_lib.params import NOTEBOOKS
from speceyes_lib.paths import PACKAGE
from speceyes_lib.workflow.parameters_cell import cell

OPENING = """
import json, os, time
from pathlib import Path
from speceyes_lib import params, paths
from speceyes_lib.errors import build
from speceyes_lib.runs import reading, stage as store
from speceyes_lib.runs.records import Counts, Verdict

p = build(params.NOTEBOOKS[{notebook!r}], {{k: v for k, v in globals().items()
                 if k in params.NOTEBOOKS[{notebook!r}].model_fields}}, {notebook!r})

def note():
    with (paths.runs_dir() / "ran.txt").open("a") as file:
        print({notebook!r}, p.run, *getattr(p, "tasks", []), file=file)

def folder_of(stage):
    folder = paths.stage_dir(p.run, stage)
    folder.mkdir(parents=True, exist_ok=True)
    return folder

def write(stage, task):
    ids = [f"{{task}}/{{i}}" for i in range(6)]
    with store.StageStore(paths.stage_dir(p.run, stage, task), stage=stage, task=task, record_type=Verdict,
                          config=p.stage_config(), expected_ids=ids, if_changed=p.if_changed) as stage_store:
        for key in ids:
            if key not in stage_store.done_ids:
                time.sleep(float(os.environ.get("TEST_SECONDS_A_SAMPLE", "0")))
                stage_store.append(Verdict(id=key, source="final", verdict="right", rule="test", protocol="strict"))
        stage_store.finish()
note()
"""

WORK = {
    "00_prepare_data": """
counts = Counts(expected=0, done=0)
store.write_stage(folder_of("00_data"), stage="00_data", config=p.stage_config(), files=[], counts=counts)
""",
    "01_small_model_inference": """
for task in p.tasks:
    write("01_draft", task)
""",
    "02_gated_agent_eval": """
if any(arm.startswith("gated") for arm in p.arms) and p.threshold is None:
    json.loads(paths.resolve(p.threshold_from).read_text())["threshold"]
for arm in p.arms:
    for task in p.tasks:
        write(f"02_{arm}", task)
""",
    "03_judging": """
for arm in p.arms:
    for task in p.tasks:
        reading.read_stage(p.run, f"02_{arm}", task, Verdict)
        write(f"03_judging/{arm}", task)
""",
    "04_threshold": """
folder = folder_of("04_threshold")
(folder / "operating_point.json").write_text(json.dumps({"threshold": 0.97}))
store.write_stage(folder, stage="04_threshold", config=p.stage_config(), files=["operating_point.json"],
                  counts=Counts(expected=0, done=0))
""",
    "04_confidence_analysis": """
store.write_stage(folder_of("04_confidence"), stage="04_confidence", config=p.stage_config(), files=[],
                  counts=Counts(expected=0, done=0))
""",
    "04_certified_thresholds": """
folder = folder_of("04_certified_thresholds")
store.write_stage(folder, stage=folder.name, config=p.stage_config(), files=[], counts=Counts(expected=0, done=0))
""",
    "04_costs": """
folder = folder_of("04_costs")
store.write_stage(folder, stage=folder.name, config=p.stage_config(), files=[], counts=Counts(expected=0, done=0))
""",
    "05_paper_figures": """
pooled = {"accuracy_pct": 90.0, "accuracy_low_pct": 80.0, "accuracy_high_pct": 95.0, "n": 6, "errors": 0,
          "unparsed": 0, "undecided": 0, "wall_s": 1.5}
summary = {"clock": "a test", "arms": {"gated": {"pooled": pooled}}}
(paths.run_dir(p.run) / "summary.json").write_text(json.dumps(summary))
store.write_stage(folder_of("05_figures"), stage="05_figures", config=p.stage_config(), files=[],
                  counts=Counts(expected=0, done=0))
""",
}

CONFIG = """
name: small
arms: [collect, gated]
data:
  tasks: [pope/random, hr/hr_bench_4k]
models: {draft: models/draft, agent: models/agent}
workflow: {group_by: run}
"""


def write_notebook(path: Path, parameters: str, *code: str) -> Path:
    """A notebook with a tagged parameters cell and code cells, as they are committed."""

    def code_cell(source: str, tags: list[str]) -> dict:
        cell = {"cell_type": "code", "id": f"c{abs(hash(source))}", "metadata": {"tags": tags}}
        return cell | {"source": source, "outputs": [], "execution_count": None}

    cells = [code_cell(parameters, ["parameters"]), *(code_cell(source, []) for source in code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def write_model(folder: Path) -> None:
    """A model's folder that is whole, as far as can be seen without loading it."""
    tensors = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "config.json").write_text('{"architectures": ["Qwen3VLForConditionalGeneration"]}')
    (folder / "model.safetensors").write_bytes(len(tensors).to_bytes(8, "little") + tensors + bytes(4))
    for name in ("tokenizer.json", "processor_config.json"):
        (folder / name).write_text("{}")


def make_home(folder: Path) -> Path:
    """The repository in small, complete but for anything run."""
    for notebook, model in NOTEBOOKS.items():
        opening = OPENING.format(notebook=notebook)
        write_notebook(folder / "notebooks" / f"{notebook}.ipynb", cell(model), opening, WORK[notebook])
    for role in ("draft", "agent"):
        (folder / "models" / role).mkdir(parents=True)
        write_model(folder / "models" / role)
    (folder / ".venv").symlink_to(
        sys.prefix
    )  # as in a checkout: the interpreter's path has the folder's name
    (folder / "configs").mkdir()
    (folder / "configs" / "small.yaml").write_text(CONFIG)
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    left = {k: v for k, v in os.environ.items() if k != "SPECEYES_RUNS"}
    return left | {"SPECEYES_HOME": str(home), "PYTHONPATH": str(PACKAGE.parent), **more}


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """`speceyes …` in a home."""
    command = [str(home / ".venv" / "bin" / "python"), "-m", "speceyes_lib", *arguments]
    return subprocess.run(
        command,
        cwd=home,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def ran(home: Path) -> list[str]:
    """Notebooks that ran since the last call, in order: "name run tasks…"."""
    path = home / "data" / "runs" / "ran.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines
