"""An OpenAI-compatible server over local text models that call tools: `tools`, `tool_choice` and `stream` as vLLM has.

    speceyes serve --model actor=FOLDER --model speculator=FOLDER

With `tools`, calls that the model writes in hermes form come back as `tool_calls`, streamed as deltas: first the name,
then the arguments. Without tools, or with `tool_choice: "none"`, everything comes as text with log-probabilities. A
call that is no whole JSON object comes as it was written. It decodes greedily, and refuses what it does not support. A
client that leaves ends its generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import UserError, nearest
from ..models.text_model import TextModel
from ..paths import resolve
from ..tool_speculation.local import LocalPolicy
from ..tool_speculation.models import (
    CLOSE,
    OPEN,
    CallComplete,
    CallStarted,
    Finished,
    Malformed,
    PolicyError,
    Token,
    call_text,
    parse_call,
)
from ..tools.declared import Workspace
from .completions import ApiError
from .front import HOST, MAX_BODY, Door, listen

MAX_LOGPROBS = 64
MAX_TOKENS = 1024
END_S = 5.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Function(_Loose):
    name: str
    arguments: str = ""


class _ToolCall(_Loose):
    id: str = ""
    function: _Function


class _ToolMessage(_Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _ToolSchema(_Loose):
    type: Literal["function"]
    function: dict[str, Any]


class _NamedTool(_Loose):
    function: _Function


class ToolChatRequest(_Strict):
    """The supported part of a chat completion with tools. Anything else in it is refused."""

    model: str
    messages: Annotated[list[_ToolMessage], Field(min_length=1)]
    tools: list[_ToolSchema] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedTool | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    temperature: Literal[0] | Annotated[float, Field(ge=0, le=0)] | None = None  # greedy, also without it
    n: Literal[1] = 1
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    seed: int | None = None
    user: str | None = None

    @property
    def schemas(self) -> list[dict]:
        """The tools that the model can call."""
        tools = [] if self.tool_choice == "none" else self.tools or []
        return [tool.model_dump() for tool in tools]

    @property
    def limit(self) -> int:
        """Most tokens of the turn."""
        return self.max_completion_tokens or self.max_tokens or MAX_TOKENS


@dataclass(frozen=True)
class _Offered:
    """The tools of a request, where a policy expects a toolbox."""

    tools: list[dict]

    def schemas(self) -> list[dict]:
        return self.tools


def _conversation(chat: ToolChatRequest) -> tuple[list[dict], list[Token]]:
    """The messages in hermes form, and what the turn begins with."""
    messages, names = [], {}
    for message in chat.messages:
        content = message.content or ""
        for call in message.tool_calls or ():
            names[call.id] = call.function.name
            content += call_text(call.function.name, call.function.arguments)
        name = message.name or names.get(message.tool_call_id or "", "")
        messages.append({"role": message.role, "content": content} | ({"name": name} if name else {}))
    prefix = ""
    if chat.continue_final_message:
        if chat.messages[-1].role != "assistant":
            raise ApiError(400, "continue_final_message: the last message is not the assistant's", "messages")
        prefix = messages.pop()["content"]
    if chat.schemas and chat.tool_choice == "required":
        prefix += OPEN
    elif isinstance(chat.tool_choice, _NamedTool):
        name = chat.tool_choice.function.name
        known = [schema["function"].get("name") for schema in chat.schemas]
        if name not in known:
            raise ApiError(
                400, f"tool_choice: there is no tool {name[:100]!r}{nearest(name, known)}", "tool_choice"
            )
        prefix += f'{OPEN}{{"name": {json.dumps(name)}, "arguments": {{'
    return messages, [Token(prefix)] if prefix else []


class _Turn:
    """One turn of a model as parts of a chat completion."""

    def __init__(self, chat: ToolChatRequest, model: TextModel) -> None:
        self.chat = chat
        self.native = bool(chat.schemas)
        self.messages, self.prefix = _conversation(chat)
        k = max(chat.top_logprobs or 0, 1) if chat.logprobs else 0
        self.policy = LocalPolicy(model, max_tokens=chat.limit, alternatives=max(k, 2) if k else 0)
        self.n_tokens = self.n_calls = 0
        self._text = "".join(token.text for token in self.prefix) if self.native else ""
        self._sent = 0

    async def parts(self) -> AsyncIterator[dict]:
        """Choices with a `delta` each; the last one has the reason why the turn ended."""
        offered, workspace = _Offered(self.chat.schemas), Workspace(Path())
        begun = CallStarted(name[1]) if (name := re.search(r'"name": "(.*?)"', self._text)) else None
        async with aclosing(self.policy.stream(self.messages, offered, workspace, self.prefix)) as events:
            for event in [begun] if begun and self.native else []:
                yield self._part(event)
            async for event in events:
                if isinstance(event, Finished):
                    break
                if (part := self._part(event)) is not None:
                    yield part
        reason = "tool_calls" if self.n_calls else "length" if self.n_tokens >= self.chat.limit else "stop"
        rest = self._outside(at_end=True) if self.native else ""
        yield {"index": 0, "delta": {"content": rest} if rest else {}, "finish_reason": reason}

    def _part(self, event: Token | CallStarted | CallComplete) -> dict | None:
        choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        if isinstance(event, Token):
            self.n_tokens += 1
            if not self.native:
                entry = _logprob(event, self.chat.top_logprobs or 0) if self.chat.logprobs else None
                more = {"logprobs": {"content": [entry]}} if entry else {}
                return choice | {"delta": {"content": event.text}} | more
            self._text += event.text
            text = self._outside()
            return choice | {"delta": {"content": text}} if text else None
        if not self.native:
            return None
        if isinstance(event, CallStarted):
            function = {"name": event.name, "arguments": ""}
            call = {"index": self.n_calls, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function"}
            return choice | {"delta": {"tool_calls": [call | {"function": function}]}}
        parsed = parse_call(event.text)
        arguments = event.text if isinstance(parsed, Malformed) else parsed[1]
        call = {"index": self.n_calls, "function": {"arguments": arguments}}
        self.n_calls += 1
        return choice | {"delta": {"tool_calls": [call]}}

    def _outside(self, at_end: bool = False) -> str:
        """What is new in the text outside of calls. A mark that may have begun is held back."""
        text = re.sub(f"{OPEN}.*?{CLOSE}", "", self._text, flags=re.DOTALL)
        if not at_end:
            text = text.partition(OPEN)[0]
            kept = next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
            text = text[: len(text) - kept]
        new = text[self._sent :]
        self._sent += len(new)
        return new


def _logprob(token: Token, k: int) -> dict:
    top = list(zip(token.top_logprobs or (), token.top_texts, strict=False))[:k]
    entries = [{"token": text, "logprob": value, "bytes": list(text.encode())} for value, text in top]
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()),
        "top_logprobs": entries,
    }


# ------------------------------------------------------------------------------------------------- HTTP
async def _parsed(http: Request, models: Mapping[str, TextModel]) -> ToolChatRequest:
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(413, f"the body has more than {MAX_BODY} bytes")
    try:
        chat = ToolChatRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise ApiError(400, f"{where}: {first['msg']}" if where else first["msg"], where or None) from None
    if chat.model not in models:
        message = f"there is no model {chat.model[:100]!r}{nearest(chat.model, models)}; served are {', '.join(models)}"
        raise ApiError(404, message, "model", "model_not_found")
    if chat.continue_final_message == chat.add_generation_prompt:
        message = "continue_final_message and add_generation_prompt exclude each other"
        raise ApiError(400, message, "continue_final_message")
    return chat


async def _events(turn: _Turn, head: dict) -> AsyncIterator[bytes]:
    """The parts of a turn as server-sent events. The server closes this when the client leaves."""
    try:
        async with aclosing(turn.parts()) as parts:
            async for part in parts:
                yield b"data: " + json.dumps(head | {"choices": [part]}).encode() + b"\n\n"
    except Exception as error:  # whatever a model does, the client gets an answer
        yield (
            b"data: "
            + json.dumps({"error": {"message": str(error), "type": "server_error"}}).encode()
            + b"\n\n"
        )
    yield b"data: [DONE]\n\n"


async def _whole(turn: _Turn) -> dict:
    """The choice of a turn that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: list[dict] = []
    logprobs: list[dict] = []
    reason = "stop"
    async with aclosing(turn.parts()) as parts:
        async for part in parts:
            delta = part["delta"]
            message["content"] += delta.get("content") or ""
            logprobs += (part.get("logprobs") or {}).get("content", [])
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(calls):
                    calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                calls[call["index"]] |= {key: call[key] for key in ("id", "type") if key in call}
                for key, text in call["function"].items():
                    calls[call["index"]]["function"][key] += text
            reason = part["finish_reason"] or reason
    message |= {"tool_calls": calls} if calls else {}
    return {
        "index": 0,
        "message": message,
        "finish_reason": reason,
        "logprobs": {"content": logprobs} if logprobs else None,
    }


