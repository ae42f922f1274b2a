"""The explorers run unattended and read well afterwards: below every live view is a still one."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from explore_run import store_run

from speceyes_lib.report import site
from speceyes_lib.workflow.execute import execute
from tests.notebooks.test_executed import outputs, text_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PARAMETERS = {
    "explore_gating": {"threshold": 0.9, "k": 32, "author": "Ada"},
    "explore_traces": {"other_run": "small"},
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory, scene_samples, benchmark_root) -> dict[str, Path]:
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(runs))
        store_run("small", scene_samples, benchmark_root)
        done = {}
        for name, values in PARAMETERS.items():
            done[name] = runs / "small" / "notebooks" / f"{name}.ipynb"
            execute(NOTEBOOKS / f"{name}.ipynb", done[name], {"run": "small"} | values)
        yield done


@pytest.fixture(params=PARAMETERS)
def path(request, executed) -> Path:
    return executed[request.param]


def test_they_run_without_error_or_warning_and_name_no_folder(path):
    for output in outputs(nbformat.read(path, 4)):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert str(NOTEBOOKS.parent) not in text_of(output)


def test_each_live_view_is_followed_by_still_ones(path):
    shown = [list(o.get("data", {})) for o in outputs(nbformat.read(path, 4))]
    live = next(i for i, kinds in enumerate(shown) if "application/vnd.jupyter.widget-view+json" in kinds)
    assert sum("text/html" in kinds or "image/png" in kinds for kinds in shown[live + 1 :]) >= 2
    page = "\n".join(map(text_of, outputs(nbformat.read(path, 4))))
    for words in ("JupyterLab", "turn by turn" if "gating" in path.name else "trajectories"):
        assert words in page


def test_the_exported_page_needs_neither_kernel_nor_network(path):
    site.write_index("small")
    page = path.with_suffix(".html").read_text("utf-8")
    assert "https://" not in page.replace("https://arxiv.org", "")
    assert "<script" not in page
    assert "works in JupyterLab" in page
    assert "data:image/" in page
