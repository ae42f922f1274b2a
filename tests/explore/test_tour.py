"""The tour ends at a wrong draft that the gate accepted; a decision is explained with its origin."""

from __future__ import annotations

import html
from dataclasses import replace

import pandas as pd
import pytest
from explore_run import K_STORED

from speceyes_lib.errors import UserError
from speceyes_lib.explore import GatingExplorer, explain
from speceyes_lib.explore.gating import Gating
from speceyes_lib.explore.state import Chosen, GateView
from speceyes_lib.explore.tour import tour_steps
from speceyes_lib.formats import import_table
from speceyes_lib.replay import outcomes
from speceyes_lib.runs import recorded_run

VIEW = GateView(threshold=0.9, k=K_STORED)
OWN = GateView(score="confidence", router="none", threshold=0.85)
# draft right, confidence, agent right
TABLE = pd.DataFrame(
    {
        "id": ["sure", "good", "bad", "weak"],
        "draft_right": [1, 1, 0, 0],
        "confidence": [0.99, 0.9, 0.8, 0.3],
        "agent_right": [1, 1, 1, 0],
        "draft_s": 0.1,
        "agent_s": 1.0,
        "draft_answer": ["a", "b", "c", "d"],
        "agent_answer": ["a", "b", "x", "y"],
        "standard": ["a", "b", "x", "z"],
    }
)


@pytest.fixture(scope="module")
def small(stored_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(stored_run))
        yield Gating(recorded_run.open("small", strict=False))


@pytest.fixture
def own(tmp_path, monkeypatch):
    def imported(table: pd.DataFrame) -> Gating:
        monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
        import_table(table, "own")
        return Gating(recorded_run.open("own", strict=False))

    return imported


def test_the_tour_ends_at_an_accepted_draft_that_is_wrong(small):
    steps = tour_steps(small, VIEW)
    assert len(steps) == 4
    last = steps[-1].view
    row = small.decided(last).set_index("id").loc[last.sample]
    assert row["decision"] == "accepted"
    assert not row["draft_right"]
    assert last.chosen == Chosen("decision", "accepted wrong")
    assert explain.reason(row, explain.answers_of(small, last.sample), last) in steps[-1].text


def test_where_none_is_wrong_the_threshold_is_lowered_just_so_far_and_the_step_names_it(own):
    data = own(TABLE)
    steps = tour_steps(data, OWN)
    assert [step.view.threshold for step in steps] == [0.85, 0.85, 0.3, 0.3]
    assert steps[-1].view.sample == "table/all/bad"
    assert "0.3" in steps[2].text
    assert (data.decided(steps[-1].view)["decision"] == "accepted").sum() == 3


def test_where_no_draft_is_wrong_it_ends_at_an_accepted_one(own):
    data = own(TABLE.assign(draft_right=1))
    steps = tour_steps(data, OWN)
    assert len(steps) == 4
    row = data.decided(steps[-1].view).set_index("id").loc[steps[-1].view.sample]
    assert row["decision"] == "accepted"
    assert steps[-1].view.threshold == OWN.threshold


def test_the_explorer_goes_through_the_tour_and_back_to_where_it_began(small):
    explorer = GatingExplorer("small", VIEW)
    tour, began = explorer.tour, explorer.view
    tour.begin.click()
    steps = tour_steps(small, VIEW)
    for step in steps:
        assert step.text.split(".")[0] in html.unescape(tour.text.value)
        assert "se-tour-here" in getattr(explorer, step.about)._dom_classes
        assert explorer.view.threshold == step.view.threshold
        if step is not steps[-1]:
            tour.next.click()
    assert explorer.view.sample == steps[-1].view.sample
    explorer.explained.button.click()
    assert explorer.explained.clipping.text == explain.explanation(small, explorer.view)
    tour.back.click()
    assert explorer.view.chosen == steps[2].view.chosen
    tour.skip.click()
    assert (explorer.view.threshold, explorer.view.chosen) == (began.threshold, began.chosen)
    assert tour.children == (tour.begin,)
    assert "se-tour-here" not in explorer.samples._dom_classes
    tour.begin.click()
    for _ in steps:
        tour.next.click()
    assert explorer.view.sample == steps[-1].view.sample
    assert tour.children == (tour.begin,)
    assert explorer.message.value == ""
    assert b'id="data"' in explorer.file_of("gate, to send (interactive HTML)")
    explorer.step(1)
    assert explorer.explained.clipping.text == ""  # of another sample


def test_an_explanation_names_decision_verdicts_and_origin(own):
    data = own(TABLE)
    view = replace(OWN, threshold=0.5, sample="table/all/bad")
    text = explain.explanation(data, view)
    for part in ('"c"', "0.8000", "0.3000 above", '"x"', "wrong", "loses", "100.0 ms", "1000.0 ms"):
        assert part in text
    origin = text.split("[")[1]
    for part in ("run own", "score confidence", "router none", "threshold 0.5", "sample table/all/bad"):
        assert part in origin
    rejected = explain.explanation(data, replace(view, threshold=0.8))
    assert "exactly at" in rejected
    assert "rejects" in rejected
    with pytest.raises(UserError, match="choose a sample"):
        explain.explanation(data, OWN)


def test_every_outcome_of_replay_has_a_meaning(small):
    assert set(explain.MEANS) == {*outcomes.OUTCOMES, ""}
    decided = small.decided(VIEW)
    for _, row in decided.iterrows():
        text = explain.reason(row, explain.answers_of(small, row["id"]), VIEW)
        assert "nan" not in text.lower().split()


def test_the_figure_marks_the_threshold_and_the_sample(small):
    id_ = small.decided(VIEW).query("decision == 'accepted'")["id"].iloc[0]
    (ax,) = explain.explained_figure(small, replace(VIEW, sample=id_)).axes
    assert len([line for line in ax.lines if line.get_marker() == "o"]) == 1
    shown = explain.Explained()
    shown.show(small, replace(VIEW, sample=id_))
    assert shown.clipping.figure.startswith(b"\x89PNG")
    assert id_ in shown.clipping.text
    shown.show(None, VIEW)
    assert shown.clipping.text == ""
