"""Notebooks chained by one config, and the command line."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "notebook": ("Progress", "handover", "show_figure", "start"),
        "tool_study": ("open_tool_study",),
    },
)
