"""The threshold chosen on a run: the funnel there, and its file."""

from __future__ import annotations

import json

import pytest
from synthetic_run import make_run

from speceyes_lib.analysis import sample_frame
from speceyes_lib.analysis.summary import choose_threshold, funnel_at
from speceyes_lib.errors import ConfigError, StageError
from speceyes_lib.gating.threshold import read_operating_point


@pytest.fixture(scope="module")
def frame():
    return sample_frame.assemble(*make_run(per_task=16))


def test_the_funnel_computed_at_a_threshold_is_the_curve_at_that_point(frame):
    chosen = choose_threshold(frame)
    accuracy, accepted = funnel_at(frame, chosen.threshold)
    assert accuracy.value == pytest.approx(chosen.accuracy.value)
    assert accepted.value == pytest.approx(chosen.accepted.value)


def test_the_operating_point_survives_its_file(frame, tmp_path):
    chosen = choose_threshold(frame)
    path = tmp_path / "operating_point.json"
    path.write_text(json.dumps(chosen.as_dict() | {"chosen_on": {"run": "v", "score": "min"}}))
    stored = read_operating_point(path)
    assert (stored["threshold"], stored["rule"], stored["chosen_on"]["run"]) == (
        chosen.threshold,
        chosen.rule,
        "v",
    )


def test_a_missing_or_damaged_operating_point_says_what_to_run(tmp_path):
    with pytest.raises(StageError, match="04_threshold"):
        read_operating_point(tmp_path / "operating_point.json")
    for text in ("{}", "not json", '{"threshold": 2}', '{"threshold": true}', '{"threshold": null}', "[1]"):
        (tmp_path / "operating_point.json").write_text(text)
        with pytest.raises(ConfigError, match="'threshold' is a number"):
            read_operating_point(tmp_path / "operating_point.json")
