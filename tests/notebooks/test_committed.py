"""Notebooks as committed: no results in them, one way of opening, parameters that the library knows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.testing.compare import compare_images

from speceyes_lib.params import ALL_NOTEBOOKS as MODELS
from speceyes_lib.workflow.figures import draw_pipeline
from speceyes_lib.workflow.parameters_cell import cell as parameters_cell

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
LEFT_BY_TOOLS = {
    "papermill",
    "widgets",
    "execution",
    "ExecuteTime",
    "collapsed",
    "scrolled",
    "editable",
    "slideshow",
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_stage = pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_the_six_stages_are_committed():
    assert sorted({path.stem[:2] for path in STAGES})[:6] == ["00", "01", "02", "03", "04", "05"]


@each_notebook
def test_no_output_no_count_no_trace_of_a_run(path):
    notebook = read(path)
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"cell {number} has outputs"
            assert cell["execution_count"] is None, f"cell {number} has an execution count"
        assert not LEFT_BY_TOOLS & set(cell["metadata"]), f"cell {number}"
        assert "injected-parameters" not in cell["metadata"].get("tags", [])
    assert not LEFT_BY_TOOLS & set(notebook["metadata"])


@each_notebook
def test_it_opens_with_the_default_kernel_anywhere(path):
    notebook = read(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_its_first_cell_shows_the_pipeline_with_this_notebook_marked(path):
    assert f"](../figures/pipeline/{path.stem}.png)" in source(read(path)["cells"][0])


def test_the_pipeline_pictures_are_those_of_the_notebooks(tmp_path):
    committed = sorted((ROOT / "figures" / "pipeline").iterdir())
    assert [path.stem for path in committed] == [path.stem for path in NOTEBOOKS]
    for drawn, path in zip(sorted(draw_pipeline(tmp_path)), committed, strict=True):
        assert compare_images(str(path), str(drawn), tol=2.0) is None, "redraw them: make figures"


@each_notebook
def test_every_picture_and_page_that_the_prose_links_to_exists(path):
    text = "\n".join(source(cell) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_stage
def test_it_begins_with_its_question_and_its_parameters(path):
    title, parameters, imports = read(path)["cells"][:3]
    assert source(title).startswith(f"# {path.stem[:2]} ")
    assert "**Question" in source(title)
    assert parameters["metadata"]["tags"] == ["parameters"]
    assert "start(" in source(imports)


@each_stage
def test_it_ends_by_handing_over(path):
    assert "handover(" in source(read(path)["cells"][-1])


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in MODELS], ids=lambda path: path.stem)
def test_its_parameters_cell_is_the_librarys_word_for_word(path):
    written = source(read(path)["cells"][1]).strip()
    assert written == parameters_cell(MODELS[path.stem]).strip(), (
        f"print the cell again: speceyes cell {path.stem}"
    )


@each_stage
def test_papermill_reads_every_line_of_the_parameters_cell(path):
    lines = source(read(path)["cells"][1]).splitlines()
    assert [line for line in lines if line.count("=") > 1] == []  # papermill gives up on a second "="


@each_notebook
def test_code_cells_are_short_enough_to_read(path):
    code = [source(cell) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert max(len(text.splitlines()) for text in code if "Parameters" not in text) <= 50
