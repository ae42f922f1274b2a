"""Where the thoughts of a reply end and its answer begins: one rule for drafts, agents, judges and imported replies."""

from __future__ import annotations

import re
from collections.abc import Sequence

# <think>, <thinking>, [THINK], ◁think▷, <seed:think>, <|begin_of_thought|> ... and what closes them
_TAG = re.compile(
    r"[<\[◁]\|?(?P<close>/|end_of_)?(?:begin_of_|seed:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)\|?[>\]▷]",
    re.IGNORECASE,
)
_ACTS = re.compile(
    "<(?:answer|tool_call|code)>"
)  # what a model that forgets to close its thought goes on with


def without_thoughts(text: str) -> str:
    """The reply without its thoughts.

    A closing tag without an opening one ends a thought that began with the reply, because some chat templates write
    the opening tag into the prompt. A thought that is never closed reaches to the tag of an answer or of a tool, or
    else to the end of the reply.
    """
    return " ".join(text[start:stop] for start, stop in _visible(text)).strip()


def end_of_thoughts(text: str) -> int:
    """Position after the last closing tag; 0 without one."""
    return max((tag.end() for tag in _TAG.finditer(text) if tag["close"]), default=0)


def visible_tokens(texts: Sequence[str]) -> list[int]:
    """Indices of the tokens with these texts that are not inside a thought. All of them where there is none."""
    visible = list(_visible("".join(texts)))
    kept, start = [], 0
    for index, text in enumerate(texts):
        stop = start + len(text)
        if any((start < last and first < stop) or first <= start == stop <= last for first, last in visible):
            kept.append(index)
        start = stop
    return kept


def _visible(text: str) -> list[tuple[int, int]]:
    """The parts of a reply outside thoughts, as [start, stop)."""
    parts: list[tuple[int, int]] = []
    start, thinking = 0, False
    for tag in _TAG.finditer(text):
        if tag["close"]:
            if not thinking:
                parts.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            parts.append((start, tag.start()))
            start, thinking = tag.end(), True
    if not thinking:
        parts.append((start, len(text)))
    elif act := _ACTS.search(text, start):
        parts.append((act.start(), len(text)))
    return parts
