"""One run = one config: a YAML file, checked strictly, and the jobs that follow from it.

The config repeats no definition: each key stands for parameters of the notebooks (`KEYS`) and takes its type,
limits and default from `speceyes_lib.params`. `plan` turns a config into jobs; the Snakefile makes each a rule.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..params import (
    NOTEBOOKS,
    AgentParams,
    ConfidenceParams,
    DraftParams,
    FiguresParams,
    GateAnalysisParams,
    PrepareParams,
    StageParams,
    build,
)
from ..paths import validation_run

P = TypeVar("P", bound=StageParams)
Target = tuple[type[StageParams], str]


def _every(name: str) -> tuple[Target, ...]:
    """The parameter of that name in every notebook that has it."""
    return tuple((model, name) for model in NOTEBOOKS.values() if name in model.model_fields)


# section -> key -> the notebook parameters it sets; the first one defines type, limits and default
KEYS: dict[str, dict[str, tuple[Target, ...]]] = {
    "": {
        "name": _every("run"),
        "prompts": _every("prompts"),
        "arms": _every("arms"),
    },
    "data": {
        "kind": _every("kind"),
        "fetch": _every("fetch"),
        "root": _every("data_root"),
        "seed": ((PrepareParams, "seed"),),
        "tasks": _every("tasks"),
        "limit": _every("limit"),
        "option_order": _every("option_order"),
        "option_seed": _every("option_seed"),
    },
    "validation": {
        "root": _every("validation_root"),
        "seed": _every("validation_seed"),
    },
    "models": {
        "draft": _every("draft_model"),
        "agent": _every("agent_model"),
        "dtype": _every("dtype"),
        "device": _every("device"),
        "attn": _every("attn"),
        "min_pixels": _every("min_pixels"),
        "max_pixels": _every("max_pixels"),
    },
    "draft": {
        "batch_size": _every("batch_size"),
        "max_new_tokens": ((DraftParams, "max_new_tokens"), (AgentParams, "draft_max_new_tokens")),
        "k_store": _every("k_store"),
        "if_fewer_alternatives": _every("if_fewer_alternatives"),
    },
    "gate": {
        "router": _every("router"),
        "router_max_new_tokens": _every("router_max_new_tokens"),
        "router_small": _every("router_small"),
        "score": _every("score"),
        "k": _every("k"),
        "slope": _every("slope"),
        "delta_pp": _every("delta_pp"),
        "threshold": _every("threshold"),
    },
    "agent": {
        "batch_size": _every("agent_batch_size"),
        "batch_size_batched": _every("agent_batch_size_batched"),
        "max_turns": _every("max_turns"),
        "max_new_tokens": ((AgentParams, "max_new_tokens"),),
        "first_look": _every("first_look"),
        "kind": _every("agent"),
        "sandbox": _every("sandbox"),
        "concurrent": _every("concurrent"),
        "specreason_threshold": _every("specreason_threshold"),
    },
    "judging": {
        "protocol": _every("protocol"),
        "judge": _every("judge"),
        "judge_all": _every("judge_all"),
        "judge_max_requests": _every("judge_max_requests"),
        "judge_max_tokens": _every("judge_max_tokens"),
        "judge_cache": _every("judge_cache"),
        "human_checks": _every("human_checks"),
    },
    "confidence": {
        "modes": _every("modes"),
        "risk_target": _every("risk_target"),
        "loss_target": _every("loss_target"),
        "pass_target": _every("pass_target"),
        "delta": _every("delta"),
        "repeats": _every("repeats"),
        "bootstrap": ((ConfidenceParams, "bootstrap"),),
        "seed": tuple((m, "seed") for m in NOTEBOOKS.values() if issubclass(m, GateAnalysisParams)),
    },
    "figures": {
        "source": _every("source"),
        "more_runs": _every("more_runs"),
        "hard_below": _every("hard_below"),
        "bootstrap": ((FiguresParams, "bootstrap"),),
        "seed": ((FiguresParams, "seed"),),
    },
}
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _fields(section: str) -> dict[str, tuple[Any, Any]]:
    first = {key: targets[0] for key, targets in KEYS[section].items()}
    fields = {key: model.model_fields[name] for key, (model, name) in first.items()}
    return {key: (field.annotation, field) for key, field in fields.items()}


class _Workflow(BaseModel):
    """How the work is cut into jobs; no result depends on it."""

    model_config = _STRICT

    group_by: Literal["split", "benchmark", "run"] = Field(
        "benchmark", description="tasks that notebooks 01, 02 and 03 take in one kernel"
    )
    shards: int = Field(
        1, ge=1, description="jobs that share the models' work on each group of tasks, before one merges it"
    )
    gpus_per_job: int = Field(0, ge=0, description="GPUs that a job with models asks a cluster for")
    validation_kernels: int = Field(
        1,
        ge=1,
        description="kernels that share the validation set, side by side: no clock of theirs is reported",
    )


def _sections() -> dict[str, tuple[Any, Any]]:
    models = {
        section: create_model(section, __config__=_STRICT, **_fields(section)) for section in KEYS if section
    }
    models["workflow"] = _Workflow
    return {section: (model, Field(default_factory=model)) for section, model in models.items()}


class RunConfig(create_model("RunConfigKeys", __config__=_STRICT, **_fields(""), **_sections())):
    """A checked config: `config.data.root`, `config.gate.threshold`, …; every key has its default."""

    def params(self, model: type[P], **own: Any) -> P:
        """The parameters of one notebook as this config has them; `own` are those that the plan decides."""
        values: dict[str, Any] = {}
        for section, keys in KEYS.items():
            part = getattr(self, section) if section else self
            for key, targets in keys.items():
                values |= {name: getattr(part, key) for target, name in targets if target is model}
        return build(model, values | own, f"config of run {self.name}")

    @property
    def validation_run(self) -> str | None:
        """The run on the validation set that chooses the threshold; None where the config gives one."""
        gated = any(arm.startswith("gated") for arm in self.arms)
        return validation_run(self.name) if gated and self.gate.threshold is None else None
