"""Where the thoughts of a reply end and its answer begins."""

from __future__ import annotations

import re

# <think>, <thinking>, [THINK], ◁think▷, <seed:think>, <|begin_of_thought|> ... and what closes them
_TAG = re.compile(
    r"[<\[◁]\|?(?P<close>/|end_of_)?(?:begin_of_|seed:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)\|?[>\]▷]",
    re.IGNORECASE,
)


def without_thoughts(text: str) -> str:
    """The reply without its thoughts.

    A closing tag without an opening one ends a thought that began with the reply, because some chat templates write
    the opening tag into the prompt. A thought that is never closed reaches to the end of the reply.
    """
    answer: list[str] = []
    start, thinking = 0, False
    for tag in _TAG.finditer(text):
        if tag["close"]:
            if not thinking:
                answer.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            answer.append(text[start : tag.start()])
            thinking = True
    if not thinking:
        answer.append(text[start:])
    return " ".join(answer).strip()
