"""The three official layouts become samples; every kind of bad data says what is wrong and where."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import random
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from speceyes_lib.errors import DataError
from speceyes_lib.tasks import hrbench, registry
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.registry import TASKS, load_task
from speceyes_lib.tasks.sample import Sample

RED, BLUE = (200, 30, 30), (30, 30, 200)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = encoded(Image.new("RGB", (8, 6), RED))


# ----------------------------------------------------------------------------------------------------- V*
VSTAR = {
    "target_object": ["star"],
    "bbox": [[1, 2, 3, 4]],
    "question": "What is the color of the star?",
    "options": ["red", "blue", "green"],
}


def vstar(root: Path, name: str = "a", picture: bytes | None = PICTURE, **changes) -> Path:
    folder = root / "vstar" / "direct_attributes"
    folder.mkdir(parents=True, exist_ok=True)
    entry = {k: v for k, v in (VSTAR | changes).items() if v is not None}
    (folder / f"{name}.json").write_text(json.dumps(entry))
    if picture is not None:
        (folder / f"{name}.jpg").write_bytes(picture)
    return folder


def only(root: Path) -> Sample:
    (sample,) = load_task("vstar/direct_attributes", root)
    return sample


def test_vstar_keeps_file_order_of_options_and_the_right_one_is_the_first(tmp_path):
    vstar(tmp_path)
    sample = only(tmp_path)
    assert sample.id == "vstar/direct_attributes/a"
    assert sample.task == "vstar/direct_attributes"
    assert sample.options == ("red", "blue", "green")
    assert (sample.answer, sample.answer_text, sample.standard) == ("A", "red", "A. red")
    assert sample.boxes == ((1, 2, 3, 4),)
    assert sample.meta == {"group": sample.id, "targets": ["star"]}
    assert sample.image.open().getpixel((0, 0)) == RED


def test_samples_are_sorted_whatever_the_order_on_disk_and_numbers_by_value(tmp_path):
    for name in ("s_10", "s_9", "a", "s_100"):
        vstar(tmp_path, name)
    assert [s.key for s in load_task("vstar/direct_attributes", tmp_path)] == ["a", "s_9", "s_10", "s_100"]


def test_the_official_folder_name_is_accepted(tmp_path):
    vstar(tmp_path)
    (tmp_path / "vstar").rename(tmp_path / "vstar_bench")
    assert only(tmp_path).key == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": None}, "'options' is missing"),
        ({"options": []}, "two or more texts"),
        ({"options": ["red", " "]}, "not empty"),
        ({"question": None}, "'question' is missing"),
        ({"question": 3}, "'question' is 3"),
        ({"bbox": [[1, 2, 3]]}, r"\[x, y, width, height\]"),
        ({"bbox": [[1, 2, -3, 4]]}, r"\[x, y, width, height\]"),
        ({"bbox": "somewhere"}, r"\[x, y, width, height\]"),
    ],
)
def test_vstar_json_with_a_bad_field_names_file_and_field(tmp_path, changes, message):
    vstar(tmp_path, **changes)
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        only(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "expected one JSON object")])
def test_vstar_json_that_is_no_object_is_refused(tmp_path, text, message):
    (vstar(tmp_path) / "a.json").write_text(text)
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        only(tmp_path)


def test_vstar_picture_may_have_a_capital_suffix_and_its_file_a_byte_order_mark(tmp_path):
    folder = vstar(tmp_path)
    (folder / "a.jpg").rename(folder / "a.JPG")
    (folder / "a.json").write_text((folder / "a.json").read_text(), "utf-8-sig")
    assert only(tmp_path).image.open().getpixel((0, 0)) == RED


def test_vstar_json_in_another_encoding_is_refused_with_a_remedy(tmp_path):
    folder = vstar(tmp_path)
    (folder / "a.json").write_bytes('{"question": "Wie groß?", "options": ["a", "b"]}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.json: byte \d+ \(0xdf\) is not UTF-8; save the file as UTF-8"):
        only(tmp_path)


def test_vstar_picture_that_is_missing_stops_before_the_run(tmp_path):
    vstar(tmp_path, picture=None)
    with pytest.raises(DataError, match=r"a\.jpg: this picture is missing"):
        only(tmp_path)


@pytest.mark.parametrize("name", ["._a.json", ".DS_Store", "Thumbs.db", "._a.jpg", "README.md"])
def test_what_a_file_system_leaves_in_the_folder_is_no_question(tmp_path, name):
    (vstar(tmp_path) / name).write_bytes(b"\0\5\x16\7")
    assert only(tmp_path).image.open().size == (8, 6)


def test_a_json_file_that_asks_nothing_is_refused_with_its_own_remedy(tmp_path):
    (vstar(tmp_path) / "dataset_infos.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match=r"dataset_infos\.json: no question of V\*.*move it out"):
        load_task("vstar/direct_attributes", tmp_path)


@pytest.mark.parametrize("suffix", [".JPG", ".bmp", ".TIFF", ".webp"])
def test_a_vstar_question_and_its_picture_may_have_any_usual_suffix(tmp_path, suffix):
    folder = vstar(tmp_path)
    (folder / "a.jpg").rename(folder / f"a{suffix}")
    (folder / "a.json").rename(folder / "a.JSON")
    assert only(tmp_path).image.open().getpixel((0, 0)) == RED


def test_a_picture_of_a_kind_that_is_not_read_is_named(tmp_path):
    folder = vstar(tmp_path)
    (folder / "a.jpg").rename(folder / "a.heic")
    with pytest.raises(DataError, match=r"a\.jpg: this picture is missing.*or save a\.heic as PNG or JPEG"):
        load_task("vstar/direct_attributes", tmp_path)


def test_half_a_surrogate_pair_in_a_question_becomes_one_unknown_character(tmp_path):
    vstar(tmp_path, question="What colour is the \ud83d?")  # JSON can write it, UTF-8 cannot
    assert only(tmp_path).question == "What colour is the \ufffd?"


def test_json_that_is_nested_without_end_is_refused(tmp_path):
    path = vstar(tmp_path) / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
        load_task("vstar/direct_attributes", tmp_path)


# ----------------------------------------------------------------------------------------------- pictures
def reference(tmp_path: Path, data: bytes) -> ImageRef:
    (tmp_path / "p.jpg").write_bytes(data)
    return ImageRef(tmp_path / "p.jpg")


HALF_A_JPEG = (whole := encoded(Image.effect_noise((64, 64), 50), "JPEG"))[: len(whole) // 2]


@pytest.mark.parametrize(
    "data", [HALF_A_JPEG, PICTURE[:40], b"", b"<html>not found</html>"], ids=["jpg", "png", "empty", "html"]
)
def test_a_truncated_picture_fails_when_opened_not_when_loaded(tmp_path, data):
    vstar(tmp_path, "a", data)
    vstar(tmp_path, "b")
    bad, good = load_task("vstar/direct_attributes", tmp_path)
    with pytest.raises(DataError, match=r"a\.jpg: not a readable picture"):
        bad.image.open()
    assert good.image.open().size == (8, 6)


def test_a_picture_removed_after_loading_is_named(tmp_path):
    ref = reference(tmp_path, PICTURE)
    ref.path.unlink()
    with pytest.raises(DataError, match=r"p\.jpg: cannot read the picture \(No such file"):
        ref.open()


def test_cmyk_picture_opens_as_rgb(tmp_path):
    image = reference(tmp_path, encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).open()
    assert image.mode == "RGB"
    red, green, blue = image.getpixel((4, 4))
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (*RED, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    opened = reference(tmp_path, encoded(image.convert(mode))).open()
    assert opened.mode == "RGB"
    assert opened.getpixel((3, 3)) == (255, 255, 255)
    assert opened.getpixel((0, 0)) == (0, 0, 0)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (16, 8), RED)
    image.paste(BLUE, (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: left becomes top
    opened = reference(tmp_path, encoded(image, "PNG", exif=exif)).open()
    assert opened.size == (8, 16)
    assert opened.getpixel((4, 2)) == RED
    assert opened.getpixel((4, 14)) == BLUE


def test_sixteen_bit_grey_is_shown_by_its_upper_eight_bits(tmp_path):
    opened = reference(tmp_path, encoded(Image.new("I;16", (4, 4), 30000))).open()
    assert opened.getpixel((0, 0)) == (30000 >> 8,) * 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_an_eight_bit_form_are_refused_with_the_remedy(tmp_path, mode):
    with pytest.raises(DataError, match=f"pixel mode {mode} .* save it as PNG or JPEG with 8 bits"):
        reference(tmp_path, encoded(Image.new(mode, (4, 4), 30000), "TIFF")).open()


def test_a_long_text_in_a_picture_is_no_reason_to_lose_it(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 2_000_000, zip=True)
    opened = reference(tmp_path, encoded(Image.new("RGB", (8, 6), RED), pnginfo=texts)).open()
    assert (opened.size, opened.getpixel((0, 0))) == ((8, 6), RED)


NOISE = Image.effect_noise((24, 16), 50).convert("RGB")
EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x011A: 72.0, 0x010F: "maker", 0x0132: "2020"})
KINDS = {
    kind: encoded(NOISE.convert("P") if kind == "GIF" else NOISE, kind, exif=EXIF)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
}


@dataclass(frozen=True)
class InMemory(ImageRef):
    data: bytes

    def _bytes(self) -> bytes:
        return self.data


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_a_changed_picture_opens_or_is_a_fault_of_its_own(kind, data):
    """Bytes changed, cut out and put in, most of them in the head, where the structure is."""
    picture = bytearray(KINDS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(200, len(picture))) | st.integers(0, len(picture)))
        length = data.draw(st.integers(0, 8))
        picture[at : at + length] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(DataError):
        assert InMemory(Path("p"), bytes(picture)).open().mode == "RGB"


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(EXIF.tobytes()) - 7), st.integers(0, 255)), max_size=5))
def test_whatever_its_exif_holds_the_picture_is_shown(changes):
    picture = bytearray(KINDS["JPEG"])
    start = picture.index(b"Exif\0\0") + 6
    for at, value in changes:
        picture[start + at] = value
    assert sorted(InMemory(Path("p"), bytes(picture)).open().size) == [16, 24]


# ---------------------------------------------------------------------------------------------- HR-Bench
HR_HEADER = ["index", "question", "answer", "category", *"ABCD", "cycle_category", "image"]


def hr_row(index: int = 0, image: str | None = None, **changes) -> dict:
    row = {
        "index": index,
        "question": "Which color?",
        "answer": "B",
        "category": "single",
        **dict(zip("ABCD", ("red", "blue", "green", "purple"), strict=True)),
        "cycle_category": "0",
        "image": base64.b64encode(PICTURE).decode() if image is None else image,
    }
    return row | changes


def hr(root: Path, rows: list[dict], header: list[str] = HR_HEADER, **options) -> None:
    (root / "hr").mkdir(parents=True, exist_ok=True)
    with (root / "hr" / "hr_bench_4k.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, delimiter="\t", extrasaction="ignore", **options)
        writer.writeheader()
        writer.writerows(rows)


def load_hr(root: Path) -> list[Sample]:
    return load_task("hr/hr_bench_4k", root)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_hr_rows_are_read_with_any_quoting_and_line_end(tmp_path, quoting, end):
    question = 'What stands on the 5" sign,\nbelow the "stop"?\tSay it.'
    blue = base64.b64encode(encoded(Image.new("RGB", (5, 5), BLUE))).decode()
    hr(tmp_path, [hr_row(10, question=question), hr_row(2, blue)], quoting=quoting, lineterminator=end)
    first, second = load_hr(tmp_path)
    assert (first.key, second.key) == ("2", "10")
    assert second.question == question
    assert (second.answer, second.standard) == ("B", "B. blue")
    assert second.meta["category"] == "single"
    assert first.image.open().getpixel((0, 0)) == BLUE
    assert second.image.open().getpixel((0, 0)) == RED


@given(st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), min_size=1, max_size=5))
def test_tsv_fields_and_their_byte_offsets_agree_with_the_csv_module(tmp_path_factory, rows):
    # a row that is blank in the file is no row, and a lone CR is no line end of ours
    rows = [[f"k{i}", *(c.replace("\r", "").replace("\0", "") for c in row)] for i, row in enumerate(rows)]
    path = tmp_path_factory.mktemp("tsv") / "t.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    data = path.read_bytes()
    read = list(hrbench.read_tsv(path))
    assert [[hrbench.decoded_field(raw, "a field") for raw, _ in row] for row in read] == rows
    assert all(data[at : at + len(raw)] == raw for row in read for raw, at in row)


def test_hr_option_orders_of_one_question_share_a_group_wherever_they_stand(tmp_path):
    def turned(index: int, by: int, **changes) -> dict:
        options = ["red", "blue", "green", "purple"]
        return hr_row(index, **dict(zip("ABCD", options[by:] + options[:by], strict=True)), **changes)

    other_picture = base64.b64encode(encoded(Image.new("RGB", (4, 4)))).decode()
    hr(tmp_path, [turned(0, 0), turned(1, 0, image=other_picture), turned(2, 1), turned(3, 2)])
    groups = [s.meta["group"] for s in load_hr(tmp_path)]
    assert groups[0] == groups[2] == groups[3] == "hr/hr_bench_4k/0"
    assert groups[1] == "hr/hr_bench_4k/1"


def test_hr_in_another_encoding_is_refused_with_row_field_and_remedy(tmp_path):
    hr(tmp_path, [hr_row(), hr_row(2, question="Wie groß?")])
    table = tmp_path / "hr" / "hr_bench_4k.tsv"
    table.write_bytes(table.read_text("utf-8").encode("latin-1"))
    with pytest.raises(
        DataError, match=r"row 2, field 'question': byte 7 \(0xdf\) is not UTF-8; save the file as UTF-8"
    ):
        load_hr(tmp_path)


def test_hr_with_a_missing_column_names_it(tmp_path):
    hr(tmp_path, [hr_row()], [c for c in HR_HEADER if c != "cycle_category"])
    with pytest.raises(DataError, match=r"hr_bench_4k\.tsv: field 'cycle_category' is missing"):
        load_hr(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, "row 2: field 'answer' is 'E'"),
        ({"C": ""}, "row 2: field 'C'"),
        ({"question": ""}, "row 2: field 'question'"),
    ],
)
def test_hr_with_a_bad_cell_names_row_and_field(tmp_path, changes, message):
    hr(tmp_path, [hr_row(0), hr_row(1, **changes)])
    with pytest.raises(DataError, match=message):
        load_hr(tmp_path)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("5\tWhich?\tA\n", "row 2: 3 fields, but the header names 10"),
        ('5\t"Which?\tA\n', "never ends"),
    ],
)
def test_hr_file_cut_off_in_a_row_is_refused(tmp_path, tail, message):
    hr(tmp_path, [hr_row()])
    with (tmp_path / "hr" / "hr_bench_4k.tsv").open("a") as file:
        file.write(tail)
    with pytest.raises(DataError, match=message):
        load_hr(tmp_path)


@pytest.mark.parametrize("image", ["####", "abc", ""])
def test_hr_with_broken_base64_loses_only_that_sample(tmp_path, image):
    hr(tmp_path, [hr_row(0, image), hr_row(1)])
    bad, good = load_hr(tmp_path)
    with pytest.raises(DataError, match=r"hr_bench_4k\.tsv, row 1, field 'image': not"):
        bad.image.open()
    assert good.image.open().size == (8, 6)


def test_hr_duplicate_ids_are_refused(tmp_path):
    hr(tmp_path, [hr_row(7), hr_row(7)])
    with pytest.raises(DataError, match="'hr/hr_bench_4k/7' more than once"):
        load_hr(tmp_path)


def test_loading_a_large_tsv_holds_no_pictures_in_memory(tmp_path):
    noise = base64.b64encode(random.Random(0).randbytes(1_500_000)).decode()  # 2 MB of text a row
    hr(tmp_path, [hr_row(i, noise) for i in range(20)])
    tracemalloc.start()
    samples = load_hr(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 20
    assert peak < 10_000_000, f"{peak / 1e6:.0f} MB for a file of 40 MB: rows are kept"


# -------------------------------------------------------------------------------------------------- POPE
def pope_row(number: int, **changes) -> dict:
    row = {
        "id": str(number),
        "question_id": str(number + 1),
        "question": "Is there a star in the image?",
        "answer": "yes",
        "image_source": f"COCO_{number // 2}",
        "category": "random",
        "image": {"bytes": PICTURE, "path": "p.png"},
    }
    return row | changes


def pope(root: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "pope" / "Full" / "random-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [(n, pa.string()) for n in ("id", "question_id", "question", "answer", "image_source", "category")]
        + [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=2)
    return path


def load_pope(root: Path) -> list[Sample]:
    return load_task("pope/random", root)


def test_pope_parquet_is_read_across_row_groups(tmp_path):
    blue = encoded(Image.new("RGB", (4, 4), BLUE))
    rows = [pope_row(i) for i in range(5)]
    rows[3] |= {"image": {"bytes": blue, "path": None}, "answer": "No"}
    pope(tmp_path, rows)
    samples = load_pope(tmp_path)
    assert [s.key for s in samples] == ["1", "2", "3", "4", "5"]
    assert samples[0].options is None
    assert (samples[0].standard, samples[3].standard) == ("yes", "no")
    assert [s.meta["group"] for s in samples[:3]] == ["pope/COCO_0", "pope/COCO_0", "pope/COCO_1"]
    colors = [s.image.open().getpixel((0, 0)) for s in reversed(samples)]
    assert colors == [RED, BLUE, RED, RED, RED]


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "p.png"}])
def test_pope_with_a_null_image_loses_only_that_sample(tmp_path, image):
    pope(tmp_path, [pope_row(0), pope_row(1, image=image), pope_row(2)])
    first, null, last = load_pope(tmp_path)
    with pytest.raises(DataError, match=r"random-00000-of-00001\.parquet, row 1, field 'image': null"):
        null.image.open()
    assert first.image.open().size == last.image.open().size == (8, 6)


def test_pope_answer_other_than_yes_or_no_is_refused(tmp_path):
    pope(tmp_path, [pope_row(0), pope_row(1, answer="maybe")])
    with pytest.raises(DataError, match="row 1: field 'answer' is 'maybe'"):
        load_pope(tmp_path)


def test_pope_file_that_is_no_parquet_is_refused(tmp_path):
    pope(tmp_path, [pope_row(0)]).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match="not a readable parquet file"):
        load_pope(tmp_path)


def test_pope_parquet_with_a_missing_column_names_it(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = pope(tmp_path, [pope_row(0)])
    pq.write_table(pa.table({"question_id": ["1"], "question": ["?"], "answer": ["yes"]}), path)
    with pytest.raises(DataError, match="field 'image' is missing"):
        load_pope(tmp_path)


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "dictionary", "binary", "large_binary"]
)
@pytest.mark.parametrize("image", ["struct", "binary", "large_binary", "list of struct", "large struct"])
def test_pope_parquet_of_any_legal_type_is_read(tmp_path, kind, image):
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string()) if kind == "dictionary" else getattr(pa, kind)()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = {
        "struct": (struct, {"bytes": PICTURE, "path": None}),
        "binary": (pa.binary(), PICTURE),
        "large_binary": (pa.large_binary(), PICTURE),
        "list of struct": (pa.list_(struct), [{"bytes": PICTURE, "path": "p.png"}]),
        "large struct": (
            pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
            {"bytes": PICTURE},
        ),
    }
    path = pope(tmp_path, [pope_row(0)])
    row = {"question_id": 7, "question": "Is there a star?", "answer": "no"}
    fields = [("question_id", pa.int64()), ("question", text), ("answer", text), ("image", images[image][0])]
    value = {k: v.encode() if "binary" in kind and isinstance(v, str) else v for k, v in row.items()}
    columns = [pa.array([(value | {"image": images[image][1]})[name]], type_) for name, type_ in fields]
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), path)
    (sample,) = load_pope(tmp_path)
    assert (sample.key, sample.question, sample.answer) == ("7", "Is there a star?", "no")
    assert sample.image.open().getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    "cell", ["p.png", [], [{"bytes": PICTURE}, {"bytes": PICTURE}], 7, {"path": "p.png"}]
)
def test_pope_with_an_image_of_no_known_form_loses_only_that_sample_and_names_it(tmp_path, cell):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = pope(tmp_path, [pope_row(0)])
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("image"), "image", pa.array([cell])), path)
    (sample,) = load_pope(tmp_path)
    with pytest.raises(DataError, match=r"row 0, field 'image': .*fetch this file again"):
        sample.image.open()


def test_pope_in_several_parts_is_read_in_order_and_only_whole(tmp_path):
    path = pope(tmp_path, [pope_row(i) for i in range(3)])
    first = path.rename(path.with_name("random-00000-of-00002.parquet"))
    pope(tmp_path, [pope_row(i) for i in range(3, 5)]).rename(path.with_name("random-00001-of-00002.parquet"))
    samples = load_pope(tmp_path)
    assert [s.key for s in samples] == ["1", "2", "3", "4", "5"]
    assert {s.image.open().size for s in samples} == {(8, 6)}
    first.unlink()
    with pytest.raises(DataError, match=r"random-00001-of-00002\.parquet.*not all the parts"):
        load_pope(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:4] + b"\0" * 60 + b[64:], lambda b: b""])
def test_a_damaged_parquet_file_is_refused_or_loses_its_pictures(tmp_path, damage):
    path = pope(tmp_path, [pope_row(0), pope_row(1)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"random-00000-of-00001\.parquet"):
        [sample.image.open() for sample in load_pope(tmp_path)]


LINE = {"question_id": 1, "image": "COCO_7.jpg", "text": "Is there a star in the image?", "label": "no"}


@pytest.mark.parametrize("pictures", ["val2014", "images", "."])
def test_pope_is_read_from_its_original_json_lines(tmp_path, pictures):
    folder = tmp_path / "POPE"
    (folder / pictures).mkdir(parents=True, exist_ok=True)
    (folder / pictures / "COCO_7.jpg").write_bytes(PICTURE)
    (folder / "coco_pope_random.json").write_text(json.dumps(LINE) + "\n")
    (sample,) = load_pope(tmp_path)
    assert (sample.id, sample.standard, sample.options) == ("pope/random/1", "no", None)
    assert sample.meta == {"group": "pope/COCO_7", "category": "random", "image_source": "COCO_7"}
    assert sample.image.open().size == (8, 6)


def test_pope_json_lines_may_hold_a_unicode_line_separator(tmp_path):
    folder = tmp_path / "pope"
    folder.mkdir()
    (folder / "COCO_7.jpg").write_bytes(PICTURE)
    lines = [LINE | {"text": "A\u2028star?"}, LINE | {"question_id": 2}]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "coco_pope_random.json").write_text(text, "utf-8")
    assert [s.question for s in load_pope(tmp_path)] == ["A\u2028star?", LINE["text"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        (json.dumps(LINE | {"label": "perhaps"}), "line 2: field 'label'"),
        (json.dumps({"question_id": 2}), "line 2: field 'image', 'text', 'label' is missing"),
        (json.dumps(LINE | {"image": "COCO_8.jpg"}), "line 2: the picture 'COCO_8.jpg' is missing"),
    ],
)
def test_pope_json_line_that_is_bad_is_named(tmp_path, line, message):
    folder = tmp_path / "pope"
    folder.mkdir()
    (folder / "COCO_7.jpg").write_bytes(PICTURE)
    (folder / "coco_pope_random.json").write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        load_pope(tmp_path)


# ----------------------------------------------------------------------------------------- names and folders
def test_the_seven_tasks_carry_the_paper_tables_names():
    table = Path(__file__).parents[2] / "data" / "paper" / "table1.csv"
    text = table.read_text("utf-8")
    assert len(TASKS) == 7
    assert registry.TASKS == TASKS  # stated in params as well, which may not import a reader of files
    for task in TASKS:
        assert all(part in text for part in task.split("/")), task


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda root: load_task("vstr/direct_attributes", root),
            "no task 'vstr/direct_attributes'.*did you mean 'vstar",
        ),
        (
            lambda root: load_task("vstar/direct_attribute", root),
            "no task.*did you mean 'vstar/direct_attributes'",
        ),
        (lambda root: load_task("pope/adverserial", root), "no task.*did you mean 'pope/adversarial'"),
        (lambda root: load_task("pope/random", root), "no folder 'pope' or 'POPE' here.*00_prepare_data"),
    ],
)
def test_a_wrong_name_or_missing_folder_says_what_is_right(tmp_path, ask, message):
    with pytest.raises(DataError, match=message):
        ask(tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_a_benchmark_folder_without_its_split_names_the_missing_file(tmp_path, task):
    (tmp_path / task.split("/")[0]).mkdir()
    with pytest.raises(DataError, match=rf"{task.split('/')[1]}.* is missing"):
        load_task(task, tmp_path)


def test_an_empty_split_is_refused(tmp_path):
    (tmp_path / "vstar" / "direct_attributes").mkdir(parents=True)
    hr(tmp_path, [])
    pope(tmp_path, [])
    for task in ("vstar/direct_attributes", "hr/hr_bench_4k", "pope/random"):
        with pytest.raises(DataError, match="is empty"):
            load_task(task, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "a//x.jpg", "x" * 300, "a\0.jpg"],
)
def test_a_picture_outside_the_benchmark_is_refused_by_file_line_and_field(name, tmp_path):
    (tmp_path / "pope").mkdir()
    (tmp_path / "x.jpg").write_bytes(b"private")
    line = {"question_id": 1, "image": name, "text": "Is there a star?", "label": "no"}
    (tmp_path / "pope" / "coco_pope_random.json").write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"coco_pope_random\.json, line 1.*'image'"):
        load_pope(tmp_path)
