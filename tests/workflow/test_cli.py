"""The command `speceyes`: every sub-command explains itself, and a mistake has another exit code than a failure."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import pairwise

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
        (["rl", "--seeds", "0", "-1"], "'-1'"),
        (["export", "demo", "x", "--tasks", "pope/rnd"], "'pope/random'"),
        (["import", "deepeye", "x", "--run", "r"], "'deepeyes'"),
    ],
)
def test_a_name_that_is_not_known_ends_with_code_2_and_the_valid_ones(arguments, named, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err


LONG = "x" * 5000
BAD_CONFIGS = {
    "a list without end": "a: " + "[" * 5000,
    "sections without end": "{a: " * 3000,
    "a section in itself": "a: &a [*a]",
    "a list of lists that doubles": "a: &a [x, x, x]\n"
    + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in pairwise("abcdefghi")),
    "NUL": "name: a\0b",
    "NUL, escaped": 'name: x\nmodels: {draft: "a\\0b"}',
    "half of a surrogate pair": 'name: x\nmodels: {draft: "\\ud800"}',
    "no date": "name: 2026-13-45",
    "a number without end": "draft: {batch_size: " + "9" * 5000 + "}",
    "a name without end": "name: " + LONG,
    "a path without end": f"name: x\ndata: {{kind: check, root: {LONG}}}",
    "a prompt set without end": f"name: x\nprompts: {LONG}.yaml",
    "the home of no one": "name: x\ndata: {kind: check, root: ~nobody-here/x}",
}


@pytest.mark.parametrize("content", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_config_that_can_be_none_is_refused_in_a_sentence(content, tmp_path, capsys):
    config = tmp_path / "bad.yaml"
    config.write_text(content)
    assert cli.main(["check", str(config)]) == 2
    printed = capsys.readouterr().err
    assert "Error: " in printed
    assert len(printed) < 2000
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "text", ["a\0b", LONG, "\ud800", "../x", "~nobody-here/x"], ids=["NUL", "long", "half", "up", "home"]
)
@pytest.mark.parametrize(
    "command",
    [
        ["check", "?"],
        ["stage", "?"],
        ["stage", "study_reported_numbers", "--set", "run=?"],
        ["index", "?"],
        ["publish", "?"],
        ["export", "?", "out"],
        ["import", "deepeyes", "?", "--run", "imported"],
        ["fetch", "?"],
        ["serve", "--model", "draft=?"],
        ["reproduce", "?"],
    ],
    ids=" ".join,
)
def test_a_name_or_path_that_can_be_none_is_refused_in_a_sentence(
    command, text, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    assert cli.main([word.replace("?", text) for word in command]) == 2
    assert "Error: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_message_quotes_cannot_control_the_terminal(capsys):
    assert cli.main(["fetch", "a\x1b]0;title\x07\x1b[8m\u202ex\rb ë"]) == 2
    assert r"a\x1b]0;title\x07\x1b[8m\u202ex\rb ë" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "9" * 50])
def test_a_number_that_no_port_has_is_refused(port):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["serve", "--port", port])


def test_brackets_without_end_are_a_text(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    for text in ("[" * 6000, "-" * 100_000 + "1"):
        assert cli.main(["stage", "study_reported_numbers", "--set", f"smallest_share={text}"]) == 2


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"speceyes {__version__}\n"


def test_the_recorded_run_has_an_index_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    assert cli.main(["recorded"]) == 0
    index = tmp_path / "demo" / "index.html"
    assert index.as_uri() in capsys.readouterr().out
    page = (run_dir("demo") / "index.html").read_text("utf-8")
    assert "SpecEyes" in page
    assert "figures/demo" in page
    assert (run_dir("demo_validation") / "index.html").is_file()
    assert cli.main(["recorded"]) == 0  # nothing is left to unpack
