"""The parameters that draft the samples of a run again, with something changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError, build
from ..params import DraftParams
from ..runs import recorded_run
from ..runs.arms import DRAFT_STAGE

PUBLISHED = "as_published"


def redrafting(
    run: str, tasks: Sequence[str], suffix: str, draft_model: str = "", **changes: Any
) -> DraftParams:
    """The parameters of the run's own stage 01 with some changed, for a run of its own: `<run>_<suffix>`.

    Args:
        run: name of a run with drafts.
        tasks: of the run.
        suffix: of the new run's name; "": the run itself.
        draft_model: of a model that was served, whose place no run records; "": as recorded.
        changes: other parameters.

    Raises:
        StageError: the run has no drafts.
        ConfigError: they were imported, or their options were reordered, or a change is not allowed.
    """
    config = recorded_run.open(run, tasks=tasks).config(DRAFT_STAGE)
    if "imported_from" in config:
        raise ConfigError(
            f"run: the drafts of {run} were imported and their model is not known; name a run that was run here"
        )
    known = {name: value for name, value in config.items() if name in DraftParams.model_fields}
    if draft_model:
        known["draft_model"] = draft_model
    if (order := known.get("option_order", PUBLISHED)) != PUBLISHED:
        raise ConfigError(
            f"run: the drafts of {run} were made with option_order = {order!r}; name a run whose options were shown "
            f"{PUBLISHED}"
        )
    changes |= {"run": f"{run}_{suffix}" if suffix else run, "tasks": list(tasks)}
    return build(DraftParams, known | changes, f"stage 01 of run {run}")
