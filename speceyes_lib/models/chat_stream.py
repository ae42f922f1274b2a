"""Chat completions as a stream: each part of the reply as soon as the server has sent it.

Closing the iterator closes the connection, and a server such as vLLM then ends the generation.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from .endpoint import MESSAGE_CHARS, Endpoint, EndpointError, FailureKind
from .transport import certificates, excerpt, words_of_error

MAX_LINE_BYTES = 4 << 20
MAX_STREAM_BYTES = 256 << 20
DONE = b"[DONE]"  # the last part of a stream
MAX_PAUSE_S = 20.0  # before a further attempt
_KINDS: dict[int, FailureKind] = {408: "timeout", 429: "rate_limited"}


class ChatStreams:
    """Streams from one endpoint. Belongs to the event loop that uses it first; `close` ends its connections."""

    def __init__(self, endpoint: Endpoint) -> None:
        import httpx2

        self.endpoint, self._key = endpoint, endpoint.key
        loopback = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(endpoint.timeout_s),  # between two parts of a reply
            limits=httpx2.Limits(max_connections=None),
            verify=certificates(),
            trust_env=not loopback,  # no proxy for a server on this machine
            headers={"Authorization": f"Bearer {self._key}"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[dict]:
        """The first choice of every part of a reply, as sent. A server that does not stream gives one part.

        Such a part has the whole `message` in the place of a `delta`. Attempts are repeated before the first part only.

        Args:
            body: of the request, without model and stream.

        Raises:
            EndpointError: the request finally failed, or the stream broke off.
        """
        for attempt in range(self.endpoint.retries + 1):
            got_any = False
            try:
                async for choice in self._attempt(body):
                    got_any = True
                    yield choice
                return
            except EndpointError as error:
                if got_any or not (error.means and error.status not in (401, 402, 403, 404, 407)):
                    raise
                if attempt == self.endpoint.retries:
                    raise
            await asyncio.sleep(min(MAX_PAUSE_S, 0.5 * 2**attempt))

    async def _attempt(self, body: Mapping[str, Any]) -> AsyncIterator[dict]:
        import httpx2

        request = {"model": self.endpoint.model, **body, "stream": True}
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(
                    self._client.stream("POST", f"{self.endpoint.base_url}/chat/completions", json=request)
                )
                if response.status_code != 200:
                    raise self._refused(response.status_code, await _whole(response))
                if "text/event-stream" not in response.headers.get("content-type", ""):
                    yield self._choice(await _whole(response))
                    return
                ended = False
                async for data in _events(response):
                    if data == DONE:
                        return
                    if (choice := self._choice(data, may_lack=True)) is not None:
                        ended = ended or choice.get("finish_reason") is not None
                        yield choice
                if not ended:
                    raise self._failed("unreachable", "broke off in the middle of a reply")
            except httpx2.TimeoutException:
                raise self._failed("timeout", f"sent nothing for {self.endpoint.timeout_s:g} s") from None
            except httpx2.HTTPError as error:
                raise self._failed(
                    "unreachable", f"cannot be reached ({error or type(error).__name__})"
                ) from None
            except (ValueError, RecursionError) as error:
                raise self._failed("bad_reply", f"sent no chat completion: {error}") from None

    def _choice(self, data: bytes, may_lack: bool = False) -> dict | None:
        """The first choice of a part. None for one without choices, such as the count of tokens at the end."""
        part = json.loads(data)
        if isinstance(part, dict) and part.get("error"):
            raise self._failed("server_error", f"broke off: {words_of_error(data)}")
        choices = part.get("choices") if isinstance(part, dict) else None
        if not choices and may_lack and isinstance(part, dict):
            return None
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or not isinstance(choice.get("delta", choice.get("message")), dict):
            raise ValueError(f"it begins {excerpt(data)!r}")
        return choice

    def _refused(self, status: int, body: bytes) -> EndpointError:
        kind = _KINDS.get(status, "server_error" if status >= 500 else "refused")
        return self._failed(kind, f"answered {status}: {words_of_error(body)}", status)

    def _failed(self, kind: FailureKind, what: str, status: int | None = None) -> EndpointError:
        message = f"{self.endpoint.base_url} {what}"
        if self.endpoint.key_env:
            message = message.replace(self._key, f"${self.endpoint.key_env}")
        return EndpointError(kind, message[:MESSAGE_CHARS], status)


async def _whole(response: Any) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_LINE_BYTES:
            raise ValueError(f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
    return bytes(body)


async def _events(response: Any) -> AsyncIterator[bytes]:
    """The data of server-sent events."""
    buffer, total = bytearray(), 0
    async for part in response.aiter_bytes():
        total += len(part)
        buffer += part
        if len(buffer) > MAX_LINE_BYTES + len(part) or total > MAX_STREAM_BYTES:
            raise ValueError("it does not end")
        *lines, rest = bytes(buffer).split(b"\n")
        buffer = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data:
                    yield data
