"""The confined side of the sandbox: a separate program that locks itself in and then runs what it receives.

Started by `sandbox.py`. It uses only the standard library and never imports the package. Order: limits, a file system
in memory of limited size over the scratch folder (where the kernel lets users mount one), no new privileges, no
capabilities, Landlock (files, TCP, signals), seccomp (a list of allowed system calls; every other call fails). None of
these steps can be undone. stdin: one line of JSON (the settings), then programs, each a 4-byte length and UTF-8 text.
stdout: one line of JSON per message ({number, text, error, pictures}), then the RGB pixels of the pictures, whose sizes
`pictures` holds. Pictures that a program wrote are decoded here, inside the limits.

Sources: landlock(7), seccomp(2), user_namespaces(7), tmpfs(5), and the kernel's unistd tables of x86_64 and aarch64.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import resource
import signal
import struct
import sys
import traceback
from importlib.machinery import ModuleSpec, PathFinder

LANDLOCK_ABI = 3  # the first that also guards truncation (Linux 6.2)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MEMORY_FOLDER = "files in memory"  # this means is in force: the kernel keeps the size and number of files
# Landlock's rights on files, by bit
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
# in the scratch folder: plain files and folders, no links to elsewhere, no devices, pipes or sockets
SCRATCH = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
# in a scratch folder on disk: files that keep their name in one folder, so that listing it finds all that was written
SCRATCH_ON_DISK = READ | WRITE_FILE | MAKE_REG | TRUNCATE
ON_FILES = READ_FILE | WRITE_FILE | TRUNCATE  # the rights that make sense on something that is not a folder
# System calls a program may make: name, number on x86_64, number on aarch64 (- where there is none).
# What is missing fails with EPERM: sockets of any kind, new processes and threads, exec, signals to others, ptrace,
# mounts, namespaces, io_uring, bpf, keys, shared memory, locks, room for files in advance, changes of owner, mode, time
# stamps or limits.
ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62, close 3 57,
creat 85 -, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24,
stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, access 21 -,
faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50,
getdents 78 -, getdents64 217 61, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34,
rmdir 84 -, unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
truncate 76 45, ftruncate 77 46, fsync 74 82, fdatasync 75 83, sendfile 40 71,
copy_file_range 326 285, fadvise64 221 223, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -,
pselect6 270 72, eventfd2 290 19, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233,
brk 12 214, membarrier 324 283, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
sigaltstack 131 132, pause 34 -, alarm 37 -, setitimer 38 103, getitimer 36 102, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, times 100 153,
getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getgroups 115 158, getpgrp 111 -, getpgid 121 155, getsid 124 156, getrusage 98 165, getrlimit 97 163,
getcpu 309 168, sysinfo 99 179, uname 63 160, umask 95 166, sched_yield 24 124, sched_getaffinity 204 123,
futex 202 98, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293, arch_prctl 158 -,
restart_syscall 219 128, getrandom 318 278, exit 60 93, exit_group 231 94
"""
# allowed with conditions: open but for files without a name, prlimit64 to read, fcntl and ioctl for what concerns
# descriptors and streams of the process
OPEN, OPENAT, TMPFILE = (2, None), (257, 56), 0x400000
PRLIMIT64, FCNTL, IOCTL = (302, 261), (72, 25), (16, 29)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. A lease or a lock on a library would stall others
OWN_FCNTLS = (0, 1, 2, 3, 4, 1030)
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
STREAM_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class CannotConfine(Exception):
    """The kernel lacks a means of confinement. The message is part of a sentence."""


# ------------------------------------------------------------------------------------------------ locking in
def confine(settings: dict) -> list[str]:
    """Give up every right except work in the scratch folder; returns the active means of confinement."""
    scratch, packages = settings["scratch"], settings["readable"]
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in AUDIT_ARCH:
        raise CannotConfine(f"{sys.platform} on {machine} has no supported Landlock and seccomp")
    libc = ctypes.CDLL(None, use_errno=True)
    in_memory = _mount_scratch(libc, scratch, settings["folder_bytes"], settings["folder_files"])
    _check(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "an end together with the parent process")
    if os.getppid() != settings["parent"]:
        raise CannotConfine("the parent process is gone")
    _check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _check(libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "dropping capabilities")
    abi = _landlock(libc, scratch, SCRATCH if in_memory else SCRATCH_ON_DISK, packages)
    _seccomp(libc, machine)
    means = ["no_new_privs", "no capabilities", f"landlock {abi}", "seccomp"]
    return means + [MEMORY_FOLDER] * in_memory


