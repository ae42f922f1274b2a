"""What `speceyes rl` prints of each run."""

from __future__ import annotations

import pandas as pd
from training_runs import write_runs

from speceyes_lib.workflow.recipe import outcomes


def test_each_run_has_the_ends_of_its_curves_and_its_held_out_answers(tmp_path):
    folder = write_runs(tmp_path, ("bonus",), seeds=2, steps=12)
    (folder / "start").mkdir()
    for name, right in {"start": [0, 0, 1], "bonus-0": [1, 1, 1], "bonus-1": [0, 0, 0]}.items():
        answers = pd.DataFrame({"sampling": "greedy", "sample": range(3), "hard": True, "right": right})
        answers = answers.assign(tool=False, box_iou=0.5)
        pd.concat([answers, answers.assign(sampling="sampled", right=1)]).to_csv(
            folder / name / "held_out.csv"
        )
    table = outcomes(folder)
    assert table.index.tolist() == ["bonus-0", "bonus-1", "start"]
    assert table["accuracy_pct"].round().tolist() == [100, 0, 33]
    assert table["diff_pp"].round().tolist()[:2] == [67, -33]
    assert table.loc["bonus-0", "score_end"] > table.loc["bonus-0", "score_start"]
    assert table.loc["start", ["score_start", "diff_pp"]].isna().all()
