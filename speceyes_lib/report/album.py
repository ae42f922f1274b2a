"""Drawing and saving figures: PDF, PNG, the plotted numbers as CSV, and their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from ..errors import UserError
from ..runs.stage import csv_text
from . import plots
from .figures import FIGURES
from .plots.style import STYLE


class Album:
    """Draws the figures of one stage into one folder, each with its numbers and origin, and keeps the list.

    Equal input gives equal bytes: no timestamps, no software versions in the pictures.
    """

    def __init__(self, folder: Path, provenance: Mapping) -> None:
        self.folder, self.provenance = Path(folder), dict(provenance)
        self.paths: list[Path] = []

    def draw(
        self,
        name: str,
        *data: Any,
        saved: pd.DataFrame | None = None,
        source: str = "measured",
        **options: Any,
    ) -> Path:
        """Draw the figure that is listed as `name`, and save it in four files; returns its PNG.

        Args:
            name: one of `FIGURES`.
            data: what its function in `plots/` draws, the plotted numbers first.
            saved: the numbers to save; None: the first of `data`.
            source: measured, reported or both.
            options: of its function.

        Raises:
            UserError: the figure is not listed.
        """
        if name not in FIGURES:
            raise UserError(
                f"figure {name!r} is not listed; add a line for it in speceyes_lib/report/figures.py, or in a plugin"
            )
        draw, caption = FIGURES[name].draw, FIGURES[name].caption
        draw = getattr(plots, draw.split(".")[1]) if isinstance(draw, str) else draw
        figure = draw(*data, **options)
        numbers = data[0] if saved is None else saved
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [self.folder / f"{name}.{ending}" for ending in ("pdf", "png", "csv", "json")]
        with plt.style.context(STYLE):
            figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
            figure.savefig(paths[1], metadata={"Software": None})
        paths[2].write_text(csv_text(numbers), "utf-8")
        origin = {**self.provenance, "source": source, "caption": caption}
        origin = json.dumps(origin, indent=1, sort_keys=True, allow_nan=False)
        paths[3].write_text(origin + "\n", "utf-8")
        self.paths += paths
        return paths[1]
