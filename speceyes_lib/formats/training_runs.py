"""Several training runs, by arm and seed, and what was kept beside their logs.

A folder of runs has a folder `<arm>-<seed>` for each. It may be packed (`.tar`, `.tar.gz`, `.tar.xz`).
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..paths import resolve, shown
from .common import Problems
from .verl_logs import TrainingLog, read_training

_ARM_AND_SEED = re.compile(r"(.+)-(\d+)")
_PACKED = (".tar", ".gz", ".tgz", ".xz")
LARGEST_UNPACKED = 1 << 32  # bytes


@dataclass(frozen=True, eq=False)
class TrainingRuns:
    """Several training runs, or one, below each other.

    Attributes:
        metrics: as of `TrainingLog`, with arm and seed in front.
        rollouts: as of `TrainingLog`, with arm and seed in front.
        held_out: the `held_out.csv` of all runs and of the start, with arm and seed in front; empty without any.
        speculation: `speculation.csv` beside the runs, what their checkpoints do in the funnel; empty without it.
        settings: (arm, seed) -> the `settings.json` of the run, where there is one.
        problems: of all of them.
        files: what was read; of a packed folder the archive.
    """

    metrics: pd.DataFrame
    rollouts: pd.DataFrame
    held_out: pd.DataFrame
    speculation: pd.DataFrame
    settings: dict[tuple[str, int], dict[str, Any]]
    problems: Problems
    files: list[Path]

    def counts(self) -> pd.DataFrame:
        """How much each run holds.

        Returns:
            A row per run: arm, seed, steps, first and last step, metrics (different keys), trajectories, not_finite
            (values that are NaN or infinite, which no curve shows).
        """
        keys = ["arm", "seed"]
        steps = pd.concat([table[[*keys, "step"]] for table in (self.metrics, self.rollouts) if len(table)])
        counts = steps.groupby(keys)["step"].agg(steps="nunique", first="min", last="max")
        counts["metrics"] = self.metrics.groupby(keys)["key"].nunique()
        counts["trajectories"] = self.rollouts.groupby(keys).size()
        odd = self.metrics[~np.isfinite(self.metrics["value"].astype("float64"))]
        counts["not_finite"] = odd.groupby(keys).size()
        return counts.fillna(0).astype(int).reset_index()


def read_training_runs(path: str | Path) -> TrainingRuns:
    """Read a folder of runs `<arm>-<seed>`, packed or not; anything else is read as one run, of seed 0.

    Raises:
        DataError: as of `read_training`, and where an archive cannot be unpacked.
    """
    root = resolve(path)
    if not (root.is_file() and root.suffix in _PACKED):
        return _read(root)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(root) as packed:
                members = packed.getmembers()
                if sum(member.size for member in members) > LARGEST_UNPACKED:
                    raise DataError(
                        f"{shown(root)}: unpacks to more than 4 GiB; unpack it and name its folder"
                    )
                packed.extractall(folder, members, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{shown(root)} cannot be unpacked ({reason}); name a folder, or an archive that is whole"
            ) from error
        held = [entry for entry in Path(folder).iterdir() if not entry.name.startswith(".")]
        one = len(held) == 1 and held[0].is_dir() and not _ARM_AND_SEED.fullmatch(held[0].name)
        try:
            runs = _read(held[0] if one else Path(folder))
        except DataError as error:
            raise DataError(f"{shown(root)}: {str(error).replace(folder, 'in it')}") from None
    return TrainingRuns(**{**vars(runs), "files": [root]})


def _read(root: Path) -> TrainingRuns:
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    named = {folder: _ARM_AND_SEED.fullmatch(folder.name) for folder in folders}
    runs = {folder: (match[1], int(match[2])) for folder, match in named.items() if match}
    others = {folder: (folder.name, 0) for folder in folders if runs and folder not in runs}
    runs = runs or {root: (root.stem if root.is_file() else root.name, 0)}
    logs: dict[tuple[str, int], TrainingLog] = {}
    for folder, key in sorted(runs.items(), key=lambda run: run[1]):
        logs[key] = read_training(folder)
    problems = Problems(problem for log in logs.values() for problem in log.problems)
    files = [file for log in logs.values() for file in log.files]
    settings = {
        key: json.loads(text) for folder, key in runs.items() if (text := _text(folder / "settings.json"))
    }
    held_out = [
        _labelled(pd.read_csv(folder / "held_out.csv"), key)
        for folder, key in (others | runs).items()
        if _text(folder / "held_out.csv")
    ]
    return TrainingRuns(
        _joined([_labelled(log.metrics, key) for key, log in logs.items()]),
        _joined([_labelled(log.rollouts, key) for key, log in logs.items()]),
        _joined(held_out) if held_out else pd.DataFrame(columns=["arm", "seed", "sampling"]),
        pd.read_csv(root / "speculation.csv") if _text(root / "speculation.csv") else pd.DataFrame(),
        settings,
        problems,
        files,
    )


def _text(file: Path) -> str:
    return file.read_text("utf-8").strip() if file.is_file() else ""


def _labelled(table: pd.DataFrame, key: tuple[str, int]) -> pd.DataFrame:
    table = table.copy()
    table.insert(0, "arm", key[0])
    table.insert(1, "seed", key[1])
    return table


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
