"""The work of notebook 00: generate or check the data, open every picture once, write the stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from ..errors import DataError, UserError
from ..params import PrepareParams
from ..paths import resolve, shown
from ..runs.provenance import text_hash
from ..runs.records import Counts
from ..runs.stage import finish_stage
from ..tasks.registry import load_task
from ..tasks.sample import Sample
from . import benchmark
from .benchmark import SceneRow, scene_rows
from .scenes import HARD_W, VIEW_PX, W_MAX, W_MIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[..., None]
STAGE = "00_data"
SAMPLES_CSV = "samples.csv"
PANEL_PX = 480  # a picture on a card: enough for the page
Region = tuple[float, float, float, float]  # (x, y, width, height) in pixels of the original


def roots(params: PrepareParams) -> dict[str, Path]:
    """The data sets of this run by name: "benchmark", and "validation" where there is one."""
    named = {"benchmark": params.data_root, "validation": params.validation_root}
    return {name: resolve(root) for name, root in named.items() if root}


def provide_data(params: PrepareParams, progress: Progress | None = None) -> list[str]:
    """Generate the embedded data (kind "demo") or leave the given data alone ("check"); one sentence per set.

    Data that exists and is intact is not generated again. Generated data of another seed is replaced only with
    if_changed="restart". Raises UserError otherwise, and for a folder with data of other origin.
    """
    seeds = {"benchmark": params.seed, "validation": params.validation_seed}
    notes = []
    for name, root in roots(params).items():
        if params.kind == "check":
            notes.append(f"{name}: the data in {shown(root)} is read as it is")
            continue
        manifest = benchmark.read_manifest(root)
        if manifest and manifest.get("seed") != seeds[name] and params.if_changed == "refuse":
            raise UserError(
                f"{shown(root)} holds data of seed {manifest.get('seed')}, expected seed {seeds[name]}. "
                "Name another folder, or replace it with if_changed='restart'"
            )
        # a set that was generated smaller on purpose stays as it is
        sizes = (manifest and manifest.get("sizes")) or benchmark.SIZES[name]
        benchmark.generate(root, seeds[name], sizes, progress and _named(progress, name))
        notes.append(benchmark.compare(root, name).note)
    return notes


def _named(progress: Progress, name: str) -> Progress:
    return lambda done, total, text: progress(done, total, f"{name}, {text}")


def load_sets(params: PrepareParams) -> dict[str, list[Sample]]:
    """All samples of all tasks, per data set. Raises DataError for what `benchmarks.load` refuses."""
    return {
        name: [sample for task in params.tasks for sample in load_task(task, root)]
        for name, root in roots(params).items()
    }


def inventory(params: PrepareParams, progress: Progress | None = None) -> pd.DataFrame:
    """One row per sample, after opening its picture (equal pictures are decoded once).

    Columns: set, id, task, group, question, options, standard, width_px, height_px, picture (digest of its
    bytes), problem (why the picture cannot be read, or empty), and of the embedded data kind, w, x0, y0.
    """
    sizes: dict[str, tuple[int, int]] = {}
    rows = []
    for name, samples in load_sets(params).items():
        known = scene_rows(roots(params)[name])
        for done, sample in enumerate(samples):
            if progress:
                progress(done, len(samples), name)
            row = {"set": name, "id": sample.id, "task": sample.task, "group": sample.meta["group"]}
            row |= {"question": sample.question, "options": " | ".join(sample.options or ("yes", "no"))}
            row |= {"standard": sample.standard, "problem": ""}
            try:
                digest = hashlib.sha256(sample.image.read()).hexdigest()
                if digest not in sizes:
                    sizes[digest] = sample.image.open().size
                row |= {"picture": digest, **dict(zip(("width_px", "height_px"), sizes[digest], strict=True))}
            except DataError as e:
                row["problem"] = str(e)
            rows.append(row | (known[sample.id]._asdict() if sample.id in known else {}))
        if progress:
            progress(len(samples), len(samples), name)
    columns = ["set", "id", "task", "group", "question", "options", "standard", "width_px", "height_px"]
    return pd.DataFrame(rows, columns=[*columns, "picture", "problem", *SceneRow._fields])


def write_data_stage(params: PrepareParams, samples: pd.DataFrame, timing: dict[str, float]) -> Path:
    """The finished folder of stage 00: `samples.csv`, and the manifest, whose inputs identify each data set.

    Args:
        params: parameters of notebook 00.
        samples: the frame of `inventory`.
        timing: seconds of the notebook's steps, by name.

    Raises:
        DataError: benchmark and validation set share a picture.
    """
    _refuse_shared_pictures(samples)
    content = ["id", "question", "options", "standard", "picture"]
    failed = int((samples["problem"] != "").sum())
    return finish_stage(
        params.run,
        STAGE,
        params.model_dump(exclude={"run", "if_changed"}),
        files={SAMPLES_CSV: samples.to_csv(index=False, lineterminator="\n")},
        counts=Counts(expected=len(samples), done=len(samples), failed=failed),
        inputs={
            str(name): text_hash(part[content].fillna("").to_csv(index=False, lineterminator="\n"))
            for name, part in samples.groupby("set")
        },
        timing=timing,
    )


def _refuse_shared_pictures(samples: pd.DataFrame) -> None:
    pictures = samples.dropna(subset="picture").groupby("set")["picture"].agg(set)
    shared = set.intersection(*pictures) if len(pictures) > 1 else set()
    if shared:
        first = samples.loc[samples["picture"].isin(shared), "id"].iloc[0]
        raise DataError(
            f"{len(shared)} pictures are in both the benchmark and the validation set (first: {first}); "
            "a threshold chosen on them would prove nothing. Give a validation_root with other data"
        )


# ------------------------------------------------------------------------------------------------ figures
def region(sample: Sample, size: tuple[int, int], row: SceneRow | None) -> Region | None:
    """What a good zoom would show: the scene's window, or the smallest box around all targets; None if unknown."""
    if row is not None:
        return row.x0 * size[0], row.y0 * size[1], row.w * size[0], row.w * size[1]
    if not sample.boxes:
        return None
    left, top = (min(b[i] for b in sample.boxes) for i in (0, 1))
    right, bottom = (max(b[i] + b[i + 2] for b in sample.boxes) for i in (0, 1))
    return left, top, right - left, bottom - top


