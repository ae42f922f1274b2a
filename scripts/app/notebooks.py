"""Write the notebooks of `make app` into a folder: the explorer first, then the prose that explains it.

    python scripts/app/notebooks.py FOLDER [NOTEBOOKS]

An app has a kernel, so what follows the explorer in a notebook, the same state without a kernel, is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TITLES = {"explore_gating": "The gate", "explore_traces": "The agent", "explore_tool_calls": "Tool calls"}


def app_notebook(name: str, notebooks: Path) -> nbformat.NotebookNode:
    """The notebook of this name for the app. Its pictures are those of the served folder `figures`."""
    notebook = nbformat.read(notebooks / f"{name}.ipynb", as_version=4)
    shows = next(i for i, cell in enumerate(notebook.cells) if cell.source.rstrip().endswith("\nexplorer"))
    code = [cell for cell in notebook.cells[: shows + 1] if cell.cell_type == "code"]
    prose = [cell for cell in notebook.cells[:shows] if cell.cell_type == "markdown"]
    for cell in code[1:-1]:
        cell.source = f"%%capture\n{cell.source}"  # the header with the provenance
    for cell in prose:
        cell.source = cell.source.replace(
            "](../figures/", "](figures/"
        )  # nothing outside the folder is served
    notebook.cells = [*code, *prose]
    notebook.metadata["title"] = f"SpecEyes: {TITLES[name]}"
    return notebook


def main() -> None:
    folder, notebooks = Path(sys.argv[1]), Path(*sys.argv[2:3] or [NOTEBOOKS])
    for name in TITLES:
        nbformat.write(app_notebook(name, notebooks), folder / f"{name}.ipynb")


if __name__ == "__main__":
    main()
