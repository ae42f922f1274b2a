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
from speceyes_lib.report import labels, table1
from speceyes_lib.stats.resampling import Bootstrap
from speceyes_lib.tasks.registry import AVERAGE, SPLITS

COLUMNS = [labels.split_label(s) for s in (*SPLITS, AVERAGE)]


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
    told = [
        {"source": source, "agent": agent, "method": m, "split": s, "accuracy_pct": a, "speedup": v}
        for m, s, a, v in rows
    ]
    frame = pd.DataFrame(told).reindex(columns=list(results.COLUMNS))
    return frame.astype(dict.fromkeys(results.COLUMNS[4:], "float64"))


class Cells(HTMLParser):
    """The rows of an HTML table: per cell its pieces of text, each with the classes of the element around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[list[tuple[str, str]]]] = []
        self._around: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append([])
        elif tag in ("span", "small"):
            self._around.append(dict(attrs).get("class", tag))

    def handle_endtag(self, tag):
        if tag in ("span", "small"):
            self._around.pop()

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1].append((data.strip(), self._around[-1] if self._around else ""))


def html_cells(text: str) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """(block, method, column) -> the pieces of that cell."""
    found, block, head = {}, "", []
    for row in Cells(text.split("</table>")[0]).rows:
        texts = [" ".join(piece for piece, _ in cell) for cell in row]
        if not head:
            head = texts
        elif len(row) == 1:
            block = texts[0]
        else:
            found |= {(block, texts[0], c): cell for c, cell in zip(head[1:], row[1:], strict=True)}
    return found


def latex_cells(text: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(block, method, column) -> accuracy and speedup as LaTeX; refuses rows of another length than the head's."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [
        line.removesuffix(r" \\") for line in body.strip().splitlines() if "&" in line or r"\textit" in line
    ]
    head = re.findall(r"\\multicolumn\{2\}\{c\}\{([^}]*)\}", lines[0])
    found, block = {}, ""
    for line in lines[2:]:
        cells = re.split(r"(?<!\\)&", line)
        if len(cells) == 1:
            block = re.search(r"\\textit\{(.*)\}\}", line)[1]
            continue
        assert len(cells) == 1 + 2 * len(head), line
        cells = [c.strip() for c in cells]
        found |= {(block, cells[0], c): (cells[1 + 2 * i], cells[2 + 2 * i]) for i, c in enumerate(head)}
    return found


def block_of(agent: str) -> str:
    return "Reported: the draft alone" if agent == "none" else f"Reported: {labels.agent_label(agent)}"


# ------------------------------------------------------------------ the reported numbers
def test_every_reported_number_stands_in_its_cell_of_the_html(paper):
    cells = html_cells(table1.html(paper))
    assert len(cells) == len(paper) == len(read_reported("table1"))
    for row in paper.itertuples():
        cell = cells[block_of(row.agent), labels.method_label(row.method), labels.split_label(row.split)]
        accuracy, speedup = (piece for piece, _ in cell)
        assert float(accuracy) == row.accuracy_pct
        assert float(re.match(r"[\d.]+", speedup)[0]) == row.speedup
        assert (table1.SLOWER in speedup) == (row.speedup < 1)


def test_every_reported_number_stands_in_its_cell_of_the_latex(paper):
    cells = latex_cells(table1.latex(paper, "All numbers.", "tab:x"))
    assert len(cells) == len(paper)
    for row in paper.itertuples():
        at = block_of(row.agent), labels.method_label(row.method), labels.split_label(row.split)
        accuracy, speedup = (re.search(r"\d+\.\d+", text)[0] for text in cells[at])
        assert (float(accuracy), float(speedup)) == (row.accuracy_pct, row.speedup)
        assert (r"\downarrow" in cells[at][1]) == (row.speedup < 1)


def test_the_layout_loses_and_changes_nothing(paper):
    keys = ["agent", "method", "split"]
    ours = table1.layout(paper).set_index(keys)[["accuracy_pct", "speedup"]].sort_index()
    pd.testing.assert_frame_equal(ours, paper.set_index(keys)[["accuracy_pct", "speedup"]].sort_index())


def test_a_changed_number_changes_its_cell(paper):
    changed = paper.copy()
    changed.loc[17, "accuracy_pct"] += 1.25
    before, after = (html_cells(table1.html(t)) for t in (paper, changed))
    row = changed.loc[17]
    at = block_of(row["agent"]), labels.method_label(row["method"]), labels.split_label(row["split"])
    assert float(after[at][0][0]) == row["accuracy_pct"]
    assert float(before[at][0][0]) == paper.loc[17, "accuracy_pct"]


# ------------------------------------------------------------------ marks
def test_bold_and_underlined_are_the_best_and_second_of_each_block_and_split(paper):
    cells = html_cells(table1.html(paper))
    tex = latex_cells(table1.latex(paper, "", "tab:x"))
    for (agent, split), part in paper[paper["agent"] != "none"].groupby(["agent", "split"]):
        best, second, *_ = sorted(set(part["accuracy_pct"]), reverse=True)
        for row in part.itertuples():
            at = block_of(agent), labels.method_label(row.method), labels.split_label(split)
            wanted = {best: "best", second: "second"}.get(row.accuracy_pct, "")
            assert cells[at][0][1] == wanted, at
            assert tex[at][0].startswith(r"\textbf") == (wanted == "best")
            assert tex[at][0].startswith(r"\underline") == (wanted == "second")


def test_equals_share_a_mark_and_the_agent_alone_is_in_no_race_of_speed():
    long = long_of(
        ("baseline", "hr/hr_bench_4k", 80.0, 1.0),
        ("specreason", "hr/hr_bench_4k", 82.0, 0.6),
        ("speceyes_log", "hr/hr_bench_4k", 82.0, 0.9),
        ("speceyes_min", "hr/hr_bench_4k", 81.0, 0.9),
    )
    table = table1.layout(long).set_index("method")
    assert table["accuracy_mark"].to_dict() == {
        "baseline": "", "specreason": "best", "speceyes_log": "best", "speceyes_min": "second",
    }  # fmt: skip
    assert table["speedup_mark"].to_dict() == {
        "baseline": "", "specreason": "second", "speceyes_log": "best", "speceyes_min": "best",
    }  # fmt: skip
    assert table["slower"].to_dict() == {
        "baseline": False, "specreason": True, "speceyes_log": True, "speceyes_min": True,
    }  # fmt: skip


def test_one_row_alone_is_not_the_best_of_anything():
    table = table1.layout(long_of(("baseline", AVERAGE, 80.0, 1.0)))
    assert table["accuracy_mark"].tolist() == [""]


def test_the_legend_explains_only_marks_that_occur(paper, summary):
    assert "slower" in table1.legend(table1.layout(paper))
    assert "replayed" not in table1.legend(table1.layout(paper))
    replayed = results.measured_results(summary).assign(how="replayed")
    assert "replayed" in table1.legend(table1.layout(replayed))
    assert "intervals" in table1.legend(table1.layout(replayed))


# ------------------------------------------------------------------ measured
def test_measured_cells_show_value_interval_and_n(summary):
    cells = html_cells(table1.html(results.measured_results(summary)))
    for split in TASKS:
        entry = summary["arms"]["gated"]["splits"][split]
        cell = cells["Measured: run mine", "SpecEyes (min)", labels.split_label(split)]
        texts = [piece for piece, _ in cell]
        assert texts[0] == f"{entry['accuracy_pct']:.1f}"
        assert texts[1] == f"[{entry['accuracy_low_pct']:.1f}, {entry['accuracy_high_pct']:.1f}]"
        assert texts[2].startswith(f"{entry['speedup']:.2f}x")
        assert texts[-1] == f"n={entry['n']}"


def test_what_a_run_lacks_stays_blank_beside_the_papers_number(paper, summary):
    mine = results.measured_results(summary)
    gone = (mine["method"] == "draft_only") & (mine["split"] == TASKS[0])
    both = pd.concat([paper, mine[~gone]], ignore_index=True)
    cells = html_cells(table1.html(both))
    assert cells["Measured: run mine", "Draft alone", COLUMNS[0]] == []
    assert cells["Reported: the draft alone", "Draft alone", COLUMNS[0]]
    assert ("Measured: run mine", "SpecReason", COLUMNS[0]) not in cells
    tex = latex_cells(table1.latex(both, "", "tab:x"))
    assert tex["Measured: run mine", "Draft alone", COLUMNS[0]] == ("", "")
    assert table1.layout(mine[~gone]).equals(table1.layout(both).query("source == 'measured'").assign(block=0)
                                            .reset_index(drop=True))  # fmt: skip


def test_a_run_without_its_agent_alone_has_no_speedups_and_says_so():
    arms, judged = make_run(per_task=4)
    summary = summarise(
        sample_frame.assemble({"gated": arms["gated"]}, {"gated": judged["gated"]}),
        run="alone",
        bootstrap=Bootstrap(draws=100),
    )
    long = results.measured_results(summary)
    cells = html_cells(table1.html(long))
    assert not any("x" in piece for cell in cells.values() for piece, _ in cell)
    told = " ".join(table1.missing(long))
    assert "without its agent alone there are no speedups" in told
    assert "SpecReason" in told


def test_missing_splits_and_methods_are_named(paper, summary):
    mine = results.measured_results(summary)
    told = " ".join(table1.missing(mine[mine["split"] != "pope/random"]))
    assert "no samples of POPE rand." in told
    assert "not run: SpecReason, SpecEyes (log), SpecEyes (mean), SpecEyes (bottom)" in told
    assert table1.missing(paper) == []


def test_replayed_rows_are_marked(summary):
    mine = results.measured_results(summary)
    replayed = mine[mine["method"] == "speceyes_min"].assign(method="speceyes_log", how="replayed")
    both = pd.concat([mine, replayed], ignore_index=True)
    names = {method for _, method, _ in html_cells(table1.html(both))}
    assert {"SpecEyes (min)", f"SpecEyes (log) {table1.REPLAYED}"} <= names
    assert r"SpecEyes (log)$^\dagger$ &" in table1.latex(both, "", "tab:x")


# ------------------------------------------------------------------ dresses
@pytest.mark.parametrize("which", ["paper", "both", "odd"])
def test_the_latex_is_whole(which, paper, summary):
    """What a compiler would stumble over: braces, environments, column counts, special characters."""
    mine = results.measured_results(summary | {"run": "my_run & 100 % {#1}"} if which == "odd" else summary)
    long = paper if which == "paper" else pd.concat([paper, mine.assign(how="replayed")], ignore_index=True)
    text = table1.latex(long, "Accuracy in % & speedup_x.", "tab:x")
    unescaped = re.sub(r"\\[{}%&_#$\\]", "", text)
    depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in unescaped])
    assert (depth >= 0).all()
    assert depth[-1] == 0
    assert re.findall(r"\\begin\{([^}]*)\}", text) == re.findall(r"\\end\{([^}]*)\}", text)[::-1]
    spec = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    assert len(latex_cells(text)) == len({c[:2] for c in latex_cells(text)}) * (len(spec) - 1) // 2
    spans = re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", text)
    assert [int(n) for span in spans for n in span] == list(range(2, len(spec) + 1))
    assert not re.search(r"[#%_^~]|[^\x00-\x7f]", re.sub(r"\$[^$]*\$|\\label\{[^}]*\}", "", unescaped))
    assert unescaped.count("$") % 2 == 0


def test_names_are_text_in_html_too(summary):
    long = results.measured_results(summary | {"run": "<script>x</script>"})
    text = table1.html(long, caption="a < b")
    assert "<script" not in text
    assert "a &lt; b" in text


def test_the_same_table_gives_the_same_text(paper):
    again = results.reported_results(read_reported("table1"))
    assert table1.html(paper, "x") == table1.html(again, "x")
    assert table1.latex(paper, "x", "y") == table1.latex(again, "x", "y")
