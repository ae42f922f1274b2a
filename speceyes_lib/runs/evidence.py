"""What a generation was sure of: per token, the K highest log-probabilities of the raw distribution."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..texts import storable
from .files import _replacing

ROWS_PER_GROUP = 256  # evidence held in memory at once while it is compacted
_ARRAYS = {
    "token_ids": np.int32,
    "chosen_logprobs": np.float32,
    "top_ids": np.int32,
    "top_logprobs": np.float32,
}
_COLUMNS = ("id", "k", "token_texts", *_ARRAYS)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence of one generated answer of T tokens with K alternatives each.

    Log-probabilities are natural logarithms, of the raw logits (no temperature, no penalties).

    Raises:
        ValueError: shapes that do not fit each other, or `top_logprobs` not descending: a bug of the code that captured
            it, never a user's mistake.
    """

    token_ids: np.ndarray  # int32 [T], the tokens generated (end-of-sequence and padding excluded)
    token_texts: tuple[str, ...]  # their T texts
    chosen_logprobs: np.ndarray  # float32 [T], log-probability of each generated token
    top_ids: np.ndarray  # int32 [T, K], the most probable tokens of each step
    top_logprobs: np.ndarray  # float32 [T, K], sorted descending; `-inf` marks a token the model excluded

    def __post_init__(self) -> None:
        for name, dtype in _ARRAYS.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        object.__setattr__(self, "token_texts", storable(tuple(self.token_texts)))
        t = len(self.token_ids)
        if not (
            self.token_ids.shape == self.chosen_logprobs.shape == (t,)
            and len(self.token_texts) == t
            and self.top_ids.ndim == 2
            and self.top_ids.shape == self.top_logprobs.shape
            and len(self.top_ids) == t
        ):
            raise ValueError(
                f"evidence of {t} tokens does not fit together: texts {len(self.token_texts)}, chosen "
                f"{self.chosen_logprobs.shape}, top ids {self.top_ids.shape}, top {self.top_logprobs.shape}"
            )
        # `-inf` beside `-inf` differ by nan, hence the comparison rather than a difference
        if np.any(self.top_logprobs[:, 1:] > self.top_logprobs[:, :-1]):
            raise ValueError("top_logprobs must be sorted descending along K")

    @property
    def n_tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.token_ids)

    @property
    def k(self) -> int:
        """Alternatives stored per token (0 for an empty answer)."""
        return self.top_ids.shape[1]

    def of_tokens(self, indices: Sequence[int]) -> Evidence:
        """The evidence of some of the tokens."""
        arrays = {name: getattr(self, name)[list(indices)] for name in _ARRAYS}
        return Evidence(token_texts=tuple(self.token_texts[i] for i in indices), **arrays)

    def equals(self, other: Evidence) -> bool:
        """Bitwise the same evidence."""
        return self.token_texts == other.token_texts and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in _ARRAYS
        )


def pack(key: str, evidence: Evidence) -> dict:
    """A journal line: arrays as base64 of their little-endian bytes (exact, `-inf` included)."""
    packed: dict[str, Any] = {"id": key, "k": evidence.k, "token_texts": evidence.token_texts}
    for name, dtype in _ARRAYS.items():
        data = getattr(evidence, name).astype(np.dtype(dtype).newbyteorder("<"))
        packed[name] = base64.b64encode(data.tobytes()).decode()
    return packed


def _unpack(
    k: int, texts: Iterable[str], ids: np.ndarray, chosen: np.ndarray, top_ids: np.ndarray, top: np.ndarray
) -> Evidence:
    shape = (len(ids), k)
    return Evidence(ids, tuple(texts), chosen, top_ids.reshape(shape), top.reshape(shape))


def _evidence_at(file: IO[bytes], offset: int, length: int) -> tuple[str, Evidence]:
    file.seek(offset)
    packed = json.loads(file.read(length))
    arrays = (
        np.frombuffer(base64.b64decode(packed[name]), np.dtype(dtype).newbyteorder("<"))
        for name, dtype in _ARRAYS.items()
    )
    return packed["id"], _unpack(packed["k"], packed["token_texts"], *arrays)


def read_rows(path: Path, only: Collection[str] | None = None) -> Iterator[tuple[str, Evidence]]:
    """Ids and evidence of a Parquet file, in its order; `only`: just the parts of the file that hold these ids."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    groups = [
        g
        for g in range(file.num_row_groups)
        if only is None or not set(only).isdisjoint(file.read_row_group(g, ["id"])["id"].to_pylist())
    ]
    for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, row_groups=groups):
        for key, k, texts, *arrays in zip(*(batch.column(name) for name in _COLUMNS), strict=True):
            if only is None or key.as_py() in only:
                values = (array.values.to_numpy() for array in arrays)
                yield key.as_py(), _unpack(k.as_py(), texts.as_py(), *values)


def _write_parquet(path: Path, rows: Iterable[tuple[str, Evidence]]) -> None:
    """One row per answer; the [T, K] arrays are stored flat, row-major, with K beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.string()), ("k", pa.int32()), ("token_texts", pa.list_(pa.string()))]
        + [(name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in _ARRAYS.items()]
    )
    with _replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        group: list[dict] = []
        for key, e in rows:
            group.append(
                {"id": key, "k": e.k, "token_texts": list(e.token_texts)}
                | {name: getattr(e, name).ravel() for name in _ARRAYS}
            )
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
