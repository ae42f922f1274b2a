"""Samples beside what the models answered: one row each, a failure in its own column."""

from __future__ import annotations

from synthetic_run import make_run, make_samples

from speceyes_lib.analysis.sample_rows import agent_rows, draft_rows

TASK = "vstar/direct_attributes"
SAMPLES = make_samples(per_task=4, tasks=(TASK,))
ARMS, _ = make_run(per_task=4, tasks=(TASK,), failed=1)


def test_drafts_stand_beside_the_right_answers_with_their_scores():
    drafts = [ARMS["collect"][sample.id].draft for sample in SAMPLES]
    rows = draft_rows(SAMPLES, drafts)
    assert rows["id"].tolist() == [sample.id for sample in SAMPLES]
    assert rows["standard"].tolist() == [sample.standard for sample in SAMPLES]
    assert rows["answer"].tolist()[1:] == [draft.answer for draft in drafts[1:]]
    assert rows["min"].tolist()[1:] == [draft.scores["min"] for draft in drafts[1:]]
    assert rows["failure"].notna().tolist() == [True, False, False, False]


def test_answers_of_an_arm_stand_beside_who_gave_them_and_what_they_cost():
    records = [ARMS["gated"][sample.id] for sample in SAMPLES]
    rows = agent_rows(SAMPLES, records)
    assert rows["decision"].tolist() == [record.decision for record in records]
    assert rows["wall_s"].tolist() == [record.wall_s for record in records]
    assert rows["failure"].notna().tolist() == [True, False, False, False]
