"""Widgets over finished runs. No model is loaded."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "gating": ("overview_figure",),
        "gating_explorer": ("GatingExplorer",),
        "stills": ("gate_still", "sample_still", "trace_still"),
        "trace_explorer": ("TraceExplorer",),
    },
)
