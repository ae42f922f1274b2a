"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "audit": ("audit_reported",),
        "confidence_data": ("gather_confidence", "rule_results"),
        "fidelity": ("compare_with_replay", "run_fidelity", "write_fidelity"),
        "paper_comparison": ("gather_paper",),
        "position_bias": ("by_order", "by_place", "drafting", "run_orders"),
        "reported": ("read_reported", "reported_points"),
        "results": ("auroc_results",),
        "run_result": ("summarised",),
        "sample_frame": ("routed", "samples"),
        "training_views": (
            "alarm_table",
            "all_metrics",
            "bounds_by_step",
            "curve_bands",
            "group_ledger",
            "held_out_results",
            "learning_signal",
            "phase_path",
            "reward_variants",
            "score_parts",
        ),
    },
)
