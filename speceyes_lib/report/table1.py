"""Table 1 of the paper, from the long form of `tables.COLUMNS`: as data, HTML and LaTeX, with the same marks.

A block is one agent of one source. In each block and split the best accuracy and speedup are bold, the second best
underlined (equals share a mark; the agent alone, whose speedup is 1 by definition, takes no part in the speedup), and
a method slower than its agent is marked with a downward arrow. Measured values come with their interval and n. What a
source does not have stays blank: nothing is filled in from another one.
"""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from ..analysis.reported import REPORTED_TASKS
from ..tasks.registry import AVERAGE, TASKS
from .labels import agent_label, method_label, split_label

METHODS = (
    "draft_only",
    "baseline",
    "specreason",
    "speceyes_log",
    "speceyes_mean",
    "speceyes_bottom20",
    "speceyes_min",
)
SLOWER = "↓"
REPLAYED = "†"


def layout(long: pd.DataFrame) -> pd.DataFrame:
    """The rows of Table 1 in its order, with their marks.

    Columns of the long form, and `accuracy_mark`, `speedup_mark` ("best", "second" or ""), `slower` (bool), `replayed`
    (bool: decided by replay, its clock predicted) and `how` as given, "run" where the long form does not say.
    The reported draft alone belongs to no agent and is a block of its own.
    """
    table = long[long["method"].isin(METHODS) & long["split"].isin((*TASKS, AVERAGE))].copy()
    table["how"] = table["how"].fillna("run") if "how" in table else "run"
    table["replayed"] = table["how"].eq("replayed")
    table["method"] = pd.Categorical(table["method"], METHODS, ordered=True)
    table["split"] = pd.Categorical(table["split"], (*TASKS, AVERAGE), ordered=True)
    order = {key: i for i, key in enumerate(dict.fromkeys(zip(long["source"], long["agent"], strict=True)))}
    table["block"] = [order[key] for key in zip(table["source"], table["agent"], strict=True)]
    table = table.sort_values(["block", "method", "split"], ignore_index=True)
    table["slower"] = table["speedup"] < 1 - 1e-9
    table["accuracy_mark"], table["speedup_mark"] = "", ""
    for _, part in table.groupby(["block", "split"], observed=True):
        table.loc[part.index, "accuracy_mark"] = _marks(part["accuracy_pct"])
        others = part[part["method"] != "baseline"]
        table.loc[others.index, "speedup_mark"] = _marks(others["speedup"])
    return table.astype({"method": str, "split": str})


def _marks(values: pd.Series) -> list[str]:
    """ "best" and "second" by value, rounded as printed; no marks where there is nothing to compare."""
    rounded = values.round(2)
    ranked = sorted(rounded.dropna().unique(), reverse=True)
    if rounded.notna().sum() < 2:
        return [""] * len(values)
    names = dict(zip(ranked, ("best", "second"), strict=False))
    return [names.get(v, "") if pd.notna(v) else "" for v in rounded]


def missing(long: pd.DataFrame) -> list[str]:
    """What Table 1 has rows for and a measured block lacks, as sentences, to stand below the table."""
    told = []
    measured = long[(long["source"] != "reported")]
    for agent, part in measured.groupby("agent", sort=False):
        lacking = [method_label(m) for m in METHODS if m not in set(part["method"])]
        splits = [split_label(s) for s in REPORTED_TASKS if s not in set(part["split"])]
        if lacking:
            told.append(f"{agent}: not run: {', '.join(lacking)}.")
        if splits:
            told.append(f"{agent}: no samples of {', '.join(splits)}, so its average is over the others.")
        if "baseline" not in set(part["method"]):
            told.append(f"{agent}: without its agent alone there are no speedups.")
    return told


# ------------------------------------------------------------------ HTML
_CSS = (
    "<style>.table1{border-collapse:collapse;font-size:12px}.table1 th,.table1 td{padding:2px 7px;text-align:right;"
    "white-space:nowrap}.table1 th:first-child,.table1 td:first-child{text-align:left}.table1 .block td{border-top:"
    "1px solid #888;font-weight:600;text-align:left;padding-top:6px}.table1 .second{text-decoration:underline}"
    ".table1 .best{font-weight:700}.table1 .slower{color:#882255}.table1 small{color:#666;font-weight:400}"
    ".table1 caption{caption-side:top;text-align:left;font-weight:600;padding-bottom:4px}</style>"
)


