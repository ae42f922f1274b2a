"""The process of the embedded server that speaks HTTP. What strangers send is read here, apart from the models.

`server.py` starts it with a socket that listens, and a pipe whose first message is a `Setup`. Then numbered `Question`s
go one way, and their outcomes come the other way: the number of tokens of the prompt and a `Generation`, or an
`ApiError`. A number alone gives a question up. None stops the process. When the pipe ends, the models are gone, and the
process ends too.

Small requests are read at once. Large bodies and pictures go to a third process of low priority, the cheapest first, so
that they take no time from the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UserError
from ..models.base import Generation
from ..runs.processes import end_with_parent
from .completions import ApiError, Question, Setup, completion, to_prompt, to_request
from .engine import Line

T = TypeVar("T")

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost", "[::1]")  # a page of another host that resolves to this machine is refused
MAX_REQUESTS = 2048  # at a time
MAX_BODY = 64 * 2**20  # bytes
SMALL_BODY = 2**17  # bytes
SMALL_COST = 32  # of pictures, see `Prompt`: half a megapixel in one picture
SMALL_ANSWER = 2048  # alternatives of all tokens
LARGE_AT_A_TIME = 2  # bodies in memory: one is read while the other one comes
BODY_S = 60.0  # until the whole body must have come
READER_NICE = 10
REFUSAL_S = 0.5  # how long a refusal waits while models are at work: others are read in the meantime
END_S = 5.0  # until the process ends at the latest once the models are gone


def listen(port: int) -> socket.socket:
    """A socket that listens on this machine only; port 0 takes a free one. Raises UserError where it is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UserError(f"port {port}: {error.strerror}; choose another one (0: any free)") from None
    listening.listen(2048)
    return listening


# ------------------------------------------------------------------ large requests


class Turns:
    """So many turns at a time. Of those who wait, the one with the lowest place in the line is next."""

    def __init__(self, at_a_time: int) -> None:
        self._free = at_a_time
        self._line: Line[None] = Line()

    @contextlib.asynccontextmanager
    async def turn(self, cost: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        turn = self._line.put(None, cost)
        self._give()
        try:
            await asyncio.wrap_future(turn)
            yield
        finally:
            if not turn.cancel():
                self._free += 1
                self._give()

    def _give(self) -> None:
        while self._free and (jobs := self._line.take(lambda taken, job: False)):
            self._free -= 1
            jobs[0].future.set_result(None)


_setup: Setup  # of the reading process


def _begin_reading(setup: Setup) -> None:
    global _setup
    _setup = setup
    os.nice(READER_NICE)
    end_with_parent()


def _read(body: bytes) -> Question:
    prompt = to_prompt(body, _setup.models, _setup.max_logprobs)
    return to_request(prompt, _setup.models[prompt.chat.model])


class Reader:
    """A process that reads requests. It starts with the first one, and again after it was killed."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._pool: ProcessPoolExecutor | None = None

    async def read(self, http: Request, body: bytes) -> Question:
        """The question in a body. Raises ApiError if it is refused, the process ended or the client has gone."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _begin_reading, (self._setup,))
        pool = self._pool
        try:
            return await _unless_gone(http, pool.submit(_read, body))
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
            message = "the process that reads large requests ended; send it again"
            raise ApiError(503, message, code="reader_ended", again=True) from None


# ------------------------------------------------------------------ the models


class Models:
    """The models at the other end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._are_gone = pipe, False
        self._numbers = itertools.count()
        self._waiting: dict[int, Future] = {}
        self._messages: SimpleQueue = SimpleQueue()
        threading.Thread(target=self._send, daemon=True).start()  # the pipe may be full

    @property
    def are_busy(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._waiting)

    def submit(self, question: Question) -> Future[tuple[int, Generation]]:
        """The future outcome of a question. Cancelling it gives the question up."""
        if self._are_gone:
            raise _ended()
        number, future = next(self._numbers), Future()
        self._waiting[number] = future
        future.add_done_callback(partial(self._done, number))
        self._messages.put((number, question))
        return future

    def receive(self, server: uvicorn.Server) -> None:
        """Take outcomes until the pipe ends. None stops the server, and so does the end of the pipe."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                if (message := self._pipe.recv()) is None:
                    server.should_exit = True
                else:
                    self._finish(*message)
        self._are_gone = True
        for number in list(self._waiting):
            self._finish(number, _ended())
        server.config.timeout_graceful_shutdown = END_S
        server.should_exit = True

    def _finish(self, number: int, outcome: tuple[int, Generation] | ApiError) -> None:
        future = self._waiting.get(number)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, ApiError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _done(self, number: int, future: Future) -> None:
        del self._waiting[number]
        if future.cancelled():
            self._messages.put(number)

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # `receive` sees it too
            while True:
                self._pipe.send(self._messages.get())


# ------------------------------------------------------------------ HTTP


class Door:
    """Lets in requests that name this machine as their host, and only so many at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.n_inside = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name, _, port = host.rpartition(":") if host[-1:] != "]" and ":" in host else (host, "", "")
        refusal = None
        if name.lower() not in HOSTS or not (port or "0").isdecimal():
            message = f"Host: {host[:100]!r} is not this server; use {' or '.join(HOSTS)}"
            refusal = ApiError(403, message, "Host")
        elif self.n_inside >= MAX_REQUESTS:
            refusal = ApiError(429, f"{MAX_REQUESTS} requests wait already; send it again later", again=True)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        self.n_inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.n_inside -= 1


async def _body(http: Request) -> bytes:
    """The body of a request. Raises ApiError if it is too large or does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in http.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise ApiError(413, f"the body has more than {MAX_BODY} bytes")
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_S:g} s", again=True) from None
    except ClientDisconnect:
        raise _gone() from None
    return bytes(body)


