"""The code sandbox: it runs programs that a model wrote, in a process that can do no harm.

Each sample gets a process of its own (`sandbox_child.py`), which locks itself in before it reads the first program.
The kernel enforces the confinement with Landlock and seccomp; no program text is inspected. `Sandbox` tests the
confinement before the first program and refuses to work where it does not hold. docs/agents.md lists what a program may
do, its limits, and what is not hidden from it. ``mode="off"`` is for sessions that already run inside a container that
may be lost. Every record of such a run has the mode.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from PIL import Image
from pydantic import BaseModel, Field

from ..errors import UserError
from ..runs.records import Failure
from ..texts import storable

NAME = "python"  # as calls and records have it
# the sample's picture, in the scratch folder, where programs start. Uncompressed: seconds less for 8K pictures
PICTURE = "image.bmp"
PACKAGES = ("PIL", "numpy", "cv2")
MAX_CODE_CHARS = 20_000
POLL_S = 0.01
# A child dies with the thread that started it (PR_SET_PDEATHSIG), so one thread that lives as long as we do starts all
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="sandbox")


class SandboxError(UserError):
    """This machine cannot confine programs that a model wrote."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. Processor time counts for all programs of one sample together."""

    wall_s: float = 10.0
    cpu_s: int = 60
    memory_bytes: int = 2 * 2**30  # address space, libraries included
    file_bytes: int = 32 * 2**20  # one file
    scratch_bytes: int = 256 * 2**20  # all files together, the sample's picture not counted
    files: int = 100  # files and folders
    output_chars: int = 4000
    images: int = 4  # pictures shown to the model per program
    image_pixels: int = 50_000_000


@dataclass(frozen=True)
class ProgramResult:
    """The result of a program: the text and the pictures that it printed, and its error if it failed.

    Types of error: code_error (it raised), empty_output, timeout, file_limit, process_ended (it crashed, ran out
    of processor time or broke the channel), bad_program (too long or not text).
    """

    text: str = ""
    images: tuple[Image.Image, ...] = ()
    error: Failure | None = None


class Sandbox:
    """The confinement of one run. Its construction tests the confinement, which takes about 0.2 s.

    Raises:
        SandboxError: the kernel lacks Landlock or seccomp, or the test found something open.
    """

    def __init__(self, mode: Literal["enforced", "off"] = "enforced", limits: Limits = Limits()) -> None:
        self.mode, self.limits = mode, limits
        self.means: list[str] = []
        if mode == "off":
            warnings.warn(
                "The sandbox is off: programs written by the model run with all rights of this process. "
                "Every manifest of this run records it.",
                stacklevel=2,
            )
        else:
            self.means = self._test()

    def session(self, picture: Image.Image) -> Session:
        """A new process for one sample. The picture lies in the folder where programs start, as `PICTURE`."""
        return Session(picture, self.limits, confined=self.mode == "enforced")

    def info(self) -> dict:
        """Mode, active means of confinement and limits, for the manifest."""
        return {"mode": self.mode, "means": self.means, "limits": asdict(self.limits)}

    def _test(self) -> list[str]:
        """The active means of confinement, after attempts that must all fail and a program that must work."""
        with (
            tempfile.TemporaryDirectory(prefix="speceyes-canary-", ignore_cleanup_errors=True) as outside,
            socket.create_server(("127.0.0.1", 0)) as server,
            self.session(Image.new("RGB", (8, 8))) as session,
        ):
            canary, target = Path(outside, "canary.txt"), Path(outside, "written.txt")
            canary.write_text("seen", "utf-8")
            values = {"port": server.getsockname()[1], "canary": str(canary), "target": str(target)}
            result = session.run(f"given = {values!r}\n{_ATTEMPTS}")
            opened = re.findall("^open: (.*)$", result.text, re.MULTILINE)
            if target.exists():
                opened.append("write")
            server.setblocking(False)
            try:
                server.accept()[0].close()
                opened.append("network")
            except BlockingIOError:
                pass
        if result.error is not None or "works" not in result.text:
            why = result.error.message if result.error else result.text
            raise _refused(f"a harmless program fails in it ({why})")
        if opened:
            raise _refused(f"these stay open: {', '.join(dict.fromkeys(opened))}")
        return session.means


