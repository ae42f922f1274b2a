"""Synthetic high-resolution scenes with one difficulty knob, and questions with known answers.

A scene is one cluster of two or three coloured shapes inside a square window of side `w` (a fraction of the
image side) on cluttered grey ground. Both demo models look at pictures at 96 x 96 px: at w = .12 the whole
cluster is about 11 px wide and unreadable, at w = .9 it fills the view. The picture itself is drawn sharply at
384 px or more, so a crop around the cluster is readable at every w. So zooming helps.

Every function depends only on its arguments and the given generator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

VIEW_PX = 96  # side of what a model sees
CELL_PX = 16  # side of one merged visual token in that view
GRID = VIEW_PX // CELL_PX  # 6 x 6 = 36 visual tokens
SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOR_RGB = {
    "red": (220, 30, 30),
    "green": (30, 170, 40),
    "blue": (40, 60, 230),
    "yellow": (240, 215, 30),
    "purple": (165, 40, 190),
}
COLORS = tuple(COLOR_RGB)
SIDES = ("left", "right")
PLACES = ("left", "right", "above", "below")
YES_NO = ("yes", "no")
KINDS = ("color", "shape", "exist", "side", "place")
W_MIN, W_MAX = 0.12, 0.95
# Side of the largest box the agent learns to zoom into: it always looks twice as close or closer.
ZOOM_CELLS = 3
HARD_W = 0.42  # below this the 96 px view is unreliable
TRAIN_BACKGROUNDS = 123  # seed of the backgrounds used in training; benchmarks draw theirs from another
_QUADRANTS = ((0, 0), (1, 0), (0, 1), (1, 1))
_REACH = 1.08  # stars and triangles stick out of their nominal radius by this factor


@dataclass(frozen=True)
class SceneObject:
    """One shape. `cell` = (column, row) in the 2 x 2 window; x, y (centre) and r are fractions of the side."""

    shape: str
    color: str
    cell: tuple[int, int]
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Scene:
    """A window of side `w` with upper left corner (x0, y0), all fractions of the image side, and its objects."""

    w: float
    x0: float
    y0: float
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    text: the bare question. options: the offered answers in shown order (yes, no for `exist`).
    answer: the right option. short: the query in two or three words ("color star").
    label: what to look for ("star", "red object"). target_shapes: shapes of the objects the answer depends on;
    for `exist` the shape in the question, whether present or not. reason: the colour that proves a "yes".
    """

    kind: str
    text: str
    options: tuple[str, ...]
    answer: str
    short: str
    label: str
    target_shapes: tuple[str, ...]
    reason: str = ""

    @property
    def reply(self) -> str:
        """The answer as a sentence, as both models are taught to give it."""
        return "".join(text for text, _ in self.reply_parts())

    def reply_parts(self) -> list[tuple[str, str]]:
        """The sentence in parts: (text, "form" | "query" | "reason" | the kind for the option itself)."""
        first, last = f" {self.target_shapes[0]}", f" {self.target_shapes[-1]}"
        right = (f" {self.answer}", self.kind)
        if self.kind == "color":
            return [("the", "form"), (first, "query"), (" is", "form"), right]
        if self.kind == "shape":
            seen = f" {self.label.split()[0]}"
            return [("the", "form"), (seen, "query"), (" object is a", "form"), right]
        if self.kind == "exist":
            if self.answer == "no":
                return [("no", self.kind), (", there is no", "form"), (first, "query")]
            reason = (f" {self.reason}", "reason")
            return [("yes", self.kind), (", the", "form"), (first, "query"), (" is", "form"), reason]
        to = " of the" if self.answer in SIDES else " the"
        return [("the", "form"), (first, "query"), (" is", "form"), right, (to, "form"), (last, "query")]


# ---------------------------------------------------------------------------------------------- scenes
def sample_scene(
    rng: random.Random,
    w_min: float = W_MIN,
    w_max: float = W_MAX,
    n_objects: int | None = None,
    shapes: Sequence[str] | None = None,
) -> Scene:
    """Draw a scene with w uniform in [w_min, w_max].

    n_objects: 1-4, by default two (60 %), three or four (20 % each). shapes: take exactly these (all different)
    instead of random ones, for benchmarks that control which shapes occur together. Raises ValueError for other
    requests.
    """
    if shapes is None:
        n_objects = n_objects or rng.choice((2, 2, 2, 3, 4))
        if not 1 <= n_objects <= len(_QUADRANTS):
            raise ValueError(f"n_objects must be 1-{len(_QUADRANTS)}, got {n_objects}")
        shapes = rng.sample(SHAPES, n_objects)
    elif (
        len(set(shapes)) != len(shapes)
        or not set(shapes) <= set(SHAPES)
        or not 1 <= len(shapes) <= len(_QUADRANTS)
    ):
        raise ValueError(
            f"shapes must be 1-{len(_QUADRANTS)} different ones of {SHAPES}, got {tuple(shapes)}"
        )
    elif n_objects not in (None, len(shapes)):
        raise ValueError(f"n_objects is {n_objects}, but {len(shapes)} shapes are given")
    w = rng.uniform(w_min, w_max)
    x0, y0 = rng.uniform(0, 1 - w), rng.uniform(0, 1 - w)
    cells, colors = rng.sample(_QUADRANTS, len(shapes)), rng.sample(COLORS, len(shapes))

    def place(start: float, half: int) -> float:
        return start + w * (0.25 + 0.5 * half + rng.uniform(-0.025, 0.025))

    objects = tuple(
        SceneObject(shape, color, cell, place(x0, cell[0]), place(y0, cell[1]), w * rng.uniform(0.18, 0.22))
        for shape, color, cell in zip(shapes, colors, cells, strict=True)
    )
    return Scene(w, x0, y0, objects)


