"""A server of models that can be killed and started again at the same address, on a real socket of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MortalServer:
    """Answers each request by its texts alone. Killed, it cuts every connection and takes no new one."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.answered = 0
        self.lives = 0

    def url(self, model: str, **options: object) -> str:
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return f"http://127.0.0.1:{self.port}/v1?model={model}&processor=qwen3_vl{query}"

    @contextlib.contextmanager
    def alive(self, requests: int | None = None):
        """Run the server; it dies by itself at its `requests`-th request, without an answer to it."""
        http = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        http.daemon_threads, http.world, http.left, http.dead = True, self, requests, False
        http.lock, http.handle_error = threading.Lock(), lambda *_: None
        serving = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        serving.start()
        self.lives += 1
        try:
            yield
        finally:
            http.dead = True
            http.shutdown()
            http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            if server.left == 0:
                server.dead = True
                server.socket.close()
            elif server.left is not None:
                server.left -= 1
            server.world.answered += not server.dead
        if server.dead:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = json.dumps(reply_to(body)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def reply_to(body: dict) -> dict:
    """A reply that depends on the texts of the conversation: a router's word, a draft, a zoom or an answer."""
    contents = [message["content"] for message in body["messages"]]
    parts = [p for c in contents if not isinstance(c, str) for p in c if p["type"] == "text"]
    texts = [c for c in contents if isinstance(c, str)] + [part["text"] for part in parts]
    chance = hashlib.sha256("\n".join(texts).encode()).digest()
    word = "ABCD"[chance[0] % 4]
    if body["model"] == "agent" and body["max_tokens"] > 10:
        zooms = chance[1] % 2 and "tool_response" not in "".join(texts)
        box = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 64, 64]}}'
        text = f"<tool_call>{box}</tool_call>" if zooms else f"<answer>{word}</answer>"
    else:
        text = ("yes", "no")[chance[2] % 2] if body["max_tokens"] == 10 else word
    choice: dict = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if body.get("logprobs"):
        logprobs = [-0.01 - chance[3] / 512, *(-4.0 - i for i in range(1, body["top_logprobs"]))]
        tokens = [text, *(f"t{i}" for i in range(1, body["top_logprobs"]))]
        top = [
            {"token": t, "logprob": p, "bytes": list(t.encode())}
            for t, p in zip(tokens, logprobs, strict=True)
        ]
        choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    return {"object": "chat.completion", "choices": [choice], "usage": usage}
