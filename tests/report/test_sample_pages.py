"""People see the sample and what the models did, as recorded; what a model wrote is shown, never run."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from speceyes_lib.gating.separability import token_separability
from speceyes_lib.report import sample_pages
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.records import (
    AgentRecord,
    DraftRecord,
    Failure,
    Proposal,
    RouterRecord,
    Trajectory,
    Turn,
)
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.sample import Sample


@pytest.fixture
def sample(tmp_path) -> Sample:
    """A grey picture of 960 x 480 px with a red patch at (600, 300)-(700, 400)."""
    picture = Image.new("RGB", (960, 480), "gray")
    picture.paste((255, 0, 0), (600, 300, 700, 400))
    picture.save(tmp_path / "patch.png")
    return Sample(
        id="vstar/direct_attributes/patch",
        benchmark="vstar",
        split="direct_attributes",
        key="patch",
        question="What color is <it>?",
        options=("red", "blue"),
        answer="A",
        image=ImageRef(tmp_path / "patch.png"),
        boxes=((600, 300, 100, 100),),
    )


def agent_record(said: str = "<answer>red</answer>") -> AgentRecord:
    zoom = Turn(
        text="<tool_call>{}</tool_call>", n_tokens=9, turn_s=0.02, action="tool", crop_px=(610, 310, 690, 390)
    )
    return AgentRecord(
        id="vstar/direct_attributes/patch",
        run_mode="gated",
        status="ok",
        decision="rejected",
        used="large",
        answer="red",
        router=RouterRecord(verdict="no", text="no", router_s=0.004),
        draft=DraftRecord(
            id="vstar/direct_attributes/patch", status="ok", answer="blue", scores={"min": 0.91}
        ),
        confidence=0.91,
        threshold=0.97,
        trajectory=Trajectory(
            status="ok",
            answer="red",
            answer_from="tag",
            turns=(zoom, Turn(text=said, n_tokens=3, turn_s=0.01, action="answer")),
        ),
    )


def pictures(view) -> list[Image.Image]:
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', view.data)
    return [Image.open(io.BytesIO(base64.b64decode(d))).convert("RGB") for d in data]


def near(pixel: tuple[int, ...], color: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel, color, strict=True))


def test_sample_view_shows_question_and_marks_the_right_option(sample):
    text = sample_pages.sample_view(sample).data
    assert "What color is &lt;it&gt;?" in text
    assert "<b>A. red</b> (right)" in text
    assert "960 x 480 px" in text


def test_target_box_is_drawn_where_the_benchmark_says(sample):
    (picture,) = pictures(sample_pages.sample_view(sample))
    assert picture.size == (480, 240)
    assert near(picture.getpixel((301, 175)), (0, 158, 115))  # left edge of the box, halved


def test_agents_crops_are_drawn_into_the_picture(sample):
    plain = np.asarray(pictures(sample_pages.sample_view(sample))[0], dtype=int)
    zoomed = np.asarray(pictures(sample_pages.sample_view(sample, agent_record().trajectory))[0], dtype=int)
    rows, columns = np.nonzero(np.abs(plain - zoomed).sum(axis=2) > 60)
    assert columns.min() >= 300
    assert columns.max() <= 350
    assert rows.min() >= 150
    assert rows.max() <= 200


def test_trajectory_view_cuts_the_crop_out_of_the_original(sample):
    (crop,) = pictures(sample_pages.trajectory_view(sample, agent_record()))
    assert crop.size == (200, 200)
    assert near(crop.getpixel((100, 100)), (255, 0, 0))


def test_trajectory_view_tells_every_phase_with_its_numbers(sample):
    text = sample_pages.trajectory_view(sample, agent_record()).data
    for told in (
        "<b>no</b> (4 ms)",
        "<b>blue</b>, confidence 0.9100 against 0.9700 (rejected)",
        "Turn 2: 3 tokens (10 ms)",
    ):
        assert told in text


def test_what_a_model_writes_is_shown_as_text(sample):
    text = sample_pages.trajectory_view(sample, agent_record("<script>alert(1)</script>")).data
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_failed_sample_says_why(sample):
    failure = Failure(type="turn_limit", message="no answer after 6 turns")
    record = agent_record().model_copy(update={"status": "error", "error": failure, "answer": None})
    assert "Failed (turn_limit): no answer after 6 turns" in sample_pages.trajectory_view(sample, record).data
    assert "failed: no answer after 6 turns" in sample_pages.agent_table([sample], [record])["answer"].iloc[0]


def test_a_turn_shows_what_its_program_printed_who_proposed_it_and_what_was_odd(sample):
    proposal = Proposal(text="purple", n_tokens=1, propose_s=0.01, score=3)
    turn = Turn(
        text="<code>1</code>",
        n_tokens=3,
        turn_s=0.1,
        action="tool",
        tool_output="a value",
        notes=("several_calls",),
        proposal=proposal,
    )
    record = agent_record().model_copy(update={"trajectory": Trajectory(status="ok", turns=(turn,))})
    shown = sample_pages.trajectory_view(sample, record).data
    for part in ("proposed: purple (score 3, rejected", "printed: a value", "Noted: several_calls"):
        assert part in shown


def test_token_table_shows_separability_candidates_and_the_deciding_token():
    top = np.log([[0.9, 0.05, 0.03, 0.02], [0.5, 0.4, 0.07, 0.03]]).astype("float32")
    evidence = Evidence(
        token_ids=[7, 8],
        token_texts=("re", "d"),
        chosen_logprobs=top[:, 0],
        top_ids=[[7, 1, 2, 3], [8, 4, 5, 6]],
        top_logprobs=top,
    )
    table = sample_pages.token_table(evidence, decode=lambda ids: f"t{ids[0]}", k=4, alternatives=2)
    assert list(table["token"]) == ["'re'", "'d'"]
    assert table["probability"].tolist() == pytest.approx([0.9, 0.5], abs=1e-4)
    assert table["separability"].tolist() == pytest.approx(token_separability(top, 4).tolist(), abs=0.01)
    assert list(table["decides min"]) == ["", "yes"]
    assert list(table["candidate 2"]) == ["'t1' 0.050", "'t4' 0.400"]
    assert "candidate 3" not in table


def test_draft_table_shows_drafts_beside_the_right_answers(sample):
    failed = DraftRecord(id=sample.id, status="error", error=Failure(type="image_error", message="truncated"))
    table = sample_pages.draft_table([sample, sample], [agent_record().draft, failed])
    assert list(table["right answer"]) == ["A. red", "A. red"]
    assert list(table["draft"]) == ["blue", "failed: truncated"]
    assert table["min"].iloc[0] == 0.91
