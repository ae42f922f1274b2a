"""Pictures travel to the browser as they are stored, or smaller."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from speceyes_lib.errors import DataError
from speceyes_lib.report import sample_page
from speceyes_lib.tasks.pictures import ImageRef


def save(path, size=(60, 40), **options) -> ImageRef:
    Image.new("RGB", size, "red").save(path, **options)
    return ImageRef(path)


def test_a_small_picture_is_sent_as_it_is_stored(tmp_path):
    ref = save(tmp_path / "a.png")
    sent = sample_page.picture(ref)
    assert (sent.data, sent.mime) == (ref.path.read_bytes(), "image/png")
    assert (sent.width, sent.height) == (60, 40)


@pytest.mark.parametrize(("name", "size"), [("a.bmp", (60, 40)), ("b.jpg", (5000, 2500))])
def test_what_no_browser_shows_or_is_too_large_travels_as_a_smaller_jpeg(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(sample_page, "LARGEST_BYTES", 10_000)
    sent = sample_page.picture(save(tmp_path / name, size))
    shown = Image.open(io.BytesIO(sent.data))
    assert sent.mime == "image/jpeg"
    assert (sent.width, sent.height) == size  # boxes are in pixels of the original
    assert max(shown.size) <= sample_page.LARGEST_SIDE_PX
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_turned_picture_has_the_size_people_see(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    sent = sample_page.picture(save(tmp_path / "turned.jpg", exif=turned))
    assert (sent.width, sent.height) == (40, 60)


def test_a_missing_picture_is_an_error_until_it_is_back(tmp_path):
    ref = ImageRef(tmp_path / "late.png")
    with pytest.raises(DataError, match="cannot read the picture"):
        sample_page.picture(ref)
    save(ref.path)
    assert sample_page.picture(ref).width == 60


def test_no_more_pictures_are_kept_than_said(tmp_path):
    for i in range(sample_page.PICTURES_KEPT + 5):
        sample_page.picture(save(tmp_path / f"{i}.png"))
    assert sample_page.picture.cache_info().currsize == sample_page.PICTURES_KEPT
