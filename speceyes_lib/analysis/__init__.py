"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "audit": ("audit_reported",),
        "confidence_data": ("gather_confidence", "rule_results"),
        "fidelity": ("compare_with_replay", "run_fidelity", "write_fidelity"),
        "layer_gates": ("look_inside",),
        "own_results": ("gather_own_results",),
        "paper_comparison": ("gather_paper",),
        "position_bias": ("by_order", "by_place", "drafting", "run_orders"),
        "reported": ("read_reported", "reported_points"),
        "results": ("auroc_results",),
        "run_result": ("summarised",),
        "guess_gate": (
            "calibrate_guesses",
            "certified_waste",
            "compare_guess_scores",
            "gate_front",
            "least_waste",
            "predictor_baselines",
            "thresholds_by_value",
        ),
        "tool_arms": ("audit_arms", "audit_findings", "compare_all", "compare_arms", "tool_latency"),
        "tool_ledger": ("ceiling_losses", "guess_ledger", "hit_at_k", "ledger_by"),
        "tool_study": ("read_tool_study",),
        "speculative_zoom": ("zoom_ceiling", "zoom_turns"),
        "tool_timeline": ("timeline",),
        "sample_frame": ("routed", "samples"),
        "second_drafts": ("draft_twice",),
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
