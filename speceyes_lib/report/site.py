"""A finished run for people: index.html with headline, figures and executed notebooks; the README's headline.

Pages are self-contained (no script, font or style from elsewhere), so a run's folder can be opened from disk,
zipped or published as it is.

    speceyes index [RUN]      write data/runs/RUN/index.html and the notebooks' pages
    speceyes publish --readme [RUN]     fill the README's headline from the run's summary.json
    speceyes publish [RUN]    copy the run's tables and figures to figures/RUN
"""

from __future__ import annotations

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
from .rendering import render

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
    summary = read_summary(run) if summary_file(run).is_file() else None
    chosen_by = validation_run(run)
    if run_dir(chosen_by).is_dir():
        write_index(chosen_by, chose_for=run)
    else:
        chosen_by = ""
    mark = recorded_mark(run)
    page = render(
        "index.html",
        title=f"Run {run}",
        recorded=mark.read_text("utf-8") if mark.is_file() else "",
        headline=headline_rows(summary) if summary else (),
        clock=summary.get("clock", "") if summary else "",
        chose_for=chose_for,
        figures=[(path.stem, _kinds(path)) for path in sorted(folder.glob("figures/*.png"))],
        notebooks=[_notebook(path) for path in sorted(folder.glob("notebooks/*.ipynb"))],
        chosen_by=chosen_by,
    )
    index = folder / "index.html"
    index.write_text(page, "utf-8")
    return index


def _kinds(path: Path) -> list[str]:
    """The formats in which a figure is saved."""
    return [kind[1:] for kind in FIGURE_KINDS if path.with_suffix(kind).is_file()]


def _notebook(path: Path) -> tuple[str, str, str]:
    """Name, state and duration of an executed notebook; writes its page unless that is newer."""
    page = path.with_suffix(".html")
    if not page.is_file() or page.stat().st_mtime < path.stat().st_mtime:
        page.write_text(render("page.html", title=path.stem, body=_notebook_body(path)), "utf-8")
    ran = json.loads(path.read_text("utf-8"))["metadata"].get("papermill", {})
    # papermill notes the end of a run, and an exception only where there was one
    state = "failed" if ran.get("exception") else "finished" if ran.get("end_time") else "not finished"
    return path.stem, state, duration(ran["duration"]) if ran.get("duration") else ""


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
