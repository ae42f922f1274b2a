"""What a generation was sure of: per token, the K highest log-probabilities of the raw distribution.

On request a local model also records what its intermediate layers would have predicted (`LayerEvidence`). A file has
columns for that only where it was recorded, so that files from before it are read as they are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
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
_LAYER_ARRAYS = {
    "numbers": np.int32,
    "top_ids": np.int32,
    "top_logprobs": np.float16,
    "chosen_logprobs": np.float16,
    "hidden": np.float16,
}
_LAYER_SIZES = ("depth", "k", "width")
_LAYER_COLUMNS = tuple(f"layer_{name}" for name in (*_LAYER_SIZES, *_LAYER_ARRAYS))


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What L intermediate layers predict at each of T tokens, through the model's final norm and head.

    The state behind a token is the one that the last layer predicts it from.

    Raises:
        ValueError: shapes that do not fit each other: a bug of the code that captured it.
    """

    depth: int  # layers of the model
    numbers: (
        np.ndarray
    )  # int32 [L], the recorded layers, counted from 1, ascending; the last layer is not among them
    top_ids: np.ndarray  # int32 [T, L, K], the most probable tokens after each layer
    top_logprobs: np.ndarray  # float16 [T, L, K], sorted descending
    chosen_logprobs: np.ndarray  # float16 [T, L], log-probability of the generated token after each layer
    hidden: (
        np.ndarray
    )  # float16 [tokens, width], the last state after the final norm: of all T, of one, or of none

    def __post_init__(self) -> None:
        for name, dtype in _LAYER_ARRAYS.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        shape = self.top_ids.shape
        if not (
            self.top_logprobs.shape == shape
            and self.chosen_logprobs.shape == shape[:2]
            and shape[1:2] == self.numbers.shape
            and self.hidden.ndim == 2
        ):
            raise ValueError(
                f"evidence of layers {self.numbers.tolist()} does not fit together: top ids {shape}, top "
                f"{self.top_logprobs.shape}, chosen {self.chosen_logprobs.shape}, hidden {self.hidden.shape}"
            )

    @property
    def k(self) -> int:
        """Alternatives stored per token and layer."""
        return self.top_ids.shape[2]

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return self.hidden.shape[1]

    def of_tokens(self, indices: Sequence[int]) -> LayerEvidence:
        """The evidence of some of the tokens; their states must be those of all tokens."""
        rows = list(indices)
        names = ("top_ids", "top_logprobs", "chosen_logprobs", "hidden")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def with_state_of(self, token: int | None) -> LayerEvidence:
        """The same with the state of one token only; None: of no token."""
        return replace(self, hidden=self.hidden[:0] if token is None else self.hidden[token : token + 1])


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
    layers: LayerEvidence | None = None  # of the same T tokens; None: not recorded

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
            and (self.layers is None or len(self.layers.top_ids) == t)
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
        rows = list(indices)
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        layers = self.layers and self.layers.of_tokens(rows)
        return Evidence(token_texts=tuple(self.token_texts[i] for i in rows), layers=layers, **arrays)

    def equals(self, other: Evidence) -> bool:
        """Bitwise the same evidence."""
        return pack("", self) == pack("", other)


def pack(key: str, evidence: Evidence) -> dict:
    """A journal line: arrays as base64 of their little-endian bytes (exact, `-inf` included)."""
    packed: dict[str, Any] = {"id": key, "k": evidence.k, "token_texts": evidence.token_texts}
    packed |= _as_base64(evidence, _ARRAYS)
    if (layers := evidence.layers) is not None:
        sizes = {name: getattr(layers, name) for name in _LAYER_SIZES}
        packed["layers"] = sizes | _as_base64(layers, _LAYER_ARRAYS)
    return packed


def _as_base64(source: object, arrays: Mapping[str, type]) -> dict[str, str]:
    data = {name: getattr(source, name).astype(np.dtype(t).newbyteorder("<")) for name, t in arrays.items()}
    return {name: base64.b64encode(values.tobytes()).decode() for name, values in data.items()}


def _from_base64(packed: Mapping[str, Any], arrays: Mapping[str, type]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(base64.b64decode(packed[name]), np.dtype(t).newbyteorder("<"))
        for name, t in arrays.items()
    }


def _unpack(
    k: int, texts: Iterable[str], flat: Mapping[str, np.ndarray], layers: LayerEvidence | None
) -> Evidence:
    shape = (len(flat["token_ids"]), k)
    tables = {name: flat[name].reshape(shape) for name in ("top_ids", "top_logprobs")}
    return Evidence(**{**flat, **tables}, token_texts=tuple(texts), layers=layers)


