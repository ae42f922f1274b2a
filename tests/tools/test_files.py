from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.demo.office_files import docx_file, pdf_file, xlsx_file, zip_file
from speceyes_lib.tools import files
from speceyes_lib.tools.declared import Workspace
from speceyes_lib.tools.files import FILE_READ, MAX_CHARS, MAX_ROWS, ReadArguments, read_file, text_of
from speceyes_lib.tools.worker import ToolError

ROWS = [["name", "price", "mass"], ["Korvan", "482", "235"], ["Belin", "117", "640"]]
PLAIN = "2 rows\nname | price | mass\n1: Korvan | 482 | 235\n2: Belin | 117 | 640"
LABELLED = "2 rows\n1: Korvan price=482, Korvan mass=235\n2: Belin price=117, Belin mass=640"
CSV = b"name,price,mass\nKorvan,482,235\nBelin,117,640\n"
JSON = b'[{"name": "Korvan", "price": 482, "mass": 235}, {"name": "Belin", "price": 117, "mass": 640}]'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", CSV),
        ("a.csv", CSV.replace(b",", b";")),
        ("a.TSV", CSV.replace(b",", b"\t")),
        ("a.csv", CSV.decode().encode("utf-16")),
        ("a.json", JSON),
        ("a.docx", docx_file(ROWS)),
    ],
)
def test_a_table_reads_the_same_from_every_kind_of_file(name, data):
    assert text_of(name, data) == PLAIN
    assert text_of(name, data, labelled=True) == LABELLED


def test_all_sheets_of_a_workbook_and_all_files_of_an_archive_are_read():
    book = text_of("a.xlsx", xlsx_file({"first": ROWS, "second": [["n", "m"], ["x", "1"]]}))
    assert book == f"sheet first: {PLAIN}\nsheet second: 1 rows\nn | m\n1: x | 1"
    archive = text_of("a.zip", zip_file({"t.csv": CSV, "in.zip": zip_file({}), "i.png": b"x"}))
    assert archive.startswith(f"file t.csv: {PLAIN}\n")
    assert "in.zip: [in.zip is an archive inside an archive" in archive
    assert "i.png: [i.png is a picture; use vision_analyze" in archive


def test_text_comes_from_documents_pages_and_slides():
    assert text_of("a.pdf", pdf_file(["first (line)", "second"])) == "first (line)\nsecond"
    page = b"<html><head><title>t</title></head><p>one <b>two</b></p><script>no()</script><p>three</p></html>"
    assert text_of("a.html", page) == "one two\nthree"
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    slide = f'<s xmlns:a="{drawing}"><a:p><a:r><a:t>Hello</a:t></a:r></a:p></s>'.encode()
    slides = zip_file(
        {"ppt/slides/slide10.xml": slide.replace(b"Hello", b"End"), "ppt/slides/slide2.xml": slide}
    )
    assert text_of("a.pptx", slides) == "slide 2:\nHello\nslide 10:\nEnd"
    for name in ("a.md", "a.yaml", "a.xml", "a.jsonl", "a.py", "a.pdb", "README"):
        assert text_of(name, "grün: 1\n".encode()) == "grün: 1"
    assert text_of("a.txt", "grün".encode("cp1252")) == "grün"


def test_what_is_too_long_says_what_was_left_out():
    long = "name,price\n" + "".join(f"n{i},{i}\n" for i in range(MAX_ROWS + 5))
    text = text_of("a.csv", long.encode())
    assert f"{MAX_ROWS} rows" in text
    assert text.endswith(f"[further rows left out; the first {MAX_ROWS} are shown]")
    assert text_of("a.txt", b"x" * (MAX_CHARS + 7)).endswith("\n[7 further characters left out]")
    wide = ",".join(["c"] * 60)
    assert "[further columns left out; the first 50 are shown]" in text_of("a.csv", wide.encode() + b"\n1")


def _laughing(name: str) -> bytes:
    laugh = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>'
    return zip_file({name: laugh})


def _bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", b"0" * (files.MAX_MEMBER_BYTES + 1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.xlsx", b"PK but no archive", "is broken"),
        ("a.docx", zip_file({"x": b"y"}), "cannot be read as .docx"),
        ("a.pdf", b"%PDF-1.4 cut", "cannot be read as .pdf"),
        ("a.zip", b"no archive", "is broken"),
        ("a.zip", _bomb(), "unpacks to 1 files of 20 MB, which is refused"),
        ("a.xlsx", _laughing("xl/workbook.xml"), "declares a document type in xl/workbook.xml"),
        ("a.docx", _laughing("word/document.xml"), "declares a document type"),
        ("a.pptx", _laughing("ppt/slides/slide1.xml"), "declares a document type"),
        ("a.mp3", b"ID3", "sound or film"),
        ("a.png", b"x", "is a picture"),
        ("a.xls", b"x", "save it as .xlsx"),
        ("a.bin", b"\0\1\2", "is no text"),
        ("a.txt", b" \n ", "holds no text"),
        ("a.pdf", pdf_file([]), "its pages may be pictures"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(name, data, words):
    with pytest.raises(ToolError) as raised:
        text_of(name, data)
    assert words in str(raised.value)
    assert str(raised.value).startswith("a.")


def test_broken_and_deeply_nested_json_is_shown_as_text():
    assert text_of("a.json", b'{"a": ') == '[this is not valid JSON]\n{"a":'
    assert text_of("a.json", b"[" * 100_000).startswith("[this is not valid JSON]")


@pytest.mark.parametrize("kind", ["csv", "json", "xlsx", "docx", "pdf", "zip", "html", "pptx", "txt"])
@given(data=st.binary(min_size=1, max_size=200))
@settings(max_examples=15, deadline=None)
def test_any_bytes_give_a_text_or_a_sentence(kind, data):
    try:
        text = text_of(f"a.{kind}", data)
    except ToolError as error:
        text = str(error)
    assert text.strip()


def test_only_files_of_the_folder_are_read(tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("secret", "utf-8")
    folder = tmp_path / "task"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("inside", "utf-8")
    (folder / "link.txt").symlink_to(outside)
    workspace = Workspace(folder)

    def read(path):
        return read_file(ReadArguments(path=path), workspace)

    assert read("a.txt") == read(str(folder / "a.txt")) == "inside"
    for path in ("../secret.txt", str(outside), "link.txt", "a\0b"):
        with pytest.raises(ToolError):
            read(path)
    with pytest.raises(ToolError, match=r"no file b\.txt; the folder holds a\.txt, link\.txt, sub"):
        read("b.txt")
    with pytest.raises(ToolError, match="is a folder"):
        read("sub")
    assert FILE_READ.paths == ("path",)
