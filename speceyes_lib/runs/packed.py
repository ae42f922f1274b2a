"""Recorded runs as a folder, whether they are one or a packed file."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError
from ..paths import shown


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A folder with what a packed file holds, as long as the block lasts; a folder as it is.

    Raises:
        DataError: a file is no packed run.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(path, "r:xz") as packed:
                packed.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"{shown(path)}: is no packed run ({error}); restore it from the repository"
            ) from None
        yield Path(folder)
