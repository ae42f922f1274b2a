"""Table 1 in all its dresses: every number is the given one, marks follow from the numbers, blanks stay blank."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from synthetic_run import TASKS, make_run

from speceyes_lib.analysis import results, sample_frame
from speceyes_lib.analysis.reported import read_reported
from speceyes_lib.analysis.summary import summarise
from speceyes_lib.report import interval, labels, table1, table1_latex
from speceyes_lib.report.paper_table import REPLAYED, SLOWER, layout, legend, missing_rows, table1_html
from speceyes_lib.stats.resampling import Bootstrap
from speceyes_lib.tasks.registry import AVERAGE, REPORTED_TASKS

COLUMNS = [labels.split_label(s) for s in (*REPORTED_TASKS, AVERAGE)]


@pytest.fixture(scope="module")
def summary():
    return summarise(
        sample_frame.assemble(*make_run(per_task=8)),
        run="mine",
        gate={"score": "min"},
        bootstrap=Bootstrap(draws=100),
    )


@pytest.fixture(scope="module")
def paper():
    return results.reported_results(read_reported("table1"))


def long_of(*rows: tuple, source: str = "reported", agent: str = "deepeyes") -> pd.DataFrame:
    """Rows of (method, split, accuracy, speedup) in long form."""
    long_rows = [
        {"source": source, "agent": agent, "method": m, "split": s, "accuracy_pct": a, "speedup": v}
        for m, s, a, v in rows
    ]
    frame = pd.DataFrame(long_rows).reindex(columns=list(results.COLUMNS))
    return frame.astype(results.NUMBERS)


class Table(HTMLParser):
    """Cells of the styled table: their texts by (block, method, split, column), and the CSS of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str, str, str], str] = {}
        self.css: dict[tuple[str, str, str, str], str] = {}
        self.caption, self._at, self._id, self._key = "", "", "", None
        self._heads: dict[int, list[str]] = {0: [], 1: []}
        self._block = self._method = self._kind = ""
        rules = re.findall(r"((?:#T_\w+(?:, )?)+) {\n(.*?)}", text, re.DOTALL)
        self._rules = {name: " ".join(css.split()) for names, css in rules for name in names.split(", ")}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        classes = values.get("class") or ""
        self._kind = ""
        if tag == "caption":
            self._kind = "caption"
        elif "col_heading level0" in classes:
            self._kind, self._span = "split", int(values.get("colspan", 1))
        elif "row_heading level0" in classes:
            self._kind = "block"
        elif "row_heading level1" in classes:
            self._kind = "method"
        elif tag == "td":
            self._kind, column = "cell", int(re.search(r"col(\d+)", classes)[1])
            split, name = self._heads[0][column], ("Acc.", "Speedup")[column % 2]
            self._key = (self._block, self._method, split, name)
            self.cells[self._key] = ""
            self.css[self._key] = self._rules.get("#" + values["id"], "")

    def handle_data(self, data):
        if self._kind == "caption":
            self.caption += data
        elif self._kind == "split":
            self._heads[0] += [data] * self._span
        elif self._kind == "block":
            self._block = data
        elif self._kind == "method":
            self._method = data
        elif self._kind == "cell":
            self.cells[self._key] += data

    def handle_endtag(self, tag):
        self._kind = ""


def mark_of(css: str) -> str:
    return "best" if "bold" in css else "second" if "underline" in css else ""


