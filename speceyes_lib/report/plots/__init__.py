"""One file per group of figures: a frame goes in, a matplotlib `Figure` comes out."""

from ...exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ablations": (
            "batch_size_ablation",
            "router_ablation",
            "score_ablation",
            "threshold_ablation",
            "topk_ablation",
        ),
        "confidence": (
            "confidence_density",
            "reliability",
            "risk_coverage",
            "rolling_by_rank",
            "tie_geometry",
        ),
        "cost": ("break_even", "first_look_by_size", "fleets", "phase_times", "throughput", "time_ledger"),
        "fidelity": ("replay_fidelity",),
        "gate": ("accuracy_over_threshold", "accuracy_speedup", "certified_points", "front", "quadrants"),
        "judging": ("correction_waterfall",),
        "method": ("method_diagram",),
        "position_bias": ("accuracy_by_place",),
    },
)
