"""Trajectories of a training step, prompt by prompt: lists, sentences and pages, as values."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..analysis import training_curves
from ..judging.rewards import RECIPE_WEIGHTS
from ..report.rendering import environment
from ..report.sample_page import VERDICT_COLORS, MarkedPicture, Picture, SampleView, overlap_note
from .state import ALL

# arm, seed, step, number and text of a prompt -> its picture, and the size in which its boxes are given
PictureOf = Callable[[str, int, int, int, str], "tuple[Any, tuple[int, int]] | None"]
UNKNOWN_GROUP = "group not known"
COLUMNS = (
    {"title": "score", "align": "right"},
    {"title": "right", "align": "middle"},
    {"title": "format", "align": "middle"},
    *({"title": title, "align": "right"} for title in ("crops", "failed", "advantage")),
    {"title": "answer"},
)
# what a person may look for -> the trajectories of a step's table that are it
SHOWN: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    ALL: lambda table: table["score"].notna(),
    "right": lambda table: table["right"] == 1,
    "wrong": lambda table: table["right"] == 0,
    "with a crop": lambda table: table["crops"] > 0,
    "a call that failed": lambda table: table["failed_replies"] > 0,
    "a bonus without a crop": lambda table: (table["tool"] == 1) & (table["crops"] == 0),
    "format error": lambda table: table["format_error"] == 1,
    "in a flat group": lambda table: table["flat"].fillna(False).astype(bool),
}


@dataclass(frozen=True, slots=True)
class GroupView:
    """What the explorer of training shows: a run, a step, a prompt of it, and one of its trajectories."""

    arm: str = ""
    seed: int = 0
    step: int = 0  # 0: the first
    show: str = ALL  # one of SHOWN
    prompt: str = ""
    sample: str = ""


def step_table(rollouts: pd.DataFrame, view: GroupView) -> pd.DataFrame:
    """The trajectories of a view's step with their advantages (`training_curves.advantages`).

    Returns:
        The rows of the step, with id (text), prompt (text; `UNKNOWN_GROUP` where the group is not known) and crops.
    """
    chosen = (rollouts["arm"] == view.arm) & (rollouts["seed"] == view.seed) & (rollouts["step"] == view.step)
    table = training_curves.advantages(rollouts[chosen]).reset_index(drop=True)
    prompts = [UNKNOWN_GROUP if pd.isna(group) else f"{group:.0f}" for group in table["group"]]
    sets = ["" if name == "train" else f"{name} " for name in table["set"]]
    return table.assign(
        id=table.index.map(str),
        prompt=[f"{name}{prompt}" for name, prompt in zip(sets, prompts, strict=True)],
        crops=table["replies"] - table["failed_replies"],
    )


def prompt_options(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Labels and names of the prompts of a step: how many trajectories, their mean score, flat or not, the question."""
    options = []
    for name, part in table.groupby("prompt", sort=False):
        flat = ", flat" if part["flat"].fillna(False).any() else ""
        question = " ".join(str(part["input"].iloc[0]).split())[-60:]
        options.append((f"{name}: {len(part)} x, mean {part['score'].mean():.2f}{flat} · {question}", name))
    return options


def trajectory_rows(part: pd.DataFrame) -> list[dict]:
    """The trajectories of a prompt for `samples.js`, the highest advantage first."""
    entries = []
    for row in part.sort_values(["advantage", "score"], ascending=False, kind="stable").to_dict("records"):
        right = {1: "right", 0: "wrong"}.get(row["right"], "")
        advantage = "–" if pd.isna(row["advantage"]) else f"{row['advantage']:+.2f}"
        answer = row["output"].rpartition("<answer>")[2].split("</answer>")[0]
        cells = [
            f"{row['score']:.4g}",
            {"right": "✓", "wrong": "✗"}.get(right, "–"),
            "✗" if row["format_error"] == 1 else "",
            str(row["crops"]),
            str(row["failed_replies"] or ""),
            advantage,
            " ".join(answer.split())[-80:],
        ]
        colors = ["", VERDICT_COLORS.get(right, ""), *[""] * 5]
        entries.append({"id": row["id"], "cells": cells, "colors": colors})
    return entries


