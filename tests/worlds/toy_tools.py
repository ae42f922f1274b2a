"""Small tools of every kind of effect, and one for every way a tool can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from speceyes_lib.tools.declared import Arguments, Effect, Tool, Workspace
from speceyes_lib.tools.worker import ToolError


class Query(Arguments):
    query: str


class Paged(Arguments):
    query: str
    page: int = 1
    scale: float = 1.0


class File(Arguments):
    path: str


class Nothing(Arguments):
    pass


def search(arguments: Paged, workspace: Workspace) -> str:
    return f"page {arguments.page} on {arguments.query}"


def read(arguments: File, workspace: Workspace) -> str:
    path = workspace.path(arguments.path)
    if not path.is_file():
        raise ToolError(f"There is no file {arguments.path!r}.")
    return path.read_text("utf-8")


def note(arguments: Query, workspace: Workspace) -> str:
    (workspace.folder / "note.txt").write_text(arguments.query, "utf-8")
    return "written"


def raises(arguments: Query, workspace: Workspace) -> str:
    raise RuntimeError(arguments.query)


def hang_and_write(arguments: File, workspace: Workspace) -> str:
    """Says that it runs, starts a process of its own, never ends, and would write later."""
    folder = Path(workspace.folder)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    (folder / "pids.part").write_text(f"{os.getpid()} {child.pid}", "utf-8")
    (folder / "pids.part").rename(folder / "pids")
    time.sleep(3600)
    (folder / arguments.path).write_text("late", "utf-8")
    return "never"


def exits(arguments: Nothing, workspace: Workspace) -> str:
    os._exit(3)


def eat_memory(arguments: Nothing, workspace: Workspace) -> str:
    return str(len(bytearray(64 * 2**30)))


def secrets(arguments: Nothing, workspace: Workspace) -> str:
    print("this is no reply")
    return " ".join(sorted(name for name in os.environ if "KEY" in name)) or "none"


def whoami(arguments: Nothing, workspace: Workspace) -> str:
    return f"{os.getpid()} {os.getppid()} {sorted(workspace.resources)}"


SEARCH = Tool("search", "Search.", Paged, Effect.repeatable, search)
LOOK = Tool("look", "Search the same for less.", Query, Effect.pure, lambda a, w: f"looked at {a.query}")
READ = Tool("read", "Read a file.", File, Effect.repeatable, read, paths=("path",))
NOTE = Tool("note", "Write a note.", Query, Effect.writes, note)
UNKNOWN = Tool("unknown", "Nothing is declared.", Query, None, note)
METERED = Tool("metered", "Costs money.", Query, Effect.metered, lambda a, w: a.query)
OUTSIDE = Tool("outside", "Somebody sees it.", Query, Effect.open_world, lambda a, w: a.query)
RAISES = Tool("raises", "Fails.", Query, Effect.pure, raises)
HANGS = Tool("hangs", "Never ends.", File, Effect.repeatable, hang_and_write, where="process")
EXITS = Tool("exits", "Ends its process.", Nothing, Effect.pure, exits, where="process")
EATS = Tool("eats", "Needs more memory than there is.", Nothing, Effect.pure, eat_memory, where="process")
SECRETS = Tool("secrets", "Looks for keys.", Nothing, Effect.pure, secrets, where="process")
WHOAMI = Tool(
    "whoami", "Process and resources.", Nothing, Effect.pure, whoami, where="process", resources=("table",)
)
ALL = (SEARCH, LOOK, READ, NOTE, UNKNOWN, METERED, OUTSIDE, RAISES, HANGS, EXITS, EATS, SECRETS, WHOAMI)


def busy(arguments: Query, workspace: Workspace) -> str:
    """Computes for 50 ms of processor time."""
    end_s = time.process_time() + 0.05
    while time.process_time() < end_s:
        pass
    return f"computed {arguments.query}"


BUSY = Tool("busy", "Computes.", Query, Effect.repeatable, busy, where="process")