def _mount_scratch(libc: ctypes.CDLL, scratch: str, size: int, files: int) -> bool:
    """Mount a file system in memory over the scratch folder, visible to this process only; returns if that worked.

    The kernel keeps its size and the number of files, and frees it when this process ends. Containers and some
    distributions do not let users mount anything.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0:
        return False
    try:
        for name, value in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(value)
    except OSError:
        return False
    options = f"size={size},nr_inodes={files},mode=700".encode()
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if libc.mount(b"tmpfs", scratch.encode(), b"tmpfs", flags, options) < 0:
        return False
    os.chdir(scratch)
    return True


def _landlock(libc: ctypes.CDLL, scratch: str, rights_in_scratch: int, packages: list[str]) -> int:
    abi = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < LANDLOCK_ABI:
        version = "none" if abi < 0 else f"version {abi}"
        raise CannotConfine(
            f"Landlock {LANDLOCK_ABI} or newer is needed (Linux 6.2), this kernel has {version}"
        )
    files = (1 << 15) - 1 | (IOCTL_DEV if abi >= 5 else 0)
    tcp, scopes = (0b11 if abi >= 4 else 0), (0b11 if abi >= 6 else 0)  # no TCP; no signals, abstract sockets
    attributes = struct.pack("=QQQ", files, tcp, scopes)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    _check(ruleset, "a Landlock ruleset")
    for path, rights in [(scratch, rights_in_scratch), *_rules(packages)]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a path that does not exist needs no permission
        rights &= -1 if os.path.isdir(path) else ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        _check(libc.syscall(445, ruleset, 1, rule, ctypes.c_uint32(0)), f"a Landlock rule for {path}")
        os.close(fd)
    _check(libc.syscall(446, ruleset, ctypes.c_uint32(0)), "Landlock")
    os.close(ruleset)
    return abi


def _rules(packages: list[str]):
    """The readable paths: Python, shared libraries and the given packages.

    Each entry of the standard library's folder is listed by name, because site-packages may lie inside it.
    """
    standard = os.path.dirname(os.__file__)
    yield standard, READ_DIR
    for entry in os.listdir(standard):
        if entry not in ("site-packages", "dist-packages"):
            yield os.path.join(standard, entry), READ
    libraries = os.path.join(sys.base_prefix, "lib")
    for entry in os.listdir(libraries):
        if entry.startswith("lib") and ".so" in entry:
            yield os.path.join(libraries, entry), READ
    for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", *packages):
        yield os.path.realpath(path), READ
    yield "/dev/null", READ_FILE | WRITE_FILE
    yield "/dev/urandom", READ_FILE


def _seccomp(libc: ctypes.CDLL, machine: str) -> None:
    column = 1 if machine == "x86_64" else 2
    load, equal, has_bits, end = 0x20, 0x15, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM

    def argument(n: int) -> tuple:  # the low half of a system call's argument
        return load, 0, 0, 16 + 8 * n

    program = [(load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH[machine]), (end, 0, 0, 0x80000000), (load, 0, 0, 0)]

    def rule(number: int, *block: tuple) -> None:
        program.extend([(equal, 0, len(block), number), *block])

    for entry in ALLOWED.replace("\n", " ").split(","):
        number = entry.split()[column]
        if number != "-":
            rule(int(number), (end, 0, 0, allow))
    i = column - 1
    for number, flags in ((OPEN[i], argument(1)), (OPENAT[i], argument(2))):
        if number is not None:
            rule(number, flags, (has_bits, 0, 1, TMPFILE), (end, 0, 0, refuse), (end, 0, 0, allow))
    new_limit = ((argument(2), (equal, 0, 3, 0)), ((load, 0, 0, 16 + 8 * 2 + 4), (equal, 0, 1, 0)))
    rule(PRLIMIT64[i], *new_limit[0], *new_limit[1], (end, 0, 0, allow), (end, 0, 0, refuse))
    for number, commands in ((FCNTL[i], OWN_FCNTLS), (IOCTL[i], STREAM_IOCTLS)):
        known = [(equal, len(commands) - k, 0, c) for k, c in enumerate(commands)]
        rule(number, argument(1), *known, (end, 0, 0, refuse), (end, 0, 0, allow))
    program.append((end, 0, 0, refuse))
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter = struct.pack("=H6xQ", len(program), ctypes.addressof(buffer))
    _check(libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0), "seccomp")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise CannotConfine(f"{what} failed ({os.strerror(ctypes.get_errno())})")


def limit(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Set the limits of the kernel: processor time, address space, size of one file, open files, core dumps.

    If the machine runs out of memory, the kernel ends this process before any other.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    for name, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))


# ------------------------------------------------------------------------------------------ running programs
class _Packages:
    """Finds only the packages that a program may import. site-packages is neither on the path nor readable."""

    def __init__(self, folders: dict[str, str]) -> None:
        self.specs = {name: PathFinder.find_spec(name, [os.path.dirname(f)]) for name, f in folders.items()}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return self.specs.get(name)


class _Printed(io.TextIOBase):
    """Collects what a program prints, up to a number of characters, and notes that the rest was dropped."""

    def __init__(self, most: int) -> None:
        self.most, self.kept, self.dropped = most, [], 0

    def write(self, text: str) -> int:
        room = max(0, self.most - sum(map(len, self.kept)))
        if text[:room]:
            self.kept.append(text[:room])
        self.dropped += len(text) - len(text[:room])
        return len(text)

    def text(self) -> str:
        note = f"\n[{self.dropped} more characters were cut off]" if self.dropped else ""
        return "".join(self.kept) + note


def run(code: str, namespace: dict, settings: dict) -> tuple[dict, list[bytes]]:
    """Execute a program; returns what it printed. A printed path of a picture becomes the picture."""
    sys.stdout = sys.stderr = printed = _Printed(settings["output_chars"])
    error = None
    try:
        exec(compile(code, "<program>", "exec"), namespace)
    except SystemExit:
        pass
    except BaseException as e:  # an exception of the program is its result
        error = _summary(e, code)
    lines, names, sizes, pictures = [], [], [], []
    for line in printed.text().splitlines():
        path = line.strip()
        if path in names:
            continue
        if len(names) < settings["images"] and path.lower().endswith(PICTURES) and os.path.isfile(path):
            names.append(path)
            try:
                size, pixels = _pixels(path, settings["image_pixels"])
            except Exception as e:  # a decoder may raise anything on the bytes of a program
                error = error or f"A picture it names cannot be read ({type(e).__name__})."
            else:
                sizes.append(size)
                pictures.append(pixels)
        else:
            lines.append(line)
    return {"text": "\n".join(lines), "error": error, "pictures": sizes}, pictures


def _pixels(path: str, most: int) -> tuple[tuple[int, int], bytes]:
    """Size and RGB pixels of a picture. Raises anything for a file that is none, or that has too many pixels."""
    from PIL import Image

    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > most:
            raise ValueError("too many pixels")
        return image.size, image.convert("RGB").tobytes()


def _summary(e: BaseException, code: str) -> str:
    """An exception in short: the place in the program, and the message."""
    source = code.splitlines()
    numbers = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == "<program>"]
    if isinstance(e, SyntaxError) and e.filename == "<program>":
        numbers = [e.lineno]
    where = [f"line {n}: {source[n - 1].strip()}" for n in numbers if n and n <= len(source)]
    return "\n".join([*where[-3:], f"{type(e).__name__}: {e}"[:500]])


def _main() -> None:
    programs, messages = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)

    def send(head: dict, pictures: list[bytes] = []) -> None:  # noqa: B006 (never changed)
        messages.write(json.dumps(head).encode() + b"\n" + b"".join(pictures))
        messages.flush()

    settings = json.loads(programs.readline())
    limit(settings["cpu_s"], settings["memory_bytes"], settings["file_bytes"])
    sys.meta_path.append(_Packages(settings["packages"]))
    try:
        means = confine(settings) if settings["confined"] else []
    except CannotConfine as e:
        send({"error": str(e)})
        return
    send({"text": ", ".join(means)})
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    number = 0
    while len(size := programs.read(4)) == 4:
        code, number = programs.read(struct.unpack("=I", size)[0]).decode(), number + 1
        head, pictures = run(code, namespace, settings)
        send({"number": number} | head, pictures)


if __name__ == "__main__":
    _main()
