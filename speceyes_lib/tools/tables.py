"""Tables as text for models."""

from __future__ import annotations

from collections.abc import Sequence


def labelled_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as numbered rows in which every cell repeats the name of its row: "1: Korvan price=482, Korvan mass=235".

    The first column holds the names. Small models need this form, because each cell can be read alone.
    """
    lines = [f"{len(rows)} rows"]
    for number, (name, *cells) in enumerate(rows, 1):
        parts = [f"{name} {column}={cell}" for column, cell in zip(header[1:], cells, strict=True)]
        lines.append(f"{number}: {', '.join(parts)}")
    return "\n".join(lines)


def plain_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as its header and numbered rows, with " | " between cells."""
    lines = [f"{len(rows)} rows", " | ".join(header)]
    lines += [f"{number}: {' | '.join(row)}" for number, row in enumerate(rows, 1)]
    return "\n".join(lines)
