"""file_read: the text of a file of the task's folder, whatever kind it is.

Everything is bounded, because a file may have been made to exhaust its reader: its size, what it unpacks to, rows,
columns, pages, and the characters of the result. What was left out is named at the place where it is missing. Markup
with a document type declaration, which can multiply itself, is refused. Old binary formats and media are refused with
the remedy.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html.parser import HTMLParser
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from .declared import Arguments, Effect, Tool, Workspace
from .tables import labelled_rows, plain_rows
from .waits import waiting
from .worker import ToolError, prepare

LABELLED = "labelled_tables"  # resource: True to repeat the name of the row in every cell of a table
MAX_FILE_BYTES = 50 * 2**20
MAX_UNPACKED_BYTES = 200 * 2**20  # of all members of a file that is an archive inside
MAX_MEMBER_BYTES = 20 * 2**20
MAX_MEMBERS = 2000
MAX_CHARS = 20_000
MAX_ROWS, MAX_COLUMNS, MAX_SHEETS = 200, 50, 20
MAX_PAGES = 50
MAX_SHOWN_MEMBERS = 50
PICTURES = ("png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff")
OLD_KINDS = {"xls": "xlsx", "doc": "docx", "ppt": "pptx"}
MEDIA = ("mp3", "wav", "m4a", "ogg", "flac", "mp4", "mov", "avi", "mkv")

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


class ReadArguments(Arguments):
    """Arguments of file_read."""

    path: str = Field(min_length=1, max_length=500, description="name of the file in the task's folder")


def read_file(arguments: ReadArguments, workspace: Workspace) -> str:
    """The text of a file.

    Raises:
        ToolError: there is no such file, or it cannot be read as text.
    """
    path = workspace.path(arguments.path)
    if path.is_dir():
        raise ToolError(f"{arguments.path} is a folder; name a file in it: {_listed(path.iterdir())}.")
    if not path.is_file():
        raise ToolError(
            f"There is no file {arguments.path}; the folder holds {_listed(workspace.folder.iterdir())}."
        )
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ToolError(
            f"{arguments.path} has {size / 2**20:.0f} MB; files up to {MAX_FILE_BYTES >> 20} MB are read."
        )
    return text_of(arguments.path, path.read_bytes(), bool(workspace.resources.get(LABELLED)))


def text_of(name: str, data: bytes, labelled: bool = False, archives: bool = True) -> str:
    """The text of a file's content.

    Args:
        name: of the file; its suffix says what it is.
        data: its content.
        labelled: repeat the name of the row in every cell of a table.
        archives: read zip files; False inside one.

    Raises:
        ToolError: the content is empty, broken, too large, or no text.
    """
    kind = PurePosixPath(name).suffix.lower().removeprefix(".")
    if not data:
        raise ToolError(f"{name} is empty.")
    if kind in PICTURES:
        raise ToolError(f"{name} is a picture; use vision_analyze or vision_ocr.")
    if kind in MEDIA:
        raise ToolError(f"{name} is sound or film, which no tool here can read.")
    if kind in OLD_KINDS:
        raise ToolError(f"{name} is in an old binary format; save it as .{OLD_KINDS[kind]}.")
    if kind == "zip" and not archives:
        raise ToolError(f"{name} is an archive inside an archive, which is not unpacked.")
    table: Table = partial(_table, form=labelled_rows if labelled else plain_rows)
    reader = _READERS.get(kind, _plain)
    try:
        text = reader(name, data, table)
    except ToolError:
        raise
    except MemoryError:
        raise ToolError(f"{name} needs more memory to unpack than a tool may use.") from None
    except Exception as error:  # the readers of broken files raise whatever they stumble over
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ToolError(f"{name} cannot be read as .{kind}: {reason}.") from None
    if not text.strip():
        raise ToolError(f"{name} holds no text.")
    return _bounded(text)


# ------------------------------------------------------------------------------------------------ tables
def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]], form: Table) -> str:
    """A table in its form, bounded, with cells as text. Short rows are filled up."""
    kept = list(islice(rows, MAX_ROWS + 1))
    width = min(max([len(header), *map(len, kept)], default=0), MAX_COLUMNS)
    cells = [_cells(row, width) for row in kept[:MAX_ROWS]]
    text = form(_cells(header, width), cells)
    if len(kept) > MAX_ROWS:
        text += f"\n[further rows left out; the first {MAX_ROWS} are shown]"
    if any(len(row) > MAX_COLUMNS for row in (header, *kept)):
        text += f"\n[further columns left out; the first {MAX_COLUMNS} are shown]"
    return text


def _cells(row: Sequence[Any], width: int) -> list[str]:
    texts = ["" if value is None else str(value).strip() for value in row[:width]]
    return texts + [""] * (width - len(texts))


def _csv(name: str, data: bytes, table: Table) -> str:
    text = _decoded(name, data)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4000], ",;\t|")
    except csv.Error:  # a single column, or no rule that can be seen
        dialect = csv.excel
    reader = csv.reader(io.StringIO(text), "excel-tab" if name.lower().endswith(".tsv") else dialect)
    rows = (row for row in reader if row)
    return table(next(rows, []), rows)


def _xlsx(name: str, data: bytes, table: Table) -> str:
    import openpyxl

    _check_archive(name, data)
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    texts = []
    for sheet in book.worksheets[:MAX_SHEETS]:
        values = (row for row in sheet.iter_rows(values_only=True) if any(v is not None for v in row))
        rows = (list(row) for row in islice(values, MAX_ROWS + 2))
        texts.append(f"sheet {sheet.title}: {table(_trimmed(next(rows, [])), map(_trimmed, rows))}")
    if len(book.worksheets) > MAX_SHEETS:
        texts.append(f"[{len(book.worksheets) - MAX_SHEETS} further sheets left out]")
    return "\n".join(texts)


def _trimmed(row: list[Any]) -> list[Any]:
    while row and row[-1] is None:
        row.pop()
    return row


def _json(name: str, data: bytes, table: Table) -> str:
    text = _decoded(name, data).strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return f"[this is not valid JSON]\n{text}"
    flat = isinstance(value, list) and value and all(isinstance(row, dict) and row for row in value)
    if flat and not any(isinstance(v, dict | list) for row in value for v in row.values()):
        columns = list(dict.fromkeys(key for row in value for key in row))
        return table(columns, [[row.get(column) for column in columns] for row in value])
    return text


# --------------------------------------------------------------------------------------------- documents
def _docx(name: str, data: bytes, table: Table) -> str:
    import docx
    from docx.table import Table as DocxTable

    _check_archive(name, data)
    texts = []
    for block in docx.Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(block, DocxTable):
            rows = ([cell.text for cell in row.cells] for row in islice(block.rows, MAX_ROWS + 2))
            texts.append(table(next(rows, []), rows))
        elif block.text.strip():
            texts.append(block.text)
    return "\n".join(texts)


def _pptx(name: str, data: bytes, table: Table) -> str:
    from xml.etree import ElementTree

    _check_archive(name, data)
    texts = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        slides = [n for n in archive.namelist() if n.startswith("ppt/slides/slide") and n.endswith(".xml")]
        number = {n: int("".join(filter(str.isdigit, n)) or 0) for n in slides}
        for slide in sorted(slides, key=number.__getitem__)[:MAX_PAGES]:
            root = ElementTree.fromstring(archive.read(slide))
            drawing = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
            lines = ("".join(t.text or "" for t in p.iter(f"{drawing}t")) for p in root.iter(f"{drawing}p"))
            texts.append(f"slide {number[slide]}:\n" + "\n".join(line for line in lines if line.strip()))
    return "\n".join(texts)


def _pdf(name: str, data: bytes, table: Table) -> str:
    import logging

    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it repairs is of no use to a model
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise ToolError(f"{name} is protected by a password.")
    texts, length = [], 0
    for page in islice(reader.pages, MAX_PAGES):
        texts.append(page.extract_text().strip())
        length += len(texts[-1])
        if length > MAX_CHARS:
            break
    if len(reader.pages) > len(texts):
        texts.append(f"[{len(reader.pages) - len(texts)} further pages left out]")
    if not length:
        raise ToolError(f"{name} holds no text; its pages may be pictures.")
    return "\n".join(texts)


class _VisibleText(HTMLParser):
    """The text of a page without scripts and styles."""

    HIDDEN = ("script", "style", "head", "noscript", "template")
    BLOCKS = ("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "section", "article")

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self.HIDDEN))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def html_text(text: str) -> str:
    """The visible text of an HTML page, one line per block."""
    parser = _VisibleText()
    parser.feed(text)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _html(name: str, data: bytes, table: Table) -> str:
    return html_text(_decoded(name, data))


def _plain(name: str, data: bytes, table: Table) -> str:
    return _decoded(name, data).strip()


def _decoded(name: str, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data[:4000]:
        raise ToolError(f"{name} is no text, and its kind is not one that file_read knows.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


# ---------------------------------------------------------------------------------------------- archives
def _zip(name: str, data: bytes, table: Table) -> str:
    _check_archive(name, data, markup=False)
    texts = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        for info in members[:MAX_SHOWN_MEMBERS]:
            try:
                if info.flag_bits & 1:
                    raise ToolError("it is protected by a password.")
                labelled = table.keywords["form"] is labelled_rows
                text = text_of(info.filename, archive.read(info), labelled, archives=False)
            except ToolError as error:
                text = f"[{error}]"
            texts.append(f"file {info.filename}: {text}")
            if sum(map(len, texts)) > MAX_CHARS:
                break
        if len(members) > len(texts):
            texts.append(f"[{len(members) - len(texts)} further files left out]")
    return "\n".join(texts)


def _check_archive(name: str, data: bytes, markup: bool = True) -> None:
    """Refuse archives that unpack to too much, before anything is unpacked.

    The sizes in the directory bind: zipfile reads no more of a member than the directory says.

    Raises:
        ToolError: it is no archive, it is too large, or a member declares a document type.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        raise ToolError(f"{name} is broken: it is not the archive that its name says.") from None
    with archive:
        members = archive.infolist()
        total = sum(info.file_size for info in members)
        largest = max((info.file_size for info in members), default=0)
        if len(members) > MAX_MEMBERS or total > MAX_UNPACKED_BYTES or largest > MAX_MEMBER_BYTES:
            raise ToolError(
                f"{name} unpacks to {len(members)} files of {total / 2**20:.0f} MB, which is refused."
            )
        for info in members if markup else ():
            if info.filename.endswith((".xml", ".rels")):
                with archive.open(info) as member:
                    if b"<!DOCTYPE" in member.read(65_536).replace(b"\0", b"").upper():
                        raise ToolError(
                            f"{name} declares a document type in {info.filename}, which is refused."
                        )


def _bounded(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:MAX_CHARS]}\n[{len(text) - MAX_CHARS} further characters left out]"


def _listed(paths: Iterable[Any]) -> str:
    names = sorted(path.name for path in islice(paths, 200))
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "") if names else "no files"


_READERS: dict[str, Callable[[str, bytes, Table], str]] = {
    "csv": _csv,
    "tsv": _csv,
    "xlsx": _xlsx,
    "xlsm": _xlsx,
    "json": _json,
    "docx": _docx,
    "pptx": _pptx,
    "pdf": _pdf,
    "html": _html,
    "htm": _html,
    "zip": _zip,
}  # every other kind is read as text: txt, md, log, jsonl, xml, yaml, py, pdb ...

FILE_READ = Tool(
    name="file_read",
    description="Read a file of the task: text, tables (csv, xlsx, json), documents (pdf, docx, pptx, html) or a zip.",
    arguments=ReadArguments,
    effect=Effect.repeatable,
    run=read_file,
    where="process",
    warm_up=lambda workspace, arguments: prepare(),
    paths=("path",),
    resources=(LABELLED,),
    wait_s=waiting,
)
