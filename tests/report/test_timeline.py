"""Figures of tool speculation show the numbers they are given."""

from __future__ import annotations

import pandas as pd

from speceyes_lib.report import plots


def shares():
    rows = [
        (name, share, 1 + share / 200, 1.0, 1.5, 1 + share / 100)
        for name in ("exact", "<b>")
        for share in (5, 50)
    ]
    return pd.DataFrame(rows, columns=["setting", "tool_share_pct", "speedup", "low", "high", "ceiling"])


def test_every_setting_has_a_line_below_the_ceiling():
    (ax,) = plots.speedup_by_tool_share(shares()).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines["ceiling, one step"] == [1.05, 1.5]
    assert lines["exact"] == lines["<b>"] == [1.025, 1.25]


def test_every_score_has_a_front_and_the_chosen_threshold_is_marked():
    rows = [
        (score, t, 100 - 30 * t, 100 - 50 * t)
        for score in ("separability_min", "logprob_sum")
        for t in (0, 1, 2)
    ]
    front = pd.DataFrame(rows, columns=["score", "threshold", "saving_pct", "waste_pct"])
    (ax,) = plots.gate_saving_and_waste(front, front.iloc[[1]].assign(label="chosen")).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines["separability min"] == [100, 70, 40]
    assert [text.get_text() for text in ax.texts] == ["chosen"]
