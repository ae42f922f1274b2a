"""Models behind OpenAI-compatible servers that call tools, natively or as text, and the original's settings of them.

Natively, tools are a field of the request and calls come as deltas; servers return no log-probabilities for them. As
text (hermes form), tools are described in the prompt and calls are read from the reply, with the log-probabilities of
all tokens where the server returns them. A gate and forks need the text form.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from ..agents.tool_caller import ACTOR, SPECULATOR, tool_response, with_tools
from ..errors import ConfigError, build
from ..models.chat_stream import ChatStreams
from ..models.endpoint import Endpoint, EndpointError
from ..texts import storable
from ..tools.declared import Toolbox, Workspace
from .models import (
    CallComplete,
    CallReader,
    CallStarted,
    Event,
    Finished,
    Malformed,
    PolicyError,
    Token,
    call_text,
    parse_calls,
    without_calls,
)
from .settings import BASELINE, SpeculationSettings

Form = Literal["native", "hermes"]
LARGEST_PICTURE = 20_000_000
_PICTURE = re.compile(r"[\w.-]+\.(?:png|jpe?g|gif|webp|bmp)\b", re.IGNORECASE)
ALTERNATIVES = 20  # that vLLM and OpenAI return per token unless they are started with more


class ServedPolicy:
    """The model of one server.

    Args:
        endpoint: the server, the name of the model, the variable with the key.
        system: system prompt.
        form: how it calls tools.
        max_tokens: of one turn.
        top_logprobs: alternatives per token to request, in hermes form. 0 for none.
        extra: further fields of the request.
        token_limit_field: what the server calls the limit of tokens.
        pictures: requests hold the pictures of the task's folder that the question names, for models that see.

    Raises:
        ConfigError: the key is not set.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        system: str = "",
        form: Form = "native",
        max_tokens: int = 4096,
        top_logprobs: int = 0,
        extra: Mapping[str, Any] | None = None,
        token_limit_field: str = "max_tokens",
        pictures: bool = False,
    ) -> None:
        _ = endpoint.key
        self.endpoint, self.system, self.form = endpoint, system, form
        self.max_tokens, self.top_logprobs = max_tokens, top_logprobs
        self.extra = dict({"temperature": 0} if extra is None else extra)
        self.token_limit_field, self.pictures = token_limit_field, pictures
        self.name = endpoint.model
        self.can_fork = form == "hermes" and top_logprobs > 1
        self._streams: WeakKeyDictionary[asyncio.AbstractEventLoop, ChatStreams] = WeakKeyDictionary()

    async def close(self) -> None:
        """Close the connections of this event loop."""
        streams = self._streams.pop(asyncio.get_running_loop(), None)
        if streams is not None:
            await streams.close()

    async def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the model's turn, see `Policy.stream`."""
        loop = asyncio.get_running_loop()
        if loop not in self._streams:
            self._streams[loop] = ChatStreams(self.endpoint)
        body = self.body(messages, toolbox, prefix)
        if self.pictures:
            body["messages"] = with_pictures(body["messages"], workspace)
        reader = _Hermes(prefix) if self.form == "hermes" else _Native()
        try:
            async with aclosing(self._streams[loop].stream(body)) as choices:
                async for choice in choices:
                    for event in reader.read(choice):
                        yield event
        except EndpointError as error:
            raise PolicyError(f"{self.name}: {error}") from None
        except (TypeError, AttributeError, ValueError, KeyError) as error:
            raise PolicyError(f"{self.name}: a part of the reply is odd ({error})") from None
        for event in reader.end():
            yield event

    def body(
        self, messages: Sequence[dict], toolbox: Toolbox, prefix: Sequence[Token] = ()
    ) -> dict[str, Any]:
        """The fields of the request for a turn."""
        schemas = toolbox.schemas()
        body: dict[str, Any] = {self.token_limit_field: self.max_tokens, **self.extra}
        if self.form == "native":
            body["messages"] = native_messages(messages)
            return body | ({"tools": schemas, "tool_choice": "auto"} if schemas else {})
        body["messages"] = hermes_messages(messages, schemas)
        if prefix:
            text = "".join(token.text for token in prefix)
            body["messages"].append({"role": "assistant", "content": text})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body


# ------------------------------------------------------------------------------------------ conversations
def native_messages(messages: Sequence[dict]) -> list[dict]:
    """A conversation for a server that knows tool calls.

    Calls become `tool_calls` with ids and results refer to them. A call that was none stays text, and what the model
    read about it becomes a message of the user.
    """
    converted, waiting, texts = [], [], []
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            name, call_id = waiting.pop(0) if waiting else (message.get("name", ""), None)
            if call_id is None:
                texts.append({"role": "user", "content": f"{name or 'tool call'}: {content}"})
            else:
                converted.append({"role": "tool", "tool_call_id": call_id, "content": content})
            continue
        converted += texts
        texts, waiting = [], []
        if role != "assistant":
            converted.append({"role": role, "content": content})
            continue
        calls = []
        for index, call in enumerate(parse_calls(content)):
            if isinstance(call, Malformed) or not _is_object(call[1]):
                waiting.append(("", None))
                continue
            call_id = f"call_{number}_{index}"
            function = {"name": call[0], "arguments": call[1] or "{}"}
            calls.append({"id": call_id, "type": "function", "function": function})
            waiting.append((call[0], call_id))
        whole = any(call_id is None for _, call_id in waiting)
        turn: dict[str, Any] = {"role": "assistant", "content": content if whole else without_calls(content)}
        converted.append(turn | ({"tool_calls": calls} if calls else {}))
    return converted + texts


