"""The file in which notebook 04_threshold hands the chosen threshold on: `operating_point.json` of a validation run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .errors import ConfigError, StageError
from .gate import OperatingPoint
from .paths import notebook_of, resolve, shown

FILE = "operating_point.json"


def write_operating_point(folder: Path, point: OperatingPoint, origin: Mapping) -> Path:
    """Write the chosen point with its origin (`score`, `run`, `tasks`, `protocol`: what it was chosen on)."""
    path = Path(folder) / FILE
    told = {**point.as_dict(), "chosen_on": dict(origin)}
    path.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", "utf-8")
    return path


def read_operating_point(path: str | Path) -> dict:
    """The point of such a file; only `threshold`, a number from 0 to 1, has to be there.

    Raises StageError when the file is missing, ConfigError when it holds no threshold.
    """
    path = resolve(path)
    try:
        told = json.loads(path.read_text("utf-8"))
        threshold = told["threshold"]
        if isinstance(threshold, bool) or not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold!r}")
    except FileNotFoundError:
        raise StageError(
            f"{shown(path)} does not exist; run {notebook_of('04_threshold')} on the validation run first, "
            "or name another operating_point.json in threshold_from"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise ConfigError(
            f"{shown(path)}: expected a JSON object whose 'threshold' is a number from 0 to 1 ({e}); "
            f"run {notebook_of('04_threshold')} again"
        ) from e
    return told | {"threshold": float(threshold)}
