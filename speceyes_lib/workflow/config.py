"""One run = one config: a YAML file, checked strictly.

Its keys are the parameters of the notebooks (`speceyes_lib.params`), each once for all notebooks that have it, with
their types, limits, defaults and descriptions. `plan` turns a config into jobs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from ..errors import build
from ..params import NOTEBOOKS, Params, StageParams
from ..paths import validation_run

P = TypeVar("P", bound=StageParams)
_STRICT = Params.model_config


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


def config_key(model: type[StageParams], name: str) -> tuple[str, str] | None:
    """Section and key by which a config gives a parameter; section "" is the top level. None: the plan decides it."""
    key = model.model_fields[name].json_schema_extra["key"]
    if key is None:
        return None
    section, _, last = (key or f"{model.section}.{name}").rpartition(".")
    return section, last


def _config_fields() -> dict[str, Any]:
    """Fields of the config: a model for each section, and the keys of the top level.

    Where notebooks share a key, the first of them gives its type, limits and default.
    """
    sections: dict[str, dict[str, Any]] = defaultdict(dict)
    for model in NOTEBOOKS.values():
        for name, field in model.model_fields.items():
            if key := config_key(model, name):
                sections[key[0]].setdefault(key[1], (field.annotation, field))
    fields = sections.pop("")
    models = {name: create_model(name, __config__=_STRICT, **keys) for name, keys in sections.items()}
    models["workflow"] = _Workflow
    return fields | {name: (model, Field(default_factory=model)) for name, model in models.items()}


class RunConfig(create_model("RunConfigKeys", __config__=_STRICT, **_config_fields())):
    """A checked config: `config.data.root`, `config.gate.threshold`, …; every key has its default."""

    plugins: list[str] = Field([], description="modules or Python files that add scores, benchmarks, ...")

    def params(self, model: type[P], **decided: Any) -> P:
        """The parameters of one notebook as this config has them; `decided` are those that the plan decides."""
        keys = {name: key for name in model.model_fields if (key := config_key(model, name))}
        places = {name: (getattr(self, s) if s else self, key) for name, (s, key) in keys.items()}
        values = {name: getattr(place, key) for name, (place, key) in places.items()}
        return build(model, values | decided, f"config of run {self.name}")

    @property
    def validation_run(self) -> str | None:
        """The run on the validation set that chooses the threshold; None where the config gives one."""
        gated = any(arm.startswith("gated") for arm in self.arms)
        return validation_run(self.name) if gated and self.gate.threshold is None else None


SECTIONS = {name for name, field in RunConfig.model_fields.items() if field.default_factory}
