"""What keeps the notebooks readable: few imports, short cells, and about as much prose as code.

Names are counted over all notebooks as they are used: `from wing import name`, and of a wing or file that is imported
as a whole (`analysis`) each attribute (`analysis.samples`).
"""

from __future__ import annotations

import ast
import json
import re
from itertools import chain
from pathlib import Path

import pytest

from speceyes_lib.report.formulas import formulas_as_pictures

ROOT = Path(__file__).parents[2]
LIBRARY = "speceyes_lib"
WINGS = {path.parent.name for path in (ROOT / LIBRARY).glob("*/__init__.py")}
MODULES = WINGS | {
    ".".join(path.relative_to(ROOT / LIBRARY).with_suffix("").parts)
    for path in (ROOT / LIBRARY).glob("*/*.py")
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# subjects of their own: gates beside the paper's, own results, speculative tool calls, and the training of agents
OTHER_SUBJECTS = {
    "study_layer_gates",
    "study_second_draft",
    "study_own_results",
    "study_deepeyes_recipe",
    "read_training_run",
    "explore_training",
    "study_tool_speculation",
    "explore_tool_calls",
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path: Path, kind: str = "") -> list[str]:
    """The cells of a notebook without its parameters, whose text is the library's."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    others = [cell for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in others if kind in cell["cell_type"]]


def imports_of(path: Path) -> list[ast.ImportFrom]:
    nodes = ast.walk(ast.parse("\n".join(cells_of(path, "code"))))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [
        a for node in imports if isinstance(node, ast.Import) for a in node.names if LIBRARY in a.name
    ]
    return [node for node in imports if isinstance(node, ast.ImportFrom) and LIBRARY in (node.module or "")]


def names_of(path: Path) -> set[str]:
    """What a notebook uses of the library, as "wing.name"."""
    names, modules = set(), {}
    for node in imports_of(path):
        for alias in node.names:
            name = f"{node.module}.{alias.name}".removeprefix(f"{LIBRARY}.")
            if name in MODULES:
                modules[alias.asname or alias.name] = name
            else:
                names.add(name)
    for node in ast.walk(ast.parse("\n".join(cells_of(path, "code")))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            names.add(f"{modules[node.value.id]}.{node.attr}")
    return names - MODULES


@each_notebook
def test_it_imports_from_wings_in_at_most_six_lines(path):
    imports = imports_of(path)
    assert {node.module.removeprefix(LIBRARY).removeprefix(".") for node in imports} <= {"", *WINGS}
    assert len(imports) <= 6


def test_the_notebooks_of_speceyes_import_at_most_12_wings_and_80_names():
    notebooks = [path for path in NOTEBOOKS if path.stem not in OTHER_SUBJECTS]
    used = set(chain.from_iterable(map(names_of, notebooks)))
    assert len({name.split(".")[0] for name in used}) <= 12
    assert len(used) <= 80, sorted(used)


@pytest.mark.parametrize("name", sorted(OTHER_SUBJECTS & {path.stem for path in NOTEBOOKS}))
def test_a_notebook_of_another_subject_imports_at_most_6_wings_and_15_names(name):
    used = names_of(ROOT / "notebooks" / f"{name}.ipynb")
    assert len({name.split(".")[0] for name in used}) <= 6
    assert len(used) <= 15, sorted(used)


@each_notebook
def test_it_has_at_most_30_cells_and_7_sections(path):
    assert len(cells_of(path)) <= 30
    prose = re.sub(r"```.*?```", "", "\n".join(cells_of(path, "markdown")), flags=re.DOTALL)
    assert len(re.findall(r"^## ", prose, re.MULTILINE)) <= 7


@each_notebook
def test_code_cells_have_at_most_12_lines(path):
    assert max(len(code.splitlines()) for code in cells_of(path, "code")) <= 12


@each_notebook
def test_prose_is_45_to_60_percent_of_the_characters(path):
    prose, everything = (sum(map(len, cells_of(path, kind))) for kind in ("markdown", ""))
    assert 0.45 <= prose / everything <= 0.60


@each_notebook
def test_the_exported_page_can_draw_every_formula(path):
    prose = re.sub(r"`[^`]*`", "", "\n".join(cells_of(path, "markdown")))  # code is no formula
    assert "<code>" not in formulas_as_pictures(prose)


@each_notebook
def test_it_links_to_the_glossary_and_names_its_limits(path):
    prose = "\n".join(cells_of(path, "markdown"))
    assert "../docs/glossary.md" in prose
    assert re.search(r"\*\*Limits\.\*\*|what not|what it does not", prose)


@each_notebook
def test_it_hands_over_at_its_end(path):
    assert "handover(" in cells_of(path, "code")[-1]
