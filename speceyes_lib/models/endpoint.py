"""OpenAI-compatible servers: one line holds the address and settings; `Client` keeps many requests in flight.

    http://127.0.0.1:8000/v1?model=Qwen/Qwen3-VL-2B-Instruct&processor=qwen3_vl&concurrency=64

is the base URL of a server and, as its query, the fields of `Endpoint`. Several lines (separated by white space) are
replicas of one model; requests go to the least busy one. openai is imported when the first client is made.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConfigError, build
from ..texts import storable
from .transport import SENT_STATUS, bounded_client, excerpt, words_of_error

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

T = TypeVar("T")
FailureKind = Literal["timeout", "unreachable", "rate_limited", "server_error", "refused", "bad_reply"]
# faults of the server or the way to it: the same request may succeed later
MEANS: frozenset[str] = frozenset({"timeout", "unreachable", "rate_limited", "server_error"})
# a key that ran out, a model that is no longer served: every request fails alike until a person mends it
_NOT_SERVED = {401, 402, 403, 404, 407, 408}
_STARTING = threading.Lock()
# Requests start one after the other, because replies that arrive together wait for each other. The pause costs no
# throughput: this process needs about that long for a request.
PACE_S = 0.001
LOOP = "endpoints"  # the thread of the loop that all clients share
REST_S = 30.0  # how long an unreachable server is skipped while others answer
MESSAGE_CHARS = 500
MOST_TOKENS = 10**8  # that a reply may claim; more is no count
# what servers call the two ends of an answer; any other word is kept as it came
FINISH_REASONS = {
    **dict.fromkeys(
        ("stop", "eos_token", "eos", "end_turn", "stop_sequence", "stop_str", "stop_token"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_length", "max_output_tokens"), "length"),
}


class Endpoint(BaseModel):
    """One server and its settings.

    base_url: up to and including /v1. model: the name it serves. key_env: environment variable with its key;
    empty: it needs none. concurrency: requests in flight at most. timeout_s: seconds an attempt may take.
    retries: further attempts after 429, 5xx, time-outs and lost connections, with growing, jittered pauses or
    after what Retry-After says. processor: how its model wants pictures (see `openai.image_spec_of`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_url: str
    model: str
    key_env: str = ""
    concurrency: Annotated[int, Field(ge=1)] = 16
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 5
    processor: str = ""

    @property
    def key(self) -> str:
        """The key from the environment; a placeholder for servers without a key.

        Raises:
            ConfigError: the variable is not set.
        """
        if not self.key_env:
            return "none"
        if not (key := os.environ.get(self.key_env)):
            raise ConfigError(
                f"key_env: the environment variable {self.key_env} is not set; set it to the key of {self.base_url}"
            )
        return key


def is_endpoint(model: str) -> bool:
    """True if the text names servers, False for a folder."""
    return model.lstrip().startswith(("http://", "https://"))


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """The endpoints in a text, one per line (or separated by blanks). The path of a processor may hold blanks itself.

    Raises:
        ConfigError: an option is unknown, missing, given twice or has a wrong value.
    """
    endpoints = tuple(_parse(part) for part in re.split(r"\s+(?=https?://)", text.strip()) if part)
    if not endpoints:
        raise ConfigError("no endpoint given; write http://HOST:PORT/v1?model=NAME")
    for name in ("model", "processor"):
        if len(values := sorted({getattr(e, name) for e in endpoints})) > 1:
            raise ConfigError(
                f"endpoints of one role must have the same {name}, got {' and '.join(map(repr, values))}"
            )
    return endpoints


def _parse(text: str) -> Endpoint:
    try:
        url = urlsplit(text)
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        whole = False
    if not whole:
        raise ConfigError(f"{text}: not a server's address; write http://HOST:PORT/v1?model=NAME")
    base_url = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path.rstrip("/"), "", ""))
    if url.username or url.password:
        raise ConfigError(
            f"{base_url}: the address must not hold a user or password; name an environment variable in key_env"
        )
    options = parse_qsl(url.query.replace("+", "%2B"), keep_blank_values=True)  # of a path, not a blank
    if apart := [word for name, value in options if name != "processor" for word in value.split()[1:]]:
        raise ConfigError(f"{apart[0]}: not a server's address; write http://HOST:PORT/v1?model=NAME")
    values = {"base_url": base_url, **dict(options)}
    if len(values) <= len(options):
        raise ConfigError(f"{base_url}: an option is given twice in {url.query!r}")
    if not values.get("model"):
        raise ConfigError(f"{base_url}: option 'model' is missing; write {base_url}?model=NAME")
    return build(Endpoint, values, base_url)


# ------------------------------------------------------------------ sending requests


