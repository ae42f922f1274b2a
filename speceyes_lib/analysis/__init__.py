"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "audit": ("audit_reported",),
        "plot_data": ("operating_curve",),
        "reported": ("read_reported",),
        "sample_frame": ("routed", "samples"),
    },
)
