"""An event loop whose clock the test owns: it jumps to the next timer whenever nothing else is left to do.

Threads take no time on it: while one runs, the clock stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector:
    def __init__(self, loop, selector):
        self._loop, self._selector = loop, selector

    def select(self, timeout=None):
        if timeout is not None and timeout <= 0:
            return self._selector.select(0)
        if self._loop.in_threads:
            return self._selector.select(None)
        if timeout is None:
            raise RuntimeError("everything waits and nothing will ever happen")
        self._loop.seconds = max(self._loop.seconds, self._loop.next_timer())
        return self._selector.select(0)

    def __getattr__(self, name):
        return getattr(self._selector, name)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.seconds, self.in_threads, self.faults = 0.0, 0, []
        super().__init__()
        self._selector = _Selector(self, self._selector)
        self.set_exception_handler(lambda loop, context: self.faults.append(context))

    def time(self):
        return self.seconds

    def next_timer(self):
        return self._scheduled[0].when()

    def run_in_executor(self, executor, function, *args):
        future = super().run_in_executor(executor, function, *args)
        self.in_threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _):
        self.in_threads -= 1


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine on such a loop. Faults that asyncio would only print are raised."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(work)
        loop = runner.get_loop()
    if loop.faults:
        raise AssertionError(loop.faults)
    return result
