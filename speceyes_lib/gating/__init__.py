"""From token evidence to accept or fall back: separability, scores, the gate and its threshold."""
