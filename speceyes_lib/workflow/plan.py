"""From a config to jobs: one notebook, its parameters, what it reads and what it writes."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .. import plugins
from ..errors import ConfigError, build
from ..judging.human import checks_path
from ..models.registry import backend_type
from ..params import (
    NOTEBOOKS,
    AgentParams,
    CertifiedParams,
    ConfidenceParams,
    CostsParams,
    DraftParams,
    FiguresParams,
    JudgingParams,
    PrepareParams,
    StageParams,
    ThresholdParams,
)
from ..paths import PACKAGE, repo_root, resolve, run_dir, shown, stage_dir
from ..runs.provenance import library_files
from ..runs.shards import Shard
from .config import SECTIONS, RunConfig
from .parameters_cell import cells_of


def load_config(path: str | Path) -> RunConfig:
    """Read and check a config file, and with it the parameters of every notebook.

    Raises:
        ConfigError: names file, key path, what was expected and the nearest valid name.
    """
    where = shown(path)
    try:
        text = resolve(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(shown(p) for p in repo_root().glob("configs/*.yaml")))
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where}: cannot be read ({reason}); there are {known}") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: sections inside sections without end; a config has two levels") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected keys with values, such as `name: demo`")
    # an empty section (`gate:` with nothing below) reads as null: it means the defaults
    values = {key: {} if value is None and key in SECTIONS else value for key, value in values.items()}
    config = build(RunConfig, values, where)
    plugins.use(config.plugins, where)
    try:
        plan(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


class _UniqueKeys(yaml.SafeLoader):
    """YAML would silently let the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                mark = node.value[i][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", mark)
        return super().construct_mapping(node, deep)


# ------------------------------------------------------------------ jobs

# notebooks that analyse the instrumented arm -> the stage that each writes
ANALYSES = {
    ConfidenceParams: "04_confidence",
    CertifiedParams: "04_certified_thresholds",
    CostsParams: "04_costs",
}


@dataclass(frozen=True)
class Job:
    """One notebook run by papermill: what it reads, what it writes, and its parameters.

    Paths are relative to the repository where they lie in it. `exclusive` jobs measure time and run alone. Jobs with
    `runs_models` get the sizes of a cluster's profile, the others small ones.
    A job with a `shard` ("1of4") does that part of the notebook's stage without the notebook: its log is text.
    """

    name: str
    notebook: str
    params: StageParams
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    executed: str
    exclusive: bool = False
    gpus: int = 0
    runs_models: bool = False
    shard: str = ""

    @property
    def command(self) -> str:
        """First argument of `speceyes job` for this job."""
        return f"shard:{self.shard}" if self.shard else "notebook"

    @property
    def blob(self) -> str:
        """The parameters as papermill's one base64 argument (JSON is YAML)."""
        return base64.b64encode(json.dumps(self.params.model_dump()).encode()).decode()


def groups(tasks: list[str], group_by: str) -> dict[str, list[str]]:
    """Tasks that share a kernel, by the name of their group ("" = all of them)."""
    names = {
        "split": [task.replace("/", "_") for task in tasks],
        "benchmark": [task.split("/")[0] for task in tasks],
        "run": ["" for _ in tasks],
    }[group_by]
    return {g: [t for t, name in zip(tasks, names, strict=True) if name == g] for g in dict.fromkeys(names)}


def split_round_robin(tasks: list[str], kernels: int) -> dict[str, list[str]]:
    """Tasks of each kernel, assigned in turn to at most so many; by the name of the kernel ("" where there is one)."""
    parts = [part for i in range(1, kernels + 1) if (part := Shard(i, kernels).of(tasks))]
    return {f"part{i}" if len(parts) > 1 else "": part for i, part in enumerate(parts, 1)}


def plan(config: RunConfig) -> list[Job]:
    """All jobs of a run, each after those it depends on.

    The validation run comes first, since it chooses the threshold. Its times are not reported, so that its kernels may
    run side by side.
    """
    prepare = config.params(PrepareParams, if_changed="restart")
    jobs = [_job(prepare, config.name, "", [_manifest(config.name, "00_data")])]
    threshold_from = ""
    if run := config.validation_run:
        decided = {"run": run, "data_root": config.validation.root, "threshold_from": ""}
        decided |= {"first_look": False, "router_small": False}  # no threshold needs these
        if not config.validation.root:
            remedy = "name a validation set here, or give gate.threshold"
            raise ConfigError(f"validation.root: there is no threshold; {remedy}")
        for group, tasks in split_round_robin(config.data.tasks, config.workflow.validation_kernels).items():
            decided |= {"tasks": tasks, "arms": ["collect"]}
            jobs += _inference(config, group, jobs[0].outputs, timed=False, **decided)
        threshold_from = _path(stage_dir(run, "04_threshold") / "operating_point.json")
        jobs.append(_analysis(config, ThresholdParams, "04_threshold", [threshold_from], run=run))
    decided = {"arms": config.arms, "threshold_from": threshold_from}
    for group, tasks in groups(config.data.tasks, config.workflow.group_by).items():
        jobs += _inference(config, group, jobs[0].outputs, tasks=tasks, **decided)
    analyses = ANALYSES.items() if "collect" in config.arms else ()
    jobs += [_analysis(config, *analysis, [], threshold_from=threshold_from) for analysis in analyses]
    summary = _path(run_dir(config.name) / "summary.json")
    return [*jobs, _analysis(config, FiguresParams, "05_figures", [summary], threshold_from=threshold_from)]


def _inference(
    config: RunConfig, group: str, inputs: tuple[str, ...], *, timed: bool = True, **decided: Any
) -> list[Job]:
    """Notebooks 01, 02 and 03 for one group of tasks; 01 and 02 run alone where their times are reported."""
    decided = {"if_changed": "restart", "run": config.name, **decided}
    run, tasks, arms = decided["run"], decided["tasks"], decided["arms"]
    jobs: list[Job] = []
    for model, stages in (
        (DraftParams, ["01_draft"]),
        (AgentParams, [f"02_{arm}" for arm in arms]),
        (JudgingParams, [f"03_judging/{arm}" for arm in arms]),
    ):
        outputs = [_manifest(run, stage, task) for stage in stages for task in tasks]
        params = config.params(model, **{n: value for n, value in decided.items() if n in model.model_fields})
        before = list(jobs[-1].outputs) if jobs else []
        if threshold_from := getattr(params, "threshold_from", None):
            before.append(threshold_from)
        if getattr(params, "human_checks", "") == "apply" and checks_path(run).is_file():
            before.append(_path(checks_path(run)))
        job = _job(params, run, group, outputs, (*inputs, *before))
        if model is not JudgingParams:
            job = replace(job, exclusive=timed, gpus=config.workflow.gpus_per_job, runs_models=True)
            shards = _shards(job, stages, config.workflow.shards)
            jobs += shards
            job = replace(job, inputs=(*job.inputs, *(path for s in shards for path in s.outputs)))
        jobs.append(job)
    return jobs


def _shards(job: Job, stages: list[str], count: int) -> list[Job]:
    """The jobs that share the work of `job`, which merges what they leave; none where it works alone."""
    run, tasks = job.params.run, job.params.tasks
    parts = [Shard(i, count) for i in range(1, count + 1)] if count > 1 else []
    return [
        replace(
            job,
            name=f"{job.name}_{part}",
            outputs=tuple(_manifest(part.run(run), stage, task) for stage in stages for task in tasks),
            executed=f"{job.executed.removesuffix('.ipynb')}_{part}.log",
            shard=str(part),
        )
        for part in parts
    ]


def _analysis(
    config: RunConfig, model: type[StageParams], stage: str, more_outputs: list[str], **decided: Any
) -> Job:
    """A notebook of stages 04 and 05: one kernel over all tasks, after all judging it reads."""
    params = config.params(model, **{"run": config.name, "if_changed": "restart", **decided})
    arms = params.arms if isinstance(params, FiguresParams) else [params.arm]
    judged = [_manifest(params.run, f"03_judging/{arm}", task) for arm in arms for task in params.tasks]
    if threshold_from := getattr(params, "threshold_from", ""):
        judged.append(threshold_from)
    if isinstance(params, FiguresParams):
        judged += [_path(p) for p in sorted(repo_root().glob("data/paper/*.csv"))]
    return _job(params, params.run, "", [_manifest(params.run, stage), *more_outputs], judged)


def _job(params: StageParams, run: str, group: str, outputs: list[str], inputs: Any = ()) -> Job:
    notebook = next(name for name, model in NOTEBOOKS.items() if isinstance(params, model))
    label = f"{notebook}_{group}" if group else notebook
    return Job(
        name=re.sub(r"\W", "_", f"{run}_{label}"),
        notebook=f"notebooks/{notebook}.ipynb",
        params=params,
        inputs=(f"notebooks/{notebook}.ipynb", *_sources(notebook, params), *inputs),
        outputs=tuple(outputs),
        executed=_path(run_dir(run) / "notebooks" / f"{label}.ipynb"),
    )


def _sources(notebook: str, params: StageParams) -> list[str]:
    """Library modules that the notebook imports, directly or not, and the models and prompts of its parameters."""
    path = repo_root() / "notebooks" / f"{notebook}.ipynb"
    files = library_files(code_of(path)) if path.is_file() else set()
    models = [getattr(params, name, None) for name in ("draft_model", "agent_model")]
    for model in models:
        if model and not backend_type(model).served:  # `check` and the notebook report a missing folder
            files |= {p for p in resolve(model).glob("*") if p.suffix in (".json", ".safetensors")}
    if prompts := getattr(params, "prompts", None):
        known = PACKAGE / "agents" / "prompts" / f"{prompts}.yaml"
        files |= {path for path in (known, resolve(prompts)) if path.is_file()}
    return sorted(map(_path, files))


def code_of(notebook: Path) -> str:
    """The code cells of a notebook as one Python text, without IPython's own commands."""
    code = "\n".join(cell["source"] for cell in cells_of(notebook) if cell["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!")))


def _manifest(run: str, stage: str, task: str | None = None) -> str:
    return _path(stage_dir(run, stage, task) / "manifest.json")


def _path(path: Path) -> str:
    return path.relative_to(repo_root()).as_posix() if path.is_relative_to(repo_root()) else str(path)
