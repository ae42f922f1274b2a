"""From token evidence to accept or fall back: separability, scores, the gate and its threshold."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "gate": ("accepts",),
        "threshold": ("choose_threshold", "read_operating_point"),
        "scores": ("score_answers",),
        "calibration_samples": ("gate_samples",),
        "certificates": ("certification_rules", "certify", "evaluate_rules"),
    },
)
