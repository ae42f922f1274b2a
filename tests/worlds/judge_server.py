"""A judging model's server with scripted behaviour, on a real socket of this machine."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG_S = 6.0


class JudgeServer(ThreadingHTTPServer):
    """`behave(answer, attempt)` returns the text of a reply, a whole body, or one of the tricks of `_Handler`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, behave: Callable[[str, int], str | bytes | dict]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.attempts: Counter[str] = Counter()  # by answer to be judged: requests that came in
        self.replied: Counter[str] = Counter()  # ... of them answered with a completion
        self.bodies: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def url(self, **options: object) -> str:
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return f"http://127.0.0.1:{self.server_port}/v1?model=judge{query}"

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: JudgeServer = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = re.search(r"<answer>(.*)</answer>", body["messages"][-1]["content"], re.S)[1]
        with server.lock:
            server.attempts[answer] += 1
            attempt = server.attempts[answer]
            server.bodies.append(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            what = server.behave(answer, attempt)
            if not isinstance(what, str):
                self._send(200, what)
            elif what == "<429>":
                self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
            elif what == "<500>":
                self._send(500, {"error": {"message": "out of memory"}})
            elif what == "<close>":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif what == "<hang>":
                time.sleep(HANG_S)
            elif what == "<garbage>":
                self._send(200, "<html>not JSON</html>")
            elif what == "<no choices>":
                self._send(200, {"choices": []})
            else:
                message = {"role": "assistant", "content": what}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 100, "completion_tokens": 5}
                self._send(200, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})
                with server.lock:
                    server.replied[answer] += 1
        finally:
            with server.lock:
                server.in_flight -= 1

    def _send(self, status: int, body: dict | str | bytes, headers: dict[str, str] | None = None) -> None:
        data = (
            body
            if isinstance(body, bytes)
            else (body if isinstance(body, str) else json.dumps(body)).encode()
        )
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def serving(behave: Callable[[str, int], str | bytes | dict]) -> Iterator[JudgeServer]:
    server = JudgeServer(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
