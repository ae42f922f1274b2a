"""A short load on the embedded server gives throughput and latency beside the planner's prediction, and a figure."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd

from speceyes_lib.paths import PACKAGE


def test_a_few_users_are_measured_beside_the_prediction(tmp_path):
    script = PACKAGE.parent / "benchmarks" / "bench_planner.py"
    options = ["--users", "1", "3", "--requests", "7", "--rounds", "1", "--per-task", "1"]
    command = [sys.executable, script, *options, "--figure", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    table = pd.read_csv(tmp_path / "served_load.csv")
    assert table[["users", "how"]].to_numpy().tolist() == [
        [n, how] for n in (1, 3) for how in ("predicted", "measured")
    ]
    assert (table["per_s"] > 0).all()
    assert (table["p50_s"] <= table["p95_s"]).all()
    assert (tmp_path / "served_load.png").stat().st_size > 1000
