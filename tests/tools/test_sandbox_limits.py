"""Programs that try to take disk, memory, threads, descriptors or time: each gets what docs/agents.md grants, no more.

Every program runs twice: with its files in memory, where the kernel keeps their size and number, and with a folder on
disk, as on machines that let users mount nothing. `make trials` runs all of them, `make test` those of `QUICK`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from speceyes_lib.errors import MeansError
from speceyes_lib.tools import sandbox
from speceyes_lib.tools.sandbox import Limits, Sandbox, SandboxError, Session

TRIALS = "SPECEYES_TRIALS" in os.environ  # set by `make trials`
LIMITS = Limits(
    wall_s=60.0,
    cpu_s=60,
    memory_bytes=2**30,
    file_bytes=2**20,
    scratch_bytes=2**22,
    files=20,
    image_pixels=10**6,
)
try:
    Sandbox(limits=LIMITS)
    REFUSAL = ""
except SandboxError as e:
    REFUSAL = str(e)
pytestmark = pytest.mark.skipif(bool(REFUSAL), reason=f"confinement is refused here: {REFUSAL}")

BEGIN = """
import ctypes, fcntl, mmap, os, signal, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
got = 0
held = []
def keep(descriptor):
    held.append(os.fdopen(descriptor, "rb", 0))
"""
SECOND_END = """
finally:
    held.clear()
    print("got", got)
"""
FILES, FILE, FOLDER, MEMORY = LIMITS.files, LIMITS.file_bytes, LIMITS.scratch_bytes, LIMITS.memory_bytes
MB = "bytes(2**20)"
# name: (a program that counts what it takes in `got` until it is refused or stopped, the most that it may get).
TAKING = {
    # bytes of disk
    "room in advance": ("os.posix_fallocate(os.open('a', 66), 0, 2**33); got = 2**33", 0),
    "room beyond the end": (
        "must(libc.fallocate(os.open('a', 66), 1, 0, ctypes.c_long(2**33))); got = 2**33",
        0,
    ),
    "files without a name": (
        f"while True:\n  f = os.open('a', 66); held.append(f); os.unlink('a'); got += os.write(f, {MB})",
        FOLDER,
    ),
    "mapped files without a name": (
        (
            "while True:\n  f = os.open('a', 66); os.ftruncate(f, 2**20); m = mmap.mmap(f, 2**20); held.append(m)\n"
            "  os.close(f); os.unlink('a'); m[:] = bytes(2**20); got += 2**20"
        ),
        FOLDER,
    ),
    "files that never had a name": (
        f"while True: f = os.open('.', os.O_TMPFILE | 2); held.append(f); got += os.write(f, {MB})",
        FOLDER,
    ),
    "files deeper than a path may be": (
        f"while True: os.mkdir('d' * 200); os.chdir('d' * 200); got += os.write(os.open('a', 66), {MB})",
        FOLDER,
    ),
    "files in folders that cannot be listed": (
        f"os.mkdir('a', 0o300)\nwhile True: got += os.write(os.open(f'a/{{got}}', 66), {MB})",
        FOLDER,
    ),
    "files in folders without any rights": (
        (
            f"os.mkdir('a'); os.chdir('a'); os.umask(0o777); os.mkdir('b', 0)\n"
            f"while True: got += os.write(os.open(str(got), 66), {MB})"
        ),
        FOLDER,
    ),
    "one large file": (f"f = os.open('a', 66)\nwhile True: got += os.write(f, {MB})", FILE),
    "a file with holes": ("os.truncate(os.open('a', 66), 2**40); got = 2**40", FILE),
    "many copies by the kernel": (
        (
            "open('a', 'wb').write(bytes(2**20))\n"
            "while True: got += os.sendfile(os.open(f'b{got}', 66), os.open('a', 0), 0, 2**20)"
        ),
        FOLDER,
    ),
    "growing the picture": (
        "f = os.open('image.bmp', 2)\nwhile True: got += os.write(f, bytes(2**16))",
        FILE,
    ),
    # files and folders
    "files": ("while True: os.close(os.open(str(got), 66)); got += 1", FILES),
    "folders": ("while True: os.mkdir('a'); os.chdir('a'); got += 1", FILES),
    "links": ("while True: os.link('image.bmp', str(got)); got += 1", FILES),
    "symbolic links": ("while True: os.symlink('x' * 4000, str(got)); got += 1", FILES),
    # bytes of memory
    "memory": ("while True: held.append(bytearray(2**24)); got += 2**24", MEMORY),
    "shared memory": ("while True: held.append(mmap.mmap(-1, 2**24)); got += 2**24", MEMORY),
    "memory that grows": (
        "m = mmap.mmap(-1, 2**20); held.append(m)\nwhile True: got += 2**24; m.resize(got); m[-1] = 1",
        MEMORY,
    ),
    "a file in memory": ("held.append(os.memfd_create('x')); got = 1", 0),
    "large pipes": ("p = os.pipe(); held.append(p); fcntl.fcntl(p[1], 1031, 2**20); got = 1", 0),
    # threads and processes
    "threads": (
        "threading.stack_size(2**15)\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start(); got += 1",
        0,
    ),
    "threads by system call": ("must(libc.syscall(56, 0x50F00, 0, 0, 0, 0)); got = 1", 0),
    "processes": ("while True:\n  got += 1\n  if os.fork() == 0: os._exit(0)", 1),
    # descriptors
    "descriptors": ("while True: keep(os.open('image.bmp', 0)); got += 1", 64),
    "copies of descriptors": ("while True: keep(os.dup(0)); got += 1", 64),
    "pipes": ("while True: [*map(keep, os.pipe())]; got += 1", 32),
    "events": ("while True: keep(os.eventfd(0)); got += 1", 64),
    # what would stall other processes
    "a lease on a library": ("fcntl.fcntl(os.open(os.__file__, 0), 1024, 0); got = 1", 0),
    "a lock on a library": ("fcntl.flock(os.open(os.__file__, 0), 2); got = 1", 0),
    "a lock on part of a library": ("fcntl.lockf(os.open(os.__file__, 0), fcntl.LOCK_SH); got = 1", 0),
    "notices about a folder": ("fcntl.fcntl(os.open('.', 0), 1026, 0x80000007); got = 1", 0),
}
AFTER = "import os; os.chdir(os.environ['TMPDIR']); print('fine'); print('image.bmp')"
QUICK = (
    "room beyond the end", "files without a name", "files deeper than a path may be", "symbolic links", "shared memory",
    "files in folders that cannot be listed", "threads", "a lease on a library", "a lock on a library",
)  # fmt: skip
# on disk, files are counted every 10 ms, so that more than these may exist for a moment before the program is stopped
COUNTED = ("files", "links", "many copies by the kernel")


def picture() -> Image.Image:
    return Image.new("RGB", (40, 30), "grey")


@pytest.fixture(params=["in memory", "on disk"])
def place(request, tmp_path, monkeypatch) -> str:
    """Where programs have their files. On disk, the process is refused a file system of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "on disk":
        source = Path(sandbox.__file__).with_name("sandbox_child.py").read_text()
        refused = source.replace("if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0:", "if True:")
        assert refused != source
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "sandbox_child.py").write_text(refused)
        monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "code" / "sandbox.py"))
    elif "files in memory" not in Sandbox(limits=LIMITS).means:
        pytest.skip("this machine lets users mount nothing")
    return request.param


