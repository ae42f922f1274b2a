"""Drafts and the funnel, run over samples."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "stages": ("load_samples", "preview_agents", "preview_drafts", "run_agent_stage", "run_draft_stage"),
    },
)
