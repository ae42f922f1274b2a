"""References to the pictures of a benchmark: a file, a row of a TSV file, or a row of a Parquet file."""

from __future__ import annotations

import base64
import binascii
import errno
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError, MeansError

if TYPE_CHECKING:
    import pyarrow as pa

_PNG = b"\x89PNG\r\n\x1a\n"
# faults of a disk, a network or this process, not of the file
_DISK_FAULTS = {
    getattr(errno, name)
    for name in (
        "EIO",
        "ESTALE",
        "ETIMEDOUT",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "ECONNRESET",
        "EHOSTDOWN",
        "ENODEV",
    )
}


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
        """The encoded picture (JPEG, PNG, ...).

        Raises:
            DataError: it is missing, or its field holds none.
            MeansError: it is there, but the disk or the network in between does not give it now.
        """
        try:
            return self._bytes()
        except DataError:
            raise
        except OSError as e:
            if e.errno in _DISK_FAULTS:
                raise MeansError("disk", f"{self.where}: cannot be read now ({e.strerror})") from e
            raise DataError(f"{self.where}: cannot read the picture ({e.strerror or e})") from e
        except Exception as e:  # of a damaged Parquet file: many types
            raise DataError(f"{self.where}: cannot read the picture ({e})") from e

    def _bytes(self) -> bytes:
        return self.path.read_bytes()

    def open(self) -> Image.Image:
        """The picture as RGB, turned as its EXIF orientation says, transparency shown on white.

        An orientation that cannot be read is left out.

        Raises:
            DataError: it is missing, truncated or no picture. The message names file and row.
            MeansError: as `read`.
        """
        data = self.read()
        try:
            try:
                return _decoded(data)
            except ValueError:  # a long text in a PNG, which Pillow refuses, is no part of the picture
                return _decoded(without_texts(data))
        except MemoryError:
            raise
        except Exception as e:  # a decoder may raise anything on damaged bytes
            raise DataError(
                f"{self.where}: not a readable picture ({type(e).__name__}: {e}); it has {len(data)} bytes. "
                "Replace it with the original, or save it as PNG or JPEG with 8 bits per channel"
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
        if isinstance(cell, list) and len(cell) == 1:
            (cell,) = cell
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise DataError(f"{self.where}: null, expected the bytes of a picture; fetch this file again")
        if not isinstance(data, bytes):
            raise DataError(
                f"{self.where}: holds {type(data).__name__}, expected the bytes of one picture, or a struct with "
                "`bytes`; fetch this file again"
            )
        return data


@dataclass(frozen=True)
class MirroredImage(ImageRef):
    """Another picture, mirrored left to right when it is opened."""

    original: ImageRef

    @property
    def where(self) -> str:
        """File and place in it, for error messages."""
        return self.original.where

    def _bytes(self) -> bytes:
        return self.original.read()

    def open(self) -> Image.Image:
        """The picture as `ImageRef.open` gives it, mirrored. Raises as it."""
        return ImageOps.mirror(self.original.open())


@lru_cache(maxsize=1)
def _row_group_images(path: Path, mtime_ns: int, group: int) -> pa.ChunkedArray:
    # parquet is read by row group; samples come in file order, so keeping the latest group suffices
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
            raise
        except Exception:  # Pillow raises struct.error, TypeError and others on EXIF that other viewers skip
            pass
        return _rgb(image)


def without_texts(data: bytes) -> bytes:
    """A PNG without the texts in it (chunks tEXt, zTXt, iTXt); other data are returned as they are."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # the upper 8 of 16 bits, as viewers show them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        # Pillow would clip 32-bit pixels to white without a word
        raise ValueError(f"pixel mode {image.mode} has no faithful 8-bit form")
    return image.convert("RGB")
