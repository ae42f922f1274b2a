"""HTTP within limits: one deadline for a whole attempt, one cap on a body, no redirects, and errors that say so.

A server is not trusted: it may send a byte a second, gigabytes in a few compressed bytes, or something that is no HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import httpx2

MAX_BODY_BYTES = 32 << 20  # of a reply, unpacked: about 3,000 tokens with 128 alternatives each
EXCERPT_CHARS = 200
SENT_STATUS = "sent_status"  # extension of a response: the status that an error in its body replaced
_KINDS_OF_ERROR = {
    429: re.compile("rate.?limit|too.?many|quota", re.IGNORECASE),
    503: re.compile("overload|unavailable|server.?error|internal|timeout", re.IGNORECASE),
}


def bounded_client(timeout_s: float, connections: int, proxies: bool) -> httpx2.AsyncClient:
    """A client for openai whose replies are read to their end, within `timeout_s` and MAX_BODY_BYTES.

    Its failures are httpx2.ReadTimeout (the deadline) and httpx2.ConnectError (all other trouble with the connection).
    A reply with status 200 that holds an error has the status that the error names, so that it is tried again like one.

    Args:
        timeout_s: from the first byte sent to the last byte read.
        connections: at most.
        proxies: use those of the environment.
    """
    import httpx2

    return _client_type()(
        timeout_s,
        timeout=None,
        limits=httpx2.Limits(max_connections=connections),
        verify=certificates(),
        trust_env=proxies,
        headers={"Accept-Encoding": "gzip"},
    )


@cache
def _client_type() -> type[httpx2.AsyncClient]:
    import aiohttp
    import httpx2
    import openai

    class BoundedClient(openai.DefaultAioHttpClient):
        # aiohttp underneath takes two thirds of the time per request that the default takes
        def __init__(self, timeout_s: float, **settings: Any) -> None:
            super().__init__(**settings)
            self.timeout_s = timeout_s

        async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await self._whole(request)
            except TimeoutError:
                raise httpx2.ReadTimeout("deadline", request=request) from None
            except (aiohttp.ClientError, OSError, httpx2.RequestError) as error:
                # aiohttp's errors come as time-outs of httpx2, and some as they are
                cause = error.__cause__ or error
                raise httpx2.ConnectError(
                    getattr(cause, "message", "") or str(cause) or type(cause).__name__, request=request
                ) from None

        async def _whole(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().send(request, stream=True, follow_redirects=False)
            try:
                body, length = [], 0
                async for part in response.aiter_raw():
                    length += len(part)
                    if length > MAX_BODY_BYTES:
                        raise _too_long()
                    body.append(part)
            finally:
                await response.aclose()
            data = _unpacked(b"".join(body), response.headers.get("content-encoding", "identity"))
            status = _status(response.status_code, data)
            kept = {"location", "retry-after", "retry-after-ms", "x-should-retry"} & response.headers.keys()
            headers = {name: response.headers[name] for name in kept}
            extensions = {SENT_STATUS: response.status_code}
            return httpx2.Response(
                status, headers=headers, content=data, request=request, extensions=extensions
            )

    return BoundedClient


@cache
def certificates() -> Any:
    """The trusted certificates, read once for all clients.

    Raises:
        ConfigError: SSL_CERT_FILE or SSL_CERT_DIR names none.
    """
    import httpx2

    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        name = next(
            (n for n in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(n)), "the system's certificates"
        )
        raise ConfigError(
            f"{name}: the trusted certificates cannot be read ({error}); name a file (or folder) of PEM certificates, "
            "or unset the variable"
        ) from None


def _too_long() -> ValueError:
    return ValueError(f"it is longer than {MAX_BODY_BYTES >> 20} MiB")


def _unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its compression. Raises ValueError for one that was not requested, or that grows too long."""
    if encoding.strip().lower() == "identity" or not body:
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise ValueError(f"it is compressed as {encoding[:40]!r}, which was not requested")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"it is no gzip ({error})") from None
    if len(data) > MAX_BODY_BYTES:
        raise _too_long()
    if not unpacker.eof:
        raise ValueError("it is gzip without an end")
    return data


def _status(status: int, body: bytes) -> int:
    """The status of a reply: the one that an error in its body names where it came as a success."""
    if status != 200 or b'"error"' not in body or not (error := _error_in(_parsed(body))):
        return status
    names = [error.get(key) for key in ("code", "status", "type")] if isinstance(error, dict) else [error]
    for name in names:
        if re.fullmatch("[45][0-9][0-9]", str(name)):
            return int(name)
    words = " ".join(name for name in names if isinstance(name, str))
    return next((code for code, kind in _KINDS_OF_ERROR.items() if kind.search(words)), 400)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error_in(data: Any) -> Any:
    """The error of a reply or of its first choice; None where there is none."""
    if isinstance(data, dict) and not (error := data.get("error")):
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        error = choice.get("error") if isinstance(choice, dict) else None
    return error if isinstance(data, dict) else None


def words_of_error(body: bytes) -> str:
    """What a server says in the body of an error: its message, or the beginning of the body."""
    data = _parsed(body)
    error = _error_in(data) or data
    message = error
    if isinstance(error, dict):
        message = next((error[key] for key in ("message", "detail", "error") if error.get(key)), None)
    return message if isinstance(message, str) else excerpt(body)


def excerpt(body: bytes) -> str:
    """The beginning of a reply, from its choices on, on one line and bounded: for messages."""
    text = body[max(0, body.find(b'"choices"')) :][: 4 * EXCERPT_CHARS].decode("utf-8", "replace")
    return " ".join(text.split())[:EXCERPT_CHARS] or "nothing"
