"""Pages of a run for people: the report index.html, the README's headline, and the published figures.

Pages are self-contained (no script, font or style from elsewhere), so a run's folder can be opened from disk,
zipped or published as it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import StageError, UserError
from ..paths import notebook_of, recorded_mark, repo_root, run_dir, runs_dir, shown, stage_dir, validation_run
from ..runs.arms import BATCHED
from ..runs.files import StoreError, write_atomically
from ..runs.reading import is_finished, read_manifest
from ..runs.summary_file import read_summary, summary_file
from .figures import FIGURES, PUBLISHED
from .formatting import clock_line, commit_of, duration, hardware_of, packages_of
from .rendering import render

# what the page shows of the table "headline"; the rest is in summary.json
HEADLINE_ARMS = ("baseline", "draft_only", "gated", "baseline_batched", "gated_batched")
HEADLINE_COLUMNS = ["accuracy % [95 %]", "n", "errors", "wall-clock s"]
HEADLINE_COLUMNS += ["speedup [95 %]", "over", "accepted %"]
LIVE = '<meta http-equiv="refresh"'  # in the page of a run at work (live_page)
FIGURE_KINDS = (".png", ".pdf", ".csv", ".json")


def headline_rows(summary: Mapping) -> list[tuple[str, ...]]:
    """The headline as text cells: column names, then a row for each arm of `HEADLINE_ARMS` that the run has."""
    from ..analysis.results import arm_results
    from .columns import as_text
    from .tables import TABLES

    arms = {name: summary["arms"][name] for name in HEADLINE_ARMS if name in summary["arms"]}
    table = as_text(arm_results({**summary, "arms": arms}), TABLES["headline"])[HEADLINE_COLUMNS]
    return [("", *HEADLINE_COLUMNS), *(tuple(row) for row in table.itertuples())]


def headline_text(summary: Mapping) -> str:
    """The headline for a terminal: aligned columns."""
    columns = zip(*headline_rows(summary), strict=True)
    aligned = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))


def headline_notes(summary: Mapping) -> list[str]:
    """What the rows of the headline need to be understood, a sentence each; only of rows that it has."""
    gate, arms = summary.get("gate", {}), [name for name in HEADLINE_ARMS if name in summary["arms"]]
    clock = "picture, router and draft calls, agent turns and tools; not loading and warming up models"
    notes = [
        clock_line(summary.get("clock_check")),
        f"Intervals are 95 %. Seconds are the sum over samples of the busy clock: {clock}.",
    ]
    if any(name.endswith(BATCHED) for name in arms):
        notes.append(
            "In a batched row many agents work at once and compute on a turn only what is new; in the others the agent "
            "takes one sample at a time and encodes everything again on every turn, as in the paper."
        )
    if "baseline_batched" in arms:
        notes.append(
            "The agent alone, batched, is the instrumented pass without its router, unless it ran by itself."
        )
    if any(name.startswith("gated") for name in arms) and gate.get("threshold") is not None:
        chosen = f", chosen on {gate['chosen_on']}" if gate.get("chosen_on") else ""
        notes.append(f"The gate's threshold is {gate['threshold']:.5g}{chosen}.")
    return notes


def figures_markdown() -> str:
    """The table of all figures for figures/README.md."""
    rows = [(f"`{name}`", f"`{notebook_of(f.stage)}`", f.caption) for name, f in FIGURES.items()]
    return _markdown([("figure", "notebook", "shows"), *rows])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    names, *cells = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *cells))


def fill_readme(run: str = "demo", readme: Path | None = None) -> Path:
    """Put the run's headline, and how far its clock can be trusted, between the README's markers.

    Raises UserError when the markers are not there.
    """
    summary = read_summary(run)
    content = f"{_markdown(headline_rows(summary))}\n\n{clock_line(summary.get('clock_check'))}"
    return fill_block(readme or repo_root() / "README.md", "headline", content)


def fill_block(path: Path, name: str, content: str) -> Path:
    """Put content between the lines <!-- NAME:start --> and <!-- NAME:end --> of a file; returns its path.

    Raises:
        UserError: the file has no such lines.
    """
    text = path.read_text("utf-8")
    start, end = f"<!-- {name}:start -->\n", f"<!-- {name}:end -->"
    if start not in text or end not in text:
        raise UserError(f"{path.name} has no {name} block; add the lines {start.strip()} and {end}")
    before, rest = text.split(start, 1)
    path.write_text(f"{before}{start}{content}\n{end}{rest.split(end, 1)[1]}", "utf-8")
    return path


def publish(run: str = "demo") -> list[Path]:
    """Copy Table 1 and the figures of the notebooks that draw them, as their manifests list them, to figures/<run>/.

    That folder holds nothing else afterwards. Returns the files written. Raises StageError when there are none.
    """
    paths = [
        stage_dir(run, stage) / name
        for stage in PUBLISHED
        if is_finished(run, stage)
        for name in sorted(read_manifest(run, stage).outputs)
        if name.startswith(("../figures/", "table1."))
    ]
    if not paths:
        raise StageError(f"run {run!r} has no figures; run notebooks/05_paper_figures.ipynb first")
    target = repo_root() / "figures" / run
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return [Path(shutil.copyfile(path, target / path.name)) for path in paths]


def write_index(run: str, chose_for: str = "") -> Path:
    """Write data/runs/<run>/index.html and a page beside each executed notebook; return the index.

    A run whose later stages failed or have not run yet has an index too. The validation run that chose its threshold,
    where there is one, gets an index of its own; the two link to each other.

    Args:
        run: its name.
        chose_for: the run whose threshold this one chose.
    """
    from .paper_table import table1_html  # brings pandas

    folder = run_dir(run)
    if not folder.is_dir():
        raise StageError(f"there is no run {run!r}; run make reproduce for the embedded one")
    summary = read_summary(run) if summary_file(run).is_file() else None
    chosen_by = validation_run(run) if run_dir(validation_run(run)).is_dir() else ""
    if chosen_by:
        write_index(chosen_by, chose_for=run)
    mark = recorded_mark(run)
    notebooks = [_notebook(run, path) for path in sorted(folder.glob("notebooks/*.ipynb"))]
    page = render(
        "index.html",
        title=f"Run {run}",
        recorded=mark.read_text("utf-8") if mark.is_file() else "",
        facts=_facts(folder),
        headline=headline_rows(summary) if summary else (),
        notes=headline_notes(summary) if summary else (),
        chose_for=chose_for,
        table1=table1_html(csv) if (csv := stage_dir(run, "05_figures") / "table1.csv").is_file() else "",
        figures=_figures(run, {name for name, *_ in notebooks}),
        notebooks=notebooks,
        chosen_by=chosen_by,
    )
    index = folder / "index.html"
    _write_page(index, page)
    return index


def index_is_current(run: str) -> bool:
    """Whether a run, and the one that chose its threshold, have a report that is newer than what it shows."""
    folders = [folder for name in (run, validation_run(run)) if (folder := run_dir(name)).is_dir()]
    for folder in folders:
        index = folder / "index.html"
        sources = (*folder.glob("figures/*"), *folder.glob("notebooks/*.ipynb"), *folder.glob("summary.json"))
        if not index.is_file() or any(p.stat().st_mtime > index.stat().st_mtime for p in sources):
            return False
        if LIVE in index.read_text("utf-8"):  # of a run that was killed
            return False
        if any(not p.with_suffix(".html").is_file() for p in folder.glob("notebooks/*.ipynb")):
            return False
    return True


def _facts(folder: Path) -> list[tuple[str, str]]:
    """Machine, date, commit, packages and models of a run, as the stages that ask models recorded them."""
    manifests = [json.loads(p.read_bytes()) for p in sorted(folder.glob("0[12]_*/*/*/manifest.json"))]
    made = [environment for m in manifests if (environment := m.get("environment"))]
    days = sorted({m["finished_utc"][:10] for m in manifests if m.get("finished_utc")})
    models = [f"{role}: {model['name']}" for e in made for role, model in e.get("models", {}).items()]
    facts = {
        "machine": map(hardware_of, made),
        "date": [" to ".join(dict.fromkeys([days[0], days[-1]]))] if days else [],
        "code": map(commit_of, made),
        "packages": map(packages_of, made),
        "models": [", ".join(dict.fromkeys(models))],
    }
    texts = {name: "; ".join(dict.fromkeys(filter(None, lines))) for name, lines in facts.items()}
    return [(name, text) for name, text in texts.items() if text]


def _write_page(path: Path, page: str) -> None:
    """Write a page whole or not at all, so that one that failed is written again the next time."""
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise StoreError(
            f"{shown(path)}: cannot be written ({error.strerror or error}); the results are complete. Mend that, then "
            f"run the same command again, or: speceyes index {path.relative_to(runs_dir()).parts[0]}"
        ) from None


def _drawn_elsewhere(run: str) -> Path:
    """Where the figures of a run lie that was unpacked without them: those that the repository publishes."""
    return repo_root() / "figures" / run if recorded_mark(run).is_file() else run_dir(run) / "figures"


def _figures(run: str, notebooks: set[str]) -> list[dict[str, Any]]:
    """Name, folder, caption, saved formats and notebook of each figure, in the order of the list of all figures."""
    folder = run_dir(run) / "figures"
    folder = folder if any(folder.glob("*.png")) else _drawn_elsewhere(run)
    order = list(FIGURES)
    names = [path.stem for path in sorted(folder.glob("*.png"))]
    figures = []
    for name in sorted(names, key=lambda name: order.index(name) if name in order else len(order)):
        path, listed = folder / name, FIGURES.get(name)
        notebook = notebook_of(listed.stage) if listed else ""
        figures.append(
            {
                "name": name,
                "folder": quote(os.path.relpath(folder, run_dir(run))),
                "caption": _caption(path.with_suffix(".json")) or (listed.caption if listed else ""),
                "kinds": [kind[1:] for kind in FIGURE_KINDS if path.with_suffix(kind).is_file()],
                "notebook": notebook if notebook in notebooks else "",
            }
        )
    return figures


def _caption(path: Path) -> str:
    """The caption that was saved with a figure; empty for one without."""
    try:
        return str(json.loads(path.read_bytes()).get("caption", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _notebook(run: str, path: Path) -> tuple[str, str, str]:
    """Name, state and duration of an executed notebook; writes its page unless that is newer."""
    page = path.with_suffix(".html")
    if not page.is_file() or page.stat().st_mtime < path.stat().st_mtime:
        _write_page(page, render("notebook_page.html", run=run, title=path.stem, body=_notebook_body(path)))
    ran = json.loads(path.read_text("utf-8"))["metadata"].get("papermill", {})
    # papermill notes the end of a run, and an exception only where there was one
    state = "failed" if ran.get("exception") else "finished" if ran.get("end_time") else "not finished"
    return path.stem, state, duration(ran["duration"]) if ran.get("duration") else ""


def _notebook_body(path: Path) -> str:
    import nbformat

    from .formulas import formulas_as_pictures

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    up = quote(os.path.relpath(repo_root(), path.parent))  # a blank or a bracket would end the link
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # its paths start from notebooks/, the page lies in the run's folder
            text = cell.source.replace("](../figures/", "](figures/")  # pictures are embedded
            cell.source = formulas_as_pictures(text.replace("](../", f"]({up}/"))
        for output in cell.get("outputs", ()):
            # a live control needs a kernel: its line of text stays, and the still view follows
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return _exporter().from_notebook_node(notebook, {"metadata": {"path": str(repo_root())}})[0]


@cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="basic", embed_images=True)  # the bare content, nothing from elsewhere
