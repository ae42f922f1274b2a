"""A `TextModel` in a process of its own, so that two models and their callers do not wait for each other.

Requests and tokens are lines of JSON through pipes. Linux ends the process when the one that started it dies. This file
is both sides: imported, it starts the process; run as a program, it is one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..paths import resolve
from .text_model import WrittenToken

# Linux ends a process together with the *thread* that started it, so one thread that stays starts all
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="text-models")


class TextProcess:
    """A model folder, loaded in a process of its own.

    Args:
        folder: as for `TextModel`.
        device: as for `TransformersBackend`.
        threads: of the processor, for its computation.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: str | Path, device: str = "auto", threads: int = 1) -> None:
        self.folder = resolve(folder)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
        self._process = _STARTER.submit(
            subprocess.Popen,
            [sys.executable, "-m", __name__, str(os.getpid()), str(self.folder), device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C is meant for this process
        ).result()
        self.close = weakref.finalize(self, _end, self._process)
        first = json.loads(self._process.stdout.readline() or b'{"error": "the process of the model ended"}')
        if first.get("error"):
            self.close()
            raise UserError(first["error"])
        self._waiting: dict[int, queue.SimpleQueue] = {}
        self._numbers, self._lock = itertools.count(), threading.Lock()
        threading.Thread(
            target=_distribute, args=(self._process.stdout, self._waiting), name="text-model", daemon=True
        ).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def turn(
        self,
        messages: Sequence[dict],
        schemas: Sequence[dict],
        prefix: Sequence[int | str],
        limit: int,
        alternatives: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[WrittenToken]:
        """The tokens of the model's next turn, as `TextModel.turn`.

        Raises:
            RuntimeError: the model failed, or its process ended.
        """
        number, replies = next(self._numbers), queue.SimpleQueue()
        self._waiting[number] = replies
        try:
            self._send(
                {"number": number, "turn": [list(messages), list(schemas), list(prefix), limit, alternatives]}
            )
            while (reply := replies.get()) is not None:
                if "error" in reply:
                    raise RuntimeError(reply["error"])
                if stopped():
                    return
                token, text, *top = reply["token"]
                yield WrittenToken(token, text, *map(tuple, top))
        finally:
            del self._waiting[number]
            with contextlib.suppress(OSError):
                self._send({"number": number, "turn": None})

    def _send(self, request: dict) -> None:
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except ValueError:  # the pipe is closed
                raise OSError("the process of the model ended") from None


def _distribute(pipe: IO[bytes], waiting: dict[int, queue.SimpleQueue]) -> None:
    """Give every reply to the turn that waits for it."""
    with contextlib.suppress(ValueError, OSError):  # the pipe was closed meanwhile
        for line in pipe:
            reply = json.loads(line)
            if (replies := waiting.get(reply["number"])) is not None:
                replies.put(reply if "token" in reply or "error" in reply else None)
    for replies in list(waiting.values()):
        replies.put({"error": "the process of the model ended"})


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()


# ------------------------------------------------------------------------------------------- the other side
def main() -> None:
    """Answer the requests of standard input until it ends."""
    parent, folder, device, threads = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        return
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    lock = threading.Lock()

    def send(reply: dict) -> None:
        with lock:
            replies.write(json.dumps(reply).encode() + b"\n")
            replies.flush()

    from .text_model import TextModel

    try:
        model = TextModel(folder, device)
        model.limit_threads(int(threads))
    except Exception as error:  # the one who started it says it
        send({"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"})
        return
    send({"ready": True})
    ended: dict[int, threading.Event] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        number = request["number"]
        if request["turn"] is None:
            if number in ended:
                ended.pop(number).set()
            continue
        ended[number] = threading.Event()
        threading.Thread(
            target=_answer, args=(model, number, request["turn"], ended[number], send), daemon=True
        ).start()


def _answer(
    model: Any, number: int, turn: list, ended: threading.Event, send: Callable[[dict], None]
) -> None:
    try:
        for t in model.turn(*turn, ended.is_set):
            send({"number": number, "token": [t.id, t.text, t.top_ids, t.top_logprobs, t.top_texts]})
        send({"number": number})
    except Exception as error:  # whatever a model does is a result of its turn
        send({"number": number, "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
