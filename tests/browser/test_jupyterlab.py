"""A person opens a notebook in JupyterLab, runs all cells, sees pictures and tables; nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import CODE_CELLS, OUTPUTS, chromium, copy_with, needs_chromium, offline_page, run_all, served

from tests.conftest import MODELS

NAME = "01_small_model_inference"


@pytest.fixture(scope="module")
def run_page(tmp_path_factory, benchmark_root) -> Iterator[tuple]:
    """The notebook after "run all cells": (page, addresses it wanted from elsewhere)."""
    needs_chromium()
    home = tmp_path_factory.mktemp("lab")
    work = home / "notebooks"
    work.mkdir()
    copy_with(
        NAME, work, run="browser", data_root=str(benchmark_root), draft_model=str(MODELS / "draft"), limit=2
    )
    with served(home, work, home / "runs") as address, chromium() as browser:
        page, foreign = offline_page(browser, address, 1400, 1600)
        run_all(page, address, NAME)
        page.screenshot(path=home / f"{NAME}.png")
        yield page, foreign


def test_all_cells_run_without_error_or_warning(run_page):
    page, _ = run_page
    outputs = page.evaluate(OUTPUTS)
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []
    assert all(page.evaluate(f"{CODE_CELLS}.map(cell => cell.executionCount)"))


def test_pictures_and_tables_are_on_the_page(run_page):
    page, _ = run_page
    widths = page.evaluate(
        """() => Promise.all([...document.querySelectorAll('.jp-OutputArea-output svg image')].map(async drawn => {
            const picture = new Image();
            picture.src = drawn.href.baseVal;
            await picture.decode();
            return Math.min(picture.naturalWidth, drawn.getBoundingClientRect().width);
        }))"""
    )
    assert len(widths) == 2
    assert min(widths) > 50
    assert page.locator(".jp-OutputArea-output table").count() >= 3


def test_progress_is_one_line_when_the_work_is_over(run_page):
    page, _ = run_page
    lines = [o["data"]["text/plain"] for o in page.evaluate(OUTPUTS) if "drafted" in str(o.get("data", {}))]
    assert len(lines) == 1
    assert lines[0].startswith("drafted 14 of 14 samples in ")


def test_the_page_wants_nothing_from_elsewhere(run_page):
    _, foreign = run_page
    assert foreign == []
