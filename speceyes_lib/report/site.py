"""A finished run for people: index.html with headline, figures and executed notebooks; the README's headline.

Pages are self-contained (no script, font or style from elsewhere), so a run's folder can be opened from disk,
zipped or published as it is.

    speceyes index [RUN]      write data/runs/RUN/index.html and the notebooks' pages
    speceyes publish --readme [RUN]     fill the README's headline from the run's summary.json
    speceyes publish [RUN]    copy the run's tables and figures to figures/RUN
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StageError, UserError
from ..paths import recorded_mark, repo_root, run_dir, stage_dir, validation_run
from ..runs.reading import is_finished, read_manifest
from ..runs.summary_file import read_summary, summary_file
from .formatting import duration

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

# stages that draw figures
PUBLISHED = ("04_threshold", "04_confidence", "04_certified_thresholds", "04_costs", "05_figures")
# what the headline shows of `tables.HEADLINE`; the rest is in summary.json
HEADLINE_ARMS = ("baseline", "draft_only", "gated", "baseline_batched", "gated_batched")
HEADLINE_COLUMNS = [
    "accuracy % [95 %]",
    "n",
    "errors",
    "wall-clock s",
    "speedup [95 %]",
    "over",
    "accepted %",
]
FIGURE_KINDS = (".png", ".pdf", ".csv", ".json")
README_BLOCK = re.compile(r"(<!-- headline:start -->\n).*?(<!-- headline:end -->)", re.DOTALL)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem } tr { vertical-align: top }
th, td { padding: 0.3rem 0.8rem; text-align: left; border-bottom: 1px solid #ddd }
pre { padding: 0.6rem 0.8rem; background: #f6f6f4; overflow-x: auto; font-size: 0.85rem; line-height: 1.4 }
img { max-width: 100% } .output_area, .output { overflow-x: auto }
figure { margin: 2rem 0 } figcaption, .note { color: #555; font-size: 0.9rem }
a { color: #0b5fa5 } .failed { color: #b00020; font-weight: bold }
.prompt, .anchor-link { display: none }
"""


# ------------------------------------------------------------------ headline


def headline_rows(summary: Mapping) -> list[tuple[str, ...]]:
    """The headline as text cells: column names, then a row for each arm of `HEADLINE_ARMS` that the run has."""
    from ..analysis.results import arm_results
    from .columns import as_text
    from .tables import HEADLINE

    arms = {name: summary["arms"][name] for name in HEADLINE_ARMS if name in summary["arms"]}
    table = as_text(arm_results({**summary, "arms": arms}), HEADLINE)[HEADLINE_COLUMNS]
    return [("", *HEADLINE_COLUMNS), *(tuple(row) for row in table.itertuples())]


def headline_text(summary: Mapping) -> str:
    """The headline for a terminal: aligned columns."""
    rows = headline_rows(summary)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def headline_markdown(summary: Mapping) -> str:
    """The headline for the README."""
    names, *rows = headline_rows(summary)
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows))


def headline_html(summary: Mapping) -> str:
    """The headline for index.html."""
    names, *rows = headline_rows(summary)
    return _table(names, [[html.escape(cell) for cell in row] for row in rows])


def fill_readme(run: str = "demo", readme: Path | None = None) -> Path:
    """Put the run's headline between the README's markers. Raises UserError when the markers are not there."""
    readme = readme or repo_root() / "README.md"
    text = readme.read_text("utf-8")
    if not README_BLOCK.search(text):
        raise UserError(
            f"{readme.name} has no headline block; add the lines <!-- headline:start --> and <!-- headline:end -->"
        )
    table = headline_markdown(read_summary(run))
    # a function as replacement: the table is text, not a template with backslash escapes
    readme.write_text(README_BLOCK.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text), "utf-8")
    return readme


def publish(run: str = "demo") -> list[Path]:
    """Copy Table 1 and the figures of the notebooks that draw them, as their manifests list them, to figures/<run>/.

    That folder holds nothing else afterwards. Returns the files written. Raises StageError when there are none.
    """
    found: list[Path] = []
    for stage in PUBLISHED:
        if is_finished(run, stage):
            names = sorted(read_manifest(run, stage).outputs)
            found += [stage_dir(run, stage) / n for n in names if n.startswith(("../figures/", "table1."))]
    if not found:
        raise StageError(f"run {run!r} has no figures; run notebooks/05_paper_figures.ipynb first")
    target = repo_root() / "figures" / run
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return [Path(shutil.copyfile(path, target / path.name)) for path in found]


