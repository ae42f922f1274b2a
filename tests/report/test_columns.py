"""A declared column shows its number, its interval and its n; everything from outside is escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from speceyes_lib.report import Column, chance, interval, p_value, show
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.formatting import apart
from speceyes_lib.stats.intervals import Estimate

FRAME = pd.DataFrame(
    {
        "value": [1.234, -0.5, np.nan],
        "low": [1.0, np.nan, np.nan],
        "high": [2.0, np.nan, np.nan],
        "count": [3.0, 4.0, 0.0],
        "share": [0.5, 0.25, np.nan],
    },
    index=pd.Index(["a", "b_c", "<i>"], name="key"),
)


def test_a_cell_is_the_number_with_its_interval_and_its_n():
    columns = [
        Column("key", "name", str.upper),
        Column("value", "plain", ".2f"),
        Column("value", "whole", "+.1f", ("low", "high"), "count", " pp"),
        Column("share", "%", lambda share: f"{100 * share:.1f}"),
    ]
    table = as_text(FRAME, columns)
    assert list(table.index) == ["A", "B_C", "<I>"]
    assert table.index.name == "name"
    assert table["plain"].tolist() == ["1.23", "-0.50", ""]
    assert table["whole"].tolist() == ["+1.2 pp [+1.0, +2.0]\nn=3", "-0.5 pp\nn=4", "n=0"]
    assert table["%"].tolist() == ["50.0", "25.0", ""]


def test_a_frame_keeps_its_numbers_when_it_is_shown():
    before = FRAME.copy()
    show(FRAME, [Column("value", "v", ".1f")])
    pd.testing.assert_frame_equal(FRAME, before)


def test_an_empty_frame_gives_an_empty_table_with_its_header():
    assert as_text(pd.DataFrame(), [Column("value", "v", ".1f")]).columns.tolist() == ["v"]


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="values"):
        as_text(FRAME, [Column("values", "v")])


def test_cells_index_header_and_caption_are_escaped():
    bad = "<script>alert(1)</script>"
    frame = pd.DataFrame({bad: [bad], "n": [1]}, index=pd.Index([bad], name=bad))
    for html in (
        show(frame, caption=bad).to_html(),
        show(frame, [Column(bad, bad), Column("n", f"n {bad}")], bad).to_html(),
        show(frame.reset_index(drop=True), [Column(bad, bad)], bad).to_html(),
    ):
        assert "<script" not in html
        assert html.count("&lt;script&gt;") >= 3


def test_lists_numbers_and_names_of_both_axes_are_escaped_too():
    """pandas escapes a cell only where it is a str."""
    bad = "<script>alert(1)</script>"
    cells = [[bad], {bad: bad}, (bad,), type("Odd", (), {"__str__": lambda self: bad})()]
    names = pd.MultiIndex.from_product([[bad], [bad, "b"]], names=[bad, bad])
    rows = pd.Index([(bad,), 2], name=bad, tupleize_cols=False)
    frame = pd.DataFrame(dict(enumerate([cells[:2], cells[2:]])), rows).set_axis(names, axis=1)
    for table in (frame, frame.reset_index(drop=True)):
        html = show(table).to_html()
        assert "<script" not in html
        assert html.count("&lt;script&gt;") >= 6
    assert "<i>" not in show(FRAME, [Column("value", "<i>", lambda _: "<i>")]).to_html()


def test_the_same_table_gives_the_same_html():
    columns = [Column("value", "v", ".1f")]
    assert show(FRAME, columns, "c").to_html() == show(FRAME.copy(), columns, "c").to_html()


def test_without_columns_everything_is_shown():
    html = show(FRAME).to_html()
    assert all(name in html for name in FRAME.columns)
    assert ">1.2<" in html


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((96.21, 94.2, 97.5), "96.2 [94.2, 97.5]"),
        ((96.21, None, None), "96.2"),
        ((None, None, None), ""),
        (Estimate(1.5, 1.25, 1.75, 10, "x"), "1.5 [1.2, 1.8]"),
        (Estimate(float("nan"), float("nan"), float("nan"), 0), ""),
    ],
)
def test_an_interval_as_text(estimate, text):
    assert interval(estimate) == text


def test_digits_unit_and_sign_of_an_interval():
    assert interval((0.5, -1, 2), 2, "x", "+") == "+0.50x [-1.00, +2.00]"


def test_a_p_value_is_never_zero():
    assert (p_value(0.0312), p_value(0.0004), p_value(None)) == ("0.031", "<0.001", "")


def test_more_than_chance_needs_a_small_p_or_an_interval_without_zero():
    assert chance(0.04, 519) != chance(0.06, 519)
    assert chance(0.04, 519) == chance((0.1, 0.2), 519) == chance((-0.2, -0.1), 519)
    assert chance(0.06, 519) == chance((-0.1, 0.2), 519)
    assert "519" in chance(0.06, 519)


@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        (0.9986, 0.9986, ("0.9986", "0.9986")),
        (0.99, 0.98, ("0.9900", "0.9800")),
        (0.99857609, 0.99857601, ("0.9985761", "0.9985760")),
        (0.9986, 0.9986 + 1e-15, ("0.998600000000", "0.998600000000")),
    ],
)
def test_numbers_that_differ_are_shown_with_the_digits_that_tell_them_apart(first, second, texts):
    assert apart(first, second) == texts


@pytest.mark.parametrize("place", ["index", "level", "column"])
def test_arms_have_their_labels_where_no_columns_are_given(place):
    frame = pd.DataFrame({"arm": ["gated_batched", "bonus"], "part": ["a", "b"], "n": [1, 2]})
    frame = {"index": frame.set_index("arm"), "level": frame.set_index(["arm", "part"])}.get(place, frame)
    html = show(frame).to_html()
    assert "SpecEyes, batched" in html
    assert "gated_batched" not in html
    assert "bonus" in html  # an arm of another kind keeps its name


def test_a_table_without_rows_is_its_caption_and_none():
    for caption, whole in (("Warnings.", "Warnings: none"), ("", "none")):
        for columns in (None, [Column("value")]):
            html = show(FRAME.head(0), columns, caption).to_html()
            assert f"<caption>{whole}</caption>" in html
            assert "value" not in html