async def _unless_gone(http: Request, turn: _Turn) -> dict:
    """The choice of a turn, which ends when the client goes away."""

    async def left() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    choice, absence = asyncio.ensure_future(_whole(turn)), asyncio.ensure_future(left())
    try:
        await asyncio.wait((choice, absence), return_when=asyncio.FIRST_COMPLETED)
        if not choice.done():
            raise ApiError(499, "the client is gone")  # nobody reads it
        return choice.result()
    finally:
        choice.cancel()
        absence.cancel()
        await asyncio.wait((choice, absence))


def create_text_app(models: Mapping[str, TextModel]) -> Starlette:
    """The application for text models by name."""
    started = int(time.time())

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({})

    async def listed(_: Request) -> JSONResponse:
        entry = {"object": "model", "created": started, "owned_by": "speceyes"}
        return JSONResponse({"object": "list", "data": [{"id": name} | entry for name in models]})

    async def chat_completions(http: Request) -> Response:
        chat = await _parsed(http, models)
        turn = _Turn(chat, models[chat.model])
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat.model}
        if chat.stream:
            head |= {"object": "chat.completion.chunk"}
            return StreamingResponse(_events(turn, head), media_type="text/event-stream")
        choice = await _unless_gone(http, turn)
        usage = {"completion_tokens": turn.n_tokens}
        return JSONResponse(head | {"object": "chat.completion", "choices": [choice], "usage": usage})

    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    async def broken(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, f"{type(error).__name__}: {error}"[:500]).response()

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", listed),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        ],
        middleware=[Middleware(Door)],
        exception_handlers={ApiError: refused, PolicyError: broken},
    )


