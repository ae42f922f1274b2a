"""Values that are computed once for a picture and freed with it, so that memory is bounded by the pictures in use."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
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