def step_line(table: pd.DataFrame) -> str:
    """A step in one line: how many trajectories and prompts, the mean score, how many groups teach nothing."""
    groups = table[table["group"].notna()].drop_duplicates(["set", "group"])
    line = f"{len(table)} trajectories, mean score {table['score'].mean():.3f}"
    if len(groups):
        line += f"; {groups['flat'].fillna(False).sum()} of {len(groups)} groups are flat and teach nothing"
    unknown = int(table["group"].isna().sum())
    return line + (f"; the group of {unknown} is not known, so they have no advantage" if unknown else "")


def score_sentence(row: dict[str, Any]) -> str:
    """What a score consists of, and what the trajectory pulls."""
    if pd.isna(row["right"]):
        sentence = f"{row['score']:.4g} is none of the recipe's six scores, so its parts are not known"
    elif row["score"] == 0:
        sentence = "0: a wrong answer, or a judge that failed"
    else:
        parts = [
            (row["right"], RECIPE_WEIGHTS.accuracy, "right"),
            (row["format_error"], RECIPE_WEIGHTS.format, "format error"),
            (row["tool"], RECIPE_WEIGHTS.tool, "tool"),
        ]
        terms = [f"{points:+.1f} ({name})" for holds, points, name in parts if holds]
        sentence = f"{row['score']:.4g} = {' '.join(terms)}"
    if pd.isna(row["advantage"]):
        return f"{sentence}. Its group is not known: no advantage."
    pull = {1: "made more likely", -1: "made less likely", 0: "not changed"}
    sign = (row["advantage"] > 1e-9) - (row["advantage"] < -1e-9)
    return f"{sentence}. Advantage {row['advantage']:+.3f}: {pull[sign]}."


def trajectory_page(row: dict[str, Any], pictures: PictureOf | None = None) -> tuple[SampleView, str]:
    """A trajectory: a sample with question, truth and picture, and what the model wrote and was paid as HTML."""
    view = SampleView(
        title=f"step {row['step']}, prompt {row['prompt']}, trajectory {row['id']}",
        question=str(row["input"]),
        standard=str(row["gts"]),
        picture=_picture(row, pictures),
    )
    module: Any = environment().get_template("training.html").module
    return view, str(module.trajectory(row["output"], score_sentence(row)))


def _picture(row: dict[str, Any], pictures: PictureOf | None) -> MarkedPicture:
    found = None
    if pictures is not None and row["set"] == "train" and not pd.isna(row["group"]):
        found = pictures(row["arm"], row["seed"], row["step"], int(row["group"]), str(row["input"]))
    if found is None:
        return MarkedPicture(None, message="Dumps hold no picture, and this one cannot be drawn again.")
    image, (width, height) = found
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG")
    targets = training_boxes(row.get("teacher_box"))
    boxes = [{"box": box, "kind": "target", "label": "target", "note": "target"} for box in targets]
    for number, box in enumerate(training_boxes(row.get("boxes")), 1):
        note = overlap_note(box, targets)
        boxes.append({"box": box, "kind": "crop", "label": f"crop {number}", "note": note})
    return MarkedPicture(
        Picture(data.getvalue(), "image/png", width, height), tuple(boxes), label="the prompt's picture"
    )


def training_boxes(text: Any) -> list[list[float]]:
    """The boxes of a dump's field: JSON of one box or of several; anything else holds none."""
    try:
        value = json.loads(text) if isinstance(text, str) else []
    except ValueError:
        return []
    value = (
        [value] if isinstance(value, list) and len(value) == 4 and not isinstance(value[0], list) else value
    )
    boxes = value if isinstance(value, list) else []
    return [
        [float(v) for v in box]
        for box in boxes
        if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    ]
