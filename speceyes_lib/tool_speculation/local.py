"""Local language models as actor or speculator: hermes text with the log-probabilities of every token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..tools.declared import Toolbox, Workspace
from ..tools.worker import THREADS
from .models import CallReader, Event, Finished, PolicyError, Token

if TYPE_CHECKING:
    from ..models.text_model import TextModel
    from ..models.text_process import TextProcess


class LocalPolicy:
    """A model folder on this machine. Tools are described by the tokenizer's chat template.

    Args:
        model: folder, which is loaded into this process, or a loaded model. With two models that shall not wait for
            each other, give each a `TextProcess`.
        system: system prompt.
        max_tokens: of one turn.
        alternatives: per token, for gate and forks; 0 for an actor.
        name: for records; by default that of the folder.
    """

    def __init__(
        self,
        model: str | Path | TextModel | TextProcess,
        system: str = "",
        max_tokens: int = 1024,
        alternatives: int = 0,
        name: str = "",
    ) -> None:
        if isinstance(model, str | Path):
            from ..models.text_model import TextModel

            model = TextModel(model)
        self.model, self.system, self.max_tokens, self.alternatives = model, system, max_tokens, alternatives
        self.name = name or model.folder.name
        self.can_fork = alternatives > 1

    async def close(self) -> None:
        """End the process of the model, if it has one."""
        if hasattr(self.model, "close"):
            self.model.close()

    async def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the model's turn, see `Policy.stream`. The model runs in a thread."""
        loop, queue, stop = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()

        def put(item: Token | Exception | None) -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def write() -> None:
            try:
                for token in self._tokens(messages, toolbox, prefix, stop):
                    put(token)
            except Exception as error:  # whatever a model does is a result of its turn
                put(error)
            else:
                put(None)

        reader = CallReader(prefix)
        ended = THREADS.submit(write)
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, Exception):
                    raise PolicyError(f"{self.name}: {type(item).__name__}: {item}") from item
                yield item
                for event in reader.feed(item):
                    yield event
            yield Finished(reader.text)
        finally:
            stop.set()
            if ended.done():
                ended.exception()

    def _tokens(
        self, messages: Sequence[dict], toolbox: Toolbox, prefix: Sequence[Token], stop: threading.Event
    ) -> Iterator[Token]:
        begun = [token.top_ids[token.rank] if token.top_ids else token.text for token in prefix]
        for written in self.model.turn(
            messages, toolbox.schemas(), begun, self.max_tokens, self.alternatives, stop.is_set
        ):
            yield Token(written.text, written.top_logprobs or None, written.top_texts, written.top_ids)
