"""Scalars of TensorBoard event files, read and written without TensorBoard.

An event file is a sequence of records (length, checksum, an `Event` message, checksum). Of an event only its time, its
step and its scalars are read: `simple_value`, as torch writes it, or a tensor with one number, as newer writers do.
Texts, pictures and histograms are passed over.

Source: TensorFlow's record format, and event.proto, summary.proto, tensor.proto of TensorBoard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

LONGEST_RECORD = 1 << 28  # bytes; a length beyond is damage
_FLOATS = {5: "<f", 6: "<d"}  # fields of TensorProto with unpacked numbers
_CONTENT = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}  # TensorProto.dtype -> its one number in `tensor_content`


class Scalar(NamedTuple):
    """One number of an event file."""

    wall_time_s: float
    step: int
    tag: str
    value: float


def read_scalars(path: Path) -> Iterator[Scalar]:
    """The scalars of an event file, in its order.

    Raises:
        EOFError: the file ends within a record, as after a kill; what came before was given.
        ValueError: a record is damaged; `args[0]` says where.
    """
    with path.open("rb") as file:
        while header := file.read(12):
            at = file.tell() - len(header)
            if len(header) < 12:
                raise EOFError(f"the last record, at byte {at}, is cut off")
            length, check = struct.unpack("<QI", header)
            if check != _masked_crc32c(header[:8]) or length > LONGEST_RECORD:
                raise ValueError(f"the record at byte {at} is damaged")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise EOFError(f"the last record, at byte {at}, is cut off")
            data = body[:length]
            if struct.unpack("<I", body[length:])[0] != _masked_crc32c(data):
                raise ValueError(f"the record at byte {at} is damaged")
            yield from _scalars(data)


def append_scalars(path: Path, wall_time_s: float, step: int, values: Mapping[str, float]) -> None:
    """Add the numbers of a step to an event file, which TensorBoard shows; a new file begins with its version.

    Args:
        path: its name must hold ".tfevents." for TensorBoard to find it.
        wall_time_s: seconds since 1970.
        step: of the run.
        values: tag -> number, kept as float32.
    """
    new = not path.is_file() or not path.stat().st_size
    time_field = _key(1, 1) + struct.pack("<d", wall_time_s)
    texts = ((tag.encode("utf-8"), value) for tag, value in values.items())
    entries = (_key(1, 2) + _sized(tag) + _key(2, 5) + _float32(value) for tag, value in texts)
    summary = b"".join(_key(1, 2) + _sized(entry) for entry in entries)
    event = time_field + _key(2, 0) + _written_varint(step & (1 << 64) - 1) + _key(5, 2) + _sized(summary)
    version = time_field + _key(3, 2) + _sized(b"brain.Event:2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(map(_record, (version, event) if new else (event,))))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", _masked_crc32c(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]


def _key(number: int, kind: int) -> bytes:
    return bytes([number << 3 | kind])


def _sized(content: bytes) -> bytes:
    return _written_varint(len(content)) + content


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # beyond float32
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def _scalars(event: bytes) -> Iterator[Scalar]:
    fields = dict(_fields(event))
    wall_time_s = struct.unpack("<d", fields[1])[0] if 1 in fields else 0.0
    for number, summary in _fields(fields.get(5, b"")):
        if number != 1:
            continue
        parts = dict(_fields(summary))
        value = struct.unpack("<f", parts[2])[0] if 2 in parts else _number(parts.get(8, b""))
        if value is not None:
            tag = parts.get(1, b"").decode("utf-8")
            yield Scalar(wall_time_s, _signed(fields.get(2, 0)), tag, value)


def _number(tensor: bytes) -> float | None:
    """The number of a tensor that holds one; None for every other tensor."""
    fields = dict(_fields(tensor))
    content = _CONTENT.get(fields.get(1, 0))
    if content and len(fields.get(4, b"")) == struct.calcsize(content):
        return float(struct.unpack(content, fields[4])[0])
    for number, form in _FLOATS.items():
        if len(fields.get(number, b"")) == struct.calcsize(form):
            return float(struct.unpack(form, fields[number])[0])
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and content of a message: an int for a varint, bytes for everything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a message holds a field of kind {kind}")
        if at + size > len(message):
            raise ValueError("a message is shorter than its fields")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a message holds a broken number")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _table() -> tuple[int, ...]:
    values = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
        values.append(value)
    return tuple(values)


_CRC32C = _table()


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
