"""Records are complete, immutable and refuse unknown fields."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from speceyes_lib.errors import nearest
from speceyes_lib.runs.records import AgentRecord, DraftRecord, RouterRecord, Trajectory, Turn

DRAFT = DraftRecord(id="vstar/direct_attributes/a", status="ok", answer="red", decode_s=0.25, draft_s=0.5)
TURN = Turn(text="<answer>red</answer>", n_tokens=3, turn_s=2.0, action="answer")


def record(**changes) -> AgentRecord:
    values = {"id": DRAFT.id, "run_mode": "gated", "status": "ok", "decision": "rejected", "used": "large"}
    return AgentRecord(**(values | {"decode_s": 0.25} | changes))


def test_records_survive_json_unchanged():
    original = record(draft=DRAFT, trajectory=Trajectory(status="ok", answer="red", turns=(TURN,)))
    assert AgentRecord.model_validate_json(original.model_dump_json()) == original


def test_an_undeclared_field_is_refused():
    with pytest.raises(ValidationError, match="extra"):
        DraftRecord(id="x", status="ok", anwser="red")


def test_non_finite_numbers_never_enter_a_record():
    with pytest.raises(ValidationError):
        record(confidence=float("nan"))
    with pytest.raises(ValidationError):
        DraftRecord(id="x", status="ok", scores={"min": float("inf")})


def test_a_record_cannot_be_edited():
    with pytest.raises(ValidationError):
        DRAFT.answer = "blue"


def test_a_gated_sample_pays_for_every_phase_it_went_through():
    router = RouterRecord(verdict="no", text="no", router_s=0.125)
    full = record(
        router=router, draft=DRAFT, trajectory=Trajectory(status="ok", turns=(TURN, TURN)), tool_s=1.0
    )
    assert full.wall_s == pytest.approx(0.25 + 0.125 + 0.5 + 4.0 + 1.0)


def test_collect_does_not_pay_twice_for_a_draft_of_stage_01():
    taken_over = record(run_mode="collect", decision="collected", draft=DRAFT)
    assert taken_over.wall_s == pytest.approx(0.25)
    assert DRAFT.wall_s == pytest.approx(0.75)


def test_the_first_look_is_an_experiment_and_not_charged():
    look = Trajectory(status="ok", turns=(TURN,))
    assert record(first_look=look).wall_s == record().wall_s


def test_nearest_suggests_only_what_is_close():
    assert nearest("treshold", ["threshold", "batch_size"]) == " (did you mean 'threshold'?)"
    assert nearest("zzz", ["threshold"]) == ""
