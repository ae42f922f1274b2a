"""Raw replies of a real vLLM to small requests, and the requests.

`vllm_replies.json` holds what vLLM 0.32.0 (CPU build, float32, started as `serve-commands` says) sent for the embedded
draft of its time.

    python tests/worlds/vllm_replies.py URL VERSION     sends the requests and writes the file
"""

from __future__ import annotations

import base64
import io
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

FILE = Path(__file__).with_suffix(".json")


def picture(width: int, height: int) -> dict:
    """A grey picture of a message."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def asked(*parts: dict, **body) -> dict:
    """A request about some pictures."""
    text = {"type": "text", "text": "What colour is the circle?\nOptions: red, blue, green"}
    system = {"role": "system", "content": "You are a helpful assistant."}
    messages = [system, {"role": "user", "content": [*parts, text]}]
    return {"model": "draft", "messages": messages, "max_tokens": 20, "temperature": 0} | body


VIEW = picture(96, 96)
PLAIN = asked(VIEW)
EVIDENCE = {"logprobs": True, "top_logprobs": 5}
BEGUN = [*PLAIN["messages"], {"role": "assistant", "content": "bl"}]
# by what is shown; answers with status 200
ANSWERED = {
    "plain": PLAIN,
    "evidence": PLAIN | EVIDENCE,
    "evidence of no alternative": PLAIN | {"logprobs": True},
    "cut": PLAIN | EVIDENCE | {"max_tokens": 1},
    "stop string in a token": PLAIN | EVIDENCE | {"stop": ["e"]},
    "continued": PLAIN
    | EVIDENCE
    | {"messages": BEGUN, "add_generation_prompt": False, "continue_final_message": True},
    # what the embedded server does not offer: other decoding than the greedy one
    "sampled": PLAIN | EVIDENCE | {"temperature": 2, "seed": 4, "max_tokens": 3},
    "sampled, with half a character": PLAIN | EVIDENCE | {"temperature": 2, "seed": 2, "max_tokens": 3},
    "forced": PLAIN | EVIDENCE | {"structured_outputs": {"choice": ["violet"]}},
    "parts of characters": PLAIN | EVIDENCE | {"structured_outputs": {"regex": "é😀"}},
    "cut in a character": PLAIN | EVIDENCE | {"structured_outputs": {"regex": "é😀"}, "max_tokens": 3},
}
NOT_GREEDY = {name for name, body in ANSWERED.items() if "structured_outputs" in body or body["temperature"]}
REFUSED = {
    "no such model": PLAIN | {"model": "draught"},
    "no messages": PLAIN | {"messages": []},
    "more alternatives than allowed": PLAIN | {"logprobs": True, "top_logprobs": 129},
    "alternatives without logprobs": PLAIN | {"top_logprobs": 5},
    "a negative number of alternatives": PLAIN | {"logprobs": True, "top_logprobs": -2},
    "an empty stop string": PLAIN | {"stop": [""]},
    "no answer": PLAIN | {"n": 0},
    "no token": PLAIN | {"max_tokens": 0},
    "more tokens than the model has": PLAIN | {"max_tokens": 5000},
    "a long prompt": PLAIN | {"messages": [{"role": "user", "content": "red " * 3000}]},
    "a temperature below 0": PLAIN | {"temperature": -1},
    "two ways to go on": PLAIN | {"messages": BEGUN, "continue_final_message": True},
    "no picture": asked({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}),
    "no JSON": "{",
}


def post(url: str, body: dict | str) -> tuple[int, dict]:
    """Status and body of the answer to a request."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/chat/completions", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


if __name__ == "__main__":
    url, version = sys.argv[1:]
    answers = {name: post(url, body) for name, body in (ANSWERED | REFUSED).items()}
    replies = {name: {"status": status, "body": body} for name, (status, body) in answers.items()}
    FILE.write_text(json.dumps({"version": version, "replies": replies}, ensure_ascii=False, indent=1) + "\n")
