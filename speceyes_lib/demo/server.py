"""An OpenAI-compatible server over local models: the offline stand-in for vLLM.

    speceyes serve                                     the embedded pair, on 127.0.0.1:8765
    speceyes serve --model draft=FOLDER --port 8001    any model the transformers backend loads

/v1/models and /v1/chat/completions with pictures (data URLs), stop strings and up to `--max-logprobs` alternatives
per token, computed from the real logits. Requests that wait at the same time are answered as one batch. It decodes
greedily, and refuses what it does not support instead of ignoring it. It also supports vLLM's `stop_reason`,
`add_generation_prompt` and `continue_final_message`. It needs no key and listens on this machine only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
import queue
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import fastapi
import uvicorn
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from ..errors import UserError, nearest
from ..models.base import Generation, GenerationRequest
from ..models.openai import EXCLUDED
from ..models.transformers import TransformersBackend
from ..paths import resolve
from ..runs.evidence import Evidence

if TYPE_CHECKING:
    from PIL import Image

HOST, PORT = "127.0.0.1", 8765
EMBEDDED = {"draft": "data/demo/models/draft", "agent": "data/demo/models/agent"}
MAX_TOKENS = 512  # default for a request without a limit
MAX_LOGPROBS, MAX_BATCH = 128, 16
GATHER_S = 0.004  # how long a request waits for others to share a batch


# ------------------------------------------------------------------ requests


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Url(_Strict):
    url: str
    detail: Literal["auto", "high"] = "auto"  # the picture is taken as it is


class _ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: _Url


class _TextPart(_Strict):
    type: Literal["text"]
    text: str


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Annotated[_TextPart | _ImagePart, Field(discriminator="type")]]


class ChatRequest(_Strict):
    """The supported part of a chat completion request. Anything else in it is refused."""

    model: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    stop: str | list[str] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0)] = None
    temperature: Literal[0] | Annotated[float, Field(ge=0, le=0)] | None = None  # greedy, also without it
    n: Literal[1] = 1
    stream: Literal[False] = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    seed: int | None = None  # greedy decoding needs none
    user: str | None = None


class ApiError(Exception):
    """An error in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> JSONResponse:
        """The error as the body of a reply."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        # the same request would only fail again
        return JSONResponse({"error": error}, self.status, headers={"x-should-retry": "false"})


def to_request(chat: ChatRequest, max_logprobs: int) -> GenerationRequest:
    """A chat completion request in the form of the backends. Raises ApiError for what is not supported."""
    k = chat.top_logprobs or 0
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    if k and not chat.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
    if k > max_logprobs:
        raise ApiError(
            400,
            f"top_logprobs: {k} is greater than max allowed: {max_logprobs} (--max-logprobs)",
            "top_logprobs",
        )
    if chat.continue_final_message == chat.add_generation_prompt:
        raise ApiError(
            400,
            "continue_final_message and add_generation_prompt exclude each other",
            "continue_final_message",
        )
    if chat.continue_final_message != (chat.messages[-1].role == "assistant"):
        raise ApiError(
            400,
            "the last message is the assistant's if and only if it is continued",
            "continue_final_message",
        )
    return GenerationRequest(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        messages=[_message(m) for m in chat.messages],
        max_new_tokens=chat.max_completion_tokens or chat.max_tokens or MAX_TOKENS,
        stop=tuple(s for s in stop if s),
        evidence_k=max(k, 1) if chat.logprobs else 0,
    )


def _message(message: _Message) -> dict:
    content: Any = message.content
    if not isinstance(content, str):
        content = [
            {"type": "text", "text": part.text}
            if isinstance(part, _TextPart)
            else {"type": "image", "image": _picture(part.image_url.url)}
            for part in content
        ]
    return {"role": message.role, "content": content}


def _picture(url: str) -> Image.Image:
    from PIL import Image

    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise ApiError(400, "image_url: only data URLs are read (data:image/png;base64,...)", "image_url")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        return picture.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ApiError(400, f"image_url: not a picture ({type(error).__name__})", "image_url") from None


# ------------------------------------------------------------------ answers


class Engine:
    """One model and its thread, which answers all waiting requests as one batch."""

    def __init__(self, backend: TransformersBackend, max_batch: int = MAX_BATCH) -> None:
        self.backend, self.max_batch = backend, max_batch
        self.batch_sizes: list[int] = []  # of the calls so far
        self._waiting: queue.SimpleQueue[tuple[GenerationRequest, Future] | None] = queue.SimpleQueue()
        self.text_of = cache(lambda token: backend.tokenizer.decode([token]))
        self._thread = threading.Thread(target=self._work, name=f"model {backend.folder.name}", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Future[Generation]:
        """The future generation of a request."""
        future: Future[Generation] = Future()
        self._waiting.put((request, future))
        return future

    def close(self) -> None:
        """Answer the waiting requests, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        closing = False
        while not closing and (first := self._waiting.get()) is not None:
            batch = [first]
            deadline_s = time.monotonic() + GATHER_S
            with contextlib.suppress(queue.Empty):
                while len(batch) < self.max_batch:
                    nxt = self._waiting.get(timeout=max(0.0, deadline_s - time.monotonic()))
                    if closing := nxt is None:
                        break
                    batch.append(nxt)
            self.batch_sizes.append(len(batch))
            try:
                generations = self.backend.generate([request for request, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), generation in zip(batch, generations, strict=True):
                    future.set_result(generation)


def completion(chat: ChatRequest, request: GenerationRequest, generation: Generation, engine: Engine) -> dict:
    """A generation as a chat completion."""
    stop = next(
        (s for s in request.stop if generation.finish_reason == "stop" and generation.text.endswith(s)), None
    )
    ended = generation.finish_reason == "stop" and stop is None
    prompt, answer = len(engine.backend.prepared_row(request).ids), len(generation.token_ids) + ended
    return {
        "id": request.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": generation.text.removesuffix(stop or "")},
                "logprobs": {"content": _logprobs(generation.evidence, chat.top_logprobs or 0, engine)}
                if generation.evidence
                else None,
                "finish_reason": generation.finish_reason,
                "stop_reason": stop,
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }


def _logprobs(evidence: Evidence, k: int, engine: Engine) -> list[dict]:
    def entry(text: str, logprob: float) -> dict:
        return {"token": text, "logprob": max(float(logprob), EXCLUDED), "bytes": list(text.encode())}

    return [
        entry(text, chosen)
        | {
            "top_logprobs": [
                entry(engine.text_of(int(i)), p) for i, p in zip(ids[:k], logprobs[:k], strict=True)
            ]
        }
        for text, chosen, ids, logprobs in zip(
            evidence.token_texts,
            evidence.chosen_logprobs,
            evidence.top_ids,
            evidence.top_logprobs,
            strict=True,
        )
    ]


# ------------------------------------------------------------------ the server


def create_app(engines: Mapping[str, Engine], max_logprobs: int = MAX_LOGPROBS) -> fastapi.FastAPI:
    """The application over models by name."""
    app = fastapi.FastAPI(title="speceyes", docs_url=None, redoc_url=None, openapi_url=None)
    started = int(time.time())

    @app.get("/health")
    async def health() -> dict:
        return {}

    @app.get("/v1/models")
    async def models() -> dict:
        entry = {"object": "model", "created": started, "owned_by": "speceyes"}
        return {"object": "list", "data": [{"id": name} | entry for name in engines]}

    @app.post("/v1/chat/completions")
    async def chat_completions(chat: ChatRequest) -> JSONResponse:
        if chat.model not in engines:
            raise ApiError(
                404,
                f"there is no model {chat.model!r}{nearest(chat.model, engines)}; served are {', '.join(engines)}",
                "model",
                "model_not_found",
            )
        engine = engines[chat.model]
        request = await asyncio.to_thread(to_request, chat, max_logprobs)
        try:
            generation = await asyncio.wrap_future(engine.submit(request))
        except UserError as error:
            raise ApiError(400, str(error)) from None
        if generation.error is not None:
            raise ApiError(500, generation.error.message, code="generation_error")
        return JSONResponse(await asyncio.to_thread(completion, chat, request, generation, engine))

    @app.exception_handler(ApiError)
    async def api_error(_: fastapi.Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return ApiError(400, f"{field}: {first['msg']}" if field else first["msg"], field or None).response()

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
    engines = {name: Engine(backend, max_batch) for name, backend in models.items()}
    config = uvicorn.Config(create_app(engines, max_logprobs), log_level="error", lifespan="off")
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
        for engine in engines.values():
            engine.close()


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
