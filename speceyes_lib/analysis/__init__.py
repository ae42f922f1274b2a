"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ablations": ("front",),
        "audit": ("audit_reported",),
        "confidence_data": ("gather_confidence", "rule_results"),
        "fidelity": ("compare_with_replay", "run_fidelity", "write_fidelity"),
        "paper_comparison": ("gather_paper",),
        "plot_data": (
            "first_look_by_size_data",
            "operating_curve",
            "phase_times_data",
            "reliability_data",
            "risk_coverage_data",
            "rolling_by_rank_data",
        ),
        "position_bias": (
            "by_order",
            "by_place",
            "drafting",
            "order_answers",
            "run_orders",
            "write_position_bias",
        ),
        "reported": ("read_reported", "reported_points"),
        "results": ("arm_results", "auroc_results", "comparison_results", "first_look_results"),
        "sample_frame": ("routed", "samples"),
        "score_comparison": ("compare_scores", "identical_scores", "merged_scores"),
        "summary": ("auroc_by_score", "summarised"),
    },
)
