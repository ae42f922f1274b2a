"""Drafts with two scores, each of which knows half of what decides whether the draft is right."""

from __future__ import annotations

import numpy as np
import pandas as pd


def population(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Scores, whether each draft is right, and groups of four."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.02, 0.98, (2, n))
    right = rng.uniform(size=n) < (a + b) / 2
    return pd.DataFrame({"min": a, "margin": b}), right, np.arange(n) // 4
