"""Second drafts: what is shown the second time, when two agree, and what the gates make of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic_run import write_run

from speceyes_lib.analysis import second_drafts
from speceyes_lib.inference.stages import load_samples
from speceyes_lib.params import DraftParams, SecondDraftParams
from speceyes_lib.report import tables
from speceyes_lib.report.columns import as_text
from speceyes_lib.tasks.pictures import ImageRef, MirroredImage
from tests.conftest import MODELS

TASKS = ["vstar/direct_attributes", "vstar/relative_position", "pope/popular"]


def drafts(first: list, second: list, score: list, second_score: list) -> pd.DataFrame:
    agree = [a is not None and a == b for a, b in zip(first, second, strict=True)]
    return pd.DataFrame({"agree": agree, "score": score, "second_score": second_score})


def test_a_gate_by_two_drafts_accepts_only_where_both_name_the_same():
    part = drafts(
        ["red", "red", None, "blue"],
        ["red", "blue", None, "blue"],
        [0.9, 0.8, 0.7, np.nan],
        [0.6, 0.9, 0.5, 0.4],
    )
    result = second_drafts.gates(part)
    np.testing.assert_allclose(result["one draft"], [0.9, 0.8, 0.7, np.nan])
    np.testing.assert_allclose(result["agreement"], [0.9, 0, 0, np.nan])
    np.testing.assert_allclose(result["both scores"], [0.6, 0, 0, np.nan])


def test_a_second_draft_without_a_score_counts_by_its_answer_alone():
    result = second_drafts.gates(drafts(["red"], ["red"], [0.9], [np.nan]))
    assert result["both scores"].tolist() == [0.9]


def test_a_mirrored_picture_is_mirrored_left_to_right(tmp_path):
    picture = Image.new("RGB", (4, 2), "white")
    picture.putpixel((0, 1), (255, 0, 0))
    picture.save(tmp_path / "a.png")
    mirrored = MirroredImage(tmp_path / "a.png", ImageRef(tmp_path / "a.png"))
    assert mirrored.open().getpixel((3, 1)) == (255, 0, 0)
    assert mirrored.open().getpixel((0, 1)) == (255, 255, 255)
    assert str(tmp_path / "a.png") in mirrored.where


# ------------------------------------------------------------------------------------------ with the model


@pytest.fixture(scope="module")
def twice(benchmark_root, tmp_path_factory) -> second_drafts.SecondDrafts:
    """Synthetic first drafts and agents, and real second drafts of the embedded model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        drafting = DraftParams(
            run="r",
            tasks=TASKS,
            data_root=str(benchmark_root),
            draft_model=str(MODELS / "draft"),
            device="cpu",
        )
        samples = [s for task in TASKS for s in load_samples(drafting, task)]
        config = drafting.stage_config()
        config.pop("data_root")
        write_run("r", samples, benchmark_root, ["collect", "baseline"], **config)
        params = SecondDraftParams(
            run="r",
            tasks=TASKS,
            threshold_from="",
            bootstrap=100,
            ways=["rotated_1", "mirrored"],
            shares=[0.2, 0.4],
        )
        yield second_drafts.draft_twice(params, lambda *_: None)


def test_every_sample_that_can_be_is_drafted_in_every_way(twice):
    by_way = {way: set(part["task"]) for way, part in twice.frame.groupby("way")}
    assert by_way["rotated_1"] == {"vstar/direct_attributes", "vstar/relative_position"}
    assert "pope/popular" in by_way["mirrored"]
    counts = twice.frame.groupby("way").size()
    for way, recorded in twice.runs.items():
        assert counts[way] + twice.left_out[way] == len(recorded.drafts())
    assert twice.runs["mirrored"].config("01_draft")["mirrored"] is True
    assert "mirrored" not in twice.runs["rotated_1"].config("01_draft")


def test_questions_whose_sides_a_mirror_swaps_are_left_out(twice):
    mirrored = twice.frame[twice.frame["way"] == "mirrored"]
    samples = [twice.runs["mirrored"].sample(i) for i in mirrored["id"]]
    texts = [" ".join([s.question, *(s.options or ())]).lower().split() for s in samples]
    assert not any({"left", "right"} & {word.strip("?.,") for word in text} for text in texts)
    assert twice.left_out["mirrored"] > 0


def test_options_are_compared_by_their_text_in_whatever_order_they_were_shown(twice):
    rotated = twice.frame[twice.frame["way"] == "rotated_1"]
    drafted = twice.runs["rotated_1"].drafts()
    for row in rotated.itertuples():
        assert drafted[row.id].options_shown is not None
        if row.second is not None:
            assert row.second in twice.runs["rotated_1"].sample(row.id).options
    assert (rotated["agree"] <= rotated["first"].eq(rotated["second"])).all()


def test_agreement_comparison_and_equal_seconds_are_tables_that_can_be_shown(twice):
    agreement, compared, equal = twice.agreement(), twice.compared([0.5]), twice.at_equal_seconds()
    assert agreement["way"].tolist() == ["rotated_1", "mirrored"]
    assert (agreement["extra_ms"] > 0).all()
    assert (
        compared.groupby("way")["score"].agg(list).tolist() == [["one draft", "agreement", "both scores"]] * 2
    )
    assert set(equal["gate"]) == {"agreement", "both scores"}
    assert (equal["one_accepted_pct"] <= equal["accepted_pct"] + 100).all()
    for name, frame in (("draft_agreement", agreement), ("equal_seconds", equal)):
        shown = as_text(frame, tables.TABLES[name])
        assert len(shown) == len(frame)


def test_tables_are_written_with_what_they_were_made_from(twice):
    folder = twice.write({"agreement.csv": twice.agreement()})
    assert sorted(path.name for path in folder.iterdir()) == ["agreement.csv", "manifest.json"]
