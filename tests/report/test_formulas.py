"""Formulas of the notebooks become pictures, so that a page shows them without a script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speceyes_lib.report.formulas import formulas_as_pictures

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_formulas_are_drawn_and_code_and_prose_stay():
    text = "Costs `$5`.\n\n$$\\frac{a}{b}$$\n\nwith $b > 0$\n\n```\n$x$ and $y$\n```\n"
    drawn = formulas_as_pictures(text)
    assert drawn.count("data:image/svg+xml") == 2
    assert 'alt="\\frac{a}{b}"' in drawn
    assert "`$5`" in drawn
    assert "```\n$x$ and $y$\n```" in drawn
    assert formulas_as_pictures(text) == drawn


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_a_notebook_can_be_drawn(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            assert "<code>" not in formulas_as_pictures("".join(cell["source"]))


def test_commands_that_the_drawing_does_not_know_have_a_stand_in_or_are_shown_as_latex():
    known = r"$\underbrace{\frac{a}{b}}_{\text{gain}} \le \Bigl( x \Bigr)$ and $a \left( b \right) \geq c$"
    assert formulas_as_pictures(known).count("data:image/svg+xml") == 2
    assert formulas_as_pictures(r"$\unheardof{x}$") == r"<code>\unheardof{x}</code>"
