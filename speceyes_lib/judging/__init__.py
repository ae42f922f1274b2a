"""Verdicts on answers by rules, a judging model and people, and their comparison."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "stage": ("preview_verdicts", "run_judging"),
        "verdict_frames": ("agreement", "model_replies", "verdicts"),
        "gaia": ("compare_protocols",),
        "option_reader": ("named_option",),
        "benchmark_measures": ("benchmark_metrics",),
        "scorer_comparison": ("accuracy_by_scorer", "compare_scorers", "corrections", "pope_by_scorer"),
        "other_scorers": ("SCORERS",),
    },
)
