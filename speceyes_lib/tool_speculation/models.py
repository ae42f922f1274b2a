"""Models that call tools, as streams of events: what the engine knows of actor and speculator.

A model writes its turn as text with calls in hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
Models that call natively are brought into this form. A call is read when its end mark is there, and never repaired.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from ..tools.declared import MalformedCall, Toolbox, Workspace, arguments_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FINAL = "FINAL ANSWER:"
_CALL = re.compile(f"{OPEN}(.*?)({CLOSE}|\\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_FINAL = re.compile(r"final\s+answer\s*:", re.IGNORECASE)


# -------------------------------------------------------------------------------------------- events
@dataclass(frozen=True)
class Token:
    """A generated token.

    Attributes:
        text: what it adds to the turn.
        top_logprobs: the highest log-probabilities at its place, highest first; None where a server returns none.
        top_texts: the texts of these alternatives. top_ids: their ids, for local models.
        rank: which of the alternatives this token is. 0 in greedy decoding.
    """

    text: str
    top_logprobs: tuple[float, ...] | None = None
    top_texts: tuple[str, ...] = ()
    top_ids: tuple[int, ...] = ()
    rank: int = 0

    @property
    def logprob(self) -> float | None:
        """Its log-probability, None where it is not known."""
        return self.top_logprobs[self.rank] if self.top_logprobs else None

    def runner_up(self) -> Token | None:
        """The second most probable token at this place, None where it is not known."""
        if not self.top_logprobs or min(len(self.top_logprobs), len(self.top_texts)) < 2:
            return None
        return replace(self, text=self.top_texts[1], rank=1)


@dataclass(frozen=True)
class CallStarted:
    """The name of a call is complete."""

    name: str


@dataclass(frozen=True)
class CallComplete:
    """The arguments of a call are complete.

    Attributes:
        text: the JSON object between the marks.
        tokens: the tokens in which it lies. offset: where it begins in their joined texts. Empty for models that call
            natively, whose servers return no log-probabilities of a call.
        first: index of the first of these tokens in the turn.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    offset: int = 0
    first: int = 0


@dataclass(frozen=True)
class Finished:
    """The turn has ended. text: all of it, with its calls in hermes form."""

    text: str


Event = Token | CallStarted | CallComplete | Finished


class Policy(Protocol):
    """A model that calls tools.

    Attributes:
        name: for records.
        system: its system prompt; empty if it has none.
        can_fork: `prefix` is supported.
    """

    name: str
    system: str
    can_fork: bool

    def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the next turn. Closing the iterator ends the generation.

        Args:
            messages: {role, content, name?}; roles user, assistant (turns in hermes form) and tool.
            toolbox: the tools that may be called. Empty: none, an answer is wanted.
            workspace: with pictures and files that messages name.
            prefix: tokens that the turn begins with. They give no events of their own.

        Raises:
            PolicyError: the model cannot be asked, or has failed.
        """


class PolicyError(Exception):
    """A model that failed; the message says how, for records and people."""


# --------------------------------------------------------------------------------------------- calls
@dataclass(frozen=True)
class Malformed:
    """A text in the place of a call that is none. reason: a sentence for the model."""

    text: str
    reason: str


def parse_call(text: str) -> tuple[str, str] | Malformed:
    """Name and arguments (JSON text) of a call's object, or why it is none. Empty arguments are {}."""
    try:
        call = arguments_of(text)
    except MalformedCall:
        return Malformed(text, "The call is not one valid JSON object.")
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, str | dict):
        return Malformed(text, "A call is a JSON object with a name and an object of arguments.")
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments)


def parse_calls(text: str) -> list[tuple[str, str] | Malformed]:
    """The calls of a turn in order. One without end mark is malformed."""
    calls: list[tuple[str, str] | Malformed] = []
    for match in _CALL.finditer(text):
        inside = match[1].strip()
        calls.append(parse_call(inside) if match[2] else Malformed(inside, "The call does not end."))
    return calls


def call_text(name: str, arguments: str) -> str:
    """A call in hermes form, from its name and the arguments as JSON text. What is no JSON object stays as it is."""
    return f'{OPEN}{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments.strip() or "{}"}}}{CLOSE}'


def without_calls(text: str) -> str:
    """What a turn says besides its calls."""
    return _CALL.sub("", text).strip()


