"""A contact sheet: the pictures of a list of samples beside what became of them, as one PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import cache

import pandas as pd
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from ..report.plots.style import INK, MUTED, RIGHT, WRONG
from ..report.sample_page import VERDICT_SIGNS, short_id

MOST = 48  # samples on a sheet
COLUMNS, CELL, PICTURE = 6, (230, 250), (214, 150)  # px
MARGIN, LINE = 8, 15
_VERDICTS = {True: (VERDICT_SIGNS["right"], RIGHT), False: (VERDICT_SIGNS["wrong"], WRONG)}


def contact_sheet(
    rows: pd.DataFrame,
    title: Sequence[str],
    thumbnail: Callable[[str], bytes],
    question: Callable[[str], str],
) -> bytes:
    """PNG of the first `MOST` rows of a list.

    Args:
        rows: of `gating.listed`; beside a pinned setting each also says what that did.
        title: lines above the pictures.
        thumbnail: id -> encoded picture, b"" where there is none.
        question: id -> its question.
    """
    shown = rows.head(MOST)
    lines = [*title, f"{len(shown)} of {len(rows)} samples"]
    top = 2 * MARGIN + LINE * len(lines) + 6
    n_rows = max(1, -(-len(shown) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL[0] + MARGIN, top + n_rows * CELL[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + LINE * i), line, INK, _font(12 if i else 14))
    for place, row in enumerate(shown.itertuples()):
        left, upper = MARGIN + CELL[0] * (place % COLUMNS), top + CELL[1] * (place // COLUMNS)
        _paste(sheet, thumbnail(row.id), left, upper)
        upper += PICTURE[1] + 4
        draw.text((left, upper), short_id(row.id)[:36], MUTED, _font(10))
        for line in textwrap.wrap(question(row.id), 36)[:2]:
            upper += LINE
            draw.text((left, upper), line, INK, _font(11))
        there = f"{row.there.replace('_', ' ')} \u2192 " if "there" in shown and row.there else ""
        upper += LINE
        draw.text((left, upper), f"{there}{row.decision.replace('_', ' ')}", INK, _font(11))
        upper, at = upper + LINE, left
        for name, right in (("draft", row.draft_right), ("agent", row.agent_right)):
            sign, color = _VERDICTS.get(right, ("\u2013", MUTED))
            draw.text((at, upper), f"{name} {sign}", color, _font(11))
            at += 70
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return data.getvalue()


def _paste(sheet: Image.Image, picture: bytes, left: int, upper: int) -> None:
    if not picture:
        frame = (left, upper, left + PICTURE[0], upper + PICTURE[1])
        ImageDraw.Draw(sheet).rectangle(frame, outline=MUTED)
        return
    with Image.open(io.BytesIO(picture)) as stored:
        image = stored.convert("RGB")
    image.thumbnail(PICTURE)
    sheet.paste(image, (left, upper + PICTURE[1] - image.height))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
