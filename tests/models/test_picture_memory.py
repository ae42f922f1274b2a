"""A value is computed once per picture object and freed with it."""

from __future__ import annotations

import gc

from PIL import Image

from speceyes_lib.models.picture_memory import PictureMemory


def test_equal_pictures_have_values_of_their_own_until_they_are_freed():
    memory = PictureMemory(lambda picture: [picture.size])
    one, other = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))
    assert one == other
    assert memory.of(one) is memory.of(one)
    assert memory.of(one) is not memory.of(other)
    assert len(memory) == 2
    del one
    gc.collect()
    assert len(memory) == 1