class Session:
    """The process of one sample. It runs any number of programs; `close`, or the end of `with`, ends it and its folder.

    After a program that had to be stopped, the next one gets a new process. Variables are lost; files stay, unless they
    were the reason. The process is paused between two programs.
    """

    def __init__(self, picture: Image.Image, limits: Limits, confined: bool = True) -> None:
        self.picture, self.limits, self.confined = picture, limits, confined
        self.means: list[str] = []
        self.scratch = tempfile.mkdtemp(prefix="speceyes-sandbox-")
        self._processes: list[subprocess.Popen] = []  # at most one, in a list that the finalizer can see
        self.close = weakref.finalize(self, _clean_up, self._processes, self.scratch)
        self._given_bytes = self._lay_out()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id while the process runs; None before the first program and after a stop."""
        return self._processes[0].pid if self._processes else None

    def run(self, code: str) -> ProgramResult:
        """The result of one program. No program makes this raise.

        Raises:
            SandboxError: the process cannot lock itself in.
        """
        try:
            program = code.encode()
        except UnicodeEncodeError:
            return _failed("bad_program", "The program holds characters that are no text.")
        if len(code) > MAX_CODE_CHARS:
            return _failed("bad_program", f"The program is longer than {MAX_CODE_CHARS} characters.")
        if not self._processes:
            self._start()
        (process,) = self._processes
        try:
            process.send_signal(signal.SIGCONT)
            os.write(process.stdin.fileno(), struct.pack("=I", len(program)) + program)
            message, pictures = self._receive(process)
            process.send_signal(signal.SIGSTOP)  # pauses threads that the program left running
        except _Stopped as e:
            _kill(self._processes)
            if e.type == "file_limit":
                remove_folder(self.scratch)
                os.mkdir(self.scratch, 0o700)
                self._lay_out()
            return _failed(e.type, f"{e} Its variables are lost.")
        except (OSError, ValueError):
            # the channel is broken or holds no message: the program changed it, or died
            _kill(self._processes)
            return _failed("process_ended", "The program ended its own process. Its variables are lost.")
        return self._result(message, pictures)

    # ------------------------------------------------------------------------------------ the other process
    def _lay_out(self) -> int:
        """Put the picture where programs find it; returns its size in bytes."""
        path = os.path.join(self.scratch, PICTURE)
        self.picture.convert("RGB").save(path)
        return os.path.getsize(path)

    def _start(self) -> None:
        folders = _package_folders()
        child = Path(__file__).with_name("sandbox_child.py")
        # none of this process's environment variables is passed on
        environment = {"HOME": self.scratch, "TMPDIR": self.scratch, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        process = _STARTER.submit(
            subprocess.Popen,
            [sys.executable, "-I", "-S", "-B", str(child)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.scratch,
            env=environment,
            process_group=0,  # Ctrl-C is meant for this process
            bufsize=0,
        ).result()
        self._processes.append(process)
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
        settings = asdict(self.limits)
        settings |= {"scratch": self.scratch, "confined": self.confined, "parent": os.getpid()}
        # wheels keep shared libraries in a folder beside their packages
        libraries = {str(path) for f in folders.values() for path in Path(f).parent.glob("*.libs")}
        settings |= {"packages": folders, "readable": [*folders.values(), *libraries]}
        try:
            os.write(process.stdin.fileno(), json.dumps(settings).encode() + b"\n")
            message, _ = self._receive(process)
        except (_Stopped, OSError, ValueError) as e:
            message = _Message(error=f"its process did not start ({e})")
        if message.error is not None:
            _kill(self._processes)
            raise _refused(message.error)
        self.means = message.text.split(", ") if self.confined else []

    def _receive(self, process: subprocess.Popen) -> tuple[_Message, list[bytes]]:
        """One message of the process and its pictures.

        Raises:
            _Stopped: the program took too long, wrote too much or ended its process.
            ValueError: the message cannot be read.
        """
        limits, deadline = self.limits, time.monotonic() + self.limits.wall_s
        most = 2**20 + limits.images * limits.file_bytes
        received, head, missing = bytearray(), None, 1
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while missing > 0:
                if ready.select(POLL_S):
                    chunk = os.read(process.stdout.fileno(), 2**20)
                    if not chunk:
                        raise _Stopped("process_ended", "The program ended its own process.")
                    received += chunk
                    if len(received) > most:
                        raise _Stopped("process_ended", "The program wrote into its own channel.")
                if time.monotonic() > deadline:
                    raise _Stopped("timeout", f"The program was stopped after {limits.wall_s:g} s.")
                self._check_scratch()
                if head is None and b"\n" in received:
                    line, _, rest = bytes(received).partition(b"\n")
                    head, received = _Message.model_validate_json(line, strict=True), bytearray(rest)
                if head is not None:
                    missing = sum(head.sizes) - len(received)
        stream = io.BytesIO(received)
        return head, [stream.read(size) for size in head.sizes]

    def _check_scratch(self) -> None:
        files, size, folders = 0, -self._given_bytes, [self.scratch]
        while folders:
            try:
                entries = os.scandir(folders.pop())
            except OSError:
                continue  # removed meanwhile
            with entries:
                for entry in entries:
                    files += 1
                    try:
                        size += entry.stat(follow_symlinks=False).st_size
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                    except OSError:
                        continue
                    if files > self.limits.files + 1 or size > self.limits.scratch_bytes:
                        raise _Stopped(
                            "file_limit", "The program was stopped: it wrote too many or too large files."
                        )

    def _result(self, message: _Message, pictures: Sequence[bytes]) -> ProgramResult:
        text, error = storable(message.text[: self.limits.output_chars + 100]), message.error
        images = []
        for data in pictures[: self.limits.images]:
            try:
                with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
                    if image.width * image.height > self.limits.image_pixels:
                        raise ValueError("too many pixels")
                    images.append(image.convert("RGB"))
            except Exception:  # a decoder may raise anything on the bytes of a program
                error = error or "A picture it names cannot be read."
        if error is not None:
            return ProgramResult(
                text, tuple(images), Failure(type="code_error", message=storable(error[:2000]))
            )
        if not text.strip() and not images:
            advice = "The program printed nothing. Print the path of an image you saved, or a value."
            return _failed("empty_output", advice)
        return ProgramResult(text.strip("\n"), tuple(images))


class _Message(BaseModel):
    """One line from the process. It is untrusted, because a program may have written it."""

    text: str = ""
    error: str | None = None
    sizes: list[Annotated[int, Field(ge=0)]] = []


class _Stopped(Exception):
    """A program that had to be stopped. `type` as in ProgramResult."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def _failed(type: str, message: str) -> ProgramResult:
    return ProgramResult(error=Failure(type=type, message=message))


