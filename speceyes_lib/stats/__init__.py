"""Estimates with intervals: arrays go in, values with their uncertainty come out."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "intervals": ("Estimate", "proportion", "wilson"),
        "resampling": ("Bootstrap", "bootstrap_ratio", "bootstrap_statistic", "linearised_ratio"),
        "proportions": ("accuracy", "funnel_shares", "mean", "share", "yes_no_scores"),
        "paired": ("paired_test", "sign_flip_test", "speedup"),
        "ranking": ("auroc", "risk_coverage", "rolling_accuracy"),
        "calibration": ("reliability",),
    },
)
