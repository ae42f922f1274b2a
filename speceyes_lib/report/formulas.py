"""LaTeX formulas in Markdown as pictures, for pages that must not need a script."""

from __future__ import annotations

import base64
import html
import io
import re
from functools import lru_cache

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser

FONT = FontProperties(size=12, math_fontfamily="stix")  # 12 pt are the 16 px of a page's text
# code comes first, so that a dollar sign in it is none of a formula's
_FORMULA = re.compile(r"```.*?```|`[^`]*`|\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.DOTALL)
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
# commands of LaTeX that mathtext does not know, and what stands for them
_IN_MATHTEXT = {
    r"\\le(?![a-z])": r"\\leq",
    r"\\ge(?![a-z])": r"\\geq",
    r"\\[bB]igg?[lr]?(?![a-z])": "",
    rf"\\underbrace{_GROUP}_{_GROUP}": r"\\underset{\2}{\1}",
}


def formulas_as_pictures(markdown: str) -> str:
    """Markdown in which every `$...$` and `$$...$$` is an inline SVG picture, with its LaTeX as the alternative text.

    A formula that matplotlib's mathtext cannot draw is shown as its LaTeX.
    """

    def replaced(match: re.Match) -> str:
        if display := match["display"]:
            return f'<div style="margin: 1em 2em">{_picture(" ".join(display.split()))}</div>'
        return _picture(" ".join(match["inline"].split())) if match["inline"] else match[0]

    return _FORMULA.sub(replaced, markdown)


@lru_cache(maxsize=256)
def _picture(latex: str) -> str:
    text = f"${latex}$"
    for command, instead in _IN_MATHTEXT.items():
        text = re.sub(command, instead, text)
    try:
        width, height, depth, *_ = MathTextParser("path").parse(text, dpi=72, prop=FONT)
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"
    figure = Figure(figsize=(width / 72, height / 72))
    figure.text(0, depth / height, text, fontproperties=FONT)
    svg = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "speceyes"}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    source = base64.b64encode(svg.getvalue()).decode()
    return (
        f'<img class="formula" src="data:image/svg+xml;base64,{source}" alt="{html.escape(latex)}" '
        f'style="vertical-align: -{depth:.1f}pt; max-width: none">'
    )
