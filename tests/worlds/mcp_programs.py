"""MCP servers as programs: one written with the SDK, and some that misbehave. Run with the name of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def good() -> None:
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    server = MCPServer("good")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @server.tool(annotations=reads)
    def add(a: int, b: int = 1) -> str:
        """Add two numbers."""
        return f"{a + b}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def look_up(query: str) -> str:
        return f"outside: {query}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
    def note(path: str) -> str:
        Path(path).write_text("written", "utf-8")
        return "written"

    @server.tool()
    def plain() -> str:
        return os.environ.get("GIVEN_KEY", "none") + " " + ", ".join(n for n in os.environ if "SECRET" in n)

    @server.tool(annotations=reads)
    def fails() -> str:
        raise RuntimeError("no such thing")

    @server.tool(annotations=reads)
    def dies() -> str:
        os._exit(3)

    server.run()


def messages():
    for line in sys.stdin:
        yield json.loads(line)


def say(message: dict) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def write_late(path: str, seconds: float) -> dict:
    """Say that it runs, start a process, wait whatever happens, and write."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(f"{path}.part").write_text(f"{os.getpid()} {child.pid}", "utf-8")
    Path(f"{path}.part").rename(f"{path}.pids")
    time.sleep(seconds)
    Path(path).write_text("written", "utf-8")
    return {"content": [{"type": "text", "text": "written"}]}


def plays(tools: list, result: object) -> None:
    """A server of the first days, with these tools, all calls of which have this result (or what it returns)."""
    for message in messages():
        match message.get("method"):
            case "initialize":
                version = message["params"]["protocolVersion"]
                about = {"protocolVersion": version, "capabilities": {"tools": {}}}
                say({"id": message["id"], "result": about | {"serverInfo": {"name": "odd", "version": "1"}}})
            case "tools/list":
                say({"id": message["id"], "result": {"tools": tools}})
            case "tools/call":
                said = result(**message["params"]["arguments"]) if callable(result) else result
                if said is not None:
                    say({"id": message["id"], "result": said})
            case _ if "id" in message:
                say({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})


def tool(name: str, schema: object, **hints: bool) -> dict:
    return {"name": name, "inputSchema": schema, "annotations": hints}


OBJECT = {"type": "object"}
READS = {"readOnlyHint": True, "openWorldHint": False}
PROGRAMS = {
    "good": good,
    "garbage": lambda: [print("this is no message", flush=True) for _ in messages()],
    "silent": lambda: [None for _ in messages()],
    "ends": lambda: sys.exit("the data base is locked"),
    "twice": lambda: plays([tool("a", OBJECT), tool("a", OBJECT)], {}),
    "no_schema": lambda: plays([tool("a", {"type": "object", "properties": {"x": {"type": 3}}})], {}),
    "elsewhere": lambda: plays([tool("a", {"type": "object", "$ref": "http://127.0.0.1:1/x.json"})], {}),
    "nonsense": lambda: plays([tool("a", OBJECT, **READS)], {"content": 7}),
    "blocks": lambda: plays(
        [tool("a", OBJECT, **READS)],
        {
            "content": [
                {"type": "text", "text": "one"},
                {"type": "image", "data": "AAAA", "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "file:///x", "text": "two"}},
                {"type": "resource_link", "name": "three", "uri": "file:///y"},
            ]
        },
    ),
    "late": lambda: plays([tool("late", OBJECT, readOnlyHint=False)], write_late),
    "hangs": lambda: plays([tool("a", OBJECT, **READS)], None),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