def _refused(why: str) -> SandboxError:
    return SandboxError(
        f"sandbox: programs that a model writes cannot be confined on this machine: {why}. Use Linux 6.2 or newer "
        "with Landlock, or an agent that writes no code. In a container that you can afford to lose, sandbox = 'off' "
        "runs them unconfined, and every manifest records it"
    )


@cache
def _package_folders() -> dict[str, str]:
    """The folders of the offered packages, found without importing them."""
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {name: next(iter(spec.submodule_search_locations)) for name, spec in specs.items() if spec}


def _kill(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    processes.clear()


def _clean_up(processes: list[subprocess.Popen], scratch: str) -> None:
    _kill(processes)
    remove_folder(scratch)


def remove_folder(folder: str) -> None:
    """Remove a folder that a program filled."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # folders in folders in folders
        subprocess.run(["rm", "-rf", "--", folder], check=False)


# All of these attempts must fail, and the last lines must work. They run inside before any other program.
_ATTEMPTS = """
import os, socket

attempts = {
    "network": lambda: socket.create_connection(("127.0.0.1", given["port"]), 1),
    "local_socket": lambda: socket.socket(socket.AF_UNIX),
    "read": lambda: open(given["canary"]).read(),
    "write": lambda: open(given["target"], "w").write("x"),
    "listing": lambda: os.listdir(os.path.dirname(given["canary"])),
    "process": lambda: os.fork() or os._exit(0),
    "program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "signal": lambda: os.kill(os.getppid(), 0),
    "metadata": lambda: os.chmod(given["canary"], 0),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    print("open:", name)

from PIL import Image
Image.open("image.bmp").resize((4, 4)).save("out.png")
print("works", Image.open("out.png").size)
"""
