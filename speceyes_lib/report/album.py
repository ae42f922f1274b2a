"""Saving figures: PDF, PNG, the plotted numbers as CSV, and their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..errors import UserError
from .figures import FIGURES
from .plots.style import STYLE


class Album:
    """Saves the figures of one stage into one folder, each with its numbers and origin, and keeps the list.

    Equal input gives equal bytes: no timestamps, no software versions in the pictures.
    """

    def __init__(self, folder: Path, provenance: Mapping) -> None:
        self.folder, self.provenance = Path(folder), dict(provenance)
        self.paths: list[Path] = []

    def add(self, figure: Figure, name: str, data: pd.DataFrame, source: str = "measured") -> Path:
        """Save a figure as `name`, one of `FIGURES`, in four files; returns its PNG.

        Args:
            figure: the figure.
            name: of its files.
            data: the plotted numbers.
            source: measured, reported or both.

        Raises:
            UserError: the figure is not listed.
        """
        if name not in FIGURES:
            raise UserError(
                f"figure {name!r} is not listed; add a line for it in speceyes_lib/report/figures.py"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [self.folder / f"{name}.{ending}" for ending in ("pdf", "png", "csv", "json")]
        with plt.style.context(STYLE):
            figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
            figure.savefig(paths[1], metadata={"Software": None})
        data.to_csv(paths[2], index=False, lineterminator="\n", float_format="%.10g")
        origin = json.dumps({**self.provenance, "source": source}, indent=1, sort_keys=True, allow_nan=False)
        paths[3].write_text(origin + "\n", "utf-8")
        self.paths += paths
        return paths[1]
