"""Requests that nobody should send, many at a time, and a client that sends them beside plain ones."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image


@dataclass(frozen=True)
class Reply:
    """What came back: the status (0: the connection was closed without one), the body, and the seconds it took."""

    status: int
    body: bytes
    seconds: float


def data_url(picture: Image.Image, kind: str = "PNG", **options: object) -> str:
    """The picture as a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def large_pictures() -> list[str]:
    """Pictures that are valid, or nearly so, and much work."""
    noise = Image.effect_noise((1200, 800), 60).convert("RGB")
    scans = data_url(noise, "JPEG", progressive=True)
    return [
        data_url(Image.new("1", (6000, 6000))),
        data_url(Image.new("L", (17_000, 11_000))),
        data_url(noise),
        data_url(noise, "WEBP"),
        scans,
        scans[: len(scans) // 2],
    ]


def _with_picture(body: dict, url: str, times: int = 1) -> dict:
    part = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "text", "text": "What is it?"}
    return body | {"messages": [{"role": "user", "content": [*[part] * times, text]}]}


def _with_text(body: dict, text: str) -> dict:
    return body | {"messages": [{"role": "user", "content": text}]}


def _nested(depth: int) -> bytes:
    return b'{"model": "draft", "messages": ' + b"[" * depth + b"]" * depth + b"}"


def _flipped(rng: random.Random, body: dict) -> bytes:
    data = bytearray(json.dumps(body).encode())
    for _ in range(rng.randint(1, 30)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _odd_field(rng: random.Random, body: dict) -> dict:
    name = rng.choice([*body, "stop", "n", "temperature", "x" * 1000])
    odd = [None, -1, 1e400, 10**400, "", "\ud800\0", [], {}, [[]], True, ["e"] * 10_000]
    return body | {name: rng.choice(odd)}


GARBAGE: tuple[Callable[[random.Random, dict], dict | bytes], ...] = (
    _flipped,
    _odd_field,
    lambda rng, body: json.dumps(body).encode()[: rng.randrange(2000)],
    lambda rng, body: rng.randbytes(rng.randrange(10_000)),
    lambda rng, body: _nested(rng.choice((10, 1000, 100_000))),
    lambda rng, body: _with_picture(body, data_url(Image.new("RGB", (8, 8)))[: rng.randrange(30, 90)]),
    lambda rng, body: body | {"model": "x" * rng.randrange(10**5)},
)
LARGE: tuple[Callable[[random.Random, dict], dict | bytes], ...] = (
    lambda rng, body: _with_picture(body, rng.choice(large_pictures())),
    lambda rng, body: _with_picture(body, data_url(Image.new("RGB", (300, 200))), 33),
    lambda rng, body: _with_text(body, "red square " * rng.randrange(100, 3000)),
    lambda rng, body: _with_text(body, "a" * rng.randrange(10**6)),
    lambda rng, body: _with_text(body, "é😀" * rng.randrange(10**4)),
    lambda rng, body: body | {"stop": ["<tool", "e" * rng.randrange(201, 10**5)], "max_tokens": 10**9},
)


def mutated(rng: random.Random, plain: dict, kinds: Sequence[Callable] = GARBAGE + LARGE) -> bytes:
    """The body of a request that was changed in one way."""
    body = rng.choice(kinds)(rng, plain)
    return body if isinstance(body, bytes) else json.dumps(body).encode()


async def _send(port: int, body: bytes) -> Reply:
    began = time.perf_counter()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\nconnection: close"
    content = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"\r\n\r\n" + body)
        content = await reader.read()  # a refusal may come before all of the body was sent
        writer.close()
    except OSError:
        pass
    head, _, rest = content.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    return Reply(status, rest, time.perf_counter() - began)


def send_all(port: int, *groups: Sequence[bytes]) -> list[list[Reply]]:
    """The replies to groups of bodies that are all sent at once, mixed evenly."""

    async def go() -> list[list[Reply]]:
        order = sorted((i / len(group), g, i) for g, group in enumerate(groups) for i in range(len(group)))
        tasks = {(g, i): asyncio.ensure_future(_send(port, groups[g][i])) for _, g, i in order}
        return [[await tasks[g, i] for i in range(len(group))] for g, group in enumerate(groups)]

    return asyncio.run(go())
