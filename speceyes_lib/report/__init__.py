"""Numbers for readers: tables, figures, pages. Nothing here computes a statistic or reads a run."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "outputs": ("write_reported_numbers",),
    },
)