def left_behind() -> list[str]:
    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("speceyes")]


@pytest.mark.parametrize("name", TAKING if TRIALS else QUICK)
def test_a_program_gets_no_more_than_it_may(name, place):
    code, most = TAKING[name]
    body = "\n".join("    " + line for line in code.splitlines())
    with Session(picture(), LIMITS) as session:
        result = session.run(f"{BEGIN}try:\n{body}{SECOND_END}")
        pid = session.pid
        after = session.run(AFTER) if name != "growing the picture" else None
    assert result.error is not None
    if name not in COUNTED or place == "in memory":
        assert result.error.type in ("code_error", "process_ended")
        assert result.error.type == "process_ended" or int(re.search(r"got (\d+)", result.text)[1]) <= most
    assert after is None or (after.text, len(after.images)) == ("fine", 1)
    assert left_behind() == []
    assert pid is None or not Path(f"/proc/{pid}").exists()


# ------------------------------------------------------------------------------------------ the parent's time
# A JPEG of 9 megapixels in about 1 MB, whose last refinement comes 20,000 times
SLOW_PICTURE = """
from PIL import Image
Image.effect_noise((64, 64), 50).resize((3000, 3000)).save("a.jpg", progressive=True, quality=10)
data = open("a.jpg", "rb").read()
last = data.rindex(b"\\xff\\xda")
open("a.jpg", "wb").write(data[:last] + data[last:-2][:50] * 20_000 + data[-2:])
print("a.jpg")
"""


def test_a_picture_that_takes_long_to_decode_takes_the_program_s_time(place):
    limits = replace(LIMITS, wall_s=2.0, file_bytes=2**22, image_pixels=10**7)
    with Session(picture(), limits) as session:
        result = session.run(SLOW_PICTURE)
    assert (result.error.type, result.images) == ("timeout", ())


@pytest.mark.parametrize("pixels", [10**6, 10**6 + 1000])
def test_pictures_come_back_up_to_a_number_of_pixels(pixels):
    with Session(picture(), LIMITS) as session:
        result = session.run(
            f"from PIL import Image\nImage.new('L', (1000, {pixels // 1000}), 7).save('a.png')\nprint('a.png')"
        )
    assert [image.size for image in result.images] == (
        [(1000, 1000)] if pixels <= LIMITS.image_pixels else []
    )
    assert all(image.getpixel((9, 9)) == (7, 7, 7) for image in result.images)
    assert (result.error is None) == bool(result.images)


