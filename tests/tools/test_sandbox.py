"""The sandbox: ordinary programs work, hostile ones fail, and it refuses to work where it does not hold.

Every hostile program prints ESCAPED when it succeeds. Some are run unconfined as well, to show that they would.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.errors import UserError
from speceyes_lib.tools import sandbox
from speceyes_lib.tools.sandbox import Limits, ProgramResult, Sandbox, SandboxError, Session

SECRET = "secret-in-a-file-outside"
ESCAPED = Path(tempfile.gettempdir()) / "speceyes-escaped"
LIMITS = Limits(wall_s=3.0, cpu_s=4, memory_bytes=2**30, file_bytes=2**20, scratch_bytes=2**22, files=20)

try:
    POLICY = Sandbox(limits=LIMITS)
    REFUSAL = ""
except SandboxError as e:  # then it must be the means that are missing: see the test of failing closed
    POLICY, REFUSAL = None, str(e)
confined = pytest.mark.skipif(POLICY is None, reason=f"confinement is refused here: {REFUSAL}")


def picture() -> Image.Image:
    """100 x 80 px, dark left, bright right."""
    image = Image.new("RGB", (100, 80), (40, 40, 40))
    image.paste((200, 100, 50), (50, 0, 100, 80))
    return image


def run(*programs: str, limits: Limits = LIMITS, is_confined: bool = True) -> list[ProgramResult]:
    with Session(picture(), limits, is_confined) as session:
        return [session.run(code) for code in programs]


# ------------------------------------------------------------------------------------------ ordinary programs
@confined
def test_a_program_crops_rotates_and_changes_contrast_and_its_picture_comes_back():
    (outcome,) = run(
        """
from PIL import Image, ImageEnhance
image = Image.open("image.bmp")
part = image.crop((50, 0, 100, 40)).rotate(90, expand=True)
part = ImageEnhance.Contrast(part).enhance(1.5).resize((80, 100))
part.save("part.png")
print("part.png")
"""
    )
    assert outcome.error is None
    assert outcome.text == ""
    (image,) = outcome.images
    assert image.size == (80, 100)
    assert image.mode == "RGB"


@confined
def test_numpy_and_opencv_work_and_values_come_back_as_text():
    (outcome,) = run(
        """
