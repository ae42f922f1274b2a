"""The closed vocabulary of the tool tasks' models: digits, names and the pieces of the texts around them.

Digits and names of items, makers, files and columns are one token each. The tokens of a text simply follow each other,
without blanks in between.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from .scenes import COLORS, SHAPES

TABLE_KINDS = ("csv", "xlsx", "json", "docx", "pdf", "txt", "zip")
ATTRIBUTES = ("price", "mass", "height", "stock", "power", "speed")
TOOL_ARGUMENTS = {
    "file_read": ("path",),
    "vision_ocr": ("image_path",),
    "vision_analyze": ("image_path", "question"),
    "web_search": ("query",),
    "enhanced_search": ("query",),
    "calculate": ("expression",),
    "code_exec": ("code",),
}
PAD, UNKNOWN, USER, ASSISTANT, TOOL, END = (
    "<|endoftext|>",
    "<|unknown|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|im_end|>",
)
SPECIAL_TOKENS = (PAD, UNKNOWN, USER, ASSISTANT, TOOL, END)


def _names(count: int, seed: int, ends: Sequence[str]) -> tuple[str, ...]:
    rng, names = random.Random(seed), []
    while len(names) < count:
        name = (
            rng.choice("BDFGKLMNPRSTVZ") + rng.choice("aeiou") + rng.choice("lnrstvmd") + rng.choice("aeiou")
        )
        if (name := name + rng.choice(ends)) not in names:
            names.append(name)
    return tuple(names)


ITEMS = _names(80, 1, ("n", "x", "sk", "th"))
MAKERS = _names(30, 2, ("corp", "works", "lab"))
STEMS = tuple(f"{letter}{number:02d}" for letter in "bfhkmr" for number in range(1, 21))

# Texts of the vocabulary that are no name. A name is always preceded by a text that ends with a blank, a quote or a
# new line, so that no name needs a second form with a blank before it.
_TEXTS = (
    # questions
    *("In ", "Image ", "What is the", ", what is the", ", take the item with the", ". What is the", "?"),
    *(
        " names a file. In it",
        " shows a",
        ". In ",
        ", take the item of its color",
        " of the",
        " color",
        " of ",
        " and",
    ),
    *(
        " its",
        " the",
        " the workers of its maker",
        " total",
        " minus the",
        " sum of",
        " difference of",
        " highest",
        " lowest",
    ),
    " color of the",
    # thoughts
    *(
        "goal:",
        ";",
        "\n",
        "first read ",
        "next read ",
        "first search ",
        "next search ",
        "no results",
        "so page ",
    ),
    *("compare\n", "best ", " keep ", " take ", "so calculate ", "so code", "total=", "result=", "done\n"),
    *("so look at ", "color=", "FINAL ANSWER: ", "<", ">", "=", "+", "-", ","),
    # results
    *(" rows", ", ", "sheet items: ", "sheet notes: ", "file ", ": ", "d"),
    # calls
    *(
        '<tool_call>{"name": "',
        *(f'", "arguments": {{"{a}": "' for a in ("path", "image_path", "query", "expression", "code")),
    ),
    *('", "question": "', '"}}</tool_call>', "print(sum([", "]))"),
)
VOCABULARY = tuple(
    dict.fromkeys(
        (
            *SPECIAL_TOKENS,
            *_TEXTS,
            *"0123456789",
            *(f"{n}: " for n in range(1, 8)),
            *(f" {a}" for a in ATTRIBUTES),
            *(f" {a}=" for a in (*ATTRIBUTES, "maker", "workers", "item")),
            " maker",
            " workers",
            *TOOL_ARGUMENTS,
            *(f".{kind}" for kind in (*TABLE_KINDS, "png")),
            *COLORS,
            *(f" {shape}" for shape in SHAPES),
            *ITEMS,
            *MAKERS,
            *STEMS,
        )
    )
)
TOKEN_IDS = {text: i for i, text in enumerate(VOCABULARY)}
PATTERN = "|".join(re.escape(text) for text in sorted(VOCABULARY, key=len, reverse=True))


@lru_cache(maxsize=20_000)
def _encoded(text: str) -> tuple[int, ...]:
    ids, position = [], 0
    matching = _matcher()
    while position < len(text):
        match = matching(text, position)
        if match is None:
            raise ValueError(f"not in the vocabulary of the tool world: {text[position : position + 20]!r}")
        ids.append(TOKEN_IDS[match.group()])
        position = match.end()
    return tuple(ids)


@cache
def _matcher() -> Callable:
    return re.compile(PATTERN).match


def encode(text: str) -> list[int]:
    """Token ids of a text, by the longest entry that fits. Raises ValueError for a text outside the vocabulary."""
    return list(_encoded(text))


def decode(ids: Sequence[int]) -> str:
    """The text of token ids."""
    return "".join(VOCABULARY[i] for i in ids)
