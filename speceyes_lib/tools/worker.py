"""Tool functions in processes that can be killed: what may run long or end badly runs here and not in a thread.

A worker is a Python of its own. For each call it forks a process, which has all modules already and ends with the call.
Cancelling the call kills that process with all that it has started, so nothing of it writes later; the worker is free
again at once. Linux ends a worker when the process that started it dies. This file is both sides: imported, it starts
workers; run as a program, it is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NoReturn

from ..errors import UserError

MEMORY_BYTES = 4 * 2**30  # address space of a worker, so that a small file that unpacks to a huge one fails
MAX_REPLY_BYTES = 16 * 2**20
MOST_IDLE = 3
_MODULES: set[str] = (
    set()
)  # of the functions that ran so far: a new worker imports them before its first call
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # variables that end so stay outside


class ToolError(Exception):
    """A call that a tool cannot carry out. The message is a sentence for the model that made the call."""


class Threads(Executor):
    """One daemon thread per call: a call that hangs keeps no other waiting, and no process from ending."""

    def submit(self, function: Callable, /, *args: Any, **keywords: Any) -> Future:
        """The future result of the function, which starts at once."""
        future: Future = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **keywords)
            except BaseException as error:  # it belongs to whoever awaits the future
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="tool", daemon=True).start()
        return future


THREADS = Threads()
# Linux ends a process together with the *thread* that started it, so one thread that stays starts all
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="tool-workers")


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a blocking function. A cancelled caller leaves at once; the thread runs on and is ignored."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, function, *args)


async def in_worker(function: Callable[..., str], *args: Any) -> str:
    """The text that a function returns in a worker. A cancelled caller has killed the process when it leaves.

    Args:
        function: of a module's top level.
        args: values that can be pickled.

    Raises:
        ToolError: the function raised, with its words, or its process ended.
    """
    _MODULES.add(function.__module__)
    use = _Use(pickle.dumps((function, args)))
    future = asyncio.get_running_loop().run_in_executor(THREADS, use.run)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        use.cancel()
        await asyncio.wait([future])
        future.exception()  # it is known: the process was killed
        raise


def prepare() -> None:
    """Start a worker unless an idle one waits, so that the next call finds it ready. Blocking."""
    _POOL.give_back(_POOL.take())


class _Use:
    """One call on its way through a worker. `cancel` may come from another thread at any moment."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._lock = payload, threading.Lock()
        self._worker: _Worker | None = None
        self._cancelled = False

    def run(self) -> str:
        worker = _POOL.take()
        with self._lock:
            if self._cancelled:
                _POOL.give_back(worker)
                raise ToolError("The call was cancelled before it began.")
            self._worker = worker
        try:
            reply = worker.ask(self._payload)
        except (OSError, ValueError):
            worker.end()
            raise ToolError("The tool's process ended before it had a result.") from None
        with self._lock:
            self._worker = None
        _POOL.give_back(worker)
        if reply is None:
            raise ToolError("The tool's process ended before it had a result.")
        if reply["error"] is not None:
            raise ToolError(reply["error"])
        return reply["text"]

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._worker is not None:
                self._worker.kill()


class _Worker:
    """A process that runs functions, one after the other."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.upper().endswith(_SECRETS)}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._pid: int | None = None  # of the call's process
        self._killed, self._lock = False, threading.Lock()
        self._popen = _STARTER.submit(
            subprocess.Popen,
            [sys.executable, "-m", __name__, str(os.getpid()), *sorted(_MODULES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0,  # Ctrl-C is meant for this process
        ).result()

    def ask(self, payload: bytes) -> dict | None:
        """The reply to a pickled (function, arguments); None if the call's process ended without one.

        Raises:
            OSError: the worker is gone.
            ValueError: what came is no reply.
        """
        self._killed = False
        self._popen.stdin.write(struct.pack("=I", len(payload)) + payload)
        self._popen.stdin.flush()
        pid = json.loads(self._frame())
        with self._lock:
            self._pid = pid
        if self._killed:
            self.kill()
        reply = self._frame()
        with self._lock:
            self._pid = None
        return json.loads(reply) if reply else None

    def _frame(self) -> bytes:
        (size,) = struct.unpack("=I", self._read(4))
        if size > MAX_REPLY_BYTES:
            raise ValueError("the reply is too long")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = self._popen.stdout.read(size)
        if len(data) < size:
            raise OSError("the process ended")
        return data

    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        """Kill the process of the call, and all that it has started."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            self._killed = True
            if self._pid is not None:
                os.killpg(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """End the worker and wait until it is gone."""
        self.kill()
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):  # what was not sent cannot be sent any more
                pipe.close()