import cv2
import numpy as np
pixels = cv2.imread("image.bmp")
clahe = cv2.createCLAHE(clipLimit=2.0).apply(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
cv2.imwrite("clear.jpg", cv2.rotate(clahe, cv2.ROTATE_90_CLOCKWISE))
print("mean", round(float(np.mean(pixels[:, 60:, 2]))))
print("clear.jpg")
print(np.linalg.norm(np.ones((2, 2)) @ np.ones((2, 2))))
"""
    )
    assert outcome.error is None
    assert outcome.text.split("\n") == ["mean 200", "4.0"]
    assert [i.size for i in outcome.images] == [(80, 100)]


@confined
def test_the_picture_is_the_original_pixel_by_pixel():
    (outcome,) = run('print("image.bmp")')
    assert np.array_equal(np.asarray(outcome.images[0]), np.asarray(picture()))


@confined
def test_variables_and_files_live_on_between_the_programs_of_one_sample_and_no_further():
    first, second, third = run(
        "x = 6; open('note.txt', 'w').write('7')", "print(x * 7)", "print(open('note.txt').read())"
    )
    assert first.error.type == "empty_output"
    assert (second.text, third.text) == ("42", "7")
    (other,) = run("print(x)")
    assert "NameError" in other.error.message


@confined
def test_errors_name_the_line_and_keep_what_was_printed_before():
    (outcome,) = run("print('so far')\nbox = (0, 0, 10)\nprint(box[3])")
    assert outcome.error.type == "code_error"
    assert outcome.error.message == "line 3: print(box[3])\nIndexError: tuple index out of range"
    assert outcome.text == "so far"


@confined
@pytest.mark.parametrize(
    ("code", "type", "part"),
    [
        ("", "empty_output", "printed nothing"),
        ("x = 1", "empty_output", "printed nothing"),
        ("def f(:", "code_error", "SyntaxError"),
        ("print(undefined)", "code_error", "NameError"),
        ("raise KeyboardInterrupt('mine')", "code_error", "KeyboardInterrupt"),
        ("\0", "code_error", "null bytes"),
        ("def f(): f()\nf()", "code_error", "RecursionError"),
        ("x" * 20_001, "bad_program", "longer"),
        ("print('\ud800')", "bad_program", "no text"),
        ("open('a.png', 'w').write('no picture'); print('a.png')", "code_error", "cannot be read"),
    ],
)
def test_a_failure_is_a_result(code, type, part):
    (outcome,) = run(code)
    assert outcome.error.type == type
    assert part in outcome.error.message


@confined
def test_leaving_early_is_no_error_and_long_output_is_cut():
    left, long = run("print('done'); raise SystemExit(3)", "print('x' * 10_000)")
    assert (left.text, left.error) == ("done", None)
    assert len(long.text) < 4100
    assert "6001 more characters" in long.text


@confined
def test_at_most_so_many_pictures_come_back():
    (outcome,) = run(
        "from PIL import Image\nfor i in range(9):\n  Image.open('image.bmp').save(f'{i}.png'); print(f'{i}.png')"
    )
    assert len(outcome.images) == LIMITS.images
    assert outcome.text.split() == [f"{i}.png" for i in range(4, 9)]


# ----------------------------------------------------------------------------------------------- hostile ones
TRY = """
import os, sys, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result is None or result < 0:
        raise OSError(ctypes.get_errno(), "refused")
def attempt():
{body}
attempt()
print("ESCAPED")
"""


def hostile(body: str) -> str:
    return TRY.format(body="\n".join("    " + line for line in body.strip().splitlines()))


# {port}: a listening socket; {outside}: a folder with canary.txt, canary.png; {parent}: our process id
BAD_CALLS = {
    "tcp": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "tcp by system call": "must(libc.syscall(41, 2, 1, 0))",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "ipv6": "import socket; socket.socket(socket.AF_INET6)",
    "raw packets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "vsock": "import socket; socket.socket(40, socket.SOCK_STREAM)",
    "listening": "import socket; socket.create_server(('127.0.0.1', 0))",
    "http": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=1)",
    "name look-up": "import socket; socket.getaddrinfo('example.org', 80)",
    "io_uring": "must(libc.syscall(425, 8, ctypes.create_string_buffer(200)))",
    "read a file": "open('{outside}/canary.txt').read()",
    "read through C": "libc.fopen.restype = ctypes.c_void_p; must(libc.fopen(b'{outside}/canary.txt', b'r') or -1)",
    "read through ..": "open('../' * 20 + '{outside}'.lstrip('/') + '/canary.txt').read()",
    "read passwords": "open('/etc/passwd').read()",
    "list a folder": "os.listdir('{outside}')",
    "open by handle": "must(libc.syscall(304, -100, ctypes.create_string_buffer(64), 0))",
    "picture outside with PIL": "from PIL import Image; Image.open('{outside}/canary.png').load()",
    "picture outside with OpenCV": "import cv2; assert cv2.imread('{outside}/canary.png') is not None",
    "array outside with numpy": "import numpy; numpy.fromfile('{outside}/canary.txt')",
    "read by symlink": "os.symlink('{outside}/canary.txt', 'link.txt'); open('link.txt').read()",
    "read by hard link": "os.link('{outside}/canary.txt', 'link.txt'); open('link.txt').read()",
    "move a file in": "os.rename('{outside}/canary.txt', 'mine.txt')",
    "own environment in /proc": "open('/proc/self/environ').read()",
    "our environment in /proc": "open('/proc/{parent}/environ').read()",
    "our memory in /proc": "open('/proc/{parent}/mem', 'rb').read(1)",
    "our files in /proc": "os.listdir('/proc/{parent}/fd')",
    "our folder in /proc": "os.readlink('/proc/{parent}/cwd')",
    "kernel settings": "open('/proc/sys/kernel/hostname').read()",
    "devices": "open('/dev/mem', 'rb').read(1)",
    "other packages": "import yaml",
    "our package": "import speceyes_lib",
    "data of other packages": "import numpy; open(os.path.dirname(numpy.__file__) + '/../pydantic/main.py').read()",
    "write a file": "open('{outside}/new.txt', 'w').write('x')",
    "overwrite a file": "open('{outside}/canary.txt', 'r+').write('x')",
    "truncate a file": "os.truncate('{outside}/canary.txt', 0)",
    "truncate while opening": "os.open('{outside}/canary.txt', os.O_RDONLY | os.O_TRUNC)",
    "delete a file": "os.unlink('{outside}/canary.txt')",
    "make a folder": "os.mkdir('{outside}/new')",
    "write by symlink": "os.symlink('{outside}', 'link'); open('link/new.txt', 'w').write('x')",
    "rename a folder": "os.rename('{outside}', '{outside}-moved')",
    "move a file out": "open('a.txt', 'w').close(); os.rename('a.txt', '{outside}/new.txt')",
    "link a file out": "open('a.txt', 'w').close(); os.link('a.txt', '{outside}/new.txt')",
    "change a mode": "os.chmod('{outside}/canary.txt', 0)",
    "change an owner": "os.chown('{outside}/canary.txt', 1, 1)",
    "change time stamps": "os.utime('{outside}/canary.txt', (1, 1))",
    "set attributes": "os.setxattr('{outside}/canary.txt', 'user.x', b'x')",
    "change the library": "open(os.__file__, 'a').write('#')",
    "change a package": "import numpy; open(numpy.__file__, 'a').write('#')",
    "temporary folder of all": f"open('{ESCAPED}', 'w').write('x')",
    "shared memory": "open('/dev/shm/speceyes-escaped', 'w').write('x')",
    "make a device": "os.mknod('device', 0o600 | 0o020000, os.makedev(1, 3))",
    "make a pipe file": "os.mkfifo('pipe')",
    "memory file": "os.memfd_create('x')",
    "fork": "os.fork() or os._exit(0)",
    "vfork by system call": "must(libc.syscall(58))",
    "clone by system call": "must(libc.syscall(56, 17, 0, 0, 0, 0))",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "exec": "os.execv('/bin/echo', ['echo', 'ESCAPED'])",
    "system": "assert os.system('true') == 0",
    "multiprocessing": "import multiprocessing; multiprocessing.get_context('fork').Process(target=print).start()",
    "fork bomb": "while True: os.fork()",
    "signal to us": "os.kill({parent}, 0)",
    "kill us": "os.kill({parent}, 9)",
    "kill everything": "os.kill(-1, 9)",
    "kill our group": "os.killpg(os.getpgid({parent}), 9)",
    "signal by owner of a pipe": "import fcntl; r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, {parent})",
    "queue a signal": "must(libc.syscall(129, {parent}, 10, ctypes.create_string_buffer(128)))",
    "pidfd": "os.pidfd_open({parent})",
    "ptrace": "must(libc.ptrace(16, {parent}, 0, 0))",
    "read our memory": "must(libc.process_vm_readv({parent}, 0, 0, 0, 0, 0))",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "more time": "import resource; resource.prlimit(0, resource.RLIMIT_CPU, (-1, -1))",
    "our limits": "import resource; resource.prlimit({parent}, resource.RLIMIT_NOFILE, (9, 9))",
    "our priority": "os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
    "namespaces": "must(libc.unshare(0x10000000))",
    "mount": "must(libc.mount(b'none', b'.', b'tmpfs', 0, None))",
    "new root": "os.chroot('.')",
    "kernel programs": "must(libc.syscall(321, 0, ctypes.create_string_buffer(64), 64))",
    "performance events": "must(libc.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0))",
    "keys": "must(libc.syscall(250, 0, -3, 1))",
    "system V memory": "must(libc.shmget(0, 4096, 0o1600))",
    "host name": "must(libc.syscall(170, b'escaped', 7))",
    "loosen the filter": "must(libc.prctl(22, 2, None, 0, 0)); must(libc.prctl(38, 0, 0, 0, 0))",
    "32-bit system calls": "must(libc.syscall(0x40000000 + 41, 2, 1, 0))",
    "terminal input": "open('/dev/tty', 'w').write('x')",
}


@pytest.fixture
def targets(tmp_path):
    """A folder and a listening socket that no program inside may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary.txt").write_text(SECRET)
    picture().save(outside / "canary.png")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield {"outside": str(outside), "port": server.getsockname()[1], "parent": os.getpid()}
        with pytest.raises(BlockingIOError):
            server.accept()
    assert sorted(p.name for p in outside.iterdir()) == ["canary.png", "canary.txt"]
    assert (outside / "canary.txt").read_text() == SECRET
    assert (outside / "canary.txt").stat().st_mode & 0o777 != 0


@confined
@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_hostile_program_is_refused_and_the_next_one_runs(name, targets):
    refused, after = run(hostile(BAD_CALLS[name].format(**targets)), "print('fine')")
    assert refused.error is not None
    assert "ESCAPED" not in refused.text
    assert SECRET not in refused.text + refused.error.message
    assert after.text == "fine"
    assert not ESCAPED.exists()
    assert not Path("/dev/shm/speceyes-escaped").exists()


@pytest.mark.parametrize(
    "name",
    [
        "read a file",
        "list a folder",
        "read by symlink",
        "read by hard link",
        "fork",
        "subprocess",
        "signal to us",
    ],
)
def test_unconfined_the_same_programs_do_get_through(name, tmp_path):
    (tmp_path / "canary.txt").write_text(SECRET)
    values = {"outside": str(tmp_path), "port": 0, "parent": os.getpid()}
    (outcome,) = run(hostile(BAD_CALLS[name].format(**values)), is_confined=False)
    if name.startswith("read by hard") and "cross-device" in str(outcome.error):
        pytest.skip("the temporary folders lie on different file systems here")
    assert "ESCAPED" in outcome.text, outcome


@confined
def test_a_link_named_like_a_picture_does_not_make_the_harness_read_for_the_program(targets):
    (outcome,) = run(
        f"import os\nos.symlink({targets['outside'] + '/canary.png'!r}, 'a.png')\nprint('a.png')"
    )
    assert outcome.images == ()
    (outcome,) = run(f"print({targets['outside'] + '/canary.png'!r})")
    assert outcome.images == ()


@confined
def test_secrets_of_our_environment_are_not_in_that_of_a_program(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    (outcome,) = run(
        "import os, ctypes\nlibc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p\n"
        "print(dict(os.environ), libc.getenv(b'OPENAI_API_KEY'), len(os.environ))"
    )
    assert outcome.error is None
    assert SECRET not in outcome.text
    assert " None " in outcome.text


EXHAUSTING = {
    "busy loop": ("while True: pass", "timeout"),
    "busy in C": ("10 ** 10 ** 9", "timeout"),
    "sleep": ("import time; time.sleep(1000)", "timeout"),
    "no way to stop it": (
        (
            "import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
            "  except (OSError, ValueError): pass\nwhile True:\n  try: time.sleep(1000)\n  except BaseException: pass"
        ),
        "timeout",
    ),
    "wait for input": ("import select; select.select([], [], [])", "timeout"),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(2**24))", None),
    "memory bomb in numpy": ("import numpy; numpy.ones(2**32)", "code_error"),
    "memory bomb in anonymous maps": (
        "import mmap\nx = [mmap.mmap(-1, 2**26) for _ in range(1000)]",
        "code_error",
    ),
    "threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "code_error",
    ),
    "open files": ("x = [open('image.bmp') for _ in range(1000)]", "code_error"),
    "large file": ("with open('a', 'wb') as f:\n  while True: f.write(bytes(2**20))", None),
    "sparse file": ("open('a', 'wb').truncate(2**40)", None),
    "crash": ("import ctypes; ctypes.string_at(0)", "process_ended"),
    "abort": ("import os; os.abort()", "process_ended"),
    "exit": ("import os; os._exit(0)", "process_ended"),
    "suicide": ("import signal; signal.raise_signal(9)", None),
    "own stop": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "code_error"),
}
SHORT = replace(LIMITS, wall_s=1.0, memory_bytes=2**29)


