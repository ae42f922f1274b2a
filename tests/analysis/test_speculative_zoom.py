"""The ceiling of speculative zoom, on trajectories whose seconds are known."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from speceyes_lib.analysis.speculative_zoom import zoom_ceiling, zoom_turns
from speceyes_lib.errors import DataError
from speceyes_lib.stats.resampling import Bootstrap

FEW = Bootstrap(draws=20)
FIRST_S, LATER_S, TOKEN_S, CROP_S = 0.03, 0.05, 0.005, 0.01


def turns(samples: int = 4) -> pd.DataFrame:
    rows = []
    for n in range(samples):
        tokens = 40 + 8 * n
        rows += [
            {"id": f"s{n}", "turn": 0, "seconds": FIRST_S + TOKEN_S * tokens, "tokens": tokens, "zoomed": True,
             "after_box": 0.25, "tools_s": CROP_S},
            {"id": f"s{n}", "turn": 1, "seconds": LATER_S + TOKEN_S * (5 + n), "tokens": 5 + n, "zoomed": False,
             "after_box": 0.0, "tools_s": CROP_S},
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_what_comes_before_the_first_token_can_be_hidden_behind_the_call():
    frame = zoom_ceiling(turns(), FEW)
    assert frame["encode_ms"].to_numpy() == pytest.approx([1e3 * LATER_S] * 2)
    assert frame["crop_ms"].to_numpy() == pytest.approx([1e3 * CROP_S] * 2)
    assert frame.loc["whole turn", "hidden_ms"] == pytest.approx(1e3 * (LATER_S + CROP_S))
    # a quarter of the turn is left once the box is there: 50 to 80 ms for 60 ms of work
    left = [min(60.0, 1e3 * TOKEN_S * (40 + 8 * n) / 4) for n in range(4)]
    assert frame.loc["from the box on", "hidden_ms"] == pytest.approx(sum(left) / 4)
    total = turns()["seconds"].sum() + 4 * CROP_S
    assert frame.loc["whole turn", "speedup"] == pytest.approx(total / (total - 4 * (LATER_S + CROP_S)))


def test_without_a_zoom_nothing_is_saved():
    frame = zoom_ceiling(turns().assign(zoomed=False), FEW)
    assert (frame["speedup"] == 1).all()
    assert (frame["zooms"] == 0).all()


def test_the_recorded_agents_are_read_from_their_packed_file():
    frame = zoom_turns("data/demo/recorded_run.tar.xz")
    zooms = frame[frame["zoomed"]]
    assert len(zooms) > 300
    assert zooms["after_box"].between(0.05, 0.3).all()
    assert zoom_ceiling(frame, FEW).loc["whole turn", "speedup"] > 1.05


def test_a_folder_without_agents_and_a_damaged_record_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no timed turns"):
        zoom_turns(tmp_path)
    stage = tmp_path / "02_baseline" / "vstar"
    stage.mkdir(parents=True)
    (stage / "records.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
    with pytest.raises(DataError, match="no record of an agent"):
        zoom_turns(tmp_path)
