"""What people read: paths exist, links lead somewhere, commands parse, examples run, and terms are explained."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speceyes_lib.workflow.cli import parser

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "speceyes_lib"
FOLDERS = (
    "docs",
    "speceyes_lib",
    "notebooks",
    "figures",
    "configs",
    "tests",
    "benchmarks",
    "scripts",
    "profiles",
)
WINGS = tuple(sorted(f.parent.name for f in PACKAGE.glob("*/__init__.py")))
DOCS = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name for name in ("figures/README.md", "benchmarks/README.md", "data/paper/README.md")),
]
MODEL_CARDS = sorted((ROOT / "data" / "demo" / "models").glob("*/README.md"))
PLACEHOLDER = re.compile(r"[<>{}…]|\b[A-Z][A-Z_]+\b")  # `tasks/NAME.py`, `data/runs/<run>/`
WRITTEN_BY_RUNS = (
    "data/runs",
    "data/models",
    "data/benchmarks",
    "data/demo/benchmark",
    "data/demo/validation",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

each_doc = pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))


def code_spans(text: str) -> list[str]:
    """Contents of the `inline code` of a page, fenced blocks left out."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def paths_in(text: str) -> set[str]:
    """Repository paths that a page names in code: whole ones, `wing/file.py`, and file names alone."""
    words = [word.strip(",;:()\"'") for span in code_spans(text) for word in span.split()]
    words += [word for block in blocks(text, "bash") for word in re.split(r"[\s=\"]+", block)]
    named = set()
    for word in words:
        if PLACEHOLDER.search(word) or word.startswith(WRITTEN_BY_RUNS):
            continue
        first = word.split("/")[0]
        in_folder = "/" in word and (first in (*FOLDERS, *WINGS) or word.startswith("data/"))
        if in_folder or re.fullmatch(r"\w+\.(py|ipynb|svg|mplstyle)", word):
            named.add(word)
    return named


def exists(name: str) -> bool:
    if "/" not in name:
        return any(not {".venv", ".git"} & set(path.parts) for path in ROOT.rglob(name))
    return any(base.joinpath(name).exists() or any(base.glob(name)) for base in (ROOT, PACKAGE))


def slug(heading: str) -> str:
    """The anchor that a code host gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(h) for h in re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)}


@pytest.mark.parametrize("path", DOCS + MODEL_CARDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_is_named_exists(path):
    assert sorted(name for name in paths_in(path.read_text("utf-8")) if not exists(name)) == []


@each_doc
def test_every_link_inside_the_repository_leads_somewhere(path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            dead.append(target)
    assert dead == []


def commands_in(text: str, program: str) -> list[list[str]]:
    """Arguments of every call of a program, in code blocks and in inline code."""
    lines = [line for block in blocks(text, "bash", "") for line in block.splitlines()] + code_spans(text)
    calls = []
    for line in lines:
        words = shlex.split(line, comments=True) if program in line else []
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables set for the command
            del words[0]
        if words and words[0].removeprefix(".venv/bin/") == program and len(words) > 1:
            calls.append(words[1:])
    return calls


@each_doc
def test_every_command_line_is_one_that_the_parser_takes(path, capsys):
    refused = []
    for arguments in commands_in(path.read_text("utf-8"), "speceyes"):
        try:  # the help of a sub-command shows that it exists
            parser().parse_args(arguments if len(arguments) > 1 else [*arguments, "--help"])
        except SystemExit as stop:
            if stop.code != 0:
                refused.append(f"speceyes {' '.join(arguments)}: {capsys.readouterr().err}")
    assert refused == []


def test_command_lines_in_the_comments_of_configs_are_ones_that_the_parser_takes():
    files = [
        *(ROOT / "configs").glob("*.yaml"),
        ROOT / "profiles/slurm/config.yaml",
        ROOT / "environment.yml",
    ]
    lines = [
        line
        for file in files
        for line in re.findall(r"^# +(speceyes .*)$", file.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(lines) >= len(files)
    for line in lines:
        parser().parse_args(shlex.split(line, comments=True)[1:])


@each_doc
def test_every_make_target_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {arguments[0] for arguments in commands_in(path.read_text("utf-8"), "make")} <= targets


@pytest.fixture(scope="module")
def recorded_run(tmp_path_factory):
    """The run `demo` as the examples in the documents find it."""
    from speceyes_lib.demo.recorded import unpack

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        unpack()
        yield


@pytest.mark.parametrize(
    "path",
    [path for path in DOCS if blocks(path.read_text("utf-8"), "python")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_python_examples_run_one_after_the_other(path, recorded_run):
    names = {"top_logprobs": -np.sort(np.random.default_rng(0).exponential(2.0, (3, 128)), axis=1)}
    for block in blocks(path.read_text("utf-8"), "python"):
        exec(compile(block, str(path), "exec"), names)


def test_every_page_links_to_the_glossary():
    without = [
        path.name
        for path in DOCS
        if path.name not in ("glossary.md", "CHANGELOG.md") and "glossary.md" not in path.read_text("utf-8")
    ]
    assert without == []


def test_the_readme_names_every_notebook():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if f"`{path.stem}`" not in text] == []


def test_the_map_has_a_row_for_every_wing():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("| wing |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(WINGS)


def test_the_picture_of_the_wings_is_the_one_that_the_script_draws(tmp_path):
    script, drawn = ROOT / "scripts" / "draw_wings.py", tmp_path / "wings.svg"
    subprocess.run([sys.executable, str(script), str(drawn)], check=True)
    assert drawn.read_text("utf-8") == (ROOT / "docs" / "wings.svg").read_text("utf-8"), (
        "the wings changed: run python scripts/draw_wings.py"
    )