@confined
@pytest.mark.parametrize("name", EXHAUSTING)
def test_a_program_that_exhausts_a_resource_is_stopped_and_the_next_one_runs(name):
    code, type = EXHAUSTING[name]
    stopped, after = run(code, "x = None; print('fine'); print('image.bmp')", limits=SHORT)
    assert stopped.error is not None
    assert type is None or stopped.error.type == type
    assert (after.text, len(after.images)) == ("fine", 1)


CHANNEL = """
import os
for fd in range(3, 20):
    try:
        {what}
    except OSError:
        pass
"""


@confined
@pytest.mark.parametrize(
    "code",
    [
        CHANNEL.format(what="os.close(fd)"),
        CHANNEL.format(what="os.write(fd, b'nonsense\\n')"),
        CHANNEL.format(what="os.write(fd, b'[1, 2]\\n')"),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "text": 3}\\n\')'),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "pictures": [[-5, 9]]}\\n\')'),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "pictures": null}\\n\')'),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "pictures": [[1, 9999999999]]}\\n\')'),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "pictures": [[7, 7]]}\\n\')'),
        CHANNEL.format(what='os.write(fd, b\'{"number": 1, "text": "forged"}\\n\')'),
        CHANNEL.format(what="os.write(fd, b'[' * 9999 + b'\\n')"),
        CHANNEL.format(what="[os.write(fd, bytes(2**16)) for _ in range(9999)]"),
        "import json\njson.dumps = lambda x: 'nonsense'",
        "import os\nos.path.isfile = lambda path: 1 / 0\nprint('a.png')",
        "import builtins\nbuiltins.open = None\nprint('image.bmp')",
        "import sys\nsys.stdout.kept = None\nprint('x')",
        "import sys\nsys.stdout.kept.append(chr(0xd800))",
        "import sys\nsys.stdout.kept.append('x' * 10**8)",
    ],
)
def test_writing_into_the_channel_affects_no_other_session(code):
    meddled, _, after = run(code, "print('in between')", "print('fine')", limits=replace(LIMITS, wall_s=1.0))
    assert isinstance(meddled, ProgramResult)
    assert len(meddled.text) < 5000
    with Session(picture(), LIMITS) as other:
        assert other.run("print('fine')").text == "fine"
    assert after.error is not None or after.text == "fine"


