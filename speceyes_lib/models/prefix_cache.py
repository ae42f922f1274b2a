"""What a local model has already computed, for as long as the picture it belongs to is in use.

Two things are kept with a picture: its features (every request that shows the same picture object takes them
again, whoever asks) and the keys and values of the last conversation that began with it and goes on (its next turn
computes only what is new). They go when the picture goes, so memory is bounded by the pictures held.

Keys and values are found again by their tokens. A picture's tokens all look alike; they are told apart by the
picture's number, so a conversation is taken up exactly as far as tokens and pictures agree.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(eq=False)
class Kept:
    """What is kept with one picture.

    features: [tokens, width] of the language model's input, then one such tensor per deeper layer that wants one.
    codes: int64 [T] of the last conversation: token ids, and minus the picture's number for a picture's tokens.
    layers: its keys and values, one pair of [heads, T, width] per layer.
    """

    number: int
    features: list[torch.Tensor] = field(default_factory=list)
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    layers: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def known(self, codes: np.ndarray) -> int:
        """With how many of these codes the kept conversation begins; the last is always left to compute.

        It never ends within a picture: prompts end in text, and the same picture has the same tokens.
        """
        n = min(len(codes) - 1, len(self.codes))
        differ = np.flatnonzero(codes[:n] != self.codes[:n])
        return int(differ[0]) if len(differ) else n


class PictureMemory:
    """`Kept` by picture object."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref, Kept]] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, picture: Image.Image) -> Kept:
        key = id(picture)
        if key not in self._kept:
            gone = weakref.ref(picture, lambda _: self._kept.pop(key, None))
            self._kept[key] = gone, Kept(next(self._numbers))
        return self._kept[key][1]


@dataclass(frozen=True)
class Row:
    """One request as the model sees it: its first `start` tokens are known, their layers are in `kept`.

    ids: int64 [T] token ids. codes: int64 [T], see `Kept`. pictures, in order, with the number of cells (t, h, w) each
    is made of, and where its tokens begin.
    """

    ids: np.ndarray
    codes: np.ndarray
    pictures: list[Image.Image]
    grids: list[tuple[int, int, int]]
    begins: list[int]
    kept: Kept | None = None
    start: int = 0

    @property
    def new_pictures(self) -> list[Image.Image]:
        """The pictures among what is still to compute; a picture is known as a whole or not at all."""
        return [p for p, begin in zip(self.pictures, self.begins, strict=True) if begin >= self.start]