def _unpack_layers(t: int, sizes: Mapping[str, int], flat: Mapping[str, np.ndarray]) -> LayerEvidence:
    shape = (t, len(flat["numbers"]), sizes["k"])
    tables = {name: flat[name].reshape(shape) for name in ("top_ids", "top_logprobs")}
    tables["chosen_logprobs"] = flat["chosen_logprobs"].reshape(shape[:2])
    tables["hidden"] = flat["hidden"].reshape(-1, sizes["width"])
    return LayerEvidence(sizes["depth"], flat["numbers"], **tables)


def _evidence_at(file: IO[bytes], offset: int, length: int) -> tuple[str, Evidence]:
    file.seek(offset)
    packed = json.loads(file.read(length))
    flat, layers = _from_base64(packed, _ARRAYS), packed.get("layers")
    if layers is not None:
        layers = _unpack_layers(len(flat["token_ids"]), layers, _from_base64(layers, _LAYER_ARRAYS))
    return packed["id"], _unpack(packed["k"], packed["token_texts"], flat, layers)


def read_rows(path: Path, only: Collection[str] | None = None) -> Iterator[tuple[str, Evidence]]:
    """Ids and evidence of a Parquet file, in its order; `only`: just the parts of the file that hold these ids."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    with_layers = set(_LAYER_COLUMNS) <= set(file.schema_arrow.names)
    groups = [
        g
        for g in range(file.num_row_groups)
        if only is None or not set(only).isdisjoint(file.read_row_group(g, ["id"])["id"].to_pylist())
    ]
    for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, row_groups=groups):
        columns = [batch.column(name) for name in (*_COLUMNS, *(_LAYER_COLUMNS if with_layers else ()))]
        for key, k, texts, *others in zip(*columns, strict=True):
            if only is None or key.as_py() in only:
                n = len(_ARRAYS)
                flat = _flat_arrays(_ARRAYS, others[:n])
                layers = _layers_of(len(flat["token_ids"]), others[n:]) if with_layers else None
                yield key.as_py(), _unpack(k.as_py(), texts.as_py(), flat, layers)


def _flat_arrays(names: Iterable[str], cells: Iterable[Any]) -> dict[str, np.ndarray]:
    return {name: cell.values.to_numpy() for name, cell in zip(names, cells, strict=True)}


def _layers_of(t: int, cells: Sequence[Any]) -> LayerEvidence:
    n = len(_LAYER_SIZES)
    sizes = {name: cell.as_py() for name, cell in zip(_LAYER_SIZES, cells[:n], strict=True)}
    return _unpack_layers(t, sizes, _flat_arrays(_LAYER_ARRAYS, cells[n:]))


def read_top_logprobs(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and log-probabilities, float32 [T, K], of a Parquet file, in its order: much faster than all evidence."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["id", "k", "top_logprobs"])
    lists = table["top_logprobs"].combine_chunks()
    values, bounds = lists.values.to_numpy(), pairwise(lists.offsets.to_pylist())
    for key, k, (start, stop) in zip(table["id"].to_pylist(), table["k"].to_pylist(), bounds, strict=True):
        yield key, values[start:stop].reshape(-1, k) if k else values[:0].reshape(0, 0)


def _write_parquet(path: Path, rows: Iterable[tuple[str, Evidence]]) -> None:
    """One row per answer; tables are stored flat, row-major, with their sizes beside them.

    The answers of a stage are recorded alike: all of them with layers, or none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def lists(arrays: Mapping[str, type], prefix: str = "") -> list[tuple[str, Any]]:
        return [(prefix + name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in arrays.items()]

    rows = iter(rows)
    first = next(rows, None)
    with_layers = first is not None and first[1].layers is not None
    fields = [("id", pa.string()), ("k", pa.int32()), ("token_texts", pa.list_(pa.string())), *lists(_ARRAYS)]
    if with_layers:
        fields += [(f"layer_{name}", pa.int32()) for name in _LAYER_SIZES] + lists(_LAYER_ARRAYS, "layer_")
    schema = pa.schema(fields)

    def cells(key: str, e: Evidence) -> dict[str, Any]:
        values = {"id": key, "k": e.k, "token_texts": list(e.token_texts)}
        values |= {name: getattr(e, name).ravel() for name in _ARRAYS}
        if (e.layers is not None) != with_layers:
            raise ValueError(f"{key}: some answers of this stage have evidence of layers, others have none")
        if with_layers:
            values |= {f"layer_{name}": getattr(e.layers, name) for name in _LAYER_SIZES}
            values |= {f"layer_{name}": getattr(e.layers, name).ravel() for name in _LAYER_ARRAYS}
        return values

    with _replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        group: list[dict] = []
        for key, e in chain([first] if first else [], rows):
            group.append(cells(key, e))
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
