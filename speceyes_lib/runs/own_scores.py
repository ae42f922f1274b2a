"""Scores that somebody computed elsewhere for the drafts of a run: `scores/<name>.csv` of its folder, by sample id."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from ..errors import DataError, StageError, UserError
from ..paths import is_run_name, run_dir, shown
from .files import write_atomically

FOLDER = "scores"


def add_scores(run: str, name: str, values: Mapping[str, float], ids: Mapping | set, replace: bool) -> str:
    """Keep a score of a run's samples; returns a sentence on how many samples have it.

    Args:
        run: its name.
        name: of the score.
        values: sample id -> number, higher means surer; nan: no score.
        ids: of the run's samples.
        replace: replace a score of that name.

    Raises:
        UserError: the name cannot name a file, or is taken.
        DataError: an id is not of this run (ids are never matched by position).
        StageError: the run has no sample.
    """
    path = run_dir(run) / FOLDER / f"{name}.csv"
    if not is_run_name(name):
        raise UserError(f"score {name!r}: must be a plain name, such as my_score")
    if not ids:
        raise StageError(f"run {run}: there are no samples; import or run its drafts first")
    if unknown := [id_ for id_ in values if id_ not in ids]:
        raise DataError(
            f"score {name}: {len(unknown)} of {len(values)} ids are not of run {run} (first {unknown[0]!r}); its ids "
            f"are like {next(iter(ids))!r}"
        )
    if path.exists() and not replace:
        raise UserError(f"{shown(path)} exists already; give another name, or --replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"id": list(values), "value": list(values.values())})
    write_atomically(path, table.to_csv(index=False, float_format="%.17g").encode())
    scored = sum(not math.isnan(value) for value in values.values())
    return f"run {run}: {scored:,} of {len(ids):,} samples have the score {name} ({shown(path)})"


def names_of_scores(run: str) -> list[str]:
    """Names of the scores that were added to a run."""
    return sorted(path.stem for path in (run_dir(run) / FOLDER).glob("*.csv"))


def read_scores(run: str) -> dict[str, dict[str, float]]:
    """All scores of a run that were added: name -> sample id -> value.

    Raises:
        DataError: a file is not what `add_scores` writes.
    """
    scores = {}
    for path in sorted((run_dir(run) / FOLDER).glob("*.csv")):
        try:
            table = pd.read_csv(path, dtype={"id": str, "value": "float64"}, keep_default_na=True)
            scores[path.stem] = dict(zip(table["id"], table["value"], strict=True))
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{shown(path)}: expected the columns id and value ({error}); add the score again"
            ) from None
    return scores
