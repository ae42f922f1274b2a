"""Tools by declaration: one value gives schema, validation, canonical form, side effects and execution.

What may be executed before a model has asked for it depends on the tool's declared effect and on nothing else. It is
enforced in `Toolbox.execute`, where tools run. A tool that declares no effect is never executed in advance.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import nearest
from ..texts import storable
from .worker import ToolError, in_thread, in_worker, words_of

MAX_ARGUMENTS_CHARS = 20_000
MAX_ARGUMENTS_DEPTH = 20  # of lists and objects in each other
MAX_RESULT_CHARS = 50_000
DEFAULT_TIMEOUT_S = 60.0


class Effect(StrEnum):
    """What carrying out a call does besides returning its result, from harmless to harmful."""

    pure = "pure"  # depends on its arguments only
    repeatable = "repeatable"  # reads, and may be run twice
    metered = "metered"  # reads, but every call costs quota or money, or counts against a rate limit
    open_world = "open_world"  # reads outside, where a call shows what somebody is about to do
    writes = "writes"  # changes something


SAFE = frozenset({Effect.pure, Effect.repeatable})  # what may be executed in advance without being allowed


class Arguments(BaseModel):
    """Base of the arguments of a tool. Blanks around texts do not count, unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Workspace:
    """What a tool works on.

    Attributes:
        folder: of the task; the only place that files are read from.
        resources: whatever tools need besides, by name, such as a corpus, a table of waits or a model.
    """

    folder: Path
    resources: Mapping[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The file of this name in the folder, with links followed. It need not exist.

        Raises:
            ToolError: it lies elsewhere.
        """
        folder = self.folder.resolve()
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, NUL
            raise ToolError(f"{name[:200]!r} is no path.") from None
        if not path.is_relative_to(folder):
            raise ToolError(f"{name[:200]!r} is outside the task's folder, where no file may be read.")
        return path

    def only(self, names: Collection[str]) -> Workspace:
        """The same folder with these resources alone: what a process gets."""
        return Workspace(self.folder, {n: v for n, v in self.resources.items() if n in names})


@dataclass(frozen=True)
class Tool:
    """A tool and all that is declared about it.

    Attributes:
        name, description: for models.
        arguments: model of its arguments; unknown names are forbidden (see `Arguments`).
        effect: None: unknown, so it is never executed in advance.
        run: (arguments, workspace) -> text. Blocking. Raises ToolError with a sentence for the model.
        where: "process" for what may run long or cannot be trusted to end. `run` is then a function of a module's top
            level, gets the resources named by `resources`, and is killed when the call is cancelled. "loop" if `run` is
            a coroutine function, which is cancelled with the call. "thread" for the rest, which is short.
        warm_up: (workspace, arguments or None) does in advance what helps any call, or any with these arguments: parse
            the file, start a process. It changes no result. None where nothing helps.
        lifetime_s: how long a result stays valid. None: until something is written that it may depend on.
        timeout_s: a call that takes longer fails.
        paths: names of arguments that are paths in the task's folder. A call that leads elsewhere fails unexecuted.
        wait_s: (call, workspace) -> seconds that the call waits first, as for a server far away.
        resources: names of the resources that a process gets.
        touches: for a tool that writes, names of the tools whose results it may change. None: all but pure ones.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    effect: Effect | None
    run: Callable[[Any, Workspace], str | Awaitable[str]]
    where: Literal["thread", "process", "loop"] = "thread"
    warm_up: Callable[[Workspace, Any], object] | None = None
    lifetime_s: float | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    paths: tuple[str, ...] = ()
    wait_s: Callable[[Call, Workspace], float] | None = None
    resources: tuple[str, ...] = ()
    touches: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.arguments.model_config.get("extra") != "forbid":
            raise ValueError(f"{self.name}: the model of its arguments must forbid unknown names")


class MalformedCall(Exception):
    """A text that is no call of these tools. The message is a sentence for the model that wrote it."""


@dataclass(frozen=True)
class Call:
    """A call with checked arguments.

    Attributes:
        name: of the tool.
        arguments: validated, with defaults filled in, as JSON values.
        canonical: name and arguments, with sorted keys and numbers by value. Calls with equal texts do the same.
        given: the arguments as they came.
        checked: the arguments as the tool gets them.
    """

    name: str
    arguments: dict[str, Any] = field(compare=False)
    canonical: str
    given: dict[str, Any] = field(compare=False)
    checked: BaseModel = field(compare=False, repr=False)


@dataclass(frozen=True)
class ToolResult:
    """What came of a call: a text, or an error. A text with an error is never served for another call."""

    text: str
    error: str | None
    seconds: float

    @property
    def message(self) -> str:
        """What the model reads."""
        return self.text if self.error is None else f"Error: {self.error}"


class Toolbox:
    """The tools that a model may call.

    Raises:
        ValueError: two have the same name.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.tools = {}
        for tool in tools:
            if tool.name in self.tools:
                raise ValueError(f"two tools are called {tool.name}")
            self.tools[tool.name] = tool

    def schemas(self) -> list[dict]:
        """The `tools` of a chat completion."""
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": _untitled(tool.arguments.model_json_schema()),
                },
            }
            for tool in self.tools.values()
        ]

    def call(self, name: str, arguments: str | Mapping[str, Any]) -> Call:
        """The call of a tool by the arguments that a model wrote.

        Args:
            name: as the model wrote it.
            arguments: JSON text or an object. An empty text is an empty object.

        Raises:
            MalformedCall: there is no such tool, or it does not take these arguments.
        """
        tool = self.tools.get(name)
        if tool is None:
            names = ", ".join(self.tools) or "none"
            raise MalformedCall(
                f"There is no tool {str(name)[:100]!r}{nearest(name, self.tools)}; the tools are {names}."
            )
        given = arguments_of(arguments)
        try:
            checked = tool.arguments.model_validate(given)
            values = checked.model_dump(mode="json")
            canonical = json.dumps(_by_value(values), sort_keys=True, allow_nan=False, ensure_ascii=False)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, f['loc'])) or 'arguments'}: {f['msg']}" for f in error.errors()[:5]
            )
            raise MalformedCall(f"{name} does not take these arguments: {faults}"[:1000]) from None
        except ValueError as error:
            raise MalformedCall(f"{name} does not take these arguments: {error}"[:1000]) from None
        return Call(name, values, f"{name} {canonical}", given, checked)

    def refusal(
        self, call: Call, allowed_effects: Collection[Effect] = SAFE, workspace: Workspace | None = None
    ) -> str | None:
        """Why a call may not be executed in advance, or None.

        Args:
            call: of these tools.
            allowed_effects: what the user allows. An undeclared effect cannot be allowed.
            workspace: where given, paths are checked too.
        """
        tool = self.tools[call.name]
        if tool.effect is None:
            return f"{call.name} declares no side effects"
        if tool.effect not in allowed_effects:
            return f"{call.name} is {tool.effect.replace('_', ' ')}, which is not allowed in advance"
        for name in tool.paths:
            value = getattr(call.checked, name)
            if isinstance(value, str) and "://" in value and Effect.open_world not in allowed_effects:
                return f"{call.name} would read an address outside the task's folder"
        return None if workspace is None else self._path_fault(call, workspace)

    async def execute(
        self,
        call: Call,
        workspace: Workspace,
        speculated: bool = False,
        allowed_effects: Collection[Effect] = SAFE,
    ) -> ToolResult:
        """The result of a call. Whatever goes wrong is a result with an error.

        Cancelling the task kills the process of a tool that has one. A thread cannot be killed: it runs to its end and
        its result is dropped.

        Args:
            call: of these tools.
            workspace: what they work on.
            speculated: nobody has asked for the call yet. It is refused unless its effect is allowed.
            allowed_effects: as in `refusal`.
        """
        tool, clock = self.tools[call.name], asyncio.get_running_loop().time
        start_s = clock()
        fault = self.refusal(call, allowed_effects) if speculated else None
        fault = fault or self._path_fault(call, workspace)
        if fault:
            return ToolResult("", fault, 0.0)
        text, error = "", None
        try:
            async with asyncio.timeout(tool.timeout_s):
                if tool.wait_s is not None and (wait_s := tool.wait_s(call, workspace)) > 0:
                    await asyncio.sleep(wait_s)
                text = await self.body(tool, call, workspace)
        except TimeoutError:
            error = f"{call.name} was stopped after {tool.timeout_s:g} s."
        except Exception as e:  # a tool may raise anything
            error = words_of(e)
        if len(text) > MAX_RESULT_CHARS:
            text = f"{text[:MAX_RESULT_CHARS]}\n[{len(text) - MAX_RESULT_CHARS} further characters left out]"
        return ToolResult(storable(text), error and storable(error), clock() - start_s)

    async def body(self, tool: Tool, call: Call, workspace: Workspace) -> str:
        """The text of a call, where the tool runs. Raises whatever the tool raises."""
        if tool.where == "process":
            return await in_worker(tool.run, call.checked, workspace.only(tool.resources))
        if tool.where == "loop":
            return str(await tool.run(call.checked, workspace))
        return str(await in_thread(tool.run, call.checked, workspace))

    async def warm_up(self, name: str, workspace: Workspace, call: Call | None = None) -> bool:
        """True if a tool has prepared itself for its next call, or for this one. Its faults are no result."""
        tool = self.tools.get(name)
        if tool is None or tool.warm_up is None or (call and self._path_fault(call, workspace)):
            return False
        try:
            async with asyncio.timeout(tool.timeout_s):
                await in_thread(tool.warm_up, workspace, call and call.checked)
        except Exception:  # the call itself will say it
            return False
        return True

    def _path_fault(self, call: Call, workspace: Workspace) -> str | None:
        for name in self.tools[call.name].paths:
            value = getattr(call.checked, name)
            if isinstance(value, str) and "://" not in value:
                try:
                    workspace.path(value)
                except ToolError as error:
                    return str(error)
        return None


def arguments_of(arguments: str | Mapping[str, Any]) -> dict[str, Any]:
    """The object that a model wrote as the arguments of a call. Model output is untrusted, so everything is checked.

    Raises:
        MalformedCall: it is no JSON object, has a name twice, is too long or nests too deep, or cannot be stored.
    """
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments), allow_nan=False)
        if len(text) > MAX_ARGUMENTS_CHARS:
            raise MalformedCall(f"The arguments are longer than {MAX_ARGUMENTS_CHARS} characters.")
        values = (
            json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number) if text.strip() else {}
        )
        if not isinstance(values, dict) or _depth(values) > MAX_ARGUMENTS_DEPTH:
            raise ValueError("no object")
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()  # 1e999, half of a surrogate pair
    except (ValueError, TypeError, RecursionError):
        raise MalformedCall("The arguments are not one valid JSON object.") from None
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def _by_value(value: Any) -> Any:
    """Numbers that are equal get the same text: 2.0 becomes 2, -0.0 becomes 0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _by_value(item) for key, item in value.items()}
    return [_by_value(item) for item in value] if isinstance(value, list) else value


def _untitled(schema: Any) -> Any:
    """A JSON schema without the titles and docstrings that pydantic adds."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    if kept.get("type") == "object":
        kept.pop("description", None)
    return {
        k: {name: _untitled(item) for name, item in v.items()}
        if k in ("properties", "$defs")
        else _untitled(v)
        for k, v in kept.items()
    }