def latex_cells(text: str) -> dict[tuple[str, str, str, str], str]:
    """(block, method, split, column) -> the cell; refuses rows of another length than the head's."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line.removesuffix(r" \\").strip() for line in body.strip().splitlines() if "&" in line]
    splits = re.findall(r"\\multicolumn\{2\}\{c\}\{([^}]*)\}", lines[0])
    cells_at, block = {}, ""
    for line in lines[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line)]
        assert len(cells) == 2 + 2 * len(splits), line
        block = cells[0] or block
        for i, split in enumerate(splits):
            for j, name in enumerate(("Acc.", "Speedup")):
                cells_at[block, cells[1], split, name] = cells[2 + 2 * i + j]
    return cells_at


def block_of(agent: str) -> str:
    return "Reported: the draft alone" if agent == "none" else f"Reported: {labels.agent_label(agent)}"


def where(row, name: str) -> tuple[str, str, str, str]:
    return block_of(row.agent), labels.method_label(row.method), labels.split_label(row.split), name


# ------------------------------------------------------------------ the reported numbers
def test_every_reported_number_stands_in_its_cell_of_html_and_latex(paper):
    html = Table(table1(paper).to_html()).cells
    tex = latex_cells(table1_latex(paper, "All numbers.", "tab:x"))
    shown = {key for key, text in html.items() if text}
    assert len(shown) == 2 * len(paper) == 2 * len(read_reported("table1"))
    assert {key for key, text in tex.items() if text} == shown
    for row in paper.itertuples():
        for cells in (html, tex):
            accuracy, speedup = cells[where(row, "Acc.")], cells[where(row, "Speedup")]
            assert float(re.search(r"\d+\.\d+", accuracy)[0]) == row.accuracy_pct
            assert float(re.search(r"\d+\.\d+", speedup)[0]) == row.speedup
        assert (SLOWER in html[where(row, "Speedup")]) == (row.speedup < 1)
        assert (r"\downarrow" in tex[where(row, "Speedup")]) == (row.speedup < 1)


def test_the_layout_loses_and_changes_nothing(paper):
    keys = ["agent", "method", "split"]
    ours = layout(paper).set_index(keys)[["accuracy_pct", "speedup"]].sort_index()
    pd.testing.assert_frame_equal(ours, paper.set_index(keys)[["accuracy_pct", "speedup"]].sort_index())


def test_a_changed_number_changes_its_cell(paper):
    changed = paper.copy()
    changed.loc[17, "accuracy_pct"] += 1.25
    before, after = (Table(table1(t).to_html()).cells for t in (paper, changed))
    (row,) = changed.loc[[17]].itertuples()
    assert float(after[where(row, "Acc.")]) == row.accuracy_pct
    assert float(before[where(row, "Acc.")]) == paper.loc[17, "accuracy_pct"]


# ------------------------------------------------------------------ marks
def test_bold_and_underlined_are_the_best_and_second_of_each_block_and_split(paper):
    css = Table(table1(paper).to_html()).css
    tex = latex_cells(table1_latex(paper, "", "tab:x"))
    for _, part in paper[paper["agent"] != "none"].groupby(["agent", "split"]):
        best, second, *_ = sorted(set(part["accuracy_pct"]), reverse=True)
        for row in part.itertuples():
            at = where(row, "Acc.")
            wanted = {best: "best", second: "second"}.get(row.accuracy_pct, "")
            assert mark_of(css[at]) == wanted, at
            assert tex[at].startswith(r"\textbf") == (wanted == "best")
            assert tex[at].startswith(r"\underline") == (wanted == "second")


def test_equals_share_a_mark_and_the_agent_alone_is_in_no_race_of_speed():
    long = long_of(
        ("baseline", "hr/hr_bench_4k", 80.0, 1.0),
        ("specreason", "hr/hr_bench_4k", 82.0, 0.6),
        ("speceyes_log", "hr/hr_bench_4k", 82.0, 0.9),
        ("speceyes_min", "hr/hr_bench_4k", 81.0, 0.9),
    )
    table = layout(long).set_index("method")
    assert table["accuracy_mark"].to_dict() == {
        "baseline": "", "specreason": "best", "speceyes_log": "best", "speceyes_min": "second",
    }  # fmt: skip
    assert table["speedup_mark"].to_dict() == {
        "baseline": "", "specreason": "second", "speceyes_log": "best", "speceyes_min": "best",
    }  # fmt: skip
    assert table["slower"].to_dict() == {
        "baseline": False, "specreason": True, "speceyes_log": True, "speceyes_min": True,
    }  # fmt: skip


def measured(*rows: tuple) -> pd.DataFrame:
    """Measured rows of (method, speedup, low, high)."""
    long = long_of(*((m, "hr/hr_bench_4k", 80.0, v) for m, v, *_ in rows), source="measured", agent="mine")
    return long.assign(speedup_low=[row[2] for row in rows], speedup_high=[row[3] for row in rows])


@pytest.mark.parametrize(
    ("rows", "marks"),
    [
        (  # clearly apart
            [
                ("draft_only", 9.0, 8.0, 10.0),
                ("speceyes_log", 2.0, 1.8, 2.2),
                ("speceyes_min", 1.5, 1.4, 1.6),
            ],
            {"draft_only": "best", "speceyes_log": "second", "speceyes_min": ""},
        ),
        (  # the intervals of the second and the third overlap
            [
                ("draft_only", 9.0, 8.0, 10.0),
                ("speceyes_log", 2.0, 1.5, 2.2),
                ("speceyes_min", 1.9, 1.4, 2.1),
            ],
            {"draft_only": "best", "speceyes_log": "", "speceyes_min": ""},
        ),
        (  # both are apart from the third, but not from each other
            [("draft_only", 2.1, 1.9, 2.5), ("speceyes_log", 2.0, 1.8, 2.2), ("speceyes_min", 1.2, 1.1, 1.3)],
            {"draft_only": "", "speceyes_log": "", "speceyes_min": ""},
        ),
        (  # equal values share the mark, though their intervals overlap
            [("draft_only", 2.0, 1.9, 2.1), ("speceyes_log", 2.0, 1.9, 2.1), ("speceyes_min", 1.2, 1.1, 1.3)],
            {"draft_only": "best", "speceyes_log": "best", "speceyes_min": "second"},
        ),
        (  # without an interval nothing is settled
            [("draft_only", 9.0, 8.0, 10.0), ("speceyes_log", 2.0, np.nan, np.nan)],
            {"draft_only": "", "speceyes_log": ""},
        ),
    ],
    ids=["apart", "second and third", "first and second", "equal", "no interval"],
)
def test_a_measured_value_is_marked_only_above_the_intervals_of_all_lower_ones(rows, marks):
    assert layout(measured(*rows)).set_index("method")["speedup_mark"].to_dict() == marks


def test_what_replay_predicts_stands_below_a_measured_speedup():
    rows = measured(("speceyes_min", 1.9, 1.7, 2.1), ("speceyes_log", 1.8, 1.6, 2.0))
    cells = Table(table1(rows.assign(speedup_predicted=[2.02, np.nan])).to_html()).cells
    found = {m: " ".join(text.split()) for (_, m, _, name), text in cells.items() if name == "Speedup"}
    assert found["SpecEyes (min)"].startswith("1.90x [1.70, 2.10]")
    assert "2.02x" in found["SpecEyes (min)"]
    assert found["SpecEyes (log)"] == "1.80x [1.60, 2.00]"


def test_one_row_alone_is_not_the_best_of_anything():
    table = layout(long_of(("baseline", AVERAGE, 80.0, 1.0)))
    assert table["accuracy_mark"].tolist() == [""]


def test_the_legend_explains_only_marks_that_occur(paper, summary):
    assert "slower" in legend(layout(paper))
    assert "replayed" not in legend(layout(paper))
    replayed = results.measured_results(summary).assign(how="replayed")
    assert "replayed" in legend(layout(replayed))
    assert "intervals" in legend(layout(replayed))


# ------------------------------------------------------------------ measured
def test_measured_cells_show_value_interval_and_n(summary):
    cells = Table(table1(results.measured_results(summary)).to_html()).cells
    for split in TASKS:
        entry = summary["arms"]["gated"]["splits"][split]
        at = "Measured: run mine", "SpecEyes (min)", labels.split_label(split)
        accuracy = interval([entry[f"accuracy{end}_pct"] for end in ("", "_low", "_high")]).replace(
            " [", "\n["
        )
        assert cells[*at, "Acc."] == f"{accuracy}\nn={entry['n']}"
        assert cells[*at, "Speedup"].startswith(f"{entry['speedup']:.2f}x")
        assert f"[{entry['speedup_low']:.2f}, {entry['speedup_high']:.2f}]" in cells[*at, "Speedup"]


def test_what_a_run_lacks_stays_blank_beside_the_papers_number(paper, summary):
    mine = results.measured_results(summary)
    gone = (mine["method"] == "draft_only") & (mine["split"] == TASKS[0])
    both = pd.concat([paper, mine[~gone]], ignore_index=True)
    html = Table(table1(both).to_html()).cells
    tex = latex_cells(table1_latex(both, "", "tab:x"))
    for cells in (html, tex):
        for name in ("Acc.", "Speedup"):
            assert cells["Measured: run mine", "Draft alone", COLUMNS[0], name] == ""
            assert cells["Reported: the draft alone", "Draft alone", COLUMNS[0], name]
        assert ("Measured: run mine", "SpecReason", COLUMNS[0], "Acc.") not in cells
    assert layout(mine[~gone]).equals(layout(both).query("source == 'measured'").assign(block=0)
                                     .reset_index(drop=True))  # fmt: skip


def test_a_run_without_its_agent_alone_has_no_speedups_and_says_so():
    arms, judged = make_run(per_task=4)
    summary = summarise(
        sample_frame.assemble({"gated": arms["gated"]}, {"gated": judged["gated"]}), run="alone",
        bootstrap=Bootstrap(draws=100),
    )  # fmt: skip
    long = results.measured_results(summary)
    cells = Table(table1(long).to_html()).cells
    assert not any(text for (*_, name), text in cells.items() if name == "Speedup")
    lacking = " ".join(missing_rows(long))
    assert "without its agent alone there are no speedups" in lacking
    assert "SpecReason" in lacking


def test_missing_splits_and_methods_are_named(paper, summary):
    mine = results.measured_results(summary)
    long_rows = " ".join(missing_rows(mine[mine["split"] != "pope/random"]))
    assert "no samples of POPE rand." in long_rows
    assert "not run: SpecReason, SpecEyes (log), SpecEyes (mean), SpecEyes (bottom)" in long_rows
    assert missing_rows(paper) == []


def test_replayed_rows_are_marked(summary):
    mine = results.measured_results(summary)
    replayed = mine[mine["method"] == "speceyes_min"].assign(method="speceyes_log", how="replayed")
    both = pd.concat([mine, replayed], ignore_index=True)
    names = {method for _, method, *_ in Table(table1(both).to_html()).cells}
    assert {"SpecEyes (min)", f"SpecEyes (log) {REPLAYED}"} <= names
    names = {method for _, method, *_ in latex_cells(table1_latex(both, "", "tab:x"))}
    assert {"SpecEyes (min)", r"SpecEyes (log) $^\dagger$"} <= names


# ------------------------------------------------------------------ markup
@pytest.mark.parametrize("which", ["paper", "both", "odd"])
def test_the_latex_is_whole(which, paper, summary):
    """What a compiler would stumble over: braces, environments, column counts, special characters."""
    mine = results.measured_results(summary | {"run": "my_run & 100 % {#1}"} if which == "odd" else summary)
    long = paper if which == "paper" else pd.concat([paper, mine.assign(how="replayed")], ignore_index=True)
    text = table1_latex(long, "Accuracy in % & speedup_x.", "tab:x")
    unescaped = re.sub(r"\\[{}%&_#$\\]", "", text)
    depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in unescaped])
    assert (depth >= 0).all()
    assert depth[-1] == 0
    assert re.findall(r"\\begin\{([^}]*)\}", text) == re.findall(r"\\end\{([^}]*)\}", text)[::-1]
    spec = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    cells = latex_cells(text)
    assert len(cells) == len({key[:2] for key in cells}) * (len(spec) - 2)
    assert not re.search(r"[#%_^~]|[^\x00-\x7f]", re.sub(r"\$[^$]*\$|\\label\{[^}]*\}", "", unescaped))
    assert unescaped.count("$") % 2 == 0


def test_names_are_text_in_html_too(summary):
    long = results.measured_results(summary | {"run": "<script>x</script>"})
    text = table1(long, caption="a < b").to_html()
    assert "<script" not in text
    assert Table(text).caption.startswith("a < b")
    assert "a &lt; b" in text


def test_the_same_table_gives_the_same_text(paper):
    again = results.reported_results(read_reported("table1"))
    assert table1(paper, "x").to_html() == table1(again, "x").to_html()
    assert table1_latex(paper, "x", "y") == table1_latex(again, "x", "y")


def test_a_table_from_before_there_were_all_columns_is_drawn(summary, tmp_path):
    long = results.measured_results(summary)
    path = tmp_path / "table1.csv"
    long.drop(columns=["speedup_predicted", "decided"]).to_csv(path, index=False)
    cells = Table(str(table1_html(path))).cells
    shown = Table(table1(long).to_html()).cells
    assert {key: text for key, text in cells.items() if text} == {
        key: text for key, text in shown.items() if text
    }
