"""The supported part of OpenAI's chat completions: requests, their limits, and answers.

A request is read in two steps: `to_prompt` finds out how large it is, and `to_request` decodes its pictures. Nothing
here needs a model: what is known of it is a `ModelFacts`.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import hashlib
import io
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from ..errors import DataError, nearest
from ..models.base import Generation, GenerationRequest
from ..models.openai import EXCLUDED
from ..models.spelling import LOST
from ..tasks.images import ImageSpec, resized_view

MAX_TOKENS = 512  # default for a request without a limit
MAX_PICTURES = 32  # per request
MAX_PIXELS = 36_000_000  # of all pictures of a request: one of 8K
MAX_PASSES = 12  # over the pixels of a picture; a progressive JPEG has about 10
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


@dataclass(frozen=True)
class ModelFacts:
    """What the protocol needs of a model.

    Attributes:
        image_spec: its picture sizes.
        max_tokens: of prompt and answer together, as the model's config says.
        max_chars: no prompt of more characters can have fewer tokens.
        pieces: bytes of all tokens of the vocabulary.
    """

    image_spec: ImageSpec
    max_tokens: int
    max_chars: int
    pieces: Sequence[bytes]

    def too_long(self, what: str) -> ApiError:
        """The refusal of a prompt that is longer than the model reads."""
        message = f"messages: {what}; this model reads fewer than {self.max_tokens} tokens"
        return ApiError(400, message, "messages", "context_length_exceeded")


@dataclass(frozen=True)
class Setup:
    """What is served: facts of the models by name, the most alternatives per token, and the field for thoughts.

    thoughts_in: "reasoning" or "reasoning_content": thoughts go from the text into this field of a message, as they do
        where vLLM has a reasoning parser. Empty: they stay in the text.
    """

    models: Mapping[str, ModelFacts]
    max_logprobs: int
    thoughts_in: str = ""


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


_Stop = Annotated[str, Field(min_length=1, max_length=200)]


class ChatRequest(_Strict):
    """The supported part of a chat completion request. Anything else in it is refused."""

    model: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
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
    """An error in OpenAI's form. again: the same request may succeed later."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        again: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.again = status, param, code, again

    def __reduce__(self) -> tuple:
        """It travels between processes."""
        return ApiError, (self.status, str(self), self.param, self.code, self.again)

    def response(self) -> JSONResponse:
        """The error as the body of a reply."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {"x-should-retry": str(self.again).lower()}
        return JSONResponse({"error": error}, self.status, headers)


def _parsed(body: bytes, max_logprobs: int) -> ChatRequest:
    try:
        chat = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:200]
        raise ApiError(400, f"{field}: {first['msg']}" if field else first["msg"], field or None) from None
    k = chat.top_logprobs or 0
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
    return chat


class _Picture:
    """A picture of a request that is not decoded yet; its header says how much work it is."""

    def __init__(self, url: str) -> None:
        head, comma, data = url.partition(",")
        if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
            raise ApiError(400, "image_url: only data URLs are read (data:image/png;base64,...)", "image_url")
        with _readable():
            content = base64.b64decode(data, validate=True)
            self._image = Image.open(io.BytesIO(content), formats=FORMATS)
            self.pixels = self._image.width * self._image.height
        passes = content.count(b"\xff\xda") if self._image.format == "JPEG" else 1
        if passes > MAX_PASSES:
            raise ApiError(
                400, f"image_url: a JPEG of {passes} scans; at most {MAX_PASSES} are read", "image_url"
            )
        self.work = self.pixels * max(1, passes)

    def decoded(self) -> Image.Image:
        with _readable():
            return self._image.convert("RGB")


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ApiError:
        raise
    except Exception as error:  # a decoder may raise anything
        read = ", ".join(FORMATS)
        raise ApiError(
            400, f"image_url: not a picture ({type(error).__name__}); {read} are read", "image_url"
        ) from None


@dataclass
class Prompt:
    """A request of which only the headers of its pictures were read. cost: of decoding them, in places of a line."""

    chat: ChatRequest
    pictures: list[_Picture]
    cost: int


def to_prompt(body: bytes, models: Mapping[str, ModelFacts], max_logprobs: int) -> Prompt:
    """The request in a body. Raises ApiError if it is not supported, or more than the server reads."""
    chat = _parsed(body, max_logprobs)
    if chat.model not in models:
        name = chat.model[:100]
        served = ", ".join(models)
        message = f"there is no model {name!r}{nearest(name, models)}; served are {served}"
        raise ApiError(404, message, "model", "model_not_found")
    model = models[chat.model]
    parts = [part for m in chat.messages if not isinstance(m.content, str) for part in m.content]
    urls = [part.image_url.url for part in parts if isinstance(part, _ImagePart)]
    if len(urls) > MAX_PICTURES:
        raise ApiError(400, f"messages: {len(urls)} pictures; at most {MAX_PICTURES} are read", "messages")
    text = sum(len(m.content) for m in chat.messages if isinstance(m.content, str))
    text += sum(len(part.text) for part in parts if isinstance(part, _TextPart))
    if text > model.max_chars:
        raise model.too_long(f"{text} characters of text")
    pictures = [_Picture(url) for url in urls]
    if (pixels := sum(p.pixels for p in pictures)) > MAX_PIXELS:
        raise ApiError(
            400, f"image_url: {pixels} pixels in all pictures; at most {MAX_PIXELS} are read", "image_url"
        )
    return Prompt(chat, pictures, sum(p.work // 2**14 + 4 for p in pictures))


@dataclass
class Question:
    """A request in the form of the backends; equal requests have equal ids.

    cost: its tokens, estimated; chat: as it came, without its messages.
    """

    chat: ChatRequest
    request: GenerationRequest
    cost: int


def to_request(prompt: Prompt, model: ModelFacts) -> Question:
    """A request whose pictures are decoded. Raises ApiError if one of them cannot be read."""
    chat, pictures, spec = prompt.chat, iter(prompt.pictures), model.image_spec
    messages: list[dict] = []
    cost = 0
    for message in chat.messages:
        content: Any = message.content
        if isinstance(content, str):
            cost += len(content) // 4
        else:
            content = []
            for part in message.content:
                if isinstance(part, _TextPart):
                    content.append({"type": "text", "text": part.text})
                    cost += len(part.text) // 4
                    continue
                picture = next(pictures).decoded()
                if picture.width * picture.height > spec.max_pixels:
                    try:
                        picture = resized_view(picture, spec)  # while it waits, only this is held
                    except DataError as error:
                        raise ApiError(400, f"messages: {error}", "messages") from None
                content.append({"type": "image", "image": picture})
                cost += math.ceil(picture.width * picture.height / spec.factor**2)
        messages.append({"role": message.role, "content": content})
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    limit = chat.max_completion_tokens or chat.max_tokens
    if limit and limit > model.max_tokens:
        raise model.too_long(f"{limit} tokens of an answer")
    settings = {
        "max_new_tokens": limit or MAX_TOKENS,
        "stop": tuple(stop),
        "evidence_k": max(chat.top_logprobs or 0, 1) if chat.logprobs else 0,
    }
    content = f"{settings} {chat.model_dump_json(include={'messages'})}"
    request = GenerationRequest(hashlib.sha256(content.encode()).hexdigest(), messages, **settings)
    return Question(chat.model_copy(update={"messages": []}), request, cost)


# ------------------------------------------------------------------ answers


def completion(
    chat: ChatRequest,
    request: GenerationRequest,
    prompt: int,
    generation: Generation,
    model: ModelFacts,
    thoughts_in: str = "",
) -> JSONResponse:
    """A generation as a chat completion, with the fields of vLLM's. prompt: tokens of the prompt."""
    stop = next(
        (s for s in request.stop if generation.finish_reason == "stop" and generation.text.endswith(s)), None
    )
    ended = generation.finish_reason == "stop" and stop is None
    answer = len(generation.token_ids) + ended
    text = generation.text.removesuffix(stop or "")
    if _is_unfinished(model.pieces[token] for token in generation.token_ids[-4:]):
        text = text.rstrip(LOST)  # a character that was cut off is no text
    message: dict[str, str | None] = {"role": "assistant", "content": text, "reasoning": None}
    if thoughts_in:
        message |= _split(text, thoughts_in)
    body = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": {"content": _logprobs(generation, chat.top_logprobs or 0, model.pieces)}
                if generation.evidence
                else None,
                "finish_reason": generation.finish_reason,
                "stop_reason": stop,
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }
    return JSONResponse(body)


