"""The numbers that the paper reports, read from data/paper."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import DataError, nearest
from ..paths import repo_root
from ..tasks.registry import AVERAGE

# file stem -> columns beside `source`
TABLES = {
    "table1": ("agent", "method", "confidence", "split", "accuracy_pct", "speedup"),
    "ablation_threshold": ("agent", "split", "threshold", "accuracy_pct", "speedup"),
    "ablation_topk": ("agent", "split", "top_k", "accuracy_pct", "speedup"),
    "ablation_batch_size": ("agent", "split", "batch_size", "speedup"),
}
KS = (32, 48, 64, 80, 96)  # K of the paper's ablation
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # of router and draft, in the paper's ablation
_NUMERIC = ("threshold", "accuracy_pct", "speedup", "top_k", "batch_size")


def read_reported(name: str, folder: Path | None = None) -> pd.DataFrame:
    """One reported table with its `source` column, rows in the order of the file.

    Numbers are float64 (`accuracy_pct` percent, `speedup` a ratio). In `ablation_threshold` the agent alone has
    threshold NaN and `is_baseline` True; in `ablation_batch_size` it has batch size 0.

    Raises:
        DataError: an unknown table, a missing file, missing columns or a cell that is not a number.
    """
    if name not in TABLES:
        raise DataError(f"no reported table {name!r}{nearest(name, TABLES)}; there are {', '.join(TABLES)}")
    path = Path(folder or repo_root() / "data" / "paper") / f"{name}.csv"
    where = f"data/paper/{path.name}"
    if not path.is_file():
        raise DataError(f"{where} is missing; restore it from the repository")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    wanted = (*TABLES[name], "source")
    missing = [c for c in wanted if c not in frame]
    if missing:
        raise DataError(f"{where}: column {missing[0]!r} is missing; expected {', '.join(wanted)}")
    if "threshold" in frame:
        frame["is_baseline"] = frame["threshold"] == "baseline"
        frame["threshold"] = frame["threshold"].mask(frame["is_baseline"], "nan")
    for column in frame.columns.intersection(_NUMERIC):
        try:
            frame[column] = frame[column].astype("float64")
        except ValueError as e:
            raise DataError(f"{where}: column {column!r} holds something that is not a number ({e})") from e
    return frame


def reported_points(table1: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """The paper's SpecEyes points, averaged over splits, against its own agent: `agent kind label speedup gain_pp`.

    kind: "table" (Table 1, a point per score) or "threshold" (its threshold ablation, `min`).
    """
    average = table1[table1["split"] == AVERAGE]
    base = average[average["method"] == "baseline"].set_index("agent")["accuracy_pct"]
    points = average[average["method"] == "speceyes"]
    points = points.assign(kind="table", label=points["confidence"])
    sweep = thresholds[~thresholds["is_baseline"] & (thresholds["split"] != AVERAGE)]
    by_threshold = sweep.groupby(["agent", "threshold"])
    full = by_threshold["split"].nunique() == sweep["split"].nunique()
    means = (
        by_threshold[["accuracy_pct", "speedup"]].mean()[full].reset_index()
    )  # fewer splits: other questions
    means = means.assign(kind="threshold", label=means["threshold"].map("{:g}".format))
    points = pd.concat([points, means], ignore_index=True)
    points["gain_pp"] = points["accuracy_pct"] - points["agent"].map(base)
    return points[["agent", "kind", "label", "speedup", "gain_pp"]]