@confined
def test_a_forged_picture_with_huge_claims_is_not_decoded():
    (outcome,) = run(
        """
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
data = b"\\x89PNG\\r\\n\\x1a\\n" + data
open("bomb.png", "wb").write(data)
print("bomb.png")
"""
    )
    assert outcome.images == ()
    assert "cannot be read" in outcome.error.message


@confined
def test_nothing_runs_between_two_programs():
    with Session(picture(), LIMITS) as session:
        session.run(
            "import signal\ncount = 0\ndef work(*_):\n  global count\n  count += 1\n"
            "signal.signal(signal.SIGALRM, work); signal.setitimer(signal.ITIMER_REAL, .001, .001)"
        )
        for _ in range(2):
            assert int(session.run("print(count)").text) >= 0
            until_s = time.monotonic() + 1800
            while state_of(session.pid) != "T":
                assert time.monotonic() < until_s
                time.sleep(0.01)
            assert {state_of(session.pid) for _ in range(1000)} == {"T"}


def state_of(pid: int) -> str:
    """A process's state: R, S, T (stopped) and others."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@confined
def test_the_process_and_its_folder_end_when_a_session_is_closed_or_freed():
    for forget in (False, True):
        session = Session(picture(), LIMITS)
        session.run("import os\nos.mkdir('a'); open('a/b', 'w').close()")
        pid, scratch = session.pid, session.scratch
        assert Path(scratch).exists()
        if forget:
            del session
            gc.collect()
        else:
            session.close()
            session.close()
        assert not Path(scratch).exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@confined
def test_a_killed_parent_leaves_no_process_behind(tmp_path):
    code = (
        "import sys, time\nfrom PIL import Image\nfrom speceyes_lib.tools.sandbox import Limits, Session\n"
        "s = Session(Image.new('RGB', (8, 8)), Limits())\ns.run('x = 1')\n"
        "print(s.pid, s.scratch, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, scratch = parent.stdout.readline().split()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 1800
    try:
        while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break  # ended, and not yet collected
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{pid}").exists(), "still there"
    except (FileNotFoundError, ProcessLookupError):
        pass
    sandbox.remove_folder(scratch)


@pytest.fixture(scope="module")
def session():
    with Session(picture(), LIMITS) as session:
        yield session


@confined
@settings(max_examples=60, deadline=None)
@given(code=st.text(max_size=60) | st.text("()[]{}:=\n xfor1'\"\\@%", max_size=40))
def test_no_text_makes_it_raise(code, session):
    assert isinstance(session.run(code), ProgramResult)


# ---------------------------------------------------------------------------------------------- failing closed
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("LANDLOCK_ABI = 3", "LANDLOCK_ABI = 10_000"),
        ('AUDIT_ARCH = {"x86_64": 0xC000003E', 'AUDIT_ARCH = {"pdp11": 0xC000003E'),
    ],
)
def test_without_the_kernels_means_it_refuses_in_one_sentence_and_runs_nothing(
    change, words, tmp_path, monkeypatch
):
    source = Path(sandbox.__file__).with_name("sandbox_child.py").read_text()
    assert change in source
    (tmp_path / "sandbox_child.py").write_text(
        source.replace(change, words).replace('"aarch64": 0x', '"none": 0x')
    )
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    with pytest.raises(UserError, match="cannot be confined on this machine") as refused:
        Sandbox(limits=LIMITS)
    assert "sandbox = 'off'" in str(refused.value)
    assert "\n" not in str(refused.value)
    with Session(picture(), LIMITS) as session, pytest.raises(SandboxError):
        session.run("print('ran')")


@confined
@pytest.mark.parametrize(
    ("change", "instead", "open_"),
    [
        ("    abi = _landlock(", "    abi = 7\n    (lambda *_: 0)(", ("read", "write", "listing")),
        ("    _seccomp(libc, machine)\n", "", ("local_socket", "process", "metadata")),
    ],
)
def test_a_layer_that_does_nothing_is_noticed_before_any_program_runs(
    change, instead, open_, tmp_path, monkeypatch
):
    source = Path(sandbox.__file__).with_name("sandbox_child.py").read_text()
    assert change in source
    (tmp_path / "sandbox_child.py").write_text(source.replace(change, instead))
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    with pytest.raises(SandboxError, match="these stay open") as refused:
        Sandbox(limits=LIMITS)
    assert all(word in str(refused.value) for word in open_)


def test_switching_it_off_warns_and_is_recorded():
    with pytest.warns(UserWarning, match="sandbox is off"):
        policy = Sandbox("off", LIMITS)
    assert (policy.info()["mode"], policy.info()["means"]) == ("off", [])
    with policy.session(picture()) as session:
        assert session.run("print(1 + 1)").text == "2"


@confined
def test_the_record_names_the_means_in_force():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = Sandbox(limits=LIMITS).info()
    assert info["mode"] == "enforced"
    assert {"seccomp", "no_new_privs", "no capabilities"} < set(info["means"])
    assert info["limits"]["wall_s"] == LIMITS.wall_s