@pytest.mark.parametrize(
    "claims",
    ["[[40000, 40000]]", "[[1, 1000001]]", "[[0, 5]]", "[[5]]", "[[5, 5, 5]]", "[[1, 1]] * 5", "[[1.5, 2]]"],
)
def test_sizes_that_a_program_claims_are_checked_before_any_room_is_made(claims):
    code = f"import json, os\nhead = json.dumps({{'number': 1, 'pictures': {claims}}}).encode() + b'\\n'\n"
    code += "for fd in range(3, 9):\n  try: os.write(fd, head)\n  except OSError: pass"
    with Session(picture(), LIMITS) as session:
        assert session.run(code).error.type == "process_ended"
        assert session.run("print('fine')").text == "fine"


def test_a_program_as_long_as_allowed_arrives_whole_in_any_script():
    code = "x = '" + "\U0001f600" * 19_900 + "'; print(len(x))"  # more bytes than a pipe holds
    with Session(picture(), LIMITS) as session:
        assert session.run(code).text == "19900"


# ------------------------------------------------------------------------------------------ what stays behind
# deeper than a path may be long, and deeper than Python may recurse
@pytest.mark.parametrize("depth", [450, 1500] if TRIALS else [450])
def test_folders_that_cannot_be_listed_or_named_are_removed(depth, tmp_path):
    folder = tmp_path / "filled"
    code = (
        "import os, sys\nos.mkdir(sys.argv[1]); os.chdir(sys.argv[1])\nos.makedirs('a/b'); os.chmod('a', 0)\n"
        f"for _ in range({depth}): os.mkdir('d' * 10); os.chdir('d' * 10)\nos.mkdir('last', 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    sandbox.remove_folder(str(folder))
    assert not folder.exists()


def test_the_folder_of_a_killed_process_is_removed_by_the_next_sandbox_and_one_in_use_stays(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sandbox, "NEW_S", 0.0)
    with Session(picture(), LIMITS) as session:
        session.run("x = 1")
        in_use = Path(session.scratch)
        abandoned = in_use.with_name(in_use.name + "_abandoned")
        abandoned.mkdir()
        (abandoned / "a").write_text("x")
        sandbox.remove_abandoned()
        assert (in_use.exists(), abandoned.exists()) == (True, False)
        assert session.run("print(x)").text == "1"
    assert left_behind() == []


# ------------------------------------------------------------------------------------------ faults of the machine
def test_after_a_kill_from_outside_the_programs_run_once_more():
    with Session(picture(), LIMITS) as session:
        session.run("x = 6; open('note.txt', 'w').write('7')")
        assert (
            Path(f"/proc/{session.pid}/oom_score_adj").read_text() == "1000\n"
        )  # it is the first to be killed
        os.kill(session.pid, signal.SIGKILL)
        result = session.run("print(x * 7, open('note.txt').read())")
    assert (result.text, result.error) == ("42 7", None)


def test_a_process_that_is_killed_every_time_is_the_machine_s_fault():
    over = threading.Event()

    def kill_all(session: Session) -> None:
        while not over.is_set():
            if (pid := session.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with Session(picture(), LIMITS) as session:
        killer = threading.Thread(target=kill_all, args=(session,))
        killer.start()
        try:
            with pytest.raises(MeansError) as fault:
                session.run("while True: pass")
        finally:
            over.set()
            killer.join()
        assert fault.value.kind == "sandbox"
        assert session.run("print('fine')").text == "fine"


def test_the_limit_of_processor_time_is_the_program_s_fault():
    with Session(picture(), replace(LIMITS, cpu_s=1)) as session:
        result = session.run("while True: pass")
    assert (result.error.type, "processor time" in result.error.message) == ("process_ended", True)


def test_a_machine_without_room_for_a_process_is_not_advised_to_do_without_confinement(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(MeansError, match="did not start") as fault:
        Sandbox(limits=LIMITS)
    assert "off" not in str(fault.value)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with Session(picture(), LIMITS) as session, pytest.raises(MeansError, match="did not start"):
        session.run("print(1)")
    assert left_behind() == []


def test_where_the_kernel_refuses_namespaces_files_lie_on_disk_and_everything_else_holds(tmp_path):
    code = (
        "from speceyes_lib.tools.sandbox import *\ns = Sandbox()\nprint(s.means)\n"
        "with s.session(Image.new('RGB', (9, 9))) as x:\n"
        '    print(x.run(\'print(len(open("image.bmp", "rb").read()))\').text)'
    )
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-c", code]
    if shutil.which("unshare") is None or subprocess.run([*command[:5], "true"], check=False).returncode:
        pytest.skip("no namespace can be made here in which the kernel refuses more of them")
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["306"], done.stderr
    assert "seccomp" in done.stdout
    assert sandbox.MEMORY_FOLDER not in done.stdout
    assert list(tmp_path.iterdir()) == []
