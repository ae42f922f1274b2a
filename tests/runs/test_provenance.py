"""Hashes change when what they stand for changes, and only then."""

from __future__ import annotations

import pytest

from speceyes_lib.paths import PACKAGE
from speceyes_lib.runs import provenance


def names(files) -> set[str]:
    return {f.relative_to(PACKAGE).as_posix() for f in files}


@pytest.mark.parametrize(
    "source",
    [
        "import speceyes_lib.runs.stage",
        "from speceyes_lib.runs import stage",
        "from speceyes_lib.runs.stage import write_stage",
        "def later():\n    from speceyes_lib.runs.stage import StageStore",
    ],
)
def test_imports_are_followed_however_they_are_written(source):
    observed = names(provenance.library_files(source))
    assert {"runs/stage.py", "runs/records.py", "runs/evidence.py", "paths.py", "errors.py"} <= observed
    assert "__init__.py" in observed
    assert "report/album.py" not in observed


@pytest.mark.parametrize(
    "source",
    [
        "from speceyes_lib.runs import open, read_stage",
        "import speceyes_lib.runs as runs\nrun = runs.open('demo')\nruns.read_stage",
        "from speceyes_lib import runs\n\ndef later():\n    return runs.open('demo'), runs.read_stage",
        "import speceyes_lib.runs\nspeceyes_lib.runs.open('demo')\nspeceyes_lib.runs.read_stage.__doc__",
    ],
)
def test_a_public_name_of_a_wing_leads_to_the_file_that_defines_it(source):
    observed = names(provenance.library_files(source))
    assert {"runs/__init__.py", "runs/recorded_run.py", "runs/reading.py", "runs/records.py"} <= observed
    assert "runs/stage.py" not in observed  # offered by the wing as well, but not used


def test_packages_count_with_their_init():
    assert names(provenance.library_files("from speceyes_lib.stats.checks import as_flags")) == {
        "__init__.py",
        "errors.py",
        "exports.py",
        "stats/__init__.py",
        "stats/checks.py",
    }


def test_other_libraries_are_none_of_ours():
    assert provenance.library_files("import numpy as np\nfrom pathlib import Path") == set()


def test_comments_and_docstrings_do_not_change_the_state_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    hashes = []
    for text in (
        "def f(x):\n    return x + 1\n",
        '"""A module."""\n\ndef f(x):\n    """Adds."""\n    # one\n    return (x + 1)\n',
        "def f(x):\n    return x + 2\n",
    ):
        (tmp_path / "module.py").write_text(text)
        hashes.append(provenance.code_hash("module"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_code_that_only_carries_values_about_is_left_out():
    assert provenance.code_hash("paths", "errors") == provenance.code_hash("errors")
    assert provenance.code_hash("gating.separability") != provenance.code_hash("errors")


def test_a_folder_is_its_names_and_contents(tmp_path):
    (tmp_path / "a.json").write_text("1")
    before = provenance.folder_hash(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "metadata").write_text("x")
    assert provenance.folder_hash(tmp_path) == before
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    renamed = provenance.folder_hash(tmp_path)
    (tmp_path / "b.json").write_text("2")
    assert len({before, renamed, provenance.folder_hash(tmp_path)}) == 3


def test_large_files_count_by_size_and_edges(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "WHOLE_FILE_BYTES", 10)
    monkeypatch.setattr(provenance, "EDGE_BYTES", 4)
    hashes = []
    for content in (
        b"head----middle----tail",
        b"Head----middle----tail",
        b"head----middle----taiL",
        b"head----middle---tail",
    ):
        (tmp_path / "weights").write_bytes(content)
        hashes.append(provenance.folder_hash(tmp_path))
    assert len(set(hashes)) == 4


def test_texts_in_order_are_not_one_text():
    assert (
        provenance.text_hash(["a", "b"]) != provenance.text_hash(["ab"]) != provenance.text_hash(["b", "a"])
    )


def test_the_environment_is_known_without_importing_it():
    result = provenance.environment()
    assert result["packages"].keys() >= {"torch", "transformers", "numpy"}
    assert result["cores"] >= 1
