"""One sample in full: every number explained, and what a model wrote is text, whatever it wrote."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from explore_run import evidence, store_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.analysis.sample_frame import phase_seconds
from speceyes_lib.gating.gate import accepts
from speceyes_lib.gating.separability import deciding_token, token_separability
from speceyes_lib.paths import stage_dir
from speceyes_lib.report import sample_page as m
from speceyes_lib.report import sample_view
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.recorded_run import RecordedRun
from speceyes_lib.runs.records import (
    AgentRecord,
    DraftRecord,
    Failure,
    HumanCheck,
    JudgedRecord,
    RouterRecord,
    Trajectory,
    Turn,
    Verdict,
)
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.sample import Sample

PARTS = ("question", "picture", "tokens", "gate", "verdicts", "costs", "agent", "page")
EVIL = '<script>alert("1")</script><img src=x onerror=alert(2)>'
FOREIGN = "答案是红色 — ответ: красный 🟥"


@pytest.fixture
def sample(tmp_path) -> Sample:
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "s.png")
    return Sample(
        id="vstar/direct_attributes/s",
        benchmark="vstar",
        split="direct_attributes",
        key="s",
        question=f"What is {EVIL}? {FOREIGN}",
        options=("red", EVIL),
        answer="A",
        image=ImageRef(tmp_path / "s.png"),
        boxes=((50, 20, 40, 40),),
        meta={"targets": [EVIL]},
    )


def draft(**changed) -> DraftRecord:
    return DraftRecord(id="vstar/direct_attributes/s", status="ok", answer="red", n_tokens=2).model_copy(
        update=changed
    )


def text(token: int) -> str:
    return f"t{token}"


# ------------------------------------------------------------------ tokens


def test_every_token_has_its_separability_and_the_least_one_decides():
    result = m.token_strip(draft(), kept := evidence("vstar/direct_attributes/s", 4), text, 16).tokens
    expected = token_separability(kept.top_logprobs, 16)
    assert [t["separability"] for t in result] == [f"{s:.2f}" for s in expected]
    assert [t["decides"] for t in result].index(True) == deciding_token(kept.top_logprobs, 16)
    assert sum(t["decides"] for t in result) == 1


def test_alternatives_are_the_most_probable_tokens_and_the_chosen_one_is_marked():
    (token,) = m.token_strip(draft(), kept := evidence("a/b/c", 1), text, 16).tokens
    shown = token["alternatives"]
    assert [a["probability"] for a in shown] == pytest.approx(
        np.exp(kept.top_logprobs[0, : m.ALTERNATIVES]).tolist()
    )
    assert [a["chosen"] for a in shown] == [True] + [False] * (m.ALTERNATIVES - 1)
    assert [a["text"] for a in shown][1:3] == ["t1", "t2"]


def test_a_chosen_token_outside_the_likeliest_is_shown_all_the_same():
    top = np.log(np.full((1, 20), 0.05, dtype="float32"))
    odd = Evidence([99], ["odd"], [-9.0], [np.arange(20)], top)
    (token,) = m.token_strip(draft(), odd, text, 16).tokens
    assert token["alternatives"][-1] == {
        "text": "odd",
        "probability": pytest.approx(math.exp(-9)),
        "shown": "0.0001",
        "chosen": True,
    }


def test_a_larger_k_than_stored_uses_what_is_stored():
    kept = evidence("a/b/c", 2)
    assert m.token_strip(draft(), kept, text, 4096) == m.token_strip(draft(), kept, text, kept.k)


@pytest.mark.parametrize(
    ("given_draft", "kept", "reason"),
    [
        (None, None, "No draft"),
        (
            draft(status="error", error=Failure(type="image_error", message="torn")),
            None,
            r"failed \(image_error\): torn",
        ),
        (draft(answer=EVIL), None, "No token evidence"),
        (draft(answer="", n_tokens=0), evidence("a/b/c", 0), "no token"),
    ],
)
def test_where_there_is_nothing_to_colour_the_reason_stands(given_draft, kept, reason):
    strip = m.token_strip(given_draft, kept, text, 16)
    assert strip.tokens == ()
    assert re.search(reason, strip.message)


@pytest.mark.parametrize("separability", [math.nan, 0.0, 3.0, 1e6])
def test_token_text_is_legible_on_its_colour(separability):
    color, ink = (tuple(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)) for c in m.token_color(separability))

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(color), luminance(ink)))
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


# ------------------------------------------------------------------ gate


@given(confidence=st.floats(0.0, 1.0), threshold=st.floats(0.0, 1.0))
def test_the_sentence_on_the_gate_says_what_the_gate_does(confidence, threshold):
    taken = bool(accepts(confidence, threshold))
    (result,) = m.gate_lines(None, confidence, "accepted" if taken else "rejected", threshold)
    assert result.startswith("Accepted" if taken else "Rejected")
    assert not accepts(confidence, confidence)  # "from … upwards rejects it"
    assert confidence == 0 or accepts(confidence, np.nextafter(confidence, -1))  # "below accepts it"


def test_a_routed_draft_comes_with_what_the_gate_would_have_done():
    result = m.gate_lines(None, 0.99, "routed", 0.9)
    assert "The router sends" in result[0]
    assert "would accept" in result[1]
    near = re.findall(r"0\.\d+", m.gate_lines(None, 0.998576, "routed", 0.998575)[1])
    assert near == ["0.99858", "0.99857"]


def test_a_draft_without_confidence_says_why():
    record = AgentRecord(
        id="a/b/c", run_mode="collect", status="ok", decision="collected", used="large",
        draft=draft(score_reason="empty_answer"),
    )  # fmt: skip
    (result,) = m.gate_lines(record, math.nan, "rejected", 0.98)
    assert "empty answer" in result


# ------------------------------------------------------------------ picture


def test_boxes_of_benchmark_and_agent_stand_with_their_overlap(sample):
    zoom = Turn(text="", n_tokens=1, turn_s=0.1, action="tool", crop_px=(50, 20, 90, 100))
    result = m.marked_picture(sample, Trajectory(status="ok", turns=(zoom,)))
    target, crop = result.boxes
    assert (target["kind"], target["box"], target["label"]) == ("target", [50, 20, 90, 60], EVIL)
    assert crop["box"] == [50, 20, 90, 100]
    assert crop["note"] == "IoU 0.50, holds 100% of the target"
    assert result.picture.width == 200


def test_overlap_with_the_nearest_of_several_targets():
    assert (
        m.overlap_note((0, 0, 10, 10), [(100, 100, 110, 110), (5, 0, 15, 10)])
        == "IoU 0.33, holds 50% of the target"
    )
    assert m.overlap_note((0, 0, 10, 10), []) == ""


def test_a_missing_picture_is_a_sentence_without_the_folder(sample, tmp_path):
    (tmp_path / "s.png").unlink()
    result = m.marked_picture(sample, None)
    assert result.picture is None
    assert "s.png: cannot read the picture" in result.message
    assert str(tmp_path) not in result.message
    assert "not on this machine" in m.marked_picture(None, None).message


# ------------------------------------------------------------------ HTML


def evil_record() -> AgentRecord:
    turn = Turn(
        text=EVIL + FOREIGN, n_tokens=None, turn_s=0.1, action="malformed", tool_call={"name": EVIL},
        tool_output=EVIL, notes=(EVIL,), error=Failure(type="t<", message=EVIL),
    )  # fmt: skip
    return AgentRecord(
        id="vstar/direct_attributes/s", run_mode="collect", status="error", decision="collected", used="large",
        error=Failure(type="x<", message=EVIL), router=RouterRecord(verdict="yes", text=EVIL), draft=draft(answer=EVIL),
        trajectory=Trajectory(status="error", turns=(turn,)),
    )  # fmt: skip


def evil_judged() -> JudgedRecord:
    human = HumanCheck(verdict="right", reason=EVIL, author=EVIL, time_utc="2026-01-01T00:00:00+00:00")
    verdict = Verdict(
        id="vstar/direct_attributes/s", source="draft", verdict="right", rule=EVIL, protocol="strict", answer=EVIL,
        standard=EVIL, decided_by="human", rule_verdict="wrong", human=human,
    )  # fmt: skip
    return JudgedRecord(id="vstar/direct_attributes/s", question=EVIL, verdicts=(verdict,))


def test_nothing_that_was_written_by_a_model_or_a_person_becomes_markup(sample):
    record, judged = evil_record(), evil_judged()
    row = pd.Series({"confidence": math.nan, "decision": "rejected", "wall_s": 0.1, "baseline_wall_s": 0.2})
    views = [
        sample_view(sample, record, judged=judged, mark=mark, costs=[(EVIL, {"agent_s": 1.0}), (EVIL, None)])
        for mark in ("", "SCRIPT")
    ]
    views.append(sample_view(None, record, judged=judged, decided=row, threshold=0.9))
    for view in views:
        for part in (*PARTS, "trace"):
            page = view.part(part, *([EVIL, EVIL] if part == "trace" else []))
            assert "<script" not in page.casefold(), part
            assert "<img src=x" not in page, part
        whole = view._repr_html_()
        assert "<script" not in whole.casefold()
        assert whole.count("&lt;") + whole.count("<mark>") > 10  # it is shown


def test_other_scripts_are_shown_as_they_are(sample):
    view = sample_view(sample, evil_record())
    assert FOREIGN in view.part("question")
    assert FOREIGN in view.part("trajectory")


@given(st.text(alphabet="aAbİß<&é ", max_size=30), st.text(alphabet="aAbİß<&", max_size=3))
def test_marking_words_keeps_the_text(text, mark):
    page = str(m.marked(text, mark))
    assert html.unescape(page.replace("<mark>", "").replace("</mark>", "")) == text


def test_every_occurrence_is_marked_in_any_case():
    assert m.marked("Red, red & RED", "red") == "<mark>Red</mark>, <mark>red</mark> &amp; <mark>RED</mark>"


def test_turns_show_tool_calls_results_errors_and_times(sample):
    page = sample_view(sample, evil_record()).part("trajectory")
    for result in (
        "One turn: malformed",
        "100.0 ms",
        "tool call:",
        "tool result:",
        "t&lt;:",
        "notes:",
    ):
        assert result in page


def test_a_person_outranks_the_rule_and_both_are_shown():
    page = sample_view(None, judged=evil_judged()).part("verdicts")
    assert "✓ right" in page
    assert "wrong (" in page


@pytest.mark.parametrize(
    "record", [None, evil_record().model_copy(update={"trajectory": None, "error": None})]
)
def test_a_sample_without_trajectory_has_no_turns(sample, record):
    page = sample_view(sample, record).part("trajectory")
    assert "se-turn" not in page
    assert "<p>" in page


def test_a_crop_is_cut_out_of_the_picture(tmp_path, sample):
    picture = Image.new("RGB", (960, 480), "gray")
    picture.paste((255, 0, 0), (600, 300, 700, 400))
    picture.save(tmp_path / "s.png")
    zoom = Turn(text="", n_tokens=1, turn_s=0.1, action="tool", crop_px=(610, 310, 690, 390))
    record = evil_record().model_copy(update={"trajectory": Trajectory(status="ok", turns=(zoom,))})
    view = sample_view(sample, record)
    page = view._repr_html_()
    (source,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    crop = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB")
    assert crop.size == (m.CROP_PX, m.CROP_PX)
    assert all(abs(a - b) < 40 for a, b in zip(crop.getpixel((100, 100)), (255, 0, 0), strict=True))
    assert "<img" not in view.part("agent")  # the widget shows crops beside the picture


def test_boxes_are_drawn_where_they_lie(sample):
    page = sample_view(sample).part("picture")
    (rect,) = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page)
    assert [float(v) for v in rect] == [50, 20, 40, 40]  # a picture of 200 x 100 px is shown as it is


def test_colours_are_explained_only_where_there_are_boxes(sample):
    with_box, without = (sample_view(s).part("picture") for s in (sample, replace(sample, boxes=())))
    assert "green" in with_box
    assert "orange" not in with_box  # no agent looked
    assert "green" not in without


def test_a_record_alone_is_shown_as_it_was_decided(sample):
    record = evil_record().model_copy(update={"confidence": 0.91, "threshold": 0.97, "decision": "rejected"})
    view = sample_view(sample, record)
    assert view.gate == tuple(m.gate_lines(record, 0.91, "rejected", 0.97))
    assert view.verdicts is None
    assert view.predicted_s is None
    assert "rejected" in view._repr_html_()


# ------------------------------------------------------------------ all of it


@pytest.fixture
def run(tmp_path, monkeypatch, scene_samples, benchmark_root) -> RecordedRun:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    store_run("small", scene_samples, benchmark_root)
    return recorded_run.open("small", strict=False)


def row(id_: str, **changed) -> pd.Series:
    known = {"id": id_, "confidence": 0.99, "decision": "accepted", "wall_s": 0.02, "baseline_wall_s": 0.1}
    return pd.Series(known | changed)


def test_every_sample_of_a_run_can_be_looked_at(run):
    for id_, record in run.records("collect").items():
        view = m.recorded_sample(run, "collect", id_, row(id_), threshold=0.98, k=16)
        assert record.status == "error" or view.tokens.tokens
        assert view.picture.picture is not None
        assert view.predicted_s == (0.02, 0.1)
        assert {"20.0", "80.0", "100.0"} <= set(re.findall(r"[\d.]+\d", view.part("costs")))


def test_changed_evidence_is_reported_every_time_and_hides_nothing_else(run):
    task = "vstar/direct_attributes"
    with (stage_dir("small", "01_draft", task) / "evidence.parquet").open("ab") as file:
        file.write(b" ")
    for id_ in [i for i in run.records("collect") if i.startswith(task)][1:3]:
        view = m.recorded_sample(run, "collect", id_, row(id_), threshold=0.98, k=16)
        assert "is not the file its manifest describes" in view.tokens.message
        assert not view.tokens.tokens
        assert view.picture.picture is not None


def test_costs_are_those_that_were_recorded(run):
    id_, record = next((i, r) for i, r in run.records("gated").items() if r.decision == "rejected")
    costs = dict(m.recorded_costs(run, id_, run.drafts()[id_]))
    assert set(costs) == {"draft", *run.arms}
    for arm in run.arms:
        assert sum(costs[arm].values()) == pytest.approx(run.records(arm)[id_].wall_s)
    assert phase_seconds(record.model_copy(update={"timed": False})) is None
    assert "not timed" in sample_view(None, record, costs=[("gated", None)]).part("costs")


def test_unknown_times_are_not_zero(run):
    id_ = next(iter(run.records("collect")))
    unknown = row(id_, wall_s=math.nan, baseline_wall_s=math.nan)
    view = m.recorded_sample(run, "collect", id_, unknown, threshold=0.98, k=16)
    assert "nan" not in view.part("costs")
    assert "Nothing was timed" in view.part("costs")


def test_options_stand_in_the_order_the_models_saw(run):
    from speceyes_lib.tasks.sample import ShownOptions

    id_ = next(i for i in run.records("collect") if i.startswith("vstar"))
    sample = run.sample(id_)
    order = tuple(reversed(range(len(sample.options))))
    record = run.records("collect")[id_].model_copy(update={"options_shown": ShownOptions(order=order)})
    run.records("collect")[id_] = record
    page = m.recorded_sample(run, "collect", id_).part("question")
    assert page.index(sample.options[-1]) < page.index(sample.options[0])
