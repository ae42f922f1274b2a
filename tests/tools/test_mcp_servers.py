"""Tools of MCP servers: real processes that speak the protocol, well and badly."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tool_episodes import answer, call

from speceyes_lib.errors import ConfigError, MeansError
from speceyes_lib.tool_speculation.episode import Assignment, Episode
from speceyes_lib.tool_speculation.models import ScriptedPolicy
from speceyes_lib.tool_speculation.settings import SpeculationSettings
from speceyes_lib.tools.declared import SAFE, Effect, MalformedCall, Toolbox, Workspace
from speceyes_lib.tools.mcp_servers import (
    McpServer,
    arguments_by_schema,
    declared_effect,
    hinted_effect,
    mcp_tools,
    read_mcp_config,
)

pytest.importorskip("mcp", reason="the extra mcp is not installed")

PROGRAM = str(Path(__file__).parents[1] / "worlds" / "mcp_programs.py")


def server(name: str, **more) -> McpServer:
    return McpServer(command=sys.executable, args=[PROGRAM, name], **more)


def with_box(servers, use):
    """What `use(toolbox)` returns while the servers run."""

    async def main():
        async with mcp_tools(servers) as tools:
            return await use(Toolbox(tools))

    return asyncio.run(main())


def gone(pid: int) -> bool:
    """True when no such process runs any more, which is awaited."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


async def appears(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.01)


def pids(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text("utf-8").split()]


