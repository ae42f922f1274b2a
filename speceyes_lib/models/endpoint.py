"""OpenAI-compatible servers: one line holds the address and settings; `Client` keeps many requests in flight.

    http://127.0.0.1:8000/v1?model=Qwen/Qwen3-VL-2B-Instruct&processor=qwen3_vl&concurrency=64

is the base URL of a server and, as its query, the fields of `Endpoint`. Several lines (separated by white space) are
replicas of one model; requests go to the least busy one. openai is imported when the first client is made.
"""

from __future__ import annotations

import asyncio
import os
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

if TYPE_CHECKING:
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
    """The endpoints in a text, one per line (or separated by blanks).

    Raises:
        ConfigError: an option is unknown, missing, given twice or has a wrong value.
    """
    endpoints = tuple(_parse(part) for part in text.split())
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
    options = parse_qsl(url.query, keep_blank_values=True)
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
    """A server's reply: its text, finish reason and token count, and the first choice as it was sent."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choice: dict
    latency_s: float


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
        import httpx2
        import openai

        self.in_flight += 1
        began_s = time.perf_counter()
        try:
            # the raw reply: typed objects of 128 alternatives per token would cost more than the request
            response = await self.openai.post(
                "/chat/completions", body={"model": self.endpoint.model, **body}, cast_to=httpx2.Response
            )
            return _reply(response.json(), time.perf_counter() - began_s)
        except openai.APIConnectionError as error:
            self.rests_until_s = time.monotonic() + REST_S
            # aiohttp's errors all come as time-outs: the first cause shows which are
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            if isinstance(cause, TimeoutError):
                raise self._failed("timeout", f"no answer within {self.endpoint.timeout_s:g} s") from None
            raise self._failed("unreachable", f"cannot be reached ({cause})") from None
        except openai.APIStatusError as error:
            code = error.status_code
            kind = "rate_limited" if code == 429 else "server_error" if code >= 500 else "refused"
            details = error.body if isinstance(error.body, dict) else {}
            message = details.get("message") or error.message
            raise self._failed(kind, f"answered {code}: {message}", code) from None
        except ValueError as error:
            raise self._failed("bad_reply", f"sent no chat completion ({error})") from None
        finally:
            self.in_flight -= 1

    def _failed(self, kind: FailureKind, what: str, status: int | None = None) -> EndpointError:
        message = f"{self.endpoint.base_url} {what}"
        if self.endpoint.key_env:  # some servers repeat the key they refuse
            message = message.replace(self.openai.api_key, f"${self.endpoint.key_env}")
        return EndpointError(kind, message[:500], status)


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    import httpx2
    import openai

    loopback = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "localhost", "::1")
    client = openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key,
        max_retries=endpoint.retries,
        timeout=endpoint.timeout_s,
        # aiohttp underneath takes two thirds of the time per request that the default takes
        http_client=openai.DefaultAioHttpClient(
            timeout=endpoint.timeout_s,
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
            verify=_certificates(),
            trust_env=not loopback,  # no proxy for a server on this machine
        ),
    )
    # openai reads these from the environment; they are meant for openai.com only
    client.organization = client.project = None
    return client


@cache
def _certificates() -> Any:
    """The trusted certificates, read once for all clients."""
    import httpx2

    return httpx2.create_ssl_context()


def _reply(data: Any, latency_s: float) -> Reply:
    """Raises ValueError for anything but a chat completion with a first choice."""
    try:
        choice = data["choices"][0]
        text = choice["message"].get("content") or ""
        usage = data.get("usage") or {}
        counts = (int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion"))
        if not isinstance(text, str):
            raise TypeError("content is no text")
        return Reply(text, str(choice.get("finish_reason")), *counts, choice, latency_s)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


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
