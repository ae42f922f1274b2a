"""A text model whose turns are given, with the interface of `TextModel`."""

from __future__ import annotations

import threading
from pathlib import Path

from speceyes_lib.models.text_model import WrittenToken


class ToyModel:
    """Writes a text one character at a time. Token ids are code points; the runner-up is the next letter."""

    folder = Path("toy")

    def __init__(self, texts):
        self.texts, self.prefixes, self.left = texts, [], threading.Event()

    def turn(self, messages, schemas, prefix, limit, alternatives=0, stopped=lambda: False):
        self.prefixes.append(prefix)
        text = self.texts[min(sum(m["role"] == "assistant" for m in messages), len(self.texts) - 1)]
        if isinstance(text, Exception):
            raise text
        if text == "endless":
            while not stopped():
                yield WrittenToken(ord("a"), "a")
            self.left.set()
            return
        begun = sum(len(part) if isinstance(part, str) else 1 for part in prefix)
        for c in text[begun : begun + limit]:
            more = ((ord(c), ord(c) + 1), (-0.1, -2.0), (c, chr(ord(c) + 1))) if alternatives else ()
            yield WrittenToken(ord(c), c, *more)