def final_answer(text: str) -> str | None:
    """What follows the last "FINAL ANSWER:" of a turn, in any case of letters; None without one."""
    marks = list(_FINAL.finditer(text))
    return text[marks[-1].end() :].strip() if marks else None


class CallReader:
    """Finds the calls in a turn while its tokens come.

    Args:
        prefix: tokens that the turn begins with, which give no events.
    """

    def __init__(self, prefix: Sequence[Token] = ()) -> None:
        self.text, self.tokens = "", []
        self._starts: list[int] = []  # where each token begins
        self._begin: int | None = None  # of the open call's object
        self._done = 0  # up to where calls are read
        self._named = False
        for token in prefix:
            self.feed(token)

    def feed(self, token: Token) -> list[CallStarted | CallComplete]:
        """The events that a token completes."""
        self._starts.append(len(self.text))
        self.tokens.append(token)
        self.text += token.text
        events: list[CallStarted | CallComplete] = []
        while True:
            if self._begin is None:
                mark = self.text.find(OPEN, max(self._done, self._starts[-1] - len(OPEN)))
                if mark < 0:
                    return events
                self._begin, self._named = mark + len(OPEN), False
            if not self._named and (name := _NAME.search(self.text, self._begin)):
                self._named = True
                events.append(CallStarted(name[1]))
            end = self.text.find(CLOSE, max(self._begin, self._starts[-1] - len(CLOSE)))
            if end < 0:
                return events
            events.append(self._complete(self._begin, end))
            self._begin, self._done = None, end + len(CLOSE)

    def _complete(self, begin: int, end: int) -> CallComplete:
        raw = self.text[begin:end]
        begin += len(raw) - len(raw.lstrip())
        inside = [
            i
            for i, token in enumerate(self.tokens)
            if self._starts[i] < end and self._starts[i] + len(token.text) > begin
        ]
        first = inside[0] if inside else len(self.tokens)
        tokens = tuple(self.tokens[first : inside[-1] + 1]) if inside else ()
        offset = begin - self._starts[first] if inside else 0
        return CallComplete(raw.strip(), tokens, offset, first)


# -------------------------------------------------------------------------------------- scripted models
_PIECES = re.compile(rf"{OPEN}|{CLOSE}|\s*[\w.]+|\s*[^\w\s<]|\s*<|\s+")


def scripted_tokens(text: str) -> list[Token]:
    """A text as tokens without log-probabilities: words and signs."""
    return [Token(piece) for piece in _PIECES.findall(text)]


class ScriptedPolicy:
    """A model whose turns are given, for tests and demonstrations.

    Args:
        turn: (messages, whether tools are offered, prefix as text) -> the whole turn as text or tokens; it may raise.
        seconds_per_token: one number, or (messages, index of the token) -> seconds.
    """

    def __init__(
        self,
        turn: Callable[[Sequence[dict], Toolbox, Sequence[Token]], str | Sequence[Token]],
        seconds_per_token: float | Callable[[Sequence[dict], int], float] = 0.0,
        name: str = "scripted",
        system: str = "",
        can_fork: bool = True,
    ) -> None:
        self.turn, self.seconds_per_token = turn, seconds_per_token
        self.name, self.system, self.can_fork = name, system, can_fork

    async def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the scripted turn, each token after its seconds."""
        turn = self.turn(messages, toolbox, prefix)
        tokens = scripted_tokens(turn) if isinstance(turn, str) else turn
        reader, pace = CallReader(prefix), self.seconds_per_token
        for index, token in enumerate(tokens):
            await asyncio.sleep(pace(messages, index) if callable(pace) else pace)
            yield token
            for event in reader.feed(token):
                yield event
        yield Finished(reader.text)


class PacedPolicy:
    """A model whose tokens are released at a stated rate, as if they came from a remote server.

    Token n is released n / tokens_per_s after the turn began, or when the model has it, whichever is later.
    """

    def __init__(self, policy: Policy, tokens_per_s: float) -> None:
        self.policy, self.tokens_per_s = policy, tokens_per_s
        self.name, self.system, self.can_fork = policy.name, policy.system, policy.can_fork

    async def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the policy, with their pace."""
        clock = asyncio.get_running_loop().time
        start_s, n = clock(), 0
        async with aclosing(self.policy.stream(messages, toolbox, workspace, prefix)) as events:
            async for event in events:
                if isinstance(event, Token):
                    n += 1
                    if (wait_s := start_s + n / self.tokens_per_s - clock()) > 0:
                        await asyncio.sleep(wait_s)
                yield event
