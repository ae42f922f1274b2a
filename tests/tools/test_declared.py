from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_tools as toys
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from speceyes_lib.tools.declared import (
    MAX_ARGUMENTS_CHARS,
    MAX_RESULT_CHARS,
    SAFE,
    Effect,
    MalformedCall,
    Tool,
    Toolbox,
    Workspace,
    arguments_of,
)
from speceyes_lib.tools.worker import ToolError, prepare

BOX = Toolbox(toys.ALL)


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "a.txt").write_text("inside", "utf-8")
    return Workspace(tmp_path, {"table": {"x": 1}, "model": object()})


def run(name, arguments, workspace, **options):
    async def call():
        return await BOX.execute(BOX.call(name, arguments), workspace, **options)

    return asyncio.run(call())


# ------------------------------------------------------------------------------------------ calls
def test_a_call_has_its_defaults_filled_in_and_one_canonical_form():
    short = BOX.call("search", {"query": " oil "})
    whole = BOX.call("search", '{"scale": 1, "page": "1", "query": "oil"}')
    assert short.canonical == whole.canonical == 'search {"page": 1, "query": "oil", "scale": 1}'
    assert short.arguments == {"query": "oil", "page": 1, "scale": 1.0}
    assert short.given == {"query": " oil "}
    assert short == whole
    assert BOX.call("search", {"query": "Oil"}) != short


@given(
    st.permutations(["query", "page", "scale"]),
    st.text("ab ", min_size=1),
    st.integers(-5, 5),
    st.integers(-3, 3),
)
@settings(deadline=None, max_examples=50)
def test_order_and_spelling_of_numbers_do_not_change_the_canonical_form(order, query, page, scale):
    values = {"query": query, "page": page, "scale": scale}
    other = {"query": query, "page": float(page), "scale": float(scale)}
    text = json.dumps({name: other[name] for name in order})
    assert BOX.call("search", values).canonical == BOX.call("search", text).canonical


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("{", "JSON object"),
        ("[1]", "JSON object"),
        ('{"query": NaN}', "JSON object"),
        ('{"query": 1e999}', "JSON object"),
        ('{"query": "\\ud800"}', "JSON object"),
        ('{"query": "a", "query": "b"}', "JSON object"),
        ("[" * 100_000, "longer"),
        ("[" * 10_000, "JSON object"),
        ('{"query": ' + "[" * 50 + "]" * 50 + "}", "JSON object"),
        ('{"query": "' + "a" * MAX_ARGUMENTS_CHARS + '"}', "longer"),
        ('{"query": "' + "9" * 5000 + '", "page": ' + "9" * 5000 + "}", "JSON object"),
        ("", "query"),
        ('{"query": 3}', "query"),
        ('{"query": "a", "colour": 1}', "colour"),
        ('{"query": "a", "page": "two"}', "page"),
    ],
)
def test_what_is_no_call_is_malformed_and_says_why(arguments, part):
    with pytest.raises(MalformedCall, match=part):
        BOX.call("search", arguments)


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=100)
def test_any_text_gives_arguments_or_is_malformed(text):
    values = None
    with contextlib.suppress(MalformedCall):
        values = arguments_of(text)
    assert values is None or values == (json.loads(text) if text.strip() else {})


def test_an_unknown_tool_is_named_with_the_nearest():
    with pytest.raises(MalformedCall, match=r"'serch' .did you mean 'search'.*tools are search"):
        BOX.call("serch", "{}")


def test_empty_arguments_are_an_empty_object():
    assert BOX.call("whoami", "").arguments == {}


def test_the_schema_is_that_of_a_chat_completion():
    (schema,) = Toolbox([toys.SEARCH]).schemas()
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "search"
    assert schema["function"]["parameters"] == {
        "type": "object",
        "additionalProperties": False,
        "required": ["query"],
        "properties": {
            "query": {"type": "string"},
            "page": {"type": "integer", "default": 1},
            "scale": {"type": "number", "default": 1.0},
        },
    }


def test_a_tool_that_takes_any_argument_and_two_of_one_name_are_refused():
    with pytest.raises(ValueError, match="forbid"):
        Tool("loose", "", BaseModel, Effect.pure, toys.search)
    with pytest.raises(ValueError, match="search"):
        Toolbox([toys.SEARCH, toys.SEARCH])


# ---------------------------------------------------------------------------------------- effects
def test_only_harmless_tools_run_in_advance_unless_the_user_allows_more(workspace):
    calls = [BOX.call(t.name, {"query": "x"}) for t in toys.ALL if t.arguments in (toys.Query, toys.Paged)]
    allowed = {c.name for c in calls if BOX.refusal(c) is None}
    assert allowed == {"search", "look", "raises"}
    more = {c.name for c in calls if BOX.refusal(c, SAFE | {Effect.metered, Effect.open_world}) is None}
    assert more == allowed | {"metered", "outside"}
    assert "note" in {c.name for c in calls if BOX.refusal(c, frozenset(Effect)) is None}
    assert "declares no" in BOX.refusal(BOX.call("unknown", {"query": "x"}), frozenset(Effect))


