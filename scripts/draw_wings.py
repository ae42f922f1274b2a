"""Draw docs/wings.svg: the wings of the library, lowest first, from the layers contract in pyproject.toml.

Names and order come from the contract that import-linter checks, the text of a box from the docstring of its wing.

    python scripts/draw_wings.py [FILE]
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "speceyes_lib"
WIDTH, LEFT, TOP, GAP, LINE, PAD = 960, 74, 16, 8, 15, 10  # px
CHARACTER = 6.1  # px, of the 11.5 px text
SMALL = {
    "errors": "#f2f2f2",
    "exports": "#f2f2f2",
    "paths": "#f2f2f2",
    "params": "#f2f2f2",
    "texts": "#f2f2f2",
}  # files, no wings


def purpose(name: str) -> str:
    """First sentence of the docstring of a wing or file."""
    path = PACKAGE / name / "__init__.py"
    path = path if path.exists() else PACKAGE / f"{name}.py"
    first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
    return " ".join(first.split()).removesuffix(".").replace("`", "")


def layers() -> list[list[str]]:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ][0]
    rows = [[name.strip() for name in row.split("|")] for row in contract["layers"] if row != "__main__"]
    return [row for row in rows if row != ["exports"]]


def box(name: str, x: float, y: float, width: float, height: float, lines: list[str]) -> list[str]:
    fill = SMALL.get(name, "#e3eefa")
    title = f"{name}.py" if name in SMALL else f"{name}/"
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="#8c8c8c"/>',
        f'<text x="{x + PAD:g}" y="{y + 19:g}" class="name">{title}</text>',
    ]
    for number, line in enumerate(lines, start=1):
        parts.append(f'<text x="{x + PAD:g}" y="{y + 19 + number * LINE:g}">{escape(line)}</text>')
    return parts


def arrow(x: float, begin: float, end: float, text: str) -> list[str]:
    middle = (begin + end) / 2
    return [
        f'<line x1="{x:g}" y1="{begin:g}" x2="{x:g}" y2="{end:g}" stroke="#444444" marker-end="url(#head)"/>',
        f'<text transform="translate({x - 8:g} {middle:g}) rotate(-90)" text-anchor="middle">{text}</text>',
    ]


def draw() -> str:
    """The picture as SVG text."""
    parts, y = [], float(TOP)
    for row in layers():
        width = (WIDTH - LEFT - 16 - GAP * (len(row) - 1)) / len(row)
        texts = [textwrap.wrap(purpose(name), int((width - 2 * PAD) / CHARACTER)) for name in row]
        height = 29 + LINE * max(map(len, texts))
        for number, (name, lines) in enumerate(zip(row, texts, strict=True)):
            parts += box(name, LEFT + number * (width + GAP), y, width, height, lines)
        y += height + GAP
    bottom = y - GAP
    parts += arrow(26, TOP, bottom, "imports point down")
    parts += arrow(56, bottom, TOP, "data flows up")
    size = f'width="{WIDTH}" height="{y + 8:g}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {y + 8:g}">
<title>The wings of speceyes_lib</title>
<style>text {{ font: 11.5px sans-serif; fill: #222222 }} .name {{ font-weight: bold }}</style>
<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="#444444"/></marker></defs>
<rect {size} fill="#ffffff"/>
{chr(10).join(parts)}
</svg>
"""


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "wings.svg"
    target.write_text(draw(), "utf-8")
