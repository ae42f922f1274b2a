"""Work in sessions that tests stop from outside, at any moment, as an impatient person or a power cut does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def drive(work: Callable[[Any], None]) -> None:
    """Do `work` with every order from stdin, each in a child of this process, which has paid for all imports.

    A session writes its process id and a blank, the output of the work, F (finished) or I (interrupted), and E.
    """
    os.write(1, b"\n")
    for order in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(1, b"%d " % os.getpid())
            try:
                work(json.loads(order))
                os.write(1, b"F")
            except KeyboardInterrupt:
                os.write(1, b"I")
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, b"E\n")


class Sessions:
    """Sessions one after another; `code` is Python that ends with a call of `drive`."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
        )
        while self._byte() != b"\n":  # output of the warm-up belongs to no session
            pass

    def run(
        self, order: Any, stop: int | None = None, after_s: float = 0.0, how: int = signal.SIGKILL
    ) -> str:
        """The output of a session. With `stop` it is stopped `after_s` after that many dots (0: after its start)."""
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        seen, stopped = b"", stop is None
        while not seen.endswith(b"E\n"):
            seen += self._byte()
            if not stopped and b" " in seen and seen.count(b".") >= stop:
                time.sleep(after_s)
                with contextlib.suppress(ProcessLookupError):  # finished before the stop: it writes F
                    os.kill(int(seen.split()[0]), how)
                stopped = True
        return seen.decode()

    def _byte(self) -> bytes:
        assert select.select([self.process.stdout], [], [], 120)[0], "the session hangs"
        byte = os.read(self.process.stdout.fileno(), 1)
        assert byte, "the driver is gone"
        return byte

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(1800)
        self.process.stdout.close()
