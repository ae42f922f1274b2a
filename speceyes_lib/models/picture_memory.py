"""What is kept with a picture as long as it is in use, so that memory is bounded by the pictures.

A local model keeps its features, which serve every request with the same picture object, and the keys and values of the
last conversation that began with it, which serve the next turn. They are found by their tokens. All tokens of a picture
are equal, so the number of the picture is compared instead. A conversation is reused exactly as far as both agree.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL import Image

V = TypeVar("V")


class PictureMemory(Generic[V]):
    """One value per picture object, computed when it is first needed. Equal pictures are different objects."""

    def __init__(self, compute: Callable[[Image.Image], V]) -> None:
        self._compute = compute
        self._kept: dict[int, tuple[weakref.ref, V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, picture: Image.Image) -> V:
        """The value of a picture."""
        key = id(picture)
        if key not in self._kept:
            reference = weakref.ref(picture, lambda _: self._kept.pop(key, None))
            self._kept[key] = reference, self._compute(picture)
        return self._kept[key][1]


@dataclass(eq=False)
class Kept:
    """What is kept with one picture.

    features: [tokens, width] of the language model's input, then one such tensor per deeper layer that needs one.
    codes: int64 [T] of the last conversation: token ids, and minus the picture's number for a picture's tokens.
    layers: its keys and values, one pair of [heads, T, width] per layer.
    """

    number: int
    features: list[torch.Tensor] = field(default_factory=list)
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    layers: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def known(self, codes: np.ndarray) -> int:
        """The number of these codes with which the kept conversation begins. The last one is always computed.

        The common part never ends within a picture: prompts end in text, and equal pictures have equal tokens.
        """
        n = min(len(codes) - 1, len(self.codes))
        differ = np.flatnonzero(codes[:n] != self.codes[:n])
        return int(differ[0]) if len(differ) else n


@dataclass(frozen=True)
class Row:
    """One request as the model sees it. Its first `start` tokens are known, and `kept` holds their layers.

    ids: int64 [T] token ids. codes: int64 [T], see `Kept`. grids, begins: for each picture, its number of cells
    (t, h, w), and where its tokens begin.
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
        """The pictures that are still to compute. A picture is known as a whole or not at all."""
        return [p for p, begin in zip(self.pictures, self.begins, strict=True) if begin >= self.start]
