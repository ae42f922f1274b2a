"""Replies that no server should send: chat completions with something odd in them, from a seed, and other bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from servers import completion

DEEP = 3000
# JSON by text: what Python's json would not write, or not in this way
ODD_TEXTS = {
    "<nan>": "NaN",
    "<infinity>": "-Infinity",
    "<overflow>": "1e999",
    "<huge>": "9" * 5000,
    "<big>": "1" + "0" * 300,
    "<deep list>": "[" * DEEP + "]" * DEEP,
    "<deep dict>": '{"a":' * DEEP + "1" + "}" * DEEP,
    "<half>": '"B \\ud835"',
    "<other half>": '"\\udc00"',
    "<nul>": '"\\u0000"',
}
# values of JSON that a field of a file or a reply may hold, as they are written
ODD_JSON = (
    *("null", "true", "-1", "0.5", "1e999", "NaN", "-Infinity", "9" * 400, "[]", "{}"),
    *('""', '"1"', '"\\ud835"', '"\\u0000"', "[" * 100_000 + "]" * 100_000),
)
ODD_VALUES = [None, True, False, 0, -1, 3.5, 10**18, "", "x", "1", [], [[]], {}, {"a": 1}, [None], *ODD_TEXTS]
TEXTS = [
    "B",
    "",
    "<think>hm",
    "<think>hm</think>B",
    "</think></think>B",
    "<answer>B</answer>",
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1e999, "\\ud835", {}, null]}}</tool_call>',
    "<tool_call>" + "[" * DEEP + "</tool_call>",
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": '
    + "[" * 200
    + "]" * 200
    + "}}</tool_call>",
    "<answer>" * 1000,
    "\ud835",
    "\0\u2028",
]
NO_REPLIES = [
    (200, ""),
    (200, "null"),
    (200, "data: {}\n\n"),
    (200, "<html></html>"),
    (200, b"\xff\xfe\x00"),
    (200, b"\xef\xbb\xbf{}"),
    (200, {"error": {"message": "busy", "code": 429}}, {"retry-after-ms": "1"}),
    (200, b"no gzip", {"content-encoding": "gzip"}),
    (200, b"x", {"content-encoding": "br"}),
    (204, ""),
    (301, "", {"location": "http://127.0.0.1:9/"}),
    (401, {"error": 7}),
    (418, [[]]),
    (500, "<deep list>", {"x-should-retry": "false"}),
    (599, b"\xff"),
    [b"SSH-2.0-OpenSSH_9.6\r\n"],
    [b""],
    [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"],
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    [b"HTTP/9.9 99999 ?\r\n\r\n"],
    [b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n"],
]


def plain_reply(text: str = "B", k: int = 4) -> dict:
    """A chat completion with log-probabilities of one token and of the end, k alternatives each."""
    content = [
        {
            "token": token,
            "bytes": list(token.encode("utf-8", "replace")),
            "logprob": -0.01,
            "top_logprobs": [{"token": f"{token}{i}", "bytes": None, "logprob": -0.01 - i} for i in range(k)],
        }
        for token in (text, "<|im_end|>")
    ]
    return completion(text, logprobs={"content": content}, stop_reason=None)


def odd_reply(seed: int) -> str:
    """The body of a chat completion with up to three odd places."""
    chance = random.Random(seed)
    reply = plain_reply(chance.choice(TEXTS))
    for _ in range(chance.randint(1, 3)):
        inside, key = chance.choice(list(_places(reply)))
        change = chance.random()
        if change < 0.2:
            del inside[key]
        elif change < 0.3 and isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        elif change < 0.4 and isinstance(inside, dict):
            inside[chance.choice(["reasoning_content", "tool_calls", "refusal"])] = chance.choice(ODD_VALUES)
        else:
            inside[key] = copy.deepcopy(chance.choice(ODD_VALUES))
    text = json.dumps(reply)
    for name, odd in ODD_TEXTS.items():
        text = text.replace(json.dumps(name), odd)
    return text if chance.random() < 0.95 else text[: chance.randrange(len(text))]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value; deeper places are as likely as all of their siblings."""
    places: list[tuple[Any, Any]] = []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places += [(value, key), *_places(value[key])[:40]]
    return places
