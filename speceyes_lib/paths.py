"""Where everything lies: found once, from any working directory.

`SPECEYES_HOME` moves the repository (data, configs, notebooks), `SPECEYES_RUNS` only the run folders, for instance to a
scratch disk. Recorded and shown paths are relative to the repository: results name no folder of a machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import DataError, UserError

PACKAGE = Path(__file__).resolve().parent
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes that Linux takes
# the stages that are not called as the notebook that writes them: first part of a stage's name -> notebook
NOTEBOOK_OF_STAGE = {
    "00": "00_prepare_data",
    "01": "01_small_model_inference",
    "02": "02_gated_agent_eval",
    "03": "03_judging",
    "04_confidence": "04_confidence_analysis",
    "05": "05_paper_figures",
    "clock/baseline": "02_gated_agent_eval",
}


def repo_root() -> Path:
    """The folder that holds pyproject.toml and speceyes_lib.

    `SPECEYES_HOME` if set, else the nearest such folder above the working directory, else above the package. Raises
    UserError where `SPECEYES_HOME` is not a folder, or there is no such folder.
    """
    if home := os.environ.get("SPECEYES_HOME"):
        if not Path(home).is_dir():
            raise UserError(f"SPECEYES_HOME={home}: no such folder; unset it or name the repository's folder")
        return Path(home).resolve()
    for start in (Path.cwd(), PACKAGE):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "speceyes_lib").is_dir():
                return folder
    raise UserError("no repository above the working directory; start inside it or set SPECEYES_HOME")


def resolve(path: str | Path) -> Path:
    """An absolute path; relative ones count from the repository root, `~` is the home folder.

    Run folders are found wherever `SPECEYES_RUNS` has moved them, so that a path which `shown` gave leads back. Raises
    UserError as `possible` does.
    """
    path = possible(path)
    if path.parts[:2] == ("data", "runs"):
        return runs_dir().joinpath(*path.parts[2:])
    return _from_root(path)


def _from_root(path: Path) -> Path:
    return path if path.is_absolute() else repo_root() / path


def possible(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder. Raises UserError for a text that can be no path on any machine."""
    text = str(path)
    names = text.encode("utf-8", "surrogatepass").split(b"/")
    if (
        "\0" in text
        or sum(map(len, names)) + len(names) > LONGEST_PATH
        or max(map(len, names)) > LONGEST_NAME
    ):
        raise UserError(
            f"{text[:60]!r}: no path is like this; it has at most {LONGEST_PATH} bytes, each name in it at most "
            f"{LONGEST_NAME}, and none of them is NUL"
        )
    try:
        os.fsencode(text)
        return Path(path).expanduser()
    except (RuntimeError, UnicodeEncodeError) as error:  # there is no such user; half of a surrogate pair
        raise UserError(
            f"{text!r}: this path cannot be found ({error}); write the folder's own name"
        ) from None


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file below `folder` by a name from outside: of a benchmark or a hub's listing.

    Args:
        folder: where it must lie.
        name: relative, with "/" between folders.
        where: file and field that hold the name, for the error.

    Raises:
        DataError: the name leads elsewhere, or no file can have it.
    """
    parts = name.split("/")
    if (
        "\\" in name
        or not name.isprintable()
        or any(p in ("", "..") or len(p.encode()) > LONGEST_NAME for p in parts)
    ):
        raise DataError(
            f"{where}: {name[:80]!r} is no file of this folder; give a plain relative path without '..'"
        )
    return folder / name


def shown(path: str | Path) -> str:
    """A path as people and manifests see it: relative to the repository, else its last two parts."""
    path = resolve(path)
    for base, prefix in ((repo_root(), ""), (runs_dir(), "data/runs/")):
        if path.is_relative_to(base):
            return prefix + path.relative_to(base).as_posix()
    return Path(*path.parts[-2:]).as_posix().lstrip("/")


def runs_dir() -> Path:
    """Where runs are kept: `SPECEYES_RUNS`, else data/runs."""
    return _from_root(Path(os.environ.get("SPECEYES_RUNS") or "data/runs").expanduser())


def recorded_mark(run: str) -> Path:
    """The file that marks a run as unpacked from an archive instead of run on this machine."""
    return run_dir(run) / "RECORDED"


def is_run_name(name: str) -> bool:
    """Whether a text can name a run: a plain folder name on every system."""
    plain = name.isprintable() and name == name.strip() and not name.startswith(".")
    return plain and 0 < len(name.encode()) <= 200 and not set(name) & set('/\\:*?"<>|{}')


def run_dir(run: str) -> Path:
    """The folder of a run, or of one of its shards ("demo/shards/1of4", see `runs.shards`).

    Raises:
        UserError: the text cannot name one, so that no name leads elsewhere.
    """
    name, _, shard = run.partition("/shards/")
    if not is_run_name(name) or (shard and not re.fullmatch(r"\d{1,6}of\d{1,6}", shard)):
        raise UserError(f"run: {run[:80]!r} must be a plain folder name, such as my_run")
    return runs_dir() / run


def validation_run(run: str) -> str:
    """The run on the validation set that chooses the threshold of `run`."""
    return f"{run}_validation"


def stage_dir(run: str, stage: str, task: str | None = None) -> Path:
    """data/runs/<run>/<stage>[/<benchmark>/<split>]; `stage` may have parts itself ("03_judging/gated")."""
    folder = run_dir(run) / stage
    return folder / task if task else folder


def notebook_of(stage: str) -> str:
    """The notebook that writes a stage ("02_gated" -> "02_gated_agent_eval")."""
    return NOTEBOOK_OF_STAGE.get(stage) or NOTEBOOK_OF_STAGE.get(stage[:2], stage)
