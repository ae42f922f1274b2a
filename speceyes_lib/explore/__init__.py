"""Widgets over finished runs. No model is loaded."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "gating_explorer": ("GatingExplorer",),
        "tool_explorer": ("ToolExplorer", "ToolView"),
        "trace_explorer": ("TraceExplorer",),
        "training_explorer": ("TrainingExplorer",),
        "training_groups": ("GroupView",),
    },
)
