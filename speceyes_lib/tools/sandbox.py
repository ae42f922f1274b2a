"""The code sandbox: it runs programs that a model wrote, in a process that can do no harm.

Each sample gets a process of its own (`sandbox_child.py`), which locks itself in before it reads the first program.
The kernel enforces the confinement with Landlock and seccomp; no program text is inspected. `Sandbox` tests the
confinement before the first program and refuses to work where it does not hold. docs/agents.md lists what a program may
do, its limits, and what is not hidden from it. ``mode="off"`` is for sessions that already run inside a container that
may be lost. Every record of such a run has the mode.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import select
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from PIL import Image
from pydantic import BaseModel

from ..errors import MeansError, UserError
from ..runs.records import Failure
from ..texts import storable
from .sandbox_child import MEMORY_FOLDER

NAME = "python"  # as calls and records have it
# the sample's picture, in the scratch folder, where programs start. Uncompressed: seconds less for 8K pictures
PICTURE = "image.bmp"
PACKAGES = ("PIL", "numpy", "cv2")
MAX_CODE_CHARS = 20_000
MAX_MESSAGE_BYTES = 2**20  # without pictures
POLL_S = 0.01  # between two measurements of a folder on disk
NEW_S = 60.0  # a folder is not abandoned before it is that old
_PREFIX = "speceyes-program-"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
# A child dies with the thread that started it (PR_SET_PDEATHSIG), so one thread that lives as long as we do starts all
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="sandbox")


class SandboxError(UserError):
    """This machine cannot confine programs that a model wrote."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. Processor time counts for all programs of one sample together.

    Pictures that a program prints are decoded in its process, so their decoding counts too.
    """

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
        MeansError: the machine did not start the process of the test, or killed it.
    """

    def __init__(self, mode: Literal["enforced", "off"] = "enforced", limits: Limits = Limits()) -> None:
        self.mode, self.limits = mode, limits
        remove_abandoned()
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

    After a program that had to be stopped, the next one gets a new process. Variables and files are lost. The process
    is paused between two programs. If the machine kills it, its programs run once more in a new one.
    """

    def __init__(self, picture: Image.Image, limits: Limits, confined: bool = True) -> None:
        self.picture, self.limits, self.confined = picture, limits, confined
        self.means: list[str] = []
        self._earlier: list[str] = []  # programs of the present process
        self._processes: list[_Process] = []  # at most one, in a list that the finalizer can see
        self.close = weakref.finalize(self, _end_all, self._processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id while the process runs; None before the first program and after a stop."""
        return self._processes[0].pid if self._processes else None

    @property
    def scratch(self) -> str | None:
        """The folder where programs start, while the process runs."""
        return self._processes[0].scratch if self._processes else None

    def run(self, code: str) -> ProgramResult:
        """The result of one program. No program makes this raise.

        Raises:
            SandboxError: the process cannot lock itself in.
            MeansError: twice, the machine did not start the process, or killed it. That is no result of the program.
        """
        if storable(code) != code:
            return _failed("bad_program", "The program holds characters that are no text.")
        if len(code) > MAX_CODE_CHARS:
            return _failed("bad_program", f"The program is longer than {MAX_CODE_CHARS} characters.")
        for _ in range(2):
            try:
                if not self._processes:
                    self._start()
                    for earlier in self._earlier:
                        self._exchange(earlier)
                result = self._exchange(code)
            except _Stopped as e:
                _end_all(self._processes)
                self._earlier.clear()
                return _failed(e.type, f"{e} Its variables and files are lost.")
            except MeansError as e:
                _end_all(self._processes)
                fault = e
            else:
                self._earlier.append(code)
                return result
        raise fault

    # ------------------------------------------------------------------------------------ the other process
    def _start(self) -> None:
        specs = {name: importlib.util.find_spec(name) for name in PACKAGES}  # imports none of them
        folders = {name: next(iter(spec.submodule_search_locations)) for name, spec in specs.items() if spec}
        # wheels keep shared libraries in a folder beside their packages
        libraries = {str(path) for f in folders.values() for path in Path(f).parent.glob("*.libs")}
        row_bytes = -(-self.picture.width * 3 // 4) * 4
        picture_pages = -(-(54 + row_bytes * self.picture.height) // 4096)  # of a BMP file
        settings = asdict(self.limits) | {
            "confined": self.confined,
            "parent": os.getpid(),
            "packages": folders,
            "readable": [*folders.values(), *libraries],
            "folder_bytes": self.limits.scratch_bytes + 4096 * picture_pages,
            "folder_files": self.limits.files + 2,  # the picture and the folder itself
        }
        try:
            process = _Process(self.limits)
            self._processes.append(process)
            process.send(json.dumps(settings | {"scratch": process.scratch}).encode() + b"\n")
            message, _ = self._receive(process)
            if message.error is not None:
                _end_all(self._processes)
                raise _refused(message.error)
            self.means = message.text.split(", ") if self.confined else []
            process.in_memory = MEMORY_FOLDER in self.means
            # the folder as the process sees it
            path = f"/proc/{process.pid}/cwd/{PICTURE}"
            self.picture.convert("RGB").save(path)
            process.given_bytes = os.path.getsize(path)
        except (_Stopped, OSError, ValueError) as e:
            raise _lost(f"did not start ({e})") from None

    def _exchange(self, code: str) -> ProgramResult:
        """The result of a program that the process runs.

        Raises:
            _Stopped: it had to be stopped, or the process is gone.
        """
        (process,) = self._processes
        program = code.encode()
        try:
            os.kill(process.pid, signal.SIGCONT)
            process.n_programs += 1
            process.send(struct.pack("=I", len(program)) + program)
            message, images = self._receive(process)
            os.kill(process.pid, signal.SIGSTOP)  # pauses timers that the program left running
        except ValueError:
            raise _Stopped("process_ended", "The program wrote into its own channel.") from None
        text, error = _plain(message.text, self.limits.output_chars + 100), message.error
        if error is not None:
            return ProgramResult(text, images, Failure(type="code_error", message=_plain(error, 2000)))
        if not text.strip() and not images:
            advice = "The program printed nothing. Print the path of an image you saved, or a value."
            return _failed("empty_output", advice)
        return ProgramResult(text.strip("\n"), images)

    def _receive(self, process: _Process) -> tuple[_Message, tuple[Image.Image, ...]]:
        """One message of the process and its pictures. A program may have forged both, so everything is checked.

        Raises:
            _Stopped: the program took too long or wrote too much, or the channel is closed.
            ValueError: it holds no message.
        """
        received, images = bytearray(), []
        while b"\n" not in (chunk := process.receive()):
            received += chunk
            if len(received) > MAX_MESSAGE_BYTES:
                raise ValueError("the message has no end")
        line, _, rest = chunk.partition(b"\n")
        message = _Message.model_validate_json(bytes(received) + line, strict=True)
        if message.number != process.n_programs or len(message.pictures) > self.limits.images:
            raise ValueError("no result of this program")
        received = bytearray(rest)
        for width, height in message.pictures:
            if min(width, height) < 1 or width * height > self.limits.image_pixels:
                raise ValueError("no size of a picture")
            while len(received) < width * height * 3:
                received += process.receive()
            images.append(Image.frombytes("RGB", (width, height), received[: width * height * 3]))
            del received[: width * height * 3]
        if received:
            raise ValueError("bytes behind the message")
        return message, tuple(images)


class _Process:
    """A process that runs programs, its channel, and the folder on disk where it starts.

    Raises:
        OSError: the machine has no room for a folder or a process.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_memory = False  # the kernel keeps the folder's limits; otherwise they are measured
        self.given_bytes = self.n_programs = 0
        self.scratch = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = os.open(self.scratch, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # the folder is in use
        # none of this process's environment variables is passed on
        environment = {"HOME": self.scratch, "TMPDIR": self.scratch, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
        try:
            self._popen = _STARTER.submit(
                subprocess.Popen,
                [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("sandbox_child.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self.scratch,
                env=environment | dict.fromkeys(_THREADS, "1"),
                process_group=0,  # Ctrl-C is meant for this process
                bufsize=0,
            ).result()
        except OSError:
            os.close(self._lock)
            os.rmdir(self.scratch)
            raise
        self.pid = self._popen.pid
        for pipe in (self._popen.stdin, self._popen.stdout):
            os.set_blocking(pipe.fileno(), False)
        self._deadline = 0.0

    def send(self, data: bytes) -> None:
        """Send bytes. What is received from now on must come within the time of one program.

        Raises:
            _Stopped: they are not read in time, or the channel is closed.
        """
        self._deadline, pipe = time.monotonic() + self.limits.wall_s, self._popen.stdin.fileno()
        while data:
            self._wait(pipe, select.POLLOUT)
            try:
                data = data[os.write(pipe, data) :]
            except BrokenPipeError:
                raise self._why_closed() from None

    def receive(self) -> bytes:
        """The next bytes of the process.

        Raises:
            _Stopped: they do not come in time, the program writes too much, or the channel is closed.
        """
        pipe = self._popen.stdout.fileno()
        self._wait(pipe, select.POLLIN)
        if not (chunk := os.read(pipe, 2**20)):
            raise self._why_closed()
        return chunk

    def _wait(self, pipe: int, event: int) -> None:
        ready = select.poll()
        ready.register(pipe, event)
        while True:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise _Stopped("timeout", f"The program was stopped after {self.limits.wall_s:g} s.")
            if not self.in_memory:
                self._measure()
            if ready.poll(1000 * (left_s if self.in_memory else min(left_s, POLL_S))):
                return

    def _measure(self) -> None:
        """Stop a program that wrote too much into a folder on disk, where all its files are by name."""
        files, size = 0, -self.given_bytes
        with os.scandir(self.scratch) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile, in an unconfined process
                    size += entry.stat(follow_symlinks=False).st_size
                if files > self.limits.files + 1 or size > self.limits.scratch_bytes:
                    raise _Stopped(
                        "file_limit", "The program was stopped: it wrote too many or too large files."
                    )

    def _why_closed(self) -> _Stopped | MeansError:
        """Why the channel was closed: by the program, or because the process is gone."""
        with os.fdopen(os.pidfd_open(self.pid)) as ended:
            if not select.select([ended], [], [], 1.0)[0]:
                return _Stopped("process_ended", "The program closed its own channel.")
        _, status, used = os.wait4(self.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        if self._popen.returncode == -signal.SIGKILL:
            # no program can send this signal to itself. The kernel does at the limit of processor time
            if used.ru_utime + used.ru_stime < self.limits.cpu_s - 0.5:
                return _lost("was killed from outside, most likely because the machine ran out of memory")
            return _Stopped("process_ended", f"The program used up {self.limits.cpu_s} s of processor time.")
        return _Stopped("process_ended", "The program ended its own process.")

    def end(self) -> None:
        """End the process and remove its folder."""
        self._popen.kill()
        self._popen.wait()
        self._popen.stdin.close()
        self._popen.stdout.close()
        remove_folder(self.scratch)
        os.close(self._lock)


class _Message(BaseModel):
    """One line from the process. It is untrusted, because a program may have written it."""

    number: int = 0  # of the program in its process; 0: the process is ready, or cannot be
    text: str = ""
    error: str | None = None
    pictures: list[tuple[int, int]] = []  # widths and heights; their pixels follow


class _Stopped(Exception):
    """A program that had to be stopped. `type` as in ProgramResult."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def _lost(what: str) -> MeansError:
    return MeansError("sandbox", f"sandbox: its process {what}; free memory or disk space, and run again")


def _failed(type: str, message: str) -> ProgramResult:
    return ProgramResult(error=Failure(type=type, message=message))


def _refused(why: str) -> SandboxError:
    return SandboxError(
        f"sandbox: programs that a model writes cannot be confined on this machine: {why}. Use Linux 6.2 or newer "
        "with Landlock, or an agent that writes no code. In a container that you can afford to lose, sandbox = 'off' "
        "runs them unconfined, and every manifest records it"
    )


def _plain(text: str, most: int) -> str:
    """The text cut to a length, in a form that can be recorded and shown."""
    return storable(text[:most])


def _end_all(processes: list[_Process]) -> None:
    while processes:
        processes.pop().end()


def remove_folder(folder: str) -> None:
    """Remove a folder that a program filled, also one in folders without permissions or beyond any path's length."""
    with contextlib.suppress(RecursionError):  # folders in folders in folders
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)


def remove_abandoned() -> None:
    """Remove the folders of sandboxes whose process was killed before it could do so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_ctime < NEW_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails for a folder in use
                remove_folder(str(folder))
            finally:
                os.close(descriptor)


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
