"""The recipe's arms and seeds: what is trained and measured, and that what is finished is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from speceyes_lib.errors import StageError, UserError
from speceyes_lib.training.grpo import Settings
from speceyes_lib.training.miniature import ARMS, train_arms

AGENT = Path(__file__).parents[2] / "data" / "demo" / "models" / "agent"
SMALL = Settings(steps=1, prompts=1, group_size=2)


def test_every_arm_and_seed_is_a_run_with_its_settings_that_is_measured_once(tmp_path):
    lines: list[str] = []

    def trained(**changed) -> list[Path]:
        given = {"arms": ["no_bonus"], "seeds": [3], "settings": SMALL, "held_out": 2, "processes": 1}
        return train_arms(tmp_path, start=AGENT, report=lines.append, **given | changed)

    (run,) = trained()
    assert run == tmp_path / "no_bonus-3"
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["seed"], settings["tool_bonus"], settings["steps"]) == (3, 0.0, 1)
    assert len(lines) == 2
    for folder in (run, tmp_path / "start"):
        table = pd.read_csv(folder / "held_out.csv")
        assert table.groupby("sampling")["sample"].apply(list).to_dict() == {
            "greedy": [0, 1],
            "sampled": [0, 1],
        }
        assert set(table["step"]) == ({0} if folder.name == "start" else {1})
        assert (table["hard"] == (table["w"] < 0.42)).all()
        assert table["box_iou"].notna().tolist() == table["tool"].tolist()
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.*")}
    assert trained() == [run]
    again = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.*")}
    assert {file.name for file in written if written[file] != again[file]} <= {
        *("settings.json", "metrics.jsonl", "console.log"),  # written again as they were
    }
    with pytest.raises(StageError, match="other settings"):
        trained(settings=Settings(steps=1, prompts=1, group_size=2, learning_rate=1.0))


def test_arms_differ_from_the_recipe_by_what_they_are_named_for():
    assert not ARMS["bonus"]
    assert ARMS["no_bonus"] == {"tool_bonus": 0.0}
    with pytest.raises(UserError, match="expected one of bonus, no_bonus, rate_too_high"):
        train_arms("x", arms=["bonuss"])
