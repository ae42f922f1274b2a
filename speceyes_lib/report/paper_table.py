"""Table 1 of the paper, from the long form of `analysis/results.py`: as a styled table and as LaTeX.

A block is one agent of one source. In each block and split the best accuracy and speedup are bold, the second best
underlined. Equal values share a mark. A measured value is marked only where its interval lies above those of all that
are lower: intervals that overlap do not say which method is better. The agent alone, whose speedup is 1 by definition,
is not ranked by speedup. A method slower than its agent has a downward arrow. In a notebook measured values come with
their interval and n, and a measured speedup with the one that replay predicts. What a source does not have stays blank:
nothing is filled in from another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from ..analysis.results import COLUMNS
from ..tasks.registry import AVERAGE, REPORTED_TASKS, TASKS
from .columns import RULES
from .formatting import clock_line, interval
from .labels import agent_label, method_label, split_label
from .plots.style import WRONG

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SCORES = ("log", "mean", "bottom20", "min")  # in the order of the paper's rows
METHODS = ("draft_only", "baseline", "specreason", *(f"speceyes_{score}" for score in SCORES))
SLOWER = "↓"
REPLAYED = "†"


def layout(long: pd.DataFrame) -> pd.DataFrame:
    """The rows of Table 1 in its order, with their marks.

    Columns of the long form, and `accuracy_mark`, `speedup_mark` ("best", "second" or ""), `slower` (bool) and
    `replayed` (bool: decided by replay). The reported draft alone belongs to no agent and is a block of its own.
    """
    splits = (*TASKS, AVERAGE)
    table = long[long["method"].isin(METHODS) & long["split"].isin(splits)]
    # a table1.csv from before there were all of its columns
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *COLUMNS])))
    table["replayed"] = table["how"].eq("replayed")
    for column, names in (("method", METHODS), ("split", splits)):
        table[column] = pd.Categorical(table[column], names, ordered=True)
    table["block"] = long.groupby(["source", "agent"], sort=False).ngroup()
    table = table.sort_values(["block", "method", "split"], ignore_index=True)
    table["slower"] = table["speedup"] < 1 - 1e-9
    table["accuracy_mark"], table["speedup_mark"] = "", ""
    for _, part in table.groupby(["block", "split"], observed=True):
        others = part[part["method"] != "baseline"]
        table.loc[part.index, "accuracy_mark"] = _marks(part, "accuracy_pct")
        table.loc[others.index, "speedup_mark"] = _marks(others, "speedup")
    return table.astype({"method": str, "split": str})


def _marks(part: pd.DataFrame, name: str) -> list[str]:
    """The marks "best" and "second" by value, rounded as printed; none where there is nothing to compare.

    Measured values need an interval that lies above those of all lower values; without one there is no mark.
    """
    values = part[name].round(2)
    if values.notna().sum() < 2:
        return [""] * len(part)
    distinct = values.dropna().sort_values(ascending=False).unique()
    is_measured = part["source"].ne("reported").any()
    low, high = (part[end].round(2) for end in ENDS[name])
    marks: dict[float, str] = {}
    for value, mark in zip(distinct, ("best", "second"), strict=False):
        lower = values < value
        # written so that a missing end settles nothing
        is_settled = not lower.any() or bool(low[values == value].min() > high[lower].max(skipna=False))
        if is_measured and not is_settled:
            break
        marks[value] = mark
    return [marks.get(value, "") for value in values]


def missing_rows(long: pd.DataFrame) -> list[str]:
    """What Table 1 has rows for and a measured block lacks, as sentences, to stand below the table."""
    sentences = []
    for agent, part in long[long["source"] != "reported"].groupby("agent", sort=False):
        methods = [method_label(m) for m in METHODS if m not in set(part["method"])]
        splits = [split_label(s) for s in REPORTED_TASKS if s not in set(part["split"])]
        if methods:
            sentences.append(f"{agent}: not run: {', '.join(methods)}.")
        if splits:
            absent = ", ".join(splits)
            sentences.append(f"{agent}: no samples of {absent}, so its average is over the others.")
        if "baseline" not in set(part["method"]):
            sentences.append(f"{agent}: without its agent alone there are no speedups.")
    return sentences


ACCURACY, SPEEDUP = "Acc.", "Speedup"
ENDS = {"accuracy_pct": ("accuracy_low_pct", "accuracy_high_pct"), "speedup": ("speedup_low", "speedup_high")}
_LOOKS = {  # mark -> CSS, and the command that pandas wraps a LaTeX cell in
    "html": {"best": "font-weight: bold", "second": "text-decoration: underline", "": ""},
    "latex": {"best": "textbf:--rwrap", "second": "underline:--rwrap", "": ""},
}


def table1(long: pd.DataFrame, caption: str = "", clock: Mapping[str, Any] | None = None) -> Styler:
    """Table 1 for a notebook: two columns per split, with intervals and n of measured cells.

    Args:
        long: results in long form (`PaperData.results`).
        caption: stands above the table, before the legend of the marks.
        clock: what is known of the run's clock (`formatting.clock_line`); None: no measured times are shown.
    """
    rules = [*RULES, {"selector": "tbody th.level0", "props": "border-top: 1px solid #888"}]
    styler = _styler(layout(long), "html", f"{caption} {clock_line(clock)}" if clock is not None else caption)
    return styler.set_uuid("table1").set_table_styles(rules)


def table1_html(path: Path) -> Markup:
    """Table 1 for a page, from the `table1.csv` of a run; every cell is escaped here, whatever the file holds."""
    return Markup(table1(pd.read_csv(path)).to_html())


def table1_latex(long: pd.DataFrame, caption: str, label: str) -> str:
    r"""Table 1 ready to \input: two columns per split, accuracy and speedup. Needs the package booktabs."""
    styler = _styler(layout(long), "latex", caption)
    return styler.to_latex(
        caption=styler.caption,
        label=label,
        environment="table*",
        position_float="centering",
        hrules=True,
        clines="skip-last;index",
        column_format="ll" + "r" * styler.data.shape[1],
        multicol_align="c",
        multirow_align="naive",
    )


def _styler(table: pd.DataFrame, kind: str, caption: str) -> Styler:
    """The rows of `layout` as cells of text, a row per block and method; `kind`: html or latex."""
    clean = escape if kind == "html" else lambda text: text.translate(str.maketrans(_TEX))
    splits = [split_label(s) for s in (*TASKS, AVERAGE) if s in set(table["split"])]
    columns = pd.MultiIndex.from_product([map(clean, splits), [ACCURACY, SPEEDUP]])
    names = {}
    for (block, method), part in table.groupby(["block", "method"], sort=False):
        name = method_label(method) + (f" {REPLAYED}" if part["replayed"].any() else "")
        block_name = _block_name(part["source"].iloc[0], part["agent"].iloc[0])
        names[block, method] = clean(block_name), clean(name)
    index = pd.MultiIndex.from_tuples(names.values())
    texts = pd.DataFrame("", index=index, columns=columns, dtype=object)
    looks = texts.copy()
    for row in table.itertuples():
        at, split = names[row.block, row.method], clean(split_label(row.split))
        for column, text, mark in (
            (ACCURACY, _accuracy(row, kind), row.accuracy_mark),
            (SPEEDUP, _speedup(row, kind), row.speedup_mark),
        ):
            if kind == "html":  # narrow columns: sixteen of them are to fit on a page
                text = text.replace(" [", "\n[")
            is_slower = row.slower and kind == "html" and column == SPEEDUP
            look = [_LOOKS[kind][mark], f"color: var(--wrong, {WRONG})" if is_slower else ""]
            texts.loc[at, (split, column)] = text
            looks.loc[at, (split, column)] = "; ".join(filter(None, look)) if text else ""
    caption = clean(f"{caption} {legend(table)}".strip())
    return texts.style.apply(lambda _: looks, axis=None).set_caption(caption)


def _accuracy(row: Any, kind: str) -> str:
    if row.source == "reported":
        return interval((row.accuracy_pct, None, None), 2)
    if kind == "latex":
        return interval((row.accuracy_pct, None, None), 1)
    text = interval((row.accuracy_pct, row.accuracy_low_pct, row.accuracy_high_pct), 1)
    return f"{text}\nn={row.n:.0f}" if text and pd.notna(row.n) else text


def _speedup(row: Any, kind: str) -> str:
    unit, slower = ("x", SLOWER) if kind == "html" else (r"$\times$", r"$\downarrow$")
    ends = (
        (None, None) if row.source == "reported" or kind == "latex" else (row.speedup_low, row.speedup_high)
    )
    text = interval((row.speedup, *ends), 2, unit + slower * row.slower)
    if kind == "latex" or not text or pd.isna(row.speedup_predicted):
        return text
    return f"{text}\npredicted {row.speedup_predicted:.2f}x"


def _block_name(source: str, agent: str) -> str:
    if source == "reported":
        return "Reported: the draft alone" if agent == "none" else f"Reported: {agent_label(agent)}"
    return f"Measured: run {agent}"


def legend(table: pd.DataFrame) -> str:
    """The meaning of the marks, only of those that occur; `table` as `layout` returns it."""
    parts = ["Bold: best of its block, underlined: second best"]
    if table["slower"].any():
        parts.append(f"{SLOWER} slower than its agent alone")
    if table["replayed"].any():
        parts.append(f"{REPLAYED} decisions replayed, times of the arms that ran")
    if (table["source"] != "reported").any():
        parts.append("measured values are marked only where no interval overlaps")
        parts.append("brackets: 95 % intervals")
    return "; ".join(parts) + "."


_TEX = {"\\": r"\textbackslash{}", "†": r"$^\dagger$", "↓": r"$\downarrow$", "≥": r"$\ge$"}
_TEX |= {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