def sample_cards(samples: Sequence[Sample], root: str | Path) -> Figure:
    """Per sample the picture with its boxes, the picture at the embedded models' 96 px, and the zoom at 96 px.

    Args:
        samples: what is drawn, one line each.
        root: folder of their benchmarks; the embedded ones know where the zoom should go.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = scene_rows(resolve(root))

    figure = Figure(figsize=(7, 2.7 * len(samples)), layout="constrained")
    axes = figure.subplots(len(samples), 3, squeeze=False)
    for line, sample in zip(axes, samples, strict=True):
        image = sample.image.open()
        where = region(sample, image.size, rows.get(sample.id))
        line[0].imshow(_small(image, PANEL_PX), extent=(0, image.width, image.height, 0))
        line[1].imshow(_small(image), interpolation="nearest")
        line[1].set_title(f"at {VIEW_PX} px", fontsize=8)
        for axis in line:
            axis.axis("off")
        for x, y, w, h in sample.boxes:
            line[0].add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="white", linewidth=1.5))
        if where:
            x, y, w, h = where
            line[0].add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="white", linestyle="--"))
            line[2].imshow(_small(image.crop((x, y, x + w, y + h))), interpolation="nearest")
            line[2].set_title(f"zoomed, {VIEW_PX} px", fontsize=8)
        options = f"  ({', '.join(sample.options)})" if sample.options else ""
        text = f"{sample.id}\n{sample.question}{options}\nright: {sample.standard}"
        line[0].set_title(text, fontsize=8, loc="left", parse_math=False)
    return figure


def difficulty_histogram(samples: pd.DataFrame) -> Figure:
    """How large the scene's window is in each task's pictures (each picture once); dashed: the limit of hard.

    Data without the sizes of its targets gives a line of text instead.
    """
    import numpy as np
    from matplotlib.figure import Figure

    part = samples[(samples["set"] == "benchmark") & samples["w"].notna()]
    pictures = part.drop_duplicates(["task", "group"])
    tasks = list(dict.fromkeys(pictures["task"]))
    if not tasks:
        figure = Figure(figsize=(7, 0.4))
        figure.text(0.01, 0.3, "This data does not give the sizes of its targets.", fontsize=8)
        return figure
    figure = Figure(figsize=(7, 1.7 * -(-len(tasks) // 4)), layout="constrained")
    axes = figure.subplots(-(-len(tasks) // 4), 4, sharex=True, squeeze=False).flat
    for axis, task in zip(axes, tasks, strict=False):
        axis.hist(
            pictures.loc[pictures["task"] == task, "w"], bins=np.linspace(W_MIN, W_MAX, 13), color="#4477aa"
        )
        axis.axvline(HARD_W, color="black", linewidth=0.8, linestyle="--")
        axis.set_title(task, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in figure.axes[len(tasks) :]:
        axis.axis("off")
    figure.supxlabel("side of the scene's window / side of the picture", fontsize=8)
    figure.supylabel("pictures", fontsize=8)
    return figure


def _small(image: Image.Image, side_px: int = VIEW_PX) -> Image.Image:
    scale = side_px / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