@contextlib.contextmanager
def serving_text(models: Mapping[str, TextModel], port: int = 0) -> Iterator[str]:
    """Serve text models by name in the background; yields the base URL.

    Args:
        models: name -> model.
        port: 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """
    listening = listen(port)
    config = uvicorn.Config(
        create_text_app(models), log_level="error", lifespan="off", timeout_graceful_shutdown=END_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="text-server", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def serve_text(folders: Mapping[str, str], port: int, device: str = "auto") -> None:
    """Load text models and serve them until Ctrl-C; prints the base URL.

    Args:
        folders: name -> folder.
        port: on 127.0.0.1; 0 for any free one.
        device: as for `TextModel`.
    """
    models = {name: TextModel(folder, device) for name, folder in folders.items()}
    with serving_text(models, port) as base_url:
        print(f"serving {', '.join(models)} at {base_url}, Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def are_text_models(folders: Sequence[str | Path]) -> bool:
    """True for folders of language models without pictures, by their config.json.

    Raises:
        UserError: there are both kinds.
    """
    kinds = set()
    for folder in folders:
        try:
            names = json.loads((resolve(folder) / "config.json").read_text("utf-8")).get("architectures") or [
                ""
            ]
        except (OSError, ValueError, AttributeError):
            names = [""]  # the loader says what is wrong with it
        kinds.add(str(names[0]).endswith("ForCausalLM"))
    if len(kinds) > 1:
        raise UserError("--model: models with and without pictures are served by two commands, on two ports")
    return kinds == {True}