def hermes_messages(messages: Sequence[dict], schemas: Sequence[dict]) -> list[dict]:
    """A conversation for a model that reads tools in its prompt, and results as messages of the user."""
    system = " ".join(m["content"] for m in messages if m["role"] == "system")
    text = with_tools(system, schemas)
    converted = [{"role": "system", "content": text}] if text else []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            continue
        if role == "tool":
            role, content = "user", tool_response(content)
        if converted and role == "user" == converted[-1]["role"]:  # templates want roles in turn
            converted[-1] = {"role": "user", "content": f"{converted[-1]['content']}\n{content}"}
        else:
            converted.append({"role": role, "content": content})
    return converted


def with_pictures(messages: Sequence[dict], workspace: Workspace) -> list[dict]:
    """The messages with the pictures that the first one of the user names, as data URLs behind its text.

    Names of files that are not in the folder, are no pictures or have more than `LARGEST_PICTURE` bytes stay text.
    """
    messages = list(messages)
    at = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
    if at is None:
        return messages
    text, parts = messages[at]["content"], []
    for name in dict.fromkeys(match[0] for match in _PICTURE.finditer(text)):
        path = workspace.folder / Path(name).name
        if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= LARGEST_PICTURE:
            kind = mimetypes.guess_type(path.name)[0]
            url = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
    if parts:
        messages[at] = messages[at] | {"content": [{"type": "text", "text": text}, *parts]}
    return messages


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        return False


# ------------------------------------------------------------------------------------------------ replies
class _Hermes:
    """Reads a turn in hermes form."""

    def __init__(self, prefix: Sequence[Token]) -> None:
        self._reader = CallReader(prefix)

    def read(self, choice: dict) -> list[Event]:
        events: list[Event] = []
        part = choice.get("delta") or choice.get("message") or {}
        for token in _tokens(part, choice.get("logprobs")):
            events += [token, *self._reader.feed(token)]
        return events

    def end(self) -> list[Event]:
        return [Finished(self._reader.text)]


class _Native:
    """Reads a turn with tool calls in its deltas. A call is complete when its arguments are one JSON object.

    Empty arguments are complete when the next call begins, or the turn ends. What is no object then is malformed.
    """

    def __init__(self) -> None:
        self._text = ""
        self._calls: dict[int, list] = {}  # index -> [name, arguments, complete]

    def read(self, choice: dict) -> list[Event]:
        part, events = choice.get("delta") or choice.get("message") or {}, []
        for token in _tokens(part, choice.get("logprobs")):
            self._text += token.text
            events.append(token)
        for position, delta in enumerate(part.get("tool_calls") or []):
            index = delta.get("index", position if "message" in choice else 0)
            if index not in self._calls:
                events += self._ended(but=index)
                self._calls[index] = ["", "", False]
            events += self._grow(self._calls[index], delta.get("function") or {})
        return events

    def end(self) -> list[Event]:
        events = self._ended()
        calls = "".join(call_text(name, arguments) for name, arguments, _ in self._calls.values())
        return [*events, Finished(storable(self._text) + calls)]

    def _grow(self, call: list, function: dict) -> list[Event]:
        events: list[Event] = []
        if name := function.get("name"):
            call[0] += storable(str(name))
            events.append(CallStarted(call[0]))
        if more := function.get("arguments"):
            more = more if isinstance(more, str) else json.dumps(more)
            call[1] += storable(more)
            events.append(Token(more))
            if not call[2] and call[1].rstrip().endswith("}") and _is_object(call[1]):
                events.append(self._complete(call))
        return events

    def _ended(self, but: int | None = None) -> list[Event]:
        return [self._complete(call) for index, call in self._calls.items() if index != but and not call[2]]

    def _complete(self, call: list) -> CallComplete:
        call[2] = True
        return CallComplete(
            call_text(call[0], call[1]).removeprefix("<tool_call>").removesuffix("</tool_call>")
        )