def _split(text: str, thoughts_in: str) -> dict[str, str | None]:
    """The fields of a message whose thought is apart from its text. A thought without an end is all there is."""
    thought, _, rest = text.rpartition("</think>") if "</think>" in text else (text, "", "")
    return {thoughts_in: thought.partition("<think>")[2] or thought, "content": rest or None}


def _is_unfinished(pieces: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(b"".join(pieces))
    return bool(decoder.getstate()[0])


def _logprobs(generation: Generation, k: int, pieces: Sequence[bytes]) -> list[dict]:
    """The entries of all tokens, the end token too. The token itself is the first of its alternatives.

    A part of a character has no text. The token that completes the character has all of it.
    """
    begun = b""  # of a character

    def entry(token: int, logprob: float) -> dict:
        text = _text(pieces[token]) or _text(begun + pieces[token])
        return {"token": text, "logprob": max(float(logprob), EXCLUDED), "bytes": list(text.encode())}

    entries = []
    for evidence in filter(None, (generation.evidence, generation.end)):
        rows = (evidence.token_ids, evidence.chosen_logprobs, evidence.top_ids, evidence.top_logprobs)
        for token, logprob, ids, logprobs in zip(*rows, strict=True):
            alternatives = {int(token): logprob} | dict(zip(ids.tolist(), logprobs, strict=True))
            top = [entry(*alternative) for alternative in islice(alternatives.items(), k)]
            entries.append(entry(token, logprob) | {"top_logprobs": top})
            begun = b"" if entries[-1]["token"] else begun + pieces[token]
    return entries


def _text(data: bytes) -> str:
    """The text of some bytes; "" where they are no whole characters."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""
