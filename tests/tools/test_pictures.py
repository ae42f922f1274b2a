from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from speceyes_lib.tools.declared import Workspace
from speceyes_lib.tools.glyphs import LETTERS, draw_line, read_line
from speceyes_lib.tools.pictures import (
    OCR_PROMPT,
    VISION,
    AnalyzeArguments,
    OcrArguments,
    ZoomArguments,
    analyze,
    recognise,
    zoom,
)
from speceyes_lib.tools.worker import ToolError


@given(st.text(LETTERS, min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_text_that_was_drawn_is_read_again(text):
    assert read_line(draw_line(text)) == text


def test_only_known_letters_are_drawn_and_other_pictures_hold_no_text():
    with pytest.raises(ValueError, match="cannot be drawn"):
        draw_line("grün")
    assert read_line(Image.new("RGB", (100, 57), "grey")) == ""
    assert read_line(Image.new("RGB", (3, 3))) == ""


@pytest.fixture
def workspace(tmp_path):
    draw_line("k17.xlsx").save(tmp_path / "text.png")
    picture = Image.new("RGB", (400, 200), "blue")
    picture.paste("red", (100, 50, 200, 100))
    picture.save(tmp_path / "scene.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes((tmp_path / "scene.png").read_bytes()[:80])
    (tmp_path / "words.png").write_text("no picture", "utf-8")
    return Workspace(tmp_path, {VISION: lambda path, question: f"{path.name}: {question[:8]}"})


def test_text_is_read_by_its_letters_and_other_pictures_by_the_vision_model(workspace):
    assert recognise(OcrArguments(image_path="text.png"), workspace) == "k17.xlsx"
    assert recognise(OcrArguments(image_path="scene.png"), workspace) == f"scene.png: {OCR_PROMPT[:8]}"
    assert (
        analyze(AnalyzeArguments(image_path="scene.png", question="What now?"), workspace)
        == "scene.png: What now"
    )
    alone = Workspace(workspace.folder)
    with pytest.raises(ToolError, match="without a vision model"):
        recognise(OcrArguments(image_path="scene.png"), alone)
    with pytest.raises(ToolError, match="none is configured"):
        analyze(AnalyzeArguments(image_path="scene.png"), alone)


def test_a_zoom_returns_the_enlarged_part(workspace):
    url = zoom(ZoomArguments(image_path="scene.png", bbox_2d=(100, 50, 200, 100)), workspace)
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    crop = Image.open(io.BytesIO(base64.b64decode(data)))
    assert crop.size == (512, 256)
    assert crop.getpixel((250, 128))[0] > 240
    with pytest.raises(ToolError, match="outside the picture"):
        zoom(ZoomArguments(image_path="scene.png", bbox_2d=(500, 0, 600, 10)), workspace)
    with pytest.raises(ValidationError):
        ZoomArguments(image_path="scene.png", bbox_2d=(0, 0, float("nan"), 1))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.png", "There is no picture none.png"),
        ("empty.png", "empty.png is empty"),
        ("broken.png", "broken.png is"),
        ("words.png", "no picture that can be read"),
        ("../x.png", "outside the task's folder"),
    ],
)
def test_a_picture_that_cannot_be_opened_is_a_sentence(workspace, name, words):
    with pytest.raises(ToolError, match=words):
        recognise(OcrArguments(image_path=name), workspace)