def _tokens(part: dict, logprobs: Any) -> list[Token]:
    """The tokens of a part of a reply, with their alternatives if it holds them. Thoughts count, but are no text."""
    content = storable(part.get("content") or "")
    thoughts = part.get("reasoning_content") or part.get("reasoning")
    tokens = [Token("")] if thoughts else []
    entries = (logprobs or {}).get("content") or []
    if not content:
        return tokens
    if "".join(str(entry.get("token")) for entry in entries) != content:
        return [*tokens, Token(content)]
    for entry in entries:
        top = entry.get("top_logprobs") or []
        pairs = sorted(((float(t["logprob"]), str(t["token"])) for t in top), reverse=True)
        # the token itself may be missing among its alternatives, or not be the first of equal ones
        pairs.sort(key=lambda pair: pair[1] != entry["token"] or pair[0] < float(entry["logprob"]))
        values = tuple(value for value, _ in pairs) or None
        tokens.append(Token(str(entry["token"]), values, tuple(text for _, text in pairs)))
    return tokens


# ------------------------------------------------------------------------- the original's environment variables
PROVIDERS = ("openai", "vllm")
OPENAI_URL, ACTOR_URL, SPECULATOR_URL = (
    "https://api.openai.com/v1",
    "http://localhost:8003/v1",
    "http://localhost:8004/v1",
)


def settings_of(environment: Mapping[str, str] = os.environ, **changes: Any) -> SpeculationSettings:
    """The settings that the original's environment variables ask for.

    DISABLE_SPECULATION=1 is the baseline. VERIFICATION_STRATEGY, GAIA_MAX_STEPS, GAIA_TOPK (guesses per step).

    Args:
        environment: the variables.
        changes: fields of the settings, which go before.

    Raises:
        ConfigError: a variable has an impossible value.
    """
    values: dict[str, Any] = {}
    if environment.get("DISABLE_SPECULATION") == "1":
        values["policy"] = BASELINE.policy
    if strategy := environment.get("VERIFICATION_STRATEGY"):
        values["strategy"] = strategy
    for name, field in (("GAIA_MAX_STEPS", "max_steps"), ("GAIA_TOPK", "guesses")):
        if environment.get(name):
            values[field] = _whole_number(environment, name)
    return build(SpeculationSettings, values | changes, "settings of speculation")


def served_pair(
    environment: Mapping[str, str] = os.environ, form: Form = "native", pictures: bool = False
) -> tuple[ServedPolicy, ServedPolicy]:
    """Actor and speculator of the original's environment variables.

    MODEL_PROVIDER (openai or vllm), GAIA_ACTOR_MODEL and GAIA_SPEC_MODEL; for openai ACTOR_OPENAI_API_KEY and
    SPEC_OPENAI_API_KEY, else OPENAI_API_KEY, and OPENAI_BASE_URL; for vllm VLLM_ACTOR_URL and VLLM_SPEC_URL, else
    VLLM_BASE_URL for both, VLLM_API_KEY and LLM_MAX_TOKENS.

    Args:
        environment: the variables.
        form: how the models call tools.
        pictures: requests hold the pictures that a question names.

    Raises:
        ConfigError: a key is not set, or a variable has an impossible value.
    """
    provider = environment.get("MODEL_PROVIDER") or "openai"
    if provider not in PROVIDERS:
        raise ConfigError(f"MODEL_PROVIDER: {provider!r} is unknown; use {' or '.join(PROVIDERS)}")
    policies = []
    for role, default, url, system in (
        ("ACTOR", "gpt-5", ACTOR_URL, ACTOR),
        ("SPEC", "gpt-5-mini", SPECULATOR_URL, SPECULATOR),
    ):
        values: dict[str, Any] = {"model": environment.get(f"GAIA_{role}_MODEL") or default}
        if provider == "openai":
            own = f"{role}_OPENAI_API_KEY"
            values["key_env"] = own if environment.get(own) else "OPENAI_API_KEY"
            values["base_url"] = environment.get("OPENAI_BASE_URL") or OPENAI_URL
            # reasoning models take no temperature, and call the limit by its newer name
            extra = {} if re.match(r"(.*/)?(gpt-5|o\d)", values["model"]) else {"temperature": 0}
            limits = {"max_tokens": 4096, "token_limit_field": "max_completion_tokens", "extra": extra}
        else:
            values["base_url"] = (
                environment.get(f"VLLM_{role}_URL") or environment.get("VLLM_BASE_URL") or url
            )
            values["key_env"] = "VLLM_API_KEY" if environment.get("VLLM_API_KEY") else ""
            limits = {"max_tokens": _whole_number(environment, "LLM_MAX_TOKENS", 16_384)}
        values["base_url"] = values["base_url"].rstrip("/")
        endpoint = build(Endpoint, values | {"retries": 5 if role == "ACTOR" else 0}, f"{role} model")
        limits |= {"top_logprobs": ALTERNATIVES} if form == "hermes" and role == "SPEC" else {}
        policies.append(ServedPolicy(endpoint, system, form, pictures=pictures, **limits))
    return policies[0], policies[1]


def _whole_number(environment: Mapping[str, str], name: str, default: int = 1) -> int:
    text = environment.get(name) or str(default)
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise ConfigError(f"{name}: {text!r} is no whole number above 0; change or unset it")
    return int(text)
