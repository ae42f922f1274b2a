"""The command `speceyes`: every sub-command explains itself, and a mistake has another exit code than a failure."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from speceyes_lib import __version__
from speceyes_lib.paths import run_dir
from speceyes_lib.workflow import cli


def help_of(*command: str) -> str:
    """What `speceyes COMMAND --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    return printed.getvalue()


def entries(page: str, indent: int, described: str = "") -> list[str]:
    """Arguments or commands of a help page: lines with this indent, and those with a description alone."""
    return re.findall(rf"^ {{{indent}}}(\S.*?)(?=  |\n|$){described}", page, re.MULTILINE)


DESCRIBED = r"(?:  +|\n {12,})\S"  # in the same line, or in the next one
COMMANDS = entries(help_of(), 4)


def test_every_command_but_that_of_the_snakefile_is_listed_with_its_help():
    assert "reproduce" in COMMANDS
    assert "job" not in COMMANDS
    assert entries(help_of(), 4, DESCRIBED) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_describes_each_of_its_arguments(name):
    page = help_of(name)
    assert "-h, --help" in entries(page, 2)
    assert entries(page, 2, DESCRIBED) == entries(page, 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["reprodce", "x"], "'reproduce'"),
        (["cell", "05"], "'05_paper_figures'"),
        (["export", "demo", "x", "--tasks", "pope/rnd"], "'pope/random'"),
        (["import", "deepeye", "x", "--run", "r"], "'deepeyes'"),
    ],
)
def test_a_name_that_is_not_known_ends_with_code_2_and_the_valid_ones(arguments, named, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"speceyes {__version__}\n"


def test_the_recorded_run_has_an_index_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    assert cli.main(["recorded"]) == 0
    assert "data/runs/demo/index.html" in capsys.readouterr().out
    page = (run_dir("demo") / "index.html").read_text("utf-8")
    assert "SpecEyes" in page
    assert "figures/demo" in page
    assert (run_dir("demo_validation") / "index.html").is_file()
    assert cli.main(["recorded"]) == 0  # nothing is left to unpack
