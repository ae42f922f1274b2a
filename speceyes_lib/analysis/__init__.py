"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ablations": ("front", "points_at"),
        "audit": ("audit_reported",),
        "confidence_data": (
            "confidence_summary",
            "costs_at",
            "fleet_plan",
            "gather_confidence",
            "ledger_with_answers",
            "rule_results",
            "ties",
            "to_certify",
            "tried_here",
        ),
        "plot_data": (
            "operating_curve",
            "quadrants_data",
            "reliability_data",
            "risk_coverage_data",
            "rolling_by_rank_data",
        ),
        "reported": ("read_reported", "reported_points"),
        "results": ("auroc_results",),
        "sample_frame": ("routed", "samples"),
        "score_comparison": ("compare_scores", "identical_scores", "merged_scores", "near_tie_geometry"),
        "summary": ("auroc_by_score",),
    },
)