class EndpointError(Exception):
    """A request that finally failed: `kind`, and a message with the server's reply. It never holds a key."""

    def __init__(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status

    @property
    def means(self) -> str:
        """The kind, where server or network are at fault; "" where the request is."""
        return self.kind if self.kind in MEANS or self.status in _NOT_SERVED else ""


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    text: storable. finish_reason: "stop", "length", or the server's word for another end. choice: the first choice as
    it was sent, where anything may be odd but `message`, which is a dict. excerpt: how the reply begins, for messages.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choice: dict
    latency_s: float
    excerpt: str = ""


class Client:
    """Sends requests to the replicas of one model, `max_in_flight` at a time over all of them; more may wait.

    Everything runs on one background event loop of this process, so that it also works under a running loop (Jupyter).
    `submit` returns a future at once; `ask` is for callers on that loop. Connections are closed by `close()`, and when
    the client is freed or the process ends.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.replicas = [_Replica(e) for e in endpoints]
        self.max_in_flight = sum(e.concurrency for e in endpoints)
        self._free = asyncio.Semaphore(self.max_in_flight)
        self._next_start_s = 0.0
        self.close = weakref.finalize(self, _hang_up, [replica.openai for replica in self.replicas])

    def submit(self, messages: Sequence[dict], **body: Any) -> Future[Reply]:
        """The future reply to a request; `body` holds further fields of a chat completion (max_tokens, stop, ...).

        The future raises EndpointError for a request that finally failed.
        """
        return on_loop(self.ask(messages, **body))

    async def ask(self, messages: Sequence[dict], **body: Any) -> Reply:
        """The reply, as `submit`, awaited on the client's loop (see `on_loop`)."""
        async with self._free:
            await self._paced()
            untried = list(self.replicas)
            while True:
                replica = min(untried, key=_Replica.load)
                untried.remove(replica)
                try:
                    return await replica.post({"messages": list(messages), **body})
                except EndpointError as error:
                    if error.kind not in ("unreachable", "timeout") or not untried:
                        raise

    async def _paced(self) -> None:
        """Wait until a request may start: PACE_S after the one before."""
        loop = asyncio.get_running_loop()
        wait_s = self._next_start_s - loop.time()
        self._next_start_s = max(self._next_start_s, loop.time()) + PACE_S
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class _Replica:
    """One endpoint in use."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.in_flight, self.rests_until_s = endpoint, 0, 0.0
        self.openai = _client(endpoint)

    def load(self) -> tuple[bool, float]:
        """Sort key of a replica: skipped after a failure, then its load."""
        return time.monotonic() < self.rests_until_s, self.in_flight / self.endpoint.concurrency

    async def post(self, body: dict) -> Reply:
        """The reply to one request. Whatever else comes, or nothing, is an EndpointError."""
        import httpx2
        import openai

        self.in_flight += 1
        began_s = time.perf_counter()
        try:
            # the raw reply: typed objects of 128 alternatives per token would cost more than the request
            response = await self.openai.post(
                "/chat/completions", body={"model": self.endpoint.model, **body}, cast_to=httpx2.Response
            )
            return _reply(self._without_key(response.content), time.perf_counter() - began_s)
        except openai.APITimeoutError:
            self.rests_until_s = time.monotonic() + REST_S
            raise self._failed("timeout", f"no answer within {self.endpoint.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            self.rests_until_s = time.monotonic() + REST_S
            raise self._failed("unreachable", f"cannot be reached ({error.__cause__})") from None
        except openai.APIStatusError as error:
            raise self._refused(error.response) from None
        except Exception as error:  # the one border: a server may send anything
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise self._failed("bad_reply", f"sent no chat completion: {reason}") from None
        finally:
            self.in_flight -= 1

    def _refused(self, response: httpx2.Response) -> EndpointError:
        """The error of a reply with an error's status. An error that came with status 200 says so."""
        code = response.status_code
        kinds: dict[int, FailureKind] = {408: "timeout", 429: "rate_limited"}
        kind = kinds.get(code, "server_error" if code >= 500 else "refused")
        words = words_of_error(self._without_key(response.content))
        if 300 <= code < 400:
            words = (
                f"it redirects to {response.headers.get('location')}, which is not followed, because pictures and key "
                f"would go along; write the address that answers. {words}"
            )
        sent = response.extensions.get(SENT_STATUS, code)
        return self._failed(
            kind, f"answered {f'{sent} with the error ' * (sent != code)}{code}: {words}", code
        )

    def _failed(self, kind: FailureKind, what: str, status: int | None = None) -> EndpointError:
        message = self._without_key(f"{self.endpoint.base_url} {what}".encode("utf-8", "surrogatepass"))
        return EndpointError(kind, message.decode("utf-8", "replace")[:MESSAGE_CHARS], status)

    def _without_key(self, body: bytes) -> bytes:
        """What a server sent, without its key; some servers repeat the key they refuse."""
        variable = self.endpoint.key_env
        return body.replace(self.openai.api_key.encode(), f"${variable}".encode()) if variable else body


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    import openai

    loopback = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "localhost", "::1")
    client = openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key,
        max_retries=endpoint.retries,
        timeout=None,  # the transport limits an attempt as a whole
        # no proxy for a server on this machine
        http_client=bounded_client(endpoint.timeout_s, endpoint.concurrency, proxies=not loopback),
    )
    # openai reads these from the environment; they are meant for openai.com only
    client.organization = client.project = None
    return client


def _reply(body: bytes, latency_s: float) -> Reply:
    """Raises ValueError with the reason for anything but a chat completion with a first choice."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        text = choice["message"].get("content")
        if not isinstance(text, str | None):
            raise TypeError("content is no text")
        usage = data.get("usage") or {}
        counts = [_count(usage.get(f"{part}_tokens")) for part in ("prompt", "completion")]
        reason = choice.get("finish_reason")
        reason = FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else repr(reason)
        return Reply(storable(text or ""), storable(reason), *counts, choice, latency_s, excerpt(body))
    except Exception as error:  # whatever is odd about it
        what = f"{type(error).__name__}: {error}"[:100]
        raise ValueError(f"{what}; it begins {excerpt(body)!r}") from None


def _count(value: Any) -> int:
    count = int(value or 0)
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"{count:.3g} is no number of tokens")
    return count


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=LOOP, daemon=True).start()
    return loop


def _hang_up(clients: Sequence[AsyncOpenAI]) -> None:
    """Close the connections of clients, and wait for it unless this runs on their own loop."""
    if not _loop.cache_info().currsize:  # no request was ever sent
        return
    closing = [on_loop(client.close()) for client in clients]
    if threading.current_thread().name != LOOP:
        wait(closing, timeout=5)


def on_loop(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the loop that all clients of this process share."""
    with _STARTING:  # threads that send their first request at the same time must get the same loop
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(work, loop)
