"""The embedded benchmark, its recorded run, and a server over the embedded models."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "preparation": (
            "difficulty_histogram",
            "inventory",
            "provide_data",
            "sample_cards",
            "write_data_stage",
        ),
    },
)
