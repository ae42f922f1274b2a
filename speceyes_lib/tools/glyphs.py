"""Text as pictures and back, in the fixed letters that Pillow brings along: the embedded tasks' pictures of text."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:,="
SCALE = 3  # every pixel of a letter becomes a square of this side
MARGIN = 4  # around the text, in pixels of a letter
DARK, LIGHT = 30, 235


def draw_line(text: str) -> Image.Image:
    """A grey picture of one line of text.

    Raises:
        ValueError: the text holds other characters than `LETTERS`.
    """
    if not text or set(text) - set(LETTERS):
        raise ValueError(f"{text!r} cannot be drawn; letters are {LETTERS}")
    width, height = _cell()
    pixels = np.full((height + 2 * MARGIN, width * len(text) + 2 * MARGIN), LIGHT, np.uint8)
    shapes = _shapes()
    for i, letter in enumerate(text):
        left = MARGIN + i * width
        pixels[MARGIN : MARGIN + height, left : left + width][shapes[letter]] = DARK
    return Image.fromarray(np.kron(pixels, np.ones((SCALE, SCALE), np.uint8)))


def read_line(picture: Image.Image) -> str:
    """The text of a picture that `draw_line` has drawn; "" for any other picture."""
    width, height = _cell()
    pixels = np.asarray(picture.convert("L"))[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] < (DARK + LIGHT) // 2
    if pixels.shape[0] != height + 2 * MARGIN or (pixels.shape[1] - 2 * MARGIN) % width:
        return ""
    by_shape = {shape.tobytes(): letter for letter, shape in _shapes().items()}
    cells = pixels[MARGIN : MARGIN + height, MARGIN : pixels.shape[1] - MARGIN]
    letters = [
        by_shape.get(cells[:, left : left + width].tobytes(), "") for left in range(0, cells.shape[1], width)
    ]
    return "".join(letters) if all(letters) else ""


@cache
def _shapes() -> dict[str, np.ndarray]:
    font, (width, height) = ImageFont.load_default_imagefont(), _cell()
    shapes = {}
    for letter in LETTERS:
        picture = Image.new("L", (width, height), 0)
        ImageDraw.Draw(picture).text((0, 0), letter, fill=255, font=font)
        shapes[letter] = np.asarray(picture) > 127
    return shapes


@cache
def _cell() -> tuple[int, int]:
    box = ImageFont.load_default_imagefont().getbbox("M")
    return int(box[2]), int(box[3])
