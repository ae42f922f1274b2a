"""Rules of the house: directions between the wings, private names, large files, and cheap imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "speceyes_lib"
HEAVY = ("torch", "transformers", "openai", "torchvision", "qwen_vl_utils", "papermill", "seaborn")


def modules() -> list[str]:
    # training builds and trains torch models: it may import torch, and nothing imports it
    files = (f.relative_to(PACKAGE.parent).with_suffix("") for f in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(f.parts).removesuffix(".__init__") for f in files)
    return [n for n in names if not n.startswith("speceyes_lib.training.")]


def loaded(names: list[str], watched: tuple[str, ...]) -> str:
    """Which of the watched packages a fresh Python has loaded once it has imported these modules."""
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(','.join(m for m in {watched!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_every_module_loads_nothing_heavy():
    assert loaded(modules(), HEAVY) == ""


def test_the_command_line_and_its_report_start_without_tables_statistics_and_plots():
    assert loaded(["speceyes_lib.report.site"], ("pandas", "scipy", "matplotlib")) == ""
    assert loaded(["speceyes_lib.workflow.cli"], ("pandas", "numpy", "pydantic", "PIL", "yaml")) == ""


FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))


def test_imports_between_the_wings_point_downwards():
    """The layers contract of pyproject.toml, checked by import-linter."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    result = subprocess.run(
        [*command, "--no-cache"], check=False, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert result.returncode == 0, result.stdout + result.stderr


def imported_names(path: Path) -> set[tuple[str, str]]:
    """(wing, name) of everything that a file imports from the library by a relative import."""
    parts = path.relative_to(PACKAGE).parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
            names |= {(module[0], alias.name) for alias in node.names}
    return names


# ways from data to HTML and Markdown -> the files of the library that may use them, which escape
HTML_WAYS = {
    r"\.style\.(?!context|use)\w|\bStyler\(|\.to_html\(": {
        *("report/columns.py", "report/outputs.py", "report/paper_table.py"),
    },
    r"\bHTML\(|_repr_html_|_repr_markdown_|text/html": {
        *(
            "explore/gating_explorer.py",
            "explore/stills.py",
            "explore/tool_explorer.py",
            "explore/tour.py",
            "explore/trace_explorer.py",
            "explore/training_explorer.py",
        ),
        *("explore/widgets.py", "report/sample_page.py", "workflow/notebook.py"),
    },
    r"\bMarkup\(": {"report/paper_table.py", "report/sample_page.py"},
    r"\bMarkdown\(|text/markdown|Javascript\(|display_html|HTMLMath|description_allow_html": set(),
}


@pytest.mark.parametrize("way", HTML_WAYS)
def test_text_becomes_html_only_where_it_is_escaped(way):
    library = {
        p.relative_to(PACKAGE).as_posix()
        for p in PACKAGE.rglob("*.py")
        if re.search(way, p.read_text("utf-8"))
    }
    assert library == HTML_WAYS[way]
    for path in (PACKAGE.parent / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert not re.search(way, "\n".join(code)), path.name


def test_templates_and_scripts_put_no_text_in_unescaped():
    templates = PACKAGE / "report" / "templates"
    raw = {
        p.name: len(re.findall(r"\| *safe\b|autoescape", p.read_text("utf-8")))
        for p in templates.glob("*.html")
    }
    # the page that nbconvert has made, and the library's own script and style
    assert {name: n for name, n in raw.items() if n} == {"notebook_page.html": 1, "gate_page.html": 2}
    for script in (PACKAGE / "explore" / "static").glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML *=|insertAdjacentHTML|document\.write|eval\(", script.read_text("utf-8")
        )


@each_file
def test_a_private_name_stays_in_its_wing(path):
    wing = path.relative_to(PACKAGE).parts[0]
    private = {(w, name) for w, name in imported_names(path) if re.match("_[^_]", name)}
    foreign = {(w, name) for w, name in private if w != wing}
    assert not foreign