class _Pool:
    """Idle workers."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._lock, self._restocking = threading.Lock(), False
        self.close = weakref.finalize(self, _end_all, self._idle)

    def take(self) -> _Worker:
        """An idle worker, else a new one. When the last idle one goes, another is started for the next call.

        So a call of the actor finds a worker even if those of guesses are busy or were killed.
        """
        with self._lock:
            worker = None
            while self._idle and worker is None:
                worker = self._idle.pop()
                if not worker.alive():
                    worker.end()
                    worker = None
            if not self._idle and not self._restocking:
                self._restocking = True
                THREADS.submit(self._restock)
        return worker or _Worker()

    def _restock(self) -> None:
        try:
            self.give_back(_Worker())
        finally:
            self._restocking = False

    def give_back(self, worker: _Worker) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(worker)
                return
        worker.end()


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


_POOL = _Pool()


# ------------------------------------------------------------------------------------------- the other side
def main() -> None:
    """Run the functions that come through standard input until it ends."""
    calls: list[int] = []  # the process of the present call, which leads a group

    def leave(*_: object) -> None:
        for pid in calls:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(1)

    signal.signal(signal.SIGTERM, leave)
    _end_with_parent(int(sys.argv[1]), signal.SIGTERM)
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(most, MEMORY_BYTES)
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _load(sys.argv[2:])
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a tool prints is no reply

    def send(data: bytes) -> None:
        replies.write(struct.pack("=I", len(data)) + data)
        replies.flush()

    while len(head := requests.read(4)) == 4:
        payload = requests.read(*struct.unpack("=I", head))
        with contextlib.suppress(Exception):  # the call's process says it
            pickle.loads(payload)  # imports the function's module, for this call and later ones
        inlet, outlet = os.pipe()
        worker = os.getpid()
        if (pid := os.fork()) == 0:
            os.close(inlet)
            _carry_out(worker, payload, outlet)
        with contextlib.suppress(OSError):  # it has done so itself
            os.setpgid(pid, pid)
        calls.append(pid)
        os.close(outlet)
        send(json.dumps(pid).encode())
        with os.fdopen(inlet, "rb") as pipe:
            reply = pipe.read()
        _, status = os.waitpid(pid, 0)
        calls.clear()
        if status:
            reply = b""
        elif reply:
            _load(json.loads(reply)["modules"])
        send(reply)


def _carry_out(worker: int, payload: bytes, outlet: int) -> NoReturn:
    """The process of one call."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with_parent(worker, signal.SIGKILL)
        before = set(sys.modules)
        reply = _reply(payload)
        data = json.dumps(reply | {"modules": sorted({n for n in sys.modules if n not in before})}).encode()
        with os.fdopen(outlet, "wb") as pipe:
            pipe.write(data)
        os._exit(0)
    finally:
        os._exit(1)


def _end_with_parent(parent: int, number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _load(modules: Iterable[str]) -> None:
    """Import modules that calls have needed, so that the next ones have them."""
    for name in modules:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _reply(payload: bytes) -> dict:
    try:
        function, args = pickle.loads(payload)
        return {"text": str(function(*args)), "error": None}
    except Exception as error:  # whatever a tool raises is its result
        return {"text": "", "error": words_of(error)}


def words_of(error: BaseException) -> str:
    """The sentence that tells a model why its call failed."""
    if isinstance(error, ToolError | UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The call needs more memory than a tool may use."
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    # the module by its name, so that its classes are those that the functions raise
    from speceyes_lib.tools import worker

    worker.main()
