"""Figures about the demo models: what they see, and how they learned. Data in, Figure out."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from ..demo import scenes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from .evaluation import HeldOut


def three_views(samples: Sequence[HeldOut]) -> Figure:
    """Per column one sample: the original, the 96 px view of it, and the crop of the teacher's box at 96 px."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(1.9 * len(samples), 6.2), layout="constrained")
    axes = figure.subplots(3, len(samples), squeeze=False)
    for column, sample in zip(axes.T, samples, strict=True):
        scene, question, picture = sample.scene, sample.question, sample.picture
        box = scenes.teacher_box(scene)
        for axis, image in zip(
            column, (picture, scenes.view(picture), scenes.view(picture, box)), strict=True
        ):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        scale = picture.width / scenes.VIEW_PX
        corner, side = (box[0] * scale, box[1] * scale), (box[2] - box[0]) * scale
        column[0].add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2))
        column[0].set_title(f"w = {scene.w:.2f}", fontsize=9)
        column[2].set_xlabel(f"{fill(question.text, 30)}\n{question.answer}", fontsize=7)
    for axis, label in zip(axes[:, 0], ("original", "first view, 96 px", "zoomed view, 96 px"), strict=True):
        axis.set_ylabel(label, fontsize=9)
    return figure


def training_curves(curve: pd.DataFrame) -> Figure:
    """Loss, answers by kind of question, and the agent's other skills over the steps of all phases.

    curve: a training_curve.csv as a frame. Attempts that stalled are drawn too, one after the other.
    """
    from matplotlib.figure import Figure

    curve = curve.reset_index(drop=True)
    steps = curve.index * 10  # a line of the file stands for ten steps
    parts = (curve[["attempt", "phase"]] != curve[["attempt", "phase"]].shift()).any(axis=1).cumsum()
    groups = {"answers, whole view": list(scenes.KINDS)}
    if curve["zoom_color"].notna().any():
        groups["answers, after the zoom"] = [f"zoom_{kind}" for kind in scenes.KINDS]
        groups["agent's other skills"] = ["router", "decision", "box", "thought"]
    figure = Figure(figsize=(9, 2.1 * (len(groups) + 1)), layout="constrained")
    axes = figure.subplots(len(groups) + 1, 1, sharex=True)
    axes[0].plot(steps, curve["loss"], color="black", linewidth=1)
    axes[0].set(ylabel="loss", yscale="log")
    for axis, (title, columns) in zip(axes[1:], groups.items(), strict=True):
        for name in columns:
            # smoothed within a phase only, and broken where a phase does not measure it
            smooth = curve.groupby(parts)[name].transform(lambda v: v.rolling(3, 1, center=True).mean())
            axis.plot(
                steps, smooth.where(curve[name].notna()), linewidth=1.1, label=name.removeprefix("zoom_")
            )
        axis.set(ylabel="share right", ylim=(0, 1.02), title=title)
        axis.legend(ncols=5, fontsize=7, loc="lower right")
    for number, start in enumerate(curve.index[parts.diff() != 0]):
        for axis in axes:
            axis.axvline(10 * start, color="0.7", linewidth=0.8, zorder=0)
        axes[0].annotate(
            curve["phase"][start],
            (10 * start, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2 + 9 * (number % 2)),  # two heights, as some phases are short
            textcoords="offset points",
            fontsize=7,
        )
    axes[-1].set_xlabel("steps")
    return figure
