"""The command `speceyes`: every sub-command explains itself, and exit codes tell a mistake from a failure."""

from __future__ import annotations

import pytest

from speceyes_lib import __version__
from speceyes_lib.paths import run_dir
from speceyes_lib.workflow import cli


def sub_commands() -> dict:
    (subparsers,) = [
        action for action in cli.parser()._actions if action.choices and action.dest == "command"
    ]
    return subparsers.choices


def test_every_command_but_that_of_the_snakefile_is_listed_with_its_help(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert [
        name for name in sub_commands() if f"\n    {name} " not in printed.replace(f"{name}\n", f"{name} ")
    ] == ["job"]


@pytest.mark.parametrize("name", sorted(sub_commands().keys() - {"job"}))
def test_every_command_describes_each_of_its_arguments(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert [action.dest for action in sub_commands()[name]._actions if not action.help] == []


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


def test_the_recorded_run_has_an_index_that_says_what_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    assert cli.main(["recorded"]) == 0
    assert "data/runs/demo/index.html" in capsys.readouterr().out
    page = (run_dir("demo") / "index.html").read_text("utf-8")
    assert "SpecEyes" in page
    assert "figures/demo" in page
    assert (run_dir("demo_validation") / "index.html").is_file()
    assert cli.main(["recorded"]) == 0  # nothing to unpack any more