# ------------------------------------------------------------------ pages


def write_index(run: str, chose_for: str = "") -> Path:
    """Write data/runs/<run>/index.html and a page beside each executed notebook; return the index.

    Shows what is there: a run whose later stages failed or have not run yet has an index too. The validation run that
    chose its threshold, where there is one, gets an index of its own; the two link to each other.
    chose_for: the run whose threshold this one chose.
    """
    folder = run_dir(run)
    if not folder.is_dir():
        raise StageError(f"there is no run {run!r}; run make reproduce for the embedded one")
    parts = [f"<h1>Run {html.escape(run)}</h1>"]
    if recorded_mark(run).is_file():
        parts.append(_note(recorded_mark(run).read_text("utf-8")))
    if summary_file(run).is_file():
        summary = read_summary(run)
        parts += ["<h2>Headline</h2>", headline_html(summary), _note(summary.get("clock", ""))]
        parts.append('<p><a href="summary.json">summary.json</a>: every split, interval and comparison</p>')
    elif chose_for:
        parts.append(f"<p>On the validation set: it chose the threshold of run {_run_link(chose_for)}.</p>")
    else:
        parts.append(_note("No summary yet: notebooks/05_paper_figures.ipynb writes it."))
    if figures := sorted(folder.glob("figures/*.png")):
        parts += ["<h2>Figures</h2>", *(_figure(path) for path in figures)]
    if notebooks := sorted(folder.glob("notebooks/*.ipynb")):
        rows = [_notebook_row(path) for path in notebooks]
        parts += ["<h2>Executed notebooks</h2>", _table(("notebook", "state", "took", "source"), rows)]
    if run_dir(chose := validation_run(run)).is_dir():
        write_index(chose, chose_for=run)
        parts.append(f"<p>Its threshold was chosen by run {_run_link(chose)}, on the validation set.</p>")
    index = folder / "index.html"
    index.write_text(_page(f"Run {run}", "\n".join(parts)), "utf-8")
    return index


def _run_link(run: str) -> str:
    name = html.escape(run)
    return f'<a href="../{name}/index.html">{name}</a>'


def _figure(path: Path) -> str:
    name = html.escape(path.stem)
    kinds = [path.with_suffix(kind) for kind in FIGURE_KINDS if path.with_suffix(kind).is_file()]
    links = ", ".join(f'<a href="figures/{html.escape(k.name)}">{k.suffix[1:]}</a>' for k in kinds)
    title = name.replace("_", " ")
    return (
        f'<figure id="{name}"><img src="figures/{name}.png" alt="{title}">'
        f"<figcaption>{title} ({links})</figcaption></figure>"
    )


def _notebook_row(path: Path) -> list[str]:
    """Write the page of an executed notebook unless it is newer; return the notebook's row in the index."""
    page = path.with_suffix(".html")
    if not page.is_file() or page.stat().st_mtime < path.stat().st_mtime:
        page.write_text(_page(path.stem, _notebook_body(path)), "utf-8")
    ran = json.loads(path.read_text("utf-8"))["metadata"].get("papermill", {})
    # papermill notes the end of a run, and an exception only where there was one
    state = "finished" if ran.get("end_time") else "not finished"
    if ran.get("exception"):
        state = '<span class="failed">failed</span>'
    name = html.escape(path.stem)
    return [
        f'<a href="notebooks/{name}.html">{name}</a>',
        state,
        duration(ran["duration"]) if ran.get("duration") else "",
        f'<a href="notebooks/{name}.ipynb">ipynb</a>',
    ]


def _notebook_body(path: Path) -> str:
    import nbformat

    from .formulas import formulas_as_pictures

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    up = os.path.relpath(repo_root(), path.parent)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # its paths start from notebooks/, the page lies in the run's folder
            text = cell.source.replace("](../figures/", "](figures/")  # pictures are embedded
            cell.source = formulas_as_pictures(text.replace("](../", f"]({up}/"))
        for output in cell.get("outputs", ()):
            # a live control is nothing without its kernel: its line of text stays, the still view follows
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = _exporter().from_notebook_node(notebook, {"metadata": {"path": str(repo_root())}})
    return body


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    # the "basic" template is the bare content: no styles, fonts or scripts fetched from elsewhere
    return HTMLExporter(template_name="basic", embed_images=True)


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
