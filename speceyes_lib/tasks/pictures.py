"""References to the pictures of a benchmark: a file, a row of a TSV file, or a row of a Parquet file."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ImageRef:
    """Where a picture lies. Holds no pixels; `open()` reads them each time."""

    path: Path

    @property
    def where(self) -> str:
        """File and place in it, for error messages."""
        row = getattr(self, "row", None)
        return str(self.path) if row is None else f"{self.path}, row {row}, field 'image'"

    def read(self) -> bytes:
        """The encoded picture (JPEG, PNG, ...). Raises DataError when it cannot be read."""
        try:
            return self._bytes()
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or e
            raise DataError(f"{self.where}: cannot read the picture ({reason})") from e

    def _bytes(self) -> bytes:
        return self.path.read_bytes()

    def open(self) -> Image.Image:
        """The picture as RGB, turned as its EXIF orientation says, transparency shown on white.

        Raises DataError naming file and row when it is missing, truncated or no picture.
        """
        data = self.read()
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as e:
            raise DataError(
                f"{self.where}: not a readable picture ({e}); it has {len(data)} bytes. "
                "Replace it with the original"
            ) from e


@dataclass(frozen=True)
class TsvImage(ImageRef):
    """The base64 field of one TSV row: `length` bytes at byte `offset`."""

    row: int
    offset: int
    length: int

    def _bytes(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            try:
                return base64.b64decode(file.read(self.length), validate=True)
            except binascii.Error as e:
                raise DataError(f"{self.where}: not valid base64 ({e}); fetch this file again") from e


@dataclass(frozen=True)
class ParquetImage(ImageRef):
    """The image of one parquet row: `index` within row group `group`."""

    row: int
    group: int
    index: int

    def _bytes(self) -> bytes:
        column = _row_group_images(self.path, self.path.stat().st_mtime_ns, self.group)
        cell = column[self.index].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise DataError(f"{self.where}: null, expected the bytes of a picture; fetch this file again")
        return data


@lru_cache(maxsize=1)
def _row_group_images(path: Path, mtime_ns: int, group: int) -> pa.ChunkedArray:
    # parquet is read by row group; samples come in file order, so keeping the latest group suffices
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        # Pillow would clip 16- and 32-bit pixels to white without a word
        raise ValueError(f"pixel mode {image.mode} has no faithful 8-bit form")
    return image.convert("RGB")