def _ended() -> ApiError:
    return ApiError(503, "the process of the models ended; start the server again", code="models_ended")


def _gone() -> ApiError:
    return ApiError(499, "the client is gone")  # nobody reads it


async def _unless_gone(http: Request, work: Future[T]) -> T:
    """The result of work, which is cancelled when the client goes away."""

    async def left() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    result, absence = asyncio.wrap_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait((result, absence), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise _gone()
        return result.result()
    finally:
        result.cancel()
        absence.cancel()


def create_app(models: Models, setup: Setup) -> Starlette:
    """The application."""
    started = int(time.time())
    turns, reader = Turns(LARGE_AT_A_TIME), Reader(setup)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({})

    async def listed(_: Request) -> JSONResponse:
        entry = {"object": "model", "created": started, "owned_by": "speceyes"}
        return JSONResponse({"object": "list", "data": [{"id": name} | entry for name in setup.models]})

    async def question_of(http: Request) -> Question:
        length = http.headers.get("content-length", "")
        n_bytes = int(length[:20]) if length.isdecimal() else MAX_BODY
        if n_bytes > MAX_BODY:
            raise ApiError(413, f"the body has {length[:20]} bytes; at most {MAX_BODY} are read")
        if n_bytes > SMALL_BODY:
            async with turns.turn(n_bytes // 2**10):
                return await reader.read(http, await _body(http))
        body = await _body(http)
        prompt = to_prompt(body, setup.models, setup.max_logprobs)
        if prompt.cost <= SMALL_COST:
            return to_request(prompt, setup.models[prompt.chat.model])
        async with turns.turn(prompt.cost):
            return await reader.read(http, body)

    async def chat_completions(http: Request) -> JSONResponse:
        try:
            question = await question_of(http)
        except ApiError:
            await asyncio.sleep(REFUSAL_S if models.are_busy else 0)
            raise
        chat, request = question.chat, question.request
        tokens, generation = await _unless_gone(http, models.submit(question))
        model = setup.models[chat.model]
        answer = partial(completion, chat, request, tokens, generation, model, setup.thoughts_in)
        is_small = len(generation.token_ids) * (chat.top_logprobs or 0) <= SMALL_ANSWER
        return answer() if is_small else await asyncio.to_thread(answer)

    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail)).response()

    async def broken(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, f"{type(error).__name__}: a fault of the server").response()

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", listed),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        ],
        middleware=[Middleware(Door)],
        exception_handlers={ApiError: refused, HTTPException: other, Exception: broken},
    )


def main(listening_fd: int, pipe_fd: int) -> None:
    """Serve until the pipe brings None, or ends."""
    pipe = Connection(pipe_fd)
    setup = pipe.recv()
    models = Models(pipe)
    server = uvicorn.Server(uvicorn.Config(create_app(models, setup), log_level="error", lifespan="off"))
    threading.Thread(target=models.receive, args=(server,), daemon=True).start()
    server.run([socket.socket(fileno=listening_fd)])