@pytest.mark.parametrize("name", ["note", "unknown"])
def test_the_refusal_is_enforced_where_tools_run(workspace, name):
    result = run(name, {"query": "x"}, workspace, speculated=True)
    assert result.error
    assert not (workspace.folder / "note.txt").exists()
    assert run(name, {"query": "x"}, workspace).text == "written"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "link", "a.txt/../../x", "nul\0", "x" * 9999])
def test_no_path_leads_out_of_the_folder(workspace, path):
    (workspace.folder / "link").symlink_to("/etc")
    call = BOX.call("read", {"path": path})
    result = run("read", {"path": path}, workspace)
    assert result.error
    assert "inside" not in result.text
    if "x" * 99 not in path:
        assert BOX.refusal(call, workspace=workspace) == result.error
    with pytest.raises(ToolError):
        workspace.path("../x")


def test_addresses_are_refused_in_advance_where_nothing_may_leave(workspace):
    call = BOX.call("read", {"path": "https://example.org/a.txt"})
    assert "address" in BOX.refusal(call)
    assert BOX.refusal(call, SAFE | {Effect.open_world}) is None


# -------------------------------------------------------------------------------------- execution
def test_errors_of_tools_are_results(workspace):
    assert run("raises", {"query": "no luck"}, workspace).error == "RuntimeError: no luck"
    missing = run("read", {"path": "b.txt"}, workspace)
    assert missing.error == "There is no file 'b.txt'."
    assert missing.message == f"Error: {missing.error}"
    assert run("read", {"path": "a.txt"}, workspace).message == "inside"


def test_long_and_odd_texts_can_be_stored(workspace):
    box = Toolbox([replace(toys.LOOK, run=lambda a, w: "\ud800" + "x" * MAX_RESULT_CHARS)])
    result = asyncio.run(box.execute(box.call("look", {"query": "x"}), workspace))
    assert result.text.startswith("�x")
    assert "1 further" in result.text


def test_a_tool_that_hangs_is_stopped_and_one_that_waits_in_a_thread_is_left_behind(workspace):
    import threading

    ended = threading.Event()
    box = Toolbox(
        [
            replace(toys.LOOK, run=lambda a, w: str(ended.wait(600)), timeout_s=0.02),
            replace(toys.HANGS, timeout_s=0.02),
        ]
    )
    try:
        assert "0.02" in asyncio.run(box.execute(box.call("look", {"query": "x"}), workspace)).error
        assert "0.02" in asyncio.run(box.execute(box.call("hangs", {"path": "x"}), workspace)).error
    finally:
        ended.set()


def test_waits_are_drawn_by_call_and_counted(workspace):
    box = Toolbox([replace(toys.LOOK, wait_s=lambda call, w: 0.02 * len(call.arguments["query"]))])
    assert asyncio.run(box.execute(box.call("look", {"query": "x"}), workspace)).seconds >= 0.019


# ---------------------------------------------------------------------------------------- workers
def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_cancelled_call_leaves_no_process_and_writes_nothing(workspace):
    async def cancel_midway():
        task = asyncio.create_task(BOX.execute(BOX.call("hangs", {"path": "late"}), workspace))
        while not (workspace.folder / "pids").exists():
            await asyncio.sleep(0.01)  # looks again; what counts is the file
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_midway())
    worker, child = map(int, (workspace.folder / "pids").read_text("utf-8").split())
    assert not alive(worker)
    while alive(child):  # killed by the same signal; its parent is gone, so the system removes it
        os.sched_yield()
    assert not (workspace.folder / "late").exists()


def test_nothing_of_a_call_is_left_when_the_program_is_killed(tmp_path):
    program = (
        "import asyncio, sys; from pathlib import Path; import toy_tools as toys\n"
        "from speceyes_lib.tools.declared import Toolbox, Workspace\n"
        "box = Toolbox([toys.HANGS])\n"
        "asyncio.run(box.execute(box.call('hangs', {'path': 'late'}), Workspace(Path(sys.argv[1]))))"
    )
    worlds = Path(toys.__file__).parent
    path = os.pathsep.join([str(worlds), str(worlds.parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        while not (tmp_path / "pids").exists():
            assert process.poll() is None
            time.sleep(0.02)  # looks again; what counts is the file
    finally:
        process.kill()
        process.wait()
    for pid in map(int, (tmp_path / "pids").read_text("utf-8").split()):
        while alive(pid):  # the system tells the worker, which kills what it has started
            time.sleep(0.02)
    assert not (tmp_path / "late").exists()


def test_a_worker_serves_again_gets_its_resources_only_and_no_keys(workspace, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    prepare()
    first, second = (run("whoami", "", workspace).text.split() for _ in range(2))
    assert first[1] == second[1] != str(os.getpid())
    assert first[0] != second[0]  # each call has a process of its own
    assert first[2] == "['table']"


def test_workers_that_end_or_need_too_much_memory_give_errors(workspace, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert "ended" in run("exits", "", workspace).error
    assert run("secrets", "", workspace).text == "none"  # a new process
    assert "memory" in run("eats", "", workspace).error