def object_box(obj: SceneObject) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) around everything drawn of the object, in fractions of the image side, within [0, 1]."""
    reach = obj.r * _REACH
    box = obj.x - reach, obj.y - reach, obj.x + reach, obj.y + reach
    return tuple(min(1.0, max(0.0, v)) for v in box)


def teacher_box(scene: Scene) -> tuple[int, int, int, int]:
    """The box a good agent zooms to: (x1, y1, x2, y2) in pixels of the 96 px view.

    The smallest square of whole visual tokens around all objects, where an object may stick out by up to 1 px. Of a
    square wider than ZOOM_CELLS only the middle: who always zooms in loses what surrounds it.
    """
    objects = scene.objects
    low = [
        max(0, math.floor((min(getattr(o, a) - o.r for o in objects) * VIEW_PX + 1) / CELL_PX)) for a in "xy"
    ]
    high = [
        min(GRID, math.ceil((max(getattr(o, a) + o.r for o in objects) * VIEW_PX - 1) / CELL_PX))
        for a in "xy"
    ]
    side = max(high[0] - low[0], high[1] - low[1], 1)
    for axis in (0, 1):  # grow the shorter axis, away from the nearer border
        while high[axis] - low[axis] < side:
            if high[axis] >= GRID or (low[axis] > 0 and low[axis] + high[axis] > GRID):
                low[axis] -= 1
            else:
                high[axis] += 1
    if side > ZOOM_CELLS:
        spots = [[getattr(o, a) * GRID for o in objects] for a in "xy"]
        middle = [round((min(s) + max(s) - ZOOM_CELLS) / 2) for s in spots]
        low = [min(max(0, v), GRID - ZOOM_CELLS) for v in middle]
        high = [v + ZOOM_CELLS for v in low]
    return tuple(CELL_PX * v for v in (*low, *high))


# -------------------------------------------------------------------------------------------- pictures
@lru_cache(maxsize=8)
def bank(seed: int, count: int = 40, side_px: int = 768) -> tuple[Image.Image, ...]:
    """`count` grey textured grounds (RGB, side_px square) of varying brightness. Different seeds share nothing."""
    rng = np.random.default_rng(seed)
    grounds = []
    for _ in range(count):
        level = rng.uniform(70, 190)
        relief = np.zeros((side_px, side_px), np.float32)
        for points, strength in ((6, 28), (24, 14), (96, 9)):  # coarse to fine
            noise = Image.fromarray(rng.normal(0, strength, (points, points)).astype(np.float32))
            relief += np.asarray(noise.resize((side_px, side_px), Image.Resampling.BICUBIC))
        tint = rng.uniform(-14, 14, 3).astype(np.float32)
        grain = rng.integers(-8, 9, (side_px, side_px, 1))
        pixels = np.clip(relief[..., None] + level + tint + grain, 0, 255).astype(np.uint8)
        grounds.append(Image.fromarray(pixels))
    return tuple(grounds)


def render(
    scene: Scene, rng: random.Random, size_px: int = 384, backgrounds: Sequence[Image.Image] | None = None
) -> Image.Image:
    """Draw the scene as an RGB picture of size_px x size_px (384-1536 are meant), sharp at that size.

    rng decides the ground, the clutter and the exact colours. backgrounds: a `bank`; default the training one.
    """
    grounds = bank(TRAIN_BACKGROUNDS) if backgrounds is None else backgrounds
    ground = rng.choice(grounds)
    window = min(size_px, ground.width)
    x, y = rng.randint(0, ground.width - window), rng.randint(0, ground.height - window)
    picture = ground.crop((x, y, x + window, y + window))
    if window < size_px:
        picture = _enlarge(picture, size_px, rng)
    pen = ImageDraw.Draw(picture)
    _clutter(pen, picture.getpixel((size_px // 2, size_px // 2)), rng, size_px)
    for o in scene.objects:
        fill = tuple(max(0, min(255, v + rng.randint(-18, 18))) for v in COLOR_RGB[o.color])
        _draw_shape(pen, o.shape, fill, o.x * size_px, o.y * size_px, o.r * size_px)
    return picture


def _enlarge(ground: Image.Image, size_px: int, rng: random.Random) -> Image.Image:
    """Scale a ground up and give it grain of the new size, so that large pictures are not blurred ones."""
    pixels = np.asarray(ground.resize((size_px, size_px), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = np.random.default_rng(rng.getrandbits(64)).integers(
        -10, 11, (size_px, size_px, 1), dtype=np.int16
    )
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _clutter(pen: ImageDraw.ImageDraw, level: Sequence[int], rng: random.Random, size_px: int) -> None:
    """Grey lines and frames that look like things from afar; coloured objects are drawn over them."""
    for _ in range(rng.randint(6, 14)):
        x, y = rng.random() * size_px, rng.random() * size_px
        w, h = rng.uniform(0.04, 0.45) * size_px, rng.uniform(0.04, 0.45) * size_px
        grey = sum(level) / 3 + rng.uniform(-45, 45)
        fill = tuple(int(min(235, max(20, grey + rng.uniform(-12, 12)))) for _ in range(3))
        width = max(1, round(rng.uniform(0.004, 0.018) * size_px))
        if rng.random() < 0.5:
            pen.line((x, y, x + 2 * w - 0.4 * size_px, y + 2 * h - 0.4 * size_px), fill=fill, width=width)
        else:
            pen.rectangle((x, y, x + w, y + h), outline=fill, width=width)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, fill: tuple, x: float, y: float, r: float) -> None:
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        q = 0.85 * r
        pen.rectangle((x - q, y - q, x + q, y + q), fill=fill)
    elif shape == "cross":
        q = 0.3 * r
        pen.rectangle((x - q, y - r, x + q, y + r), fill=fill)
        pen.rectangle((x - r, y - q, x + r, y + q), fill=fill)
    else:
        radii = (_REACH,) if shape == "triangle" else (_REACH, 0.42)
        corners = 3 if shape == "triangle" else 10
        turn = 2 * math.pi / corners
        points = [
            (
                x + radii[k % len(radii)] * r * math.sin(k * turn),
                y - radii[k % len(radii)] * r * math.cos(k * turn),
            )
            for k in range(corners)
        ]
        pen.polygon(points, fill=fill)


def view(picture: Image.Image, box: Sequence[float] | None = None) -> Image.Image:
    """The 96 x 96 px view of a model: the whole picture, or the part of the original in `box` (px of the view)."""
    scale = picture.width / VIEW_PX
    if box is not None:
        picture = picture.crop(tuple(round(v * scale) for v in box))
    return picture.resize((VIEW_PX, VIEW_PX), Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------- questions
def admits(scene: Scene, kind: str) -> bool:
    """True if the scene admits this kind of question. `side` and `place` need two objects that differ suitably."""
    if kind not in KINDS:
        raise ValueError(f"unknown question kind {kind!r}; known are {KINDS}")
    if kind in ("color", "shape", "exist"):
        return kind != "exist" or len(scene.objects) < len(SHAPES)
    if len(scene.objects) != 2:
        return False
    across, down = (scene.objects[0].cell[a] != scene.objects[1].cell[a] for a in (0, 1))
    return across if kind == "side" else across != down


def ask(scene: Scene, rng: random.Random, kind: str) -> Question:
    """Draw a question of this kind. Raises ValueError when the scene does not admit it (see `admits`)."""
    if not admits(scene, kind):
        raise ValueError(f"this scene admits no {kind!r} question")
    if kind == "color":
        o = rng.choice(scene.objects)
        text, options = f"What is the color of the {o.shape}?", _options(rng, o.color, COLORS)
        return Question(kind, text, options, o.color, f"color {o.shape}", o.shape, (o.shape,))
    if kind == "shape":
        o = rng.choice(scene.objects)
        text, options = f"What is the shape of the {o.color} object?", _options(rng, o.shape, SHAPES)
        return Question(kind, text, options, o.shape, f"shape {o.color}", f"{o.color} object", (o.shape,))
    if kind == "exist":
        present = [o.shape for o in scene.objects]
        answer = rng.choice(YES_NO)
        shape = rng.choice(present if answer == "yes" else [s for s in SHAPES if s not in present])
        return exist_question(scene, shape)
    a, b = rng.sample(scene.objects, 2)
    across = "left" if a.cell[0] < b.cell[0] else "right"
    if kind == "side":
        text = f"Is the {a.shape} on the left or right side of the {b.shape}?"
        options, answer = tuple(rng.sample(SIDES, 2)), across
    else:
        text = f"Where is the {a.shape} relative to the {b.shape}?"
        options = tuple(rng.sample(PLACES, 4))
        answer = across if a.cell[0] != b.cell[0] else "above" if a.cell[1] < b.cell[1] else "below"
    return Question(kind, text, options, answer, f"{kind} {a.shape} {b.shape}", a.shape, (a.shape, b.shape))


def exist_question(scene: Scene, shape: str) -> Question:
    """The yes/no question about one given shape, as POPE asks it."""
    reason = next((o.color for o in scene.objects if o.shape == shape), "")
    answer, text = ("yes" if reason else "no"), f"Is there a {shape} in the image?"
    return Question("exist", text, YES_NO, answer, f"exist {shape}", shape, (shape,), reason)


def _options(rng: random.Random, right: str, pool: Sequence[str], count: int = 4) -> tuple[str, ...]:
    chosen = [right, *rng.sample([p for p in pool if p != right], count - 1)]
    rng.shuffle(chosen)
    return tuple(chosen)
