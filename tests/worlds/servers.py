"""A real HTTP server that answers as a test wants, for clients of OpenAI-compatible servers."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Body = dict | str | bytes
# status, body, headers; or the bytes that go to the client as they are, instead of HTTP
Answer = tuple[int, Body] | tuple[int, Body, dict] | Iterable[bytes]


@dataclass
class Server:
    """`script(number of the request from 0, its body)` gives the answer; `requests` and `headers` keep what came."""

    script: Callable[[int, dict], Answer]
    base_url: str = ""
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    most_in_flight: int = 0


def completion(text: str = "red", **choice) -> dict:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice
    return {
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }


@contextlib.contextmanager
def scripted_server(script: Callable[[int, dict], Answer], models: Sequence[str] = ()) -> Iterator[Server]:
    """Serve `script` on a free port of this machine; `models` are what it lists, if any are named."""
    server = Server(script)
    lock, in_flight = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal in_flight
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(server.requests)
                server.requests.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                in_flight += 1
                server.most_in_flight = max(server.most_in_flight, in_flight)
            reply = script(number, body)
            if not isinstance(reply, tuple):
                self.close_connection = True
                with lock:
                    in_flight -= 1
                with contextlib.suppress(OSError):
                    for part in reply:
                        self.wfile.write(part)
                return
            status, answer, *headers = reply
            data = answer if isinstance(answer, str | bytes) else json.dumps(answer)
            data = data.encode() if isinstance(data, str) else data
            with lock:
                in_flight -= 1
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up waiting
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def do_GET(self) -> None:
            if not models:
                self.send_error(501)
                return
            data = json.dumps({"data": [{"id": name} for name in models]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.base_url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
