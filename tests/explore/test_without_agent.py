"""A run without an agent opens in the explorer as on its page: what needs no agent is shown, the rest is named."""

from __future__ import annotations

import html
import math

import pandas as pd
import pytest

from speceyes_lib.explore import gate_page, gating
from speceyes_lib.explore.gating_explorer import FILES, GatingExplorer
from speceyes_lib.explore.state import GateView
from speceyes_lib.formats import import_table
from speceyes_lib.replay import outcomes
from speceyes_lib.replay.replay_data import NotRecorded

TABLE = pd.DataFrame(
    {"id": list("abcdef"), "draft_right": [1, 0, 1, 1, 0, 1], "confidence": [0.9, 0.2, 0.8, 0.95, 0.85, 0.6]}
)


@pytest.fixture
def explorer(tmp_path, monkeypatch) -> GatingExplorer:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    import_table(TABLE, "own")
    return GatingExplorer("own", GateView(score="confidence", threshold=0.82))


def test_the_shares_of_the_draft_alone_are_shown_and_the_rest_is_unknown(explorer):
    summary = gating.gate_summary(explorer.gating, explorer.view)
    assert (summary.accepted.value, summary.alpha.value, summary.beta.value) == (50, 50, 100)
    assert summary.risk.value == pytest.approx(100 / 3)
    for estimate in (summary.accuracy, summary.difference_pp, summary.speedup):
        assert math.isnan(estimate.value)
    assert summary.lacks == "the agent's answer is not recorded for 3 samples"
    assert html.escape(summary.lacks, quote=False).replace("'", "&#39;") in explorer.numbers.value
    assert [cell["text"] for row in explorer.decisions.rows[:2] for cell in row["cells"]] == list("2121")
    assert len(explorer.samples.ids) == 6


def test_gaps_are_named_in_the_words_of_the_page(explorer):
    page = gate_page.page_data(explorer.gating, explorer.view)
    assert len(explorer.gating.gaps()) == 2
    for note in explorer.gating.gaps():
        assert note in page["notes"]
        assert html.escape(note) in explorer.message.value


def test_without_accuracies_the_chart_shows_the_risk_over_coverage(explorer):
    curve = explorer.gating.curve_of(explorer.view)
    at = curve.set_index("threshold")
    assert (at["coverage"][1.0], at["coverage"][0.0]) == (0, 1)
    assert at["selective_risk"][0.0] == pytest.approx(2 / 6)
    lines = explorer.trade_off.spec["lines"]
    assert len(lines) == 1  # none of the agent
    assert [100.0, pytest.approx(100 / 3)] in lines[0]["points"]
    assert explorer.trade_off.dot == [50.0, pytest.approx(100 / 3)]


def test_where_nothing_needs_the_agent_its_accuracy_is_the_drafts_own(explorer):
    explorer.threshold.value = 0.1
    summary = gating.gate_summary(explorer.gating, explorer.view)
    assert summary.accuracy.value == pytest.approx(400 / 6)
    assert summary.lacks == ""


def test_a_pinned_setting_is_compared_on_what_is_known(explorer):
    explorer.put_pin()
    explorer.threshold.value = 0.87
    assert explorer.comparison.accuracy is None
    assert explorer.comparison.coverage.difference.value == pytest.approx(-100 / 6)
    assert explorer.comparison.risk_pp.value == pytest.approx(-100 / 3)
    assert math.isnan(explorer.comparison.faster.value)
    assert explorer.comparison.flips == {"better": 0, "worse": 0, "same": 1}


def test_tour_stills_and_files_need_no_agent(explorer):
    explorer.tour.go(explorer, 0)
    for _ in range(3):
        explorer.tour.go(explorer, 1)
    assert explorer.view.sample == "table/all/e"  # the accepted draft that is wrong
    assert explorer.still().data
    assert explorer.sample_still().question is not None
    for what in FILES:
        assert explorer.file_of(what), what


def test_decisions_are_partial_only_on_request(explorer):
    part, setting = explorer.gating.part("all", ""), explorer.gating.setting(explorer.view)
    with pytest.raises(NotRecorded, match="not recorded for 3 samples"):
        outcomes.decisions(part, setting)
    decided = outcomes.decisions(part, setting, partial=True)
    assert decided["right"].isna().tolist() == (decided["decision"] == "rejected").tolist()


def test_a_score_on_another_scale_opens_at_its_median_and_is_drawn_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    import_table(TABLE, "own")
    import_table(TABLE.assign(confidence=[-3.0, 12.5, 40.0, 1.0, 2.0, 3.0]), "scale")
    explorer = GatingExplorer("own", GateView(score="confidence", threshold=0.82))
    explorer.run.value = "scale"
    assert explorer.view.threshold == 2.5 == explorer.distribution.marker
    axis = explorer.distribution.spec["x"]
    assert (axis["low"], axis["high"]) == (-3, 40)
    explorer.threshold.value = 13.0
    assert explorer.samples.ids[0] == "table/all/b"  # the nearest: 12.5
    assert gating.gate_summary(explorer.gating, explorer.view).accepted.value == pytest.approx(100 / 6)
    explorer.distribution.marker = axis["low"]  # dragged to the end: everything is accepted
    assert explorer.view.threshold < -3
    assert (explorer.gating.decided(explorer.view)["decision"] == "accepted").all()
    explorer.follow({"step": 1})
    assert explorer.view.threshold == -3
    other = GatingExplorer("own", GateView(score="confidence", threshold=0.82))
    other.open_link(explorer.page.fragment)
    assert other.view == explorer.view
    assert other.message.value.count("<p>") == len(other.gating.gaps())
