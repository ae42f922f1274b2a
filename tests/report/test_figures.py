"""Figures are listed once: adding one is a function and a line."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pandas as pd
import pytest

from speceyes_lib.errors import UserError
from speceyes_lib.report import Album, plots, site
from speceyes_lib.report.figures import FIGURES, PUBLISHED, ListedFigure

ROOT = Path(__file__).parents[2]


def test_every_listed_figure_is_drawn_by_a_public_function_of_plots():
    functions = {listed.draw.split(".")[1] for listed in FIGURES.values()}
    assert set(dir(plots)) >= functions
    assert all(callable(getattr(plots, name)) for name in functions)


def test_every_function_that_draws_is_listed():
    listed = {tuple(figure.draw.split(".")) for figure in FIGURES.values()}
    drawn = {
        (path.stem, node.name)
        for path in (ROOT / "speceyes_lib/report/plots").glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    assert drawn - listed == {("pipeline", "pipeline")}  # the strip of notebooks is no figure of a run


def test_the_committed_figures_and_their_table_are_those_of_the_list():
    committed = {
        path.stem for run in ("demo", "demo_validation") for path in (ROOT / "figures" / run).glob("*.png")
    }
    assert committed == {name for name, figure in FIGURES.items() if figure.stage in PUBLISHED}
    assert site.figures_markdown() in (ROOT / "figures/README.md").read_text("utf-8")


def test_one_line_adds_a_figure_to_album_page_and_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    album = Album(tmp_path / "r" / "figures", {"run": "r"})
    shares, numbers = {"alpha": 0.5, "beta": 0.8}, pd.DataFrame({"x": [1]})
    with pytest.raises(UserError, match=r"'new_one' is not listed.*report/figures\.py"):
        album.draw("new_one", shares, saved=numbers)
    monkeypatch.setitem(FIGURES, "new_one", ListedFigure("04_costs", "method.method_diagram", "What is new."))
    picture = album.draw("new_one", shares, saved=numbers)
    assert json.loads(picture.with_suffix(".json").read_text("utf-8"))["caption"] == "What is new."
    assert 'src="figures/new_one.png" alt="What is new."' in site.write_index("r").read_text("utf-8")
    assert "| `new_one` | `04_costs` | What is new. |" in site.figures_markdown()


def test_every_caption_is_a_sentence_or_more():
    captions = [listed.caption for listed in FIGURES.values()]
    assert all(caption[0].isupper() and caption.endswith(".") for caption in captions)
