"""The end of a run against its beginning, and its agent in the funnel."""

from __future__ import annotations

import pandas as pd
import pytest

from speceyes_lib.analysis.recipe_speculation import agents_table, speculation
from speceyes_lib.analysis.training_outcomes import windows


def test_windows_compare_trajectories_of_the_first_steps_with_those_of_the_last():
    rows = [
        {"set": "train", "step": step, "group": group, "score": 2.0 * late, "right": float(late), "format_error": 0.0,
         "replies": late, "failed_replies": int(late and group == 1)}
        for step in range(1, 7) for group in (0, 1) for late in [int(step > 3)]
    ]  # fmt: skip
    rows.append(rows[0] | {"set": "val", "score": 99.0})
    table = windows(pd.DataFrame(rows), first=2, last=3)
    assert table.loc["score", ["start", "end", "change"]].tolist() == [0.0, 2.0, 2.0]
    assert table.loc["tool_rate", ["start", "end"]].tolist() == [0.0, 0.5]  # a failed call is none
    assert (table["end_low"] <= table["end"]).all()
    assert (table["end"] <= table["end_high"]).all()


AGENT = pd.DataFrame(
    {
        "id": list("abcd"), "task": "t", "group": list("abcd"),
        "draft_right": [True, True, False, False], "agent_right": [True, False, True, False],
        "routed": [False, False, False, True], "score": [0.9, 0.8, 0.2, 0.9],
        "zoomed": [True, True, False, False], "n_turns": [2, 2, 1, 1], "tokens": [100, 100, 50, 50],
        "router_s": 0.1, "draft_s": 0.1, "agent_s": [2.0, 2.0, 1.0, 1.0],
    }
)  # fmt: skip


def test_the_funnel_of_each_agent_is_replayed_over_thresholds():
    table = speculation({"one": AGENT}, [0.5, 1.0]).set_index(["router", "threshold"])
    own, none, strict = table.loc[("own", 0.5)], table.loc[("none", 0.5)], table.loc[("own", 1.0)]
    assert (own["accepted"], own["accuracy"], own["lost"]) == (50.0, 75.0, -25.0)
    assert own["speedup"] == pytest.approx(6.0 / (0.4 + 0.3 + 2.0))
    assert own["token_speedup"] == pytest.approx(3.0)
    assert (none["accepted"], none["accuracy"]) == (75.0, 75.0)
    assert none["speedup"] == pytest.approx(6.0 / (0.4 + 1.0))
    assert (strict["accepted"], strict["accuracy"], strict["token_speedup"]) == (0.0, 50.0, 1.0)


def test_agents_are_described_by_how_deep_they_work():
    row = agents_table({"one": AGENT}).loc["one"]
    assert (row["n"], row["accuracy"], row["zoom_rate"], row["routed"]) == (4, 50.0, 50.0, 25.0)
    assert (row["turns"], row["tokens"], row["agent_s"]) == (1.5, 75.0, 1.5)
    assert row["tokens_low"] <= 75 <= row["tokens_high"]