# ------------------------------------------------------------------------------------------- a good server
def test_tools_of_a_server_are_declared_checked_and_called(tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN", "for the server")
    monkeypatch.setenv("OTHER_SECRET", "for nobody")

    async def use(box):
        effects = {name: tool.effect for name, tool in box.tools.items()}
        schemas = {s["function"]["name"]: s["function"]["parameters"] for s in box.schemas()}

        async def text(name, **arguments):
            result = await box.execute(box.call(name, arguments), Workspace(tmp_path))
            return result.message

        texts = [await text("x_add", a=1), await text("x_plain"), await text("x_fails")]
        texts += [await text("x_dies"), await text("x_add", a=2, b=2)]  # it is started again
        faults = []
        for arguments in ('{"a": "one"}', "{}", "[]"):
            with pytest.raises(MalformedCall) as fault:
                box.call("x_add", arguments)
            faults.append(str(fault.value))
        same = box.call("x_add", {"a": 1}) == box.call("x_add", {"b": 1.0, "a": 1})
        refused = {name: box.refusal(box.call(name, given)) for name, given in CALLS.items()}
        return effects, schemas, texts, faults, same, refused

    CALLS = {"x_add": {"a": 1}, "x_look_up": {"query": "a"}, "x_note": {"path": "a"}, "x_plain": {}}
    settings = server("good", prefix="x_", env={"GIVEN_KEY": "$GIVEN"}, effects={"fails": "metered"})
    effects, schemas, texts, faults, same, refused = with_box({"good": settings}, use)
    assert effects == {
        "x_add": Effect.repeatable,
        "x_look_up": Effect.open_world,
        "x_note": Effect.writes,
        "x_plain": None,
        "x_fails": Effect.metered,
        "x_dies": Effect.repeatable,
    }
    assert schemas["x_add"]["required"] == ["a"]
    assert texts[:2] == ["2", "for the server "]
    assert texts[2].startswith("Error: ")
    assert texts[3].startswith("Error: MCP server good, dies: ")
    assert texts[4] == "4"
    assert all("x_add does not take these arguments" in fault or "JSON object" in fault for fault in faults)
    assert same
    assert {name for name, reason in refused.items() if reason is None} == {"x_add"}


def test_a_guess_of_a_server_s_tool_serves_only_if_the_tool_may_be_called_in_advance(tmp_path):
    turns = [call("add", a=20, b=22), call("note", path=str(tmp_path / "n")), call("plain"), answer("42")]

    def turn(messages, toolbox, prefix):
        return turns[sum(m["role"] == "assistant" for m in messages)]

    async def use(box):
        runs = {}
        for policy in ("off", "original"):
            episode = Episode(
                Assignment("t", 1, "?", "42"),
                ScriptedPolicy(turn),
                ScriptedPolicy(turn, name="spec"),
                box,
                Workspace(tmp_path),
                SpeculationSettings(policy=policy),
            )
            runs[policy] = await episode.run()
        return runs

    runs = with_box({"good": server("good")}, use)
    made = [c for step in runs["original"].steps for c in step.calls]
    assert [(c.name, c.source) for c in made] == [
        ("add", "used"),
        ("note", "executed"),
        ("plain", "executed"),
    ]
    assert json.dumps(runs["original"].messages) == json.dumps(runs["off"].messages)
    assert [g.refused is None for step in runs["original"].steps for g in step.guesses] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("how", ["cancelled", "too long", "closed"])
def test_nothing_is_written_and_nothing_runs_after_a_call_was_ended(tmp_path, how):
    path = tmp_path / "late"

    async def use(box):
        wanted = box.call("late", {"path": str(path), "seconds": 3600})
        task = asyncio.create_task(box.execute(wanted, Workspace(tmp_path)))
        await appears(tmp_path / "late.pids")
        if how == "too long":
            return await task
        if how == "cancelled":
            task.cancel()
            await asyncio.wait([task])
            assert await asyncio.to_thread(lambda: all(map(gone, pids(tmp_path / "late.pids"))))
            again = box.call("late", {"path": str(tmp_path / "b"), "seconds": 0})
            return await box.execute(again, Workspace(tmp_path))
        return None

    result = with_box({"rude": server("late", timeout_s=10.0 if how == "too long" else 600.0)}, use)
    assert all(map(gone, pids(tmp_path / "late.pids")))
    assert not path.exists()
    if how == "too long":
        assert result.error == "late was stopped after 10 s."
    if how == "cancelled":
        assert result.text == "written"
        assert all(map(gone, pids(tmp_path / "b.pids")))


# ------------------------------------------------------------------------------------------- odd servers
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("garbage", "has not answered within 2 s"),
        ("silent", "has not answered within 2 s"),
        ("ends", "it wrote: the data base is locked"),
        ("twice", "two tools of one name"),
        ("no_schema", "a: its schema is none"),
        ("elsewhere", "a: its schema refers to another document"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_sentence(name, part):
    async def never(box):
        raise AssertionError(box)

    with pytest.raises(MeansError, match=r"^MCP server odd ") as error:
        with_box({"odd": server(name, start_s=2.0 if "2 s" in part else 60.0)}, never)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "limit_s", "message"),
    [
        ("nonsense", 60.0, "Error: MCP server odd, a: "),
        ("hangs", 0.2, "Error: a was stopped after 0.2 s."),
        ("blocks", 60.0, "one\n[image, image/png, 3 bytes]\ntwo\n[three: file:///y]"),
    ],
)
def test_every_result_of_a_server_is_a_text_or_a_failure(tmp_path, name, limit_s, message):
    async def use(box):
        return [(await box.execute(box.call("a", {}), Workspace(tmp_path))).message for _ in range(2)]

    for text in with_box({"odd": server(name, timeout_s=limit_s)}, use):
        assert text.startswith(message)


# --------------------------------------------------------------------------------------------- declarations
def hints(reads=None, destroys=None, again=None, outside=None):
    return SimpleNamespace(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=again, open_world_hint=outside
    )


@pytest.mark.parametrize(
    ("annotations", "effect"),
    [
        (None, None),
        (hints(), None),
        (hints(again=True, outside=False), None),
        (hints(reads=True), Effect.open_world),
        (hints(reads=True, outside=True), Effect.open_world),
        (hints(reads=True, outside=False), Effect.repeatable),
        (hints(reads=True, outside=False, again=False, destroys=False), Effect.repeatable),
        (hints(reads=True, outside=False, destroys=True), Effect.writes),
        (hints(reads=False, again=True, outside=False, destroys=False), Effect.writes),
    ],
)
def test_hints_become_effects_and_what_they_leave_open_is_the_worse(annotations, effect):
    assert hinted_effect(annotations) is effect
    plain = McpServer(command="x")
    assert declared_effect("a", annotations, plain) is effect
    stricter = McpServer(command="x", effects={"*": "metered", "b": "undeclared"})
    for name in ("a", "b"):
        after = declared_effect(name, annotations, stricter)
        assert after not in SAFE
    vouched = McpServer(command="x", vouched={"a": "pure"})
    assert declared_effect("a", annotations, vouched) is Effect.pure


