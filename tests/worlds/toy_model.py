"""A model for the embedded server that loads nothing: it answers each prompt with its number of characters.

python tests/worlds/toy_model.py      serves it as "draft" until it is killed, and prints the base URL
"""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

from speceyes_lib.demo.server import serving
from speceyes_lib.models.base import Generation
from speceyes_lib.tasks.images import ImageSpec


class ToyModel:
    """As much of a `TransformersBackend` as the server needs. A prompt "wait" is answered once nobody waits."""

    vocab_size = 2
    image_spec = ImageSpec(16, 9000, 9300)
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 0, "yes": 1}, decode=lambda ids: ("a", "yes")[ids[0]])
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=500))
    )

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.answered = 0

    def prepared_row(self, request):
        return SimpleNamespace(ids=range(len(_text(request)) // 4 + 1))

    def generate(self, requests, unwanted):
        if any(_text(r) == "wait" for r in requests):
            self.begun.set()
            while any(r.id not in unwanted() for r in requests):
                pass
        self.answered += len(requests)
        return [Generation(r.id, str(len(_text(r))), (1,), "stop", 0.0, len(requests)) for r in requests]


def _text(request) -> str:
    contents = [m["content"] for m in request.messages]
    parts = [p for c in contents for p in ([{"type": "text", "text": c}] if isinstance(c, str) else c)]
    return "".join(p["text"] for p in parts if p["type"] == "text")


if __name__ == "__main__":
    with serving({"draft": ToyModel()}) as url:
        print(url, flush=True)
        sys.stdin.read()