def html(long: pd.DataFrame, caption: str = "") -> str:
    """Table 1 for a notebook: accuracy in percent over the speedup, intervals and n of measured cells in small type."""
    table = layout(long)
    splits = [s for s in (*TASKS, AVERAGE) if s in set(table["split"])]
    head = "".join(f"<th>{escape(split_label(s))}</th>" for s in splits)
    rows = []
    for _, block in table.groupby("block", sort=True):
        source, agent = block["source"].iloc[0], block["agent"].iloc[0]
        rows.append(
            f'<tr class="block"><td colspan="{len(splits) + 1}">{escape(_block_name(source, agent))}</td></tr>'
        )
        for method, part in block.groupby("method", sort=False):
            cells = part.set_index("split")
            tds = "".join(f"<td>{_cell(cells.loc[s]) if s in cells.index else ''}</td>" for s in splits)
            name = method_label(method) + (f" {REPLAYED}" if part["replayed"].any() else "")
            rows.append(f"<tr><td>{escape(name)}</td>{tds}</tr>")
    note = f"<div><small>{escape(legend(table))}</small></div>"
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'{_CSS}<table class="table1">{caption}<tr><th></th>{head}</tr>{"".join(rows)}</table>{note}'


def _cell(row: pd.Series) -> str:
    if pd.isna(row["accuracy_pct"]):
        return ""
    measured = row["source"] != "reported"
    text = f'<span class="{row["accuracy_mark"]}">{row["accuracy_pct"]:.{1 if measured else 2}f}</span>'
    if measured and pd.notna(row["accuracy_low_pct"]):
        text += f" <small>[{row['accuracy_low_pct']:.1f}, {row['accuracy_high_pct']:.1f}]</small>"
    if pd.notna(row["speedup"]):
        look = f"{row['speedup_mark']} {'slower' if row['slower'] else ''}".strip()
        text += f'<br><span class="{look}">{row["speedup"]:.2f}x{SLOWER if row["slower"] else ""}</span>'
        if measured and pd.notna(row["speedup_low"]):
            text += f" <small>[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]</small>"
    if measured and pd.notna(row["n"]):
        text += f"<br><small>n={int(row['n'])}</small>"
    return text


def _block_name(source: str, agent: str) -> str:
    if source == "reported":
        return "Reported: the draft alone" if agent == "none" else f"Reported: {agent_label(agent)}"
    return f"Measured: run {agent}"


def legend(table: pd.DataFrame) -> str:
    """What the marks mean, only those that occur; `table` as `layout` gives it."""
    parts = ["Accuracy in percent over speedup; bold: best of its block, underlined: second best"]
    if table["slower"].any():
        parts.append(f"{SLOWER} slower than its agent alone")
    if table["replayed"].any():
        parts.append(f"{REPLAYED} replayed from the instrumented pass: decisions exact, clock predicted")
    if (table["source"] != "reported").any():
        parts.append("brackets: 95 % intervals")
    return "; ".join(parts) + "."


# ------------------------------------------------------------------ LaTeX
def latex(long: pd.DataFrame, caption: str, label: str) -> str:
    r"""Table 1 in booktabs, ready to \input: two columns per split, accuracy and speedup.

    Needs the package booktabs.
    """
    table = layout(long)
    splits = [s for s in (*TASKS, AVERAGE) if s in set(table["split"])]
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_tex(caption)} {_tex(legend(table))}}}",
        rf"\label{{{label}}}",
        r"\begin{tabular}{l" + "rr" * len(splits) + "}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{2}}{{c}}{{{_tex(split_label(s))}}}" for s in splits)]) + r" \\",
        "".join(rf"\cmidrule(lr){{{2 + 2 * i}-{3 + 2 * i}}}" for i in range(len(splits))),
        " & ".join(["Method", *(["Acc.", "Speedup"] * len(splits))]) + r" \\",
    ]
    for _, block in table.groupby("block", sort=True):
        name = _tex(_block_name(block["source"].iloc[0], block["agent"].iloc[0]))
        lines += [r"\midrule", rf"\multicolumn{{{1 + 2 * len(splits)}}}{{l}}{{\textit{{{name}}}}} \\"]
        for method, part in block.groupby("method", sort=False):
            cells = part.set_index("split")
            row = [_tex(method_label(method)) + (r"$^\dagger$" if part["replayed"].any() else "")]
            for split in splits:
                row += _tex_cells(cells.loc[split]) if split in cells.index else ["", ""]
            lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def _tex_cells(row: pd.Series) -> list[str]:
    measured = row["source"] != "reported"
    cells = []
    for value, mark, text in (
        (row["accuracy_pct"], row["accuracy_mark"], f"{row['accuracy_pct']:.{1 if measured else 2}f}"),
        (row["speedup"], row["speedup_mark"], rf"{row['speedup']:.2f}$\times$"),
    ):
        text = "" if np.isnan(value) else text
        wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[mark]
        cells.append(wrap % text if text else "")
    if row["slower"]:
        cells[1] += r"$\downarrow$"
    return cells


_TEX = {"\\": r"\textbackslash{}", "†": r"$\dagger$", "↓": r"$\downarrow$", "≥": r"$\ge$"}
_TEX |= {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)