def test_effects_loosen_nothing():
    loose = McpServer(command="x", effects={"a": "repeatable"})
    for said in (None, hints(reads=True), hints(reads=False)):
        with pytest.raises(ConfigError, match=r"write it as vouched\.a"):
            declared_effect("a", said, loose)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "object", "properties": {"n": {"type": "integer"}}}, {"n": 2.0}, {"n": 2.5}),
        ({"type": "object", "additionalProperties": False}, {}, {"n": 1}),
        # patterns are the server's to check, and what they allow is not refused here
        ({"type": "object", "properties": {"n": {"pattern": "(a+)+$"}}}, {"n": "a" * 40 + "b"}, None),
        ({"type": "object", "patternProperties": {"^n": {}}, "additionalProperties": False}, {"n": 1}, None),
        ({"type": "object", "properties": {"n": {"type": "string", "default": 3}}}, {}, {"n": 3}),
        ({"$defs": {"t": {"$ref": "#/$defs/t"}}, "type": "object", "$ref": "#/$defs/t"}, None, {"n": 1}),
    ],
)
def test_arguments_are_checked_by_the_server_s_schema(schema, right, wrong):
    model = arguments_by_schema(schema)
    if right is not None:
        assert model.model_validate(right).model_dump(mode="json") == right
    if wrong is not None:
        with pytest.raises(ValueError, match=r"arguments|schema|n:"):
            model.model_validate(wrong)
    assert model.model_json_schema() == schema


def test_defaults_of_the_schema_are_filled_in():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"default": [1]}}}
    assert arguments_by_schema(schema).model_validate({"a": 1}).model_dump() == {"a": 1, "b": [1]}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "no file of MCP servers"),
        ("[]", "expected mcpServers"),
        ('{"mcpServers": {}}', "expected mcpServers"),
        ('{"mcpServers": {"a": 3}}', "mcpServers.a: expected command or url"),
        ('{"mcpServers": {"a": {}}}', "either a command or a url"),
        ('{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}', "either a command or a url"),
        ('{"mcpServers": {"a": {"comand": "x"}}}', "did you mean 'command'"),
        ('{"mcpServers": {"a": {"command": "x", "timeout_s": 0}}}', "timeout_s"),
        ('{"mcpServers": {"a": {"command": "x", "effects": {"t": "harmless"}}}}', "effects.t"),
        ('{"mcpServers": {"a": {"command": "x", "vouched": {"t": "undeclared"}}}}', "vouched.t"),
    ],
)
def test_a_file_of_servers_that_is_wrong_is_one_sentence(tmp_path, text, part):
    (tmp_path / "mcp.json").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"mcp\.json") as error:
        read_mcp_config(tmp_path / "mcp.json")
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"effects": {"lat": "writes"}}, "did you mean 'late'"),
        ({"only": ["lat"]}, "did you mean 'late'"),
        ({"effects": {"late": "pure"}}, "vouched.late"),
        ({"env": {"TOKEN": "$NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_a_configuration_that_does_not_fit_the_server_is_one_sentence(settings, part):
    async def never(box):
        raise AssertionError(box)

    with pytest.raises((ConfigError, MeansError), match="MCP server rude") as error:
        with_box({"rude": server("late", **settings)}, never)
    assert part in str(error.value)


def test_a_program_that_is_not_there_is_one_sentence():
    async def never(box):
        raise AssertionError(box)

    with pytest.raises(MeansError, match="there is no program 'no-such-program'"):
        with_box({"a": McpServer(command="no-such-program")}, never)
