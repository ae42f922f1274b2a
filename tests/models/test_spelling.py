"""The tokens of an answer are found however a server spells them, and other tokens are never taken for them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.models.spelling import answer_entries


def byte_level(data: bytes) -> str:
    """Bytes as GPT-2's vocabulary writes them."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in plain]
    return "".join(chr(b) if b in plain else chr(0x100 + moved.index(b)) for b in data)


SPELLINGS = {
    "bytes": lambda data: {"token": data.decode("utf-8", "replace"), "bytes": list(data)},
    "numbers and bytes": lambda data: {"token": f"token_id:{sum(data)}", "bytes": list(data)},
    "text": lambda data: {"token": data.decode("utf-8", "replace")},
    "text, null bytes": lambda data: {"token": data.decode("utf-8", "replace"), "bytes": None},
    "byte level": lambda data: {"token": byte_level(data), "bytes": None},
    "byte level twice": lambda data: {
        "token": byte_level(data),
        "bytes": list(byte_level(data).encode()),
    },
    "sentence piece": lambda data: {
        "token": data.decode().replace(" ", "▁") if _is_text(data) else f"<0x{data[0]:02X}>"
    },
}
each_spelling = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def entries_of(spell, tokens: list[str], end: str = "<|im_end|>") -> list[dict]:
    """Entries of tokens. A token that begins with NUL comes as one token per byte."""
    parts: list[bytes] = []
    for token in tokens:
        data = token.encode()
        parts += [bytes([b]) for b in data[1:]] if token.startswith("\0") else [data]
    return [spell(part) for part in parts] + ([{"token": end, "bytes": list(end.encode())}] if end else [])


@each_spelling
@pytest.mark.parametrize(
    ("tokens", "text", "span"),
    [
        (["B"], "B", range(1)),
        ([" the", " red", " car"], " the red car", range(3)),
        (["the", " red", "\n"], "the red", range(2)),  # the server cut the line's end
        (["the", " red", "\n"], "the red\n", range(3)),
        (
            ["<think>", "Maybe", " B", "</think>", "\n\n", "B"],
            "B",
            range(5, 6),
        ),  # a parser took the thought out
        (["B", " is", " it", "</", "think", ">", "B"], "B", range(6, 7)),  # the template opened the thought
        (["<think>", "x", "</think>", "B"], "<think>x</think>B", range(4)),
        (["<|channel|>", "B", "<|message|>", "B"], "B", range(3, 4)),
        (["\0é", " cup"], "é cup", range(3)),
        (["a", "\0é"], "aé", range(3)),
        (["\0红", "\0色"], "红色", range(6)),
        ([], "", range(0)),
        (["\n"], "", range(0)),
        (["<think>", "x", "</think>", "\n"], "", range(3, 3)),
    ],
)
def test_the_tokens_of_the_answer_are_found(spell, tokens, text, span):
    found, _ = answer_entries(entries_of(spell, tokens), text)
    assert (list(found) == list(span)) or (not found and not span)


@each_spelling
@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["B", " because"], "B"),
        (["Maybe", " B", " ", "B"], "B"),
        (["A"], "B"),
        (["B"], "B because"),
        (["<think>", "B"], "B"),
        (["B", " because"], ""),
        ([], "B"),
        (["红"], "蓝"),
    ],
)
def test_evidence_of_other_tokens_is_refused(spell, tokens, text):
    with pytest.raises(ValueError, match="log-probabilities are those of"):
        answer_entries(entries_of(spell, tokens), text)


def test_bytes_of_a_split_character_count_where_they_are_sent():
    with pytest.raises(ValueError, match="log-probabilities"):
        answer_entries(entries_of(SPELLINGS["bytes"], ["\0红"]), "蓝")
    assert answer_entries(entries_of(SPELLINGS["text"], ["\0红"]), "蓝")[0] == range(3)  # lost: any character


def test_tokens_that_are_numbers_alone_are_refused():
    with pytest.raises(ValueError, match="token_id:66"):
        answer_entries([{"token": "token_id:66", "bytes": list(b"token_id:66")}], "B")


def test_tokens_after_a_stop_string_are_dropped_whether_or_not_the_text_has_it():
    entries = entries_of(SPELLINGS["text"], ["red", "</", "a>\n", "x"])
    assert answer_entries(entries, "red</a>", ("</a>",))[0] == range(3)
    assert answer_entries(entries, "red", ("</a>",))[0] == range(1)
    with pytest.raises(ValueError, match="log-probabilities"):
        answer_entries(entries, "red")


def test_the_text_of_a_token_is_readable_in_every_spelling():
    for spell in SPELLINGS.values():
        entries = entries_of(spell, [" the", " red"])
        _, text_of = answer_entries(entries, " the red")
        assert [text_of(entry) for entry in entries[:2]] == [" the", " red"]


words = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=5)


@each_spelling
@given(thought=st.lists(words, max_size=5), answer=st.lists(words, min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
def test_any_answer_after_any_thought_is_found_or_refused_and_never_mixed(spell, thought, answer):
    text = "".join(answer)
    entries = entries_of(spell, [*thought, "</think>", *answer])
    try:
        span, _ = answer_entries(entries, text)
    except ValueError:
        assert any(not c.isprintable() or c in "\ufffd▁" for c in "".join([*thought, text]))
        return
    spelled = "".join([*thought, "</think>", *answer][n] for n in span)
    assert "".join(spelled.split()) == "".join(text.split())
