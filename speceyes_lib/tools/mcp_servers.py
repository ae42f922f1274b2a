"""The tools of MCP servers, declared like the suite's own. Needs the extra `mcp`.

A server says by annotations what its tools do. These are hints of somebody else. The person who runs it may tighten
them, and loosens them by naming the tool. A tool without annotations is undeclared, and so never called in advance.

A call that is cancelled or takes too long is withdrawn (`notifications/cancelled`), which a server may ignore. So
its process is killed, with all that it has started, after such a call of a tool that may write, and after one that took
too long while nothing else was called. The next call starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from ..errors import ConfigError, MeansError, UserError, build, nearest, printable
from ..paths import shown
from .declared import Effect, Tool, Workspace
from .worker import ToolError, words_of

UNDECLARED = "undeclared"
Declared = Effect | Literal["undeclared"]
_STRICTNESS = {effect: n for n, effect in enumerate(Effect)} | {UNDECLARED: len(Effect) - 1}
MOST_PAGES = 100  # of a list of tools
MOST_WORDS = 500  # of an error
KEY = "mcpServers"
Seconds = Annotated[float, Field(gt=0, le=3600)]

# Leads a process group, says its number, dies with its parent where Linux can do that, and becomes the server
_BEGIN = """
import ctypes, os, signal, sys
os.write(2, b"%d\\n" % os.getpid())
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class McpServer(BaseModel):
    """One server, as files for other MCP clients describe it, and what its tools may do.

    Attributes:
        command, args, env, cwd: of a server that is a process. It gets few variables besides those of `env`.
        url, headers: of a server behind an address. A value of `env` or `headers` that begins with $ names a variable
            of the environment, so that keys need not stand in the file.
        timeout_s: a call that takes longer fails. start_s: so long may the server take to start and list its tools.
        prefix: put before the names of its tools.
        only: names of the tools that are offered. None: all.
        effects: tool -> a stricter effect than its annotations say. "*" means all.
        vouched: tool -> its effect by the word of the person who wrote this, not by annotations.
        type: of the transport, as other clients want it. It is not used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str = ""
    headers: dict[str, str] = {}
    timeout_s: Seconds = 60.0
    start_s: Seconds = 60.0
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    only: list[str] | None = None
    effects: dict[str, Declared] = {}
    vouched: dict[str, Effect] = {}
    type: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("a server has either a command or a url")
        return self


def read_mcp_config(path: Path) -> dict[str, McpServer]:
    """The servers of a file (JSON or YAML), by name: what stands under `mcpServers`.

    Raises:
        ConfigError: it cannot be read, or names no server rightly.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError(f"{shown(path)}: no file of MCP servers in JSON or YAML: {reason}") from None
    servers = values.get(KEY) if isinstance(values, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise ConfigError(f"{shown(path)}: expected {KEY} with one server or more, by name")
    checked = {}
    for name, fields in servers.items():
        if not isinstance(fields, dict):
            raise ConfigError(
                f"{shown(path)}: {KEY}.{name}: expected command or url, and more about the server"
            )
        checked[str(name)] = build(McpServer, fields, f"{shown(path)}: {KEY}.{name}")
    return checked


def hinted_effect(annotations: Any) -> Effect | None:
    """What a tool does by its annotations (`ToolAnnotations`); None if they do not say whether it only reads.

    Hints that contradict each other count as the worse one.
    """
    reads = None if annotations is None else annotations.read_only_hint
    if reads is None:
        return None
    if not reads or annotations.destructive_hint:
        return Effect.writes
    return Effect.repeatable if annotations.open_world_hint is False else Effect.open_world


def declared_effect(name: str, annotations: Any, server: McpServer) -> Effect | None:
    """What a tool does by its annotations and by the words of the person who configured it.

    Raises:
        ConfigError: `effects` would loosen what the annotations say.
    """
    if name in server.vouched:
        return server.vouched[name]
    hinted = hinted_effect(annotations)
    word = server.effects.get(name, server.effects.get("*"))
    if word is None:
        return hinted
    if _STRICTNESS[word] < _STRICTNESS[hinted or UNDECLARED]:
        if name not in server.effects:  # "*" loosens nothing
            return hinted
        raise ConfigError(
            f"effects.{name}: {word} is less strict than what the server says ({hinted or UNDECLARED}); if you know "
            f"what the tool does, write it as vouched.{name}"
        )
    return None if word == UNDECLARED else Effect(word)


@asynccontextmanager
async def mcp_tools(servers: Mapping[str, McpServer]) -> AsyncIterator[list[Tool]]:
    """The tools of the servers while the context is open. Its end ends the servers' processes.

    Raises:
        UserError: the extra is missing, or a server cannot be started or lists tools that cannot be offered.
    """
    if servers and importlib.util.find_spec("mcp") is None:
        raise ConfigError("MCP servers need the extra mcp; install it: pip install 'speceyes[mcp]'")
    links = [_Server(name, settings) for name, settings in servers.items()]
    try:
        yield [tool for link in links for tool in await link.tools()]
    finally:
        await asyncio.gather(*(link.close() for link in links))


# ------------------------------------------------------------------------------------------------ servers
class _Server:
    """A server that is started when it is needed."""

    def __init__(self, name: str, settings: McpServer) -> None:
        self.name, self.settings = name, settings
        self._link: _Link | None = None
        self._ending: set[asyncio.Task] = set()

    async def tools(self) -> list[Tool]:
        listed, cursor = [], None
        client = await self._client()
        try:
            async with asyncio.timeout(self.settings.start_s):
                for _ in range(MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    listed += page.tools
                    if (cursor := page.next_cursor) is None:
                        break
        except Exception as error:  # whatever a server does
            raise self._fault(f"lists no tools: {_words(error)}") from None
        names = [tool.name for tool in listed]
        if len(set(names)) < len(names):
            raise self._fault("has two tools of one name")
        only = self.settings.only
        for key in (*(only or ()), *self.settings.effects, *self.settings.vouched):
            if key != "*" and key not in names:
                raise ConfigError(
                    f"MCP server {self.name}: there is no tool {key!r}{nearest(key, names)}; it has "
                    f"{', '.join(names) or 'none'}"
                )
        return [self._tool(tool) for tool in listed if only is None or tool.name in only]

    def _tool(self, listed: Any) -> Tool:
        try:
            effect = declared_effect(listed.name, listed.annotations, self.settings)
            arguments = arguments_by_schema(listed.input_schema)
        except ConfigError as error:
            raise ConfigError(f"MCP server {self.name}: {error}") from None
        except ValueError as error:
            raise self._fault(f"{listed.name}: {error}; leave it out by naming the others in only") from None
        writes = effect in (None, Effect.writes)

        async def run(given: _BySchema, workspace: Workspace) -> str:
            return await self._call(listed.name, given.values, writes)

        return Tool(
            name=self.settings.prefix + _function_name(listed.name),
            description=(listed.description or listed.title or listed.name)[:4000],
            arguments=arguments,
            effect=effect,
            run=run,
            where="loop",
            timeout_s=self.settings.timeout_s + self.settings.start_s + 10,  # its own limits come first
        )

    async def _call(self, name: str, values: dict[str, Any], writes: bool) -> str:
        """The text of a call. Raises ToolError."""
        try:
            client = await self._client()
        except UserError as error:
            raise ToolError(str(error)) from None
        link, limit_s = self._link, self.settings.timeout_s
        link.calls += 1
        try:
            async with asyncio.timeout(limit_s):
                result = await client.call_tool(name, values)
        except TimeoutError:
            if writes or link.calls == 1:
                self._end(link)
            raise ToolError(f"{name} was stopped after {limit_s:g} s.") from None
        except asyncio.CancelledError:
            if writes:
                self._end(link)
            raise
        except Exception as error:  # whatever a server does
            if not _is_answer(error):
                self._end(link)
            raise ToolError(f"MCP server {self.name}, {name}: {_words(error)}") from None
        finally:
            link.calls -= 1
        return result_text(result)

    async def _client(self) -> Any:
        """The connected client."""
        if self._link is None or self._link.over:
            self._link = _Link(self.settings)
        link = self._link
        try:
            return await asyncio.wait_for(asyncio.shield(link.client), self.settings.start_s)
        except TimeoutError:
            reason = f"has not answered within {self.settings.start_s:g} s"
        except Exception as error:  # whatever a server does
            reason = f"cannot be reached: {_words(error)}"
        reason += link.last_words()
        self._end(link)
        raise self._fault(reason)

    def _end(self, link: _Link) -> None:
        link.kill()
        self._ending.add(link.task)
        link.task.add_done_callback(self._ending.discard)

    def _fault(self, reason: str) -> MeansError:
        return MeansError("unreachable", f"MCP server {self.name} {reason}")

    async def close(self) -> None:
        if self._link is not None:
            self._link.stop.set()
            self._ending.add(self._link.task)
        if self._ending:
            await asyncio.wait(set(self._ending))


class _Link:
    """One connection, held by a task of its own, because who opens it has to close it."""

    def __init__(self, settings: McpServer) -> None:
        self.settings, self.calls, self.over = settings, 0, False
        self.stop = asyncio.Event()
        self.client: asyncio.Future = asyncio.get_running_loop().create_future()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # until the connection ends
        self._words = ""
        self._pid: int | None = None
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        from mcp import Client

        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = await stack.enter_async_context(Client(transport, cache=None))
                self._find_pid()
                if not self.client.done():
                    self.client.set_result(client)
                await self.stop.wait()
        except BaseException as error:
            if not self.client.done():
                self.client.set_exception(OSError(_words(error)))
                self.client.exception()  # nobody may be waiting
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise
        finally:
            self.kill()
            self._words = self.last_words()
            self._stderr.close()

    async def _transport(self, stack: AsyncExitStack) -> Any:
        settings = self.settings
        if settings.url:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            http = httpx2.AsyncClient(
                headers=_resolved(settings.headers), timeout=httpx2.Timeout(30, read=300)
            )
            return streamable_http_client(settings.url, http_client=await stack.enter_async_context(http))
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        if shutil.which(settings.command) is None:
            raise ConfigError(f"there is no program {settings.command!r}")
        own = [sys.executable, "-I", "-c", _BEGIN, str(os.getpid())]
        command, *args = [*own, settings.command, *settings.args]
        parameters = StdioServerParameters(
            command=command, args=args, env=_resolved(settings.env), cwd=settings.cwd
        )
        return stdio_client(parameters, errlog=self._stderr)

    def _find_pid(self) -> None:
        """Read the first line that the process wrote. The file has one position, which is the server's."""
        if self._pid is None and not self._stderr.closed:
            line = os.pread(self._stderr.fileno(), 20, 0).partition(b"\n")[0]
            self._pid = int(line) if line.isdigit() else None

    def kill(self) -> None:
        """End the server's process and all that it has started, now."""
        self.over = True
        self._find_pid()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        self.stop.set()
        if not self.client.done():  # it is starting
            self.task.cancel()

    def last_words(self) -> str:
        """What the process wrote last to its error output."""
        if self._stderr.closed:
            return self._words
        fd = self._stderr.fileno()
        size = os.fstat(fd).st_size
        lines = os.pread(fd, 2000, max(0, size - 2000)).decode("utf-8", "replace").strip().splitlines()
        words = [line for line in lines if not line.isdigit()][-1:]
        return f" (it wrote: {printable(words[0])[:MOST_WORDS]})" if words else ""


def _resolved(values: Mapping[str, str]) -> dict[str, str]:
    resolved = {}
    for name, value in values.items():
        if value.startswith("$"):
            if value[1:] not in os.environ:
                raise ConfigError(f"{name}: the variable {value[1:]} is not set")
            value = os.environ[value[1:]]
        resolved[name] = value
    return resolved


def _is_answer(error: Exception) -> bool:
    """True if the server is there and has answered, if only by an error or by nonsense."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED
    from pydantic import ValidationError

    return isinstance(error, ValidationError) or (
        isinstance(error, MCPError) and error.code != CONNECTION_CLOSED
    )


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error) if isinstance(error, UserError | OSError) else words_of(error)
    return printable(" ".join(text.split()))[:MOST_WORDS]


def _function_name(name: str) -> str:
    """The name as models may call it."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
    return kept[:64] or "tool"


# ----------------------------------------------------------------------------------- arguments and results
class _BySchema(BaseModel):
    """Base of arguments that a JSON schema describes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_: ClassVar[dict[str, Any]]
    validator: ClassVar[Any]

    values: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _check(cls, given: Any) -> dict[str, Any]:
        properties = cls.schema_.get("properties", {})
        filled = {
            name: p["default"] for name, p in properties.items() if isinstance(p, dict) and "default" in p
        }
        for values in (filled | given, given):  # a default may be none of the values that the schema allows
            fault = _schema_fault(cls.validator, values)
            if fault is None:
                return {"values": values}
        raise ValueError(fault)

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return self.values

    @classmethod
    def model_json_schema(cls, *args: Any, **keywords: Any) -> dict[str, Any]:
        """The server's own schema."""
        return cls.schema_


def arguments_by_schema(schema: Mapping[str, Any]) -> type[BaseModel]:
    """The model of arguments that a JSON schema describes. Defaults of the schema are filled in.

    Patterns are left to the server: an expression from outside may take forever to match.

    Raises:
        ValueError: it is no schema of an object, or it refers to another document.
    """
    import jsonschema

    schema = dict(schema)
    if _refers_elsewhere(schema):
        raise ValueError("its schema refers to another document")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except Exception as error:  # of a schema from outside
        raise ValueError(f"its schema is none: {_words(error)}") from None

    def skip(*_: object) -> tuple:
        return ()

    def additional(validator: Any, allowed: Any, instance: Any, inside: Mapping[str, Any]) -> Iterable[Any]:
        if "patternProperties" in inside:
            return ()
        return kind.VALIDATORS["additionalProperties"](validator, allowed, instance, inside) or ()

    keywords = dict.fromkeys(("pattern", "patternProperties", "unevaluatedProperties"), skip)
    checking = jsonschema.validators.extend(kind, keywords | {"additionalProperties": additional})
    members = {"schema_": schema, "validator": checking(schema), "__annotations__": {}}
    members["__annotations__"] = {"schema_": ClassVar[dict], "validator": ClassVar[Any]}
    return type("SchemaArguments", (_BySchema,), {**members, "__module__": __name__})


def _schema_fault(validator: Any, values: Any) -> str | None:
    try:
        faults = [
            f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}"[:200]
            for error, _ in zip(validator.iter_errors(values), range(5), strict=False)
        ]
    except Exception as error:  # a schema from outside may refer to itself without end
        return f"the schema cannot be applied: {_words(error)}"
    return "; ".join(faults) or None


def _refers_elsewhere(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_refers_elsewhere, value))
    if not isinstance(value, dict):
        return False
    refs = (value.get(key) for key in ("$ref", "$dynamicRef", "$recursiveRef"))
    return any(isinstance(ref, str) and not ref.startswith("#") for ref in refs) or any(
        map(_refers_elsewhere, value.values())
    )


def result_text(result: Any) -> str:
    """What a model reads of a `CallToolResult`.

    Raises:
        ToolError: the result says that the call failed.
    """
    text = "\n".join(map(_block_text, result.content))
    if not result.content and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False, sort_keys=True)
    if result.is_error:
        raise ToolError(text or "The tool says that it failed, and not why.")
    return text


def _block_text(block: Any) -> str:
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
        case "resource" if hasattr(block.resource, "text"):
            return block.resource.text
        case "resource":
            return f"[file {block.resource.uri}]"
        case _:
            return f"[{block.name}: {block.uri}]"
