"""Benchmarks on disk become `Sample`s: one file per benchmark, pictures by reference."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "gaia": ("load_gaia",),
        "hub": ("fetch", "list_downloads"),
        "registry": ("BENCHMARKS", "load_task"),
    },
)
