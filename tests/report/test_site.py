"""The run's index and the README's headline say what summary.json says, and need nothing from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import unquote

import nbformat
import pytest
from synthetic_run import make_run

from speceyes_lib.analysis.results import measured_results
from speceyes_lib.analysis.sample_frame import assemble
from speceyes_lib.analysis.summary import summarise
from speceyes_lib.errors import StageError, UserError
from speceyes_lib.report import site
from speceyes_lib.report.live_page import live_page
from speceyes_lib.runs.records import Counts
from speceyes_lib.runs.stage import write_stage
from speceyes_lib.runs.summary_file import read_summary
from speceyes_lib.workflow.cli import main

SUMMARY = summarise(assemble(*make_run(per_task=8)))
ACCURACY = f"{SUMMARY['arms']['gated']['pooled']['accuracy_pct']:.1f} ["


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run folder with a summary, one figure, one notebook that finished and one that failed."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    folder = tmp_path / "tiny"
    (folder / "figures").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    for kind in (".png", ".pdf", ".csv"):
        (folder / "figures" / f"accuracy_speedup{kind}").write_bytes(b"x")
    for name, failed in (("01_draft", None), ("02_agent", True)):
        cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell("1 < 2")]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["papermill"] = {
            "exception": failed,
            "end_time": "2026-01-01T00:00:00",
            "duration": 12.3,
        }
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    return folder


def test_an_index_that_could_not_be_written_is_not_taken_for_written(run, monkeypatch):
    assert not site.index_is_current("tiny")
    with monkeypatch.context() as full:
        full.setattr(Path, "replace", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(UserError, match=r"No space left.*speceyes index tiny"):
            site.write_index("tiny")
    assert not site.index_is_current("tiny")
    assert not list(run.rglob("*.html")) + list(run.rglob("*.part"))
    site.write_index("tiny")
    assert site.index_is_current("tiny")
    os.utime(run / "figures" / "accuracy_speedup.png", (2e9, 2e9))
    assert not site.index_is_current("tiny")


def test_headline_sets_speceyes_beside_the_agent_and_the_draft_alone():
    names, *rows = site.headline_rows(SUMMARY)
    assert names[0] == ""
    labels = [row[0] for row in rows]
    assert labels == [
        *("Agent alone", "Draft alone", "SpecEyes (min)"),
        *("Agent alone, batched", "SpecEyes (min), batched"),
    ]
    speceyes = dict(zip(names, rows[2], strict=True))
    assert speceyes["accuracy % [95 %]"].startswith(ACCURACY)
    assert all(speceyes.values())
    assert [dict(zip(names, row, strict=True))["over"] for row in rows] == [
        *("", "Agent alone", "Agent alone"),
        *("Agent alone", "Agent alone, batched"),  # each setting against its own baseline
    ]


def test_headline_of_a_run_without_the_batched_arms_is_shorter():
    arms = {name: SUMMARY["arms"][name] for name in ("baseline", "gated")}
    assert len(site.headline_rows({**SUMMARY, "arms": arms})) == 1 + 2


def test_terminal_readme_and_index_show_the_same_cells(run, tmp_path):
    cells = [cell for row in site.headline_rows(SUMMARY) for cell in row if cell]
    readme = tmp_path / "README.md"
    readme.write_text("<!-- headline:start -->\n<!-- headline:end -->\n")
    shown = [site.fill_readme("tiny", readme).read_text(), site.write_index("tiny").read_text()]
    for text in (site.headline_text(SUMMARY), *shown):
        assert all(cell in text for cell in cells)


def test_index_links_every_figure_file_and_notebook_and_says_which_failed(run):
    page = site.write_index("tiny").read_text()
    links = set(re.findall(r'(?:href|src)="([^"#]+)"', page))
    assert {"figures/accuracy_speedup.pdf", "notebooks/01_draft.html", "summary.json"} <= links
    assert all((run / link).is_file() for link in links)
    assert len(re.findall("failed</span>", page)) == 1
    assert "not finished" not in page
    assert ACCURACY in page


def test_a_report_names_machine_date_and_commit_and_links_its_pages(run):
    environment = {
        "commit": "abc" * 14,
        "dirty": False,
        "cpu": "Abacus 9",
        "cores": 2,
        "gpu": "",
        "packages": {},
    }
    for task, day in (("vstar/relative_position", "2026-02-01"), ("pope/random", "2026-02-03")):
        folder = run / "02_gated" / task
        folder.mkdir(parents=True)
        manifest = {"environment": environment, "finished_utc": f"{day}T10:00:00+00:00"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    page = site.write_index("tiny").read_text()
    for fact in ("Abacus 9, 2 cores", "2026-02-01 to 2026-02-03", "commit abcabcabca"):
        assert page.count(fact) == 1
    targets = set(re.findall(r'href="#(\w+)"', page))
    assert targets == {"headline", "figures", "notebooks"}
    assert all(f'id="{target}"' in page for target in targets)
    notebook = (run / "notebooks" / "01_draft.html").read_text()
    assert {"../index.html", "../index.html#figures"} <= set(re.findall(r'href="([^"]+)"', notebook))


def test_figures_come_in_the_order_of_their_list_with_the_caption_saved_with_them(run):
    for name in ("break_even", "method", "by_hand"):
        (run / "figures" / f"{name}.png").write_bytes(b"x")
    (run / "figures" / "method.json").write_text(json.dumps({"caption": "As it was saved."}))
    page = site.write_index("tiny").read_text()
    assert re.findall(r'<figure id="(\w+)"', page) == ["method", "accuracy_speedup", "break_even", "by_hand"]
    assert 'src="figures/method.png" alt="As it was saved."' in page


def test_a_run_unpacked_without_its_figures_shows_those_of_the_repository(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path / "home"))
    published = tmp_path / "home" / "figures" / "tiny"
    published.mkdir(parents=True)
    (published / "method.png").write_bytes(b"x")
    (run / "RECORDED").write_text("unpacked")
    page = site.write_index("tiny").read_text()
    assert re.findall(r'<figure id="(\w+)"', page) == ["accuracy_speedup"]  # its own are there
    shutil.rmtree(run / "figures")
    (source,) = re.findall(r'src="([^"]+)"', site.write_index("tiny").read_text())
    assert (run / source).samefile(published / "method.png")


def test_the_report_holds_table_1_with_its_cells_escaped(run):
    assert "table1" not in site.write_index("tiny").read_text()
    (run / "05_figures").mkdir()
    long = measured_results({**SUMMARY, "run": "<i>tiny</i>"})
    long.to_csv(run / "05_figures" / "table1.csv", index=False)
    page = site.write_index("tiny").read_text()
    assert 'href="#table1"' in page
    assert "Measured: run &lt;i&gt;tiny" in page
    assert "<i>tiny" not in page


def test_notes_below_the_headline_speak_of_its_rows_only():
    arms = {name: SUMMARY["arms"][name] for name in ("baseline", "gated")}
    few, all_rows = site.headline_notes({**SUMMARY, "arms": arms}), site.headline_notes(SUMMARY)
    assert "batched" in " ".join(all_rows)
    assert "batched" not in " ".join(few)
    assert len(few) < len(all_rows)


def test_the_page_of_a_killed_run_is_not_taken_for_its_report(run):
    index = site.write_index("tiny")
    assert site.index_is_current("tiny")
    index.write_text(live_page("tiny", "min", "at work", 1, 2, 3.0))
    os.utime(index, (2e9, 2e9))
    assert not site.index_is_current("tiny")


def test_pages_load_nothing_from_elsewhere(run):
    site.write_index("tiny")
    for page in run.rglob("*.html"):
        assert not re.search(r'(src|href)="(https?:)?//', page.read_text()), page.name
        assert "<script" not in page.read_text(), page.name


def test_an_unfinished_run_has_an_index_too(run):
    (run / "summary.json").unlink()
    assert "No summary yet" in site.write_index("tiny").read_text()


def test_the_run_that_chose_the_threshold_has_an_index_with_its_notebooks(run):
    chose = run.with_name("tiny_validation")
    shutil.copytree(run / "notebooks", chose / "notebooks")
    assert "../tiny_validation/index.html" in site.write_index("tiny").read_text()
    page = (chose / "index.html").read_text()
    links = re.findall(r'href="([^"#]+)"', page)
    assert {"../tiny/index.html", "notebooks/01_draft.html"} <= set(links)
    assert all((chose / link).is_file() for link in links)
    assert "No summary yet" not in page


def test_a_page_is_made_again_only_when_its_notebook_is_newer(run):
    site.write_index("tiny")
    page = run / "notebooks" / "01_draft.html"
    page.write_text("kept")
    site.write_index("tiny")
    assert page.read_text() == "kept"


def test_readme_block_is_replaced_and_everything_else_stays(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- headline:start -->\nold\n<!-- headline:end -->\nafter 1.73x\n")
    site.fill_readme("tiny", readme)
    first = readme.read_text()
    assert first.startswith("before\n<!-- headline:start -->\n|  | accuracy")
    assert first.endswith("<!-- headline:end -->\nafter 1.73x\n")
    assert "old" not in first
    site.fill_readme("tiny", readme)
    assert readme.read_text() == first


def test_a_readme_without_the_block_is_left_alone(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    with pytest.raises(UserError, match="headline:start"):
        site.fill_readme("tiny", readme)
    assert readme.read_text() == "nothing here"


def test_published_are_exactly_the_tables_and_figures_the_manifests_list(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path / "home"))
    old = tmp_path / "home" / "figures" / "tiny"
    old.mkdir(parents=True)
    (old / "dropped_since.png").write_bytes(b"old")
    (run / "figures" / "by_hand.png").write_bytes(b"not of the stage")
    files = [f"../figures/accuracy_speedup{kind}" for kind in (".png", ".pdf", ".csv")]
    (run / "05_figures").mkdir()
    (run / "05_figures" / "table1.tex").write_text("table")
    write_stage(
        run / "05_figures",
        stage="05_figures",
        config={},
        files=["table1.tex", "../summary.json", *files],
        counts=Counts(expected=0, done=0),
    )
    written = site.publish("tiny")
    names = ["accuracy_speedup.csv", "accuracy_speedup.pdf", "accuracy_speedup.png", "table1.tex"]
    assert sorted(p.name for p in written) == sorted(p.name for p in old.iterdir()) == names
    assert (old / "table1.tex").read_text() == "table"


@pytest.mark.parametrize("action", [read_summary, site.write_index, site.publish])
def test_a_missing_run_is_an_error_that_names_what_to_run_first(action, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    with pytest.raises(StageError, match=r"05_paper_figures|make reproduce"):
        action("tiny")


def test_command_line_tells_a_mistake_in_one_line(run, capsys):
    assert main(["index", "other"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["index", "tiny"]) == 0
    assert capsys.readouterr().out == "data/runs/tiny/index.html\n"


def test_pictures_of_the_repository_are_embedded_and_links_to_it_lead_there(run):
    cell = nbformat.v4.new_markdown_cell(
        "![pipeline](../figures/pipeline/03_judging.png) [terms](../docs/glossary.md) $x > 0$"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), run / "notebooks" / "03_judging.ipynb")
    site.write_index("tiny")
    page = run / "notebooks" / "03_judging.html"
    assert 'src="data:image/png;base64,' in page.read_text("utf-8")
    (link,) = re.findall(r'href="([^"]+glossary\.md)"', page.read_text("utf-8"))
    assert (page.parent / unquote(link)).is_file()
    assert 'alt="x &gt; 0"' in page.read_text("utf-8")
