"""An OpenAI-compatible server over local models: the offline stand-in for vLLM.

    speceyes serve                                     the embedded pair, on 127.0.0.1:8765
    speceyes serve --model draft=FOLDER --port 8001    any model the transformers backend loads

/v1/models and /v1/chat/completions with pictures (data URLs), stop strings and up to `--max-logprobs` alternatives
per token, computed from the real logits. Requests that wait at the same time are answered as one batch; `engine.py`
decides which. It decodes greedily, and refuses what it does not support instead of ignoring it. It also supports vLLM's
`stop_reason`, `add_generation_prompt` and `continue_final_message`. It needs no key and listens on this machine only.
Bodies, pictures and prompts have limits, and an answer that nobody waits for any more is not computed to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import fastapi
import uvicorn
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UserError
from ..models.transformers import TransformersBackend
from ..paths import resolve
from .completions import ApiError, ServedModel, completion, to_prompt, to_request
from .engine import MAX_BATCH, Workshop

T = TypeVar("T")

HOST, PORT = "127.0.0.1", 8765
EMBEDDED = {"draft": "data/demo/models/draft", "agent": "data/demo/models/agent"}
MAX_LOGPROBS = 128
HOSTS = ("127.0.0.1", "localhost", "[::1]")  # a page of another host that resolves to this machine is refused
MAX_REQUESTS = 2048  # at a time
MAX_BODY = 64 * 2**20  # bytes
SMALL_BODY = 2**17  # bytes; of larger ones, two are in memory at a time
SMALL_ANSWER = 2048  # alternatives of all tokens
BODY_S = 60.0  # until the whole body must have come


class _Door:
    """Lets in requests that name this machine as their host, and only so many at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.n_inside = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


async def _body(http: fastapi.Request) -> bytearray:
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
    return body


def _gone() -> ApiError:
    return ApiError(499, "the client is gone")  # nobody reads it


async def _unless_gone(http: fastapi.Request, work: Future[T]) -> T:
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


def create_app(
    models: Mapping[str, ServedModel], workshop: Workshop, max_logprobs: int = MAX_LOGPROBS
) -> fastapi.FastAPI:
    """The application over models by name. workshop: where pictures and prompts are prepared."""
    app = fastapi.FastAPI(title="speceyes", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Door)
    started = int(time.time())
    large = asyncio.Semaphore(2)  # bodies, until their pictures have the size of a view

    @app.get("/health")
    async def health() -> dict:
        return {}

    @app.get("/v1/models")
    async def listed() -> dict:
        entry = {"object": "model", "created": started, "owned_by": "speceyes"}
        return {"object": "list", "data": [{"id": name} | entry for name in models]}

    @app.post("/v1/chat/completions")
    async def chat_completions(http: fastapi.Request) -> JSONResponse:
        length = http.headers.get("content-length", "")
        is_small = length.isdecimal() and int(length[:20]) <= SMALL_BODY
        if length.isdecimal() and int(length[:20]) > MAX_BODY:
            raise ApiError(413, f"the body has {length[:20]} bytes; at most {MAX_BODY} are read")
        async with contextlib.nullcontext() if is_small else large:
            body = await _body(http)
            read = partial(to_prompt, body, models, max_logprobs)
            # another thread costs more than reading a small body
            prompt = (
                read() if is_small else await _unless_gone(http, workshop.submit(read, len(body) // 2**10))
            )
            del body, read
            model, chat = models[prompt.chat.model], prompt.chat.model_copy(update={"messages": []})
            work = workshop.submit(partial(to_request, prompt, model), prompt.cost)
            del prompt
            request, tokens = await _unless_gone(http, work)
        try:
            generation = await _unless_gone(http, model.engine.submit(request, tokens))
        except UserError as error:
            raise ApiError(400, str(error)) from None
        if generation.error is not None:
            raise ApiError(500, generation.error.message, code="generation_error")
        answer = partial(completion, chat, request, tokens, generation, model)
        is_small = len(generation.token_ids) * (chat.top_logprobs or 0) <= SMALL_ANSWER
        return answer() if is_small else await asyncio.to_thread(answer)

    @app.exception_handler(ApiError)
    async def api_error(_: fastapi.Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def other(_: fastapi.Request, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail)).response()

    return app


@contextlib.contextmanager
def serving(
    models: Mapping[str, TransformersBackend],
    *,
    port: int = 0,
    max_logprobs: int = MAX_LOGPROBS,
    max_batch: int = MAX_BATCH,
) -> Iterator[str]:
    """Serve models by name in the background (a notebook cell, a test); yields the base URL.

    port: 0 takes a free one. Raises UserError when the port is taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UserError(f"port {port}: {error.strerror}; choose another one (0: any free)") from None
    served, workshop = {name: ServedModel(backend, max_batch) for name, backend in models.items()}, Workshop()
    app = create_app(served, workshop, max_logprobs)
    config = uvicorn.Config(app, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="server", daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://{HOST}:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        workshop.close()
        for model in served.values():
            model.engine.close()


def serve(
    model_folders: Sequence[str] = (),
    port: int = PORT,
    *,
    max_logprobs: int = MAX_LOGPROBS,
    max_batch: int = MAX_BATCH,
    dtype: str = "float32",
    device: str = "auto",
) -> None:
    """Load models and serve them until Ctrl-C; prints the endpoint of each as a config names it.

    Args:
        model_folders: texts NAME=FOLDER; empty for the embedded pair.
        port: port on 127.0.0.1; 0 for any free one.
        max_logprobs: alternatives per token at most.
        max_batch: requests per batch at most.
        dtype: dtype of the weights, as torch names it.
        device: "auto", "cpu" or a CUDA device.

    Raises:
        UserError: a text is not NAME=FOLDER, or a model cannot be loaded.
    """
    if wrong := [text for text in model_folders if not all(text.partition("="))]:
        raise UserError(f"--model {wrong[0]}: write NAME=FOLDER")
    folders = dict(text.split("=", 1) for text in model_folders) or dict(EMBEDDED)
    models = {
        name: TransformersBackend(resolve(folder), name, dtype, device) for name, folder in folders.items()
    }
    for model in models.values():
        model.warm_up()
    with serving(models, port=port, max_logprobs=max_logprobs, max_batch=max_batch) as base_url:
        print("serving, Ctrl-C ends it; as a config names the models:")
        for name, folder in folders.items():
            print(f"  {base_url}?model={name}&processor={folder}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
