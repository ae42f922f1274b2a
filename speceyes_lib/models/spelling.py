"""How servers spell tokens in log-probabilities, and which of the tokens are the answer's.

A token comes as its bytes, as its text, or as the entry of the vocabulary ("Ġred", "▁red", "<0xC3>"), sometimes as a
number. Bytes may be missing or replaced where a character is split over tokens. The entries of a reply may begin with
a thought that the server took out of the text, and end with tokens that are no text.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence

from ..texts import storable
from .thoughts import end_of_thoughts

LOST = "\ufffd"  # stands for a part of a character
# tokens that are no text: <|im_end|>, </s>, <eos>, <end_of_turn>, <｜end▁of▁sentence｜> ...
_SPECIAL = re.compile(r"<[|｜].*[|｜]>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn|end_of_utterance)>")
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_MOVED = sorted(set(range(0x100)) - set(_PLAIN))
# the alphabet of byte-level vocabularies, in which "Ġ" is a blank
_BYTE_LEVEL = {chr(b): b for b in _PLAIN} | {chr(0x100 + n): b for n, b in enumerate(_MOVED)}


def vocabulary_bytes(token: str) -> bytes:
    """The bytes of a vocabulary's entry: "Ġred", "<0xC3>", or text."""
    if byte := _BYTE.fullmatch(token):
        return bytes.fromhex(byte[1])
    return bytes(_BYTE_LEVEL[c] for c in token) if _BYTE_LEVEL.keys() >= set(token) else token.encode()


def _by_text(entry: dict) -> bytes:
    return storable(entry["token"]).encode()


def _by_bytes(entry: dict) -> bytes:
    return bytes(sent) if isinstance(sent := entry.get("bytes"), list) else _by_text(entry)


def _by_byte_level(entry: dict) -> bytes:
    token = entry["token"]
    return bytes(_BYTE_LEVEL[c] for c in token) if _BYTE_LEVEL.keys() >= set(token) else _by_text(entry)


def _by_sentence_piece(entry: dict) -> bytes:
    byte = _BYTE.fullmatch(entry["token"])
    return bytes.fromhex(byte[1]) if byte else _by_text(entry).replace("▁".encode(), b" ")


SPELLINGS: tuple[Callable[[dict], bytes], ...] = (_by_bytes, _by_text, _by_byte_level, _by_sentence_piece)


def answer_entries(
    entries: Sequence[dict], text: str, stop: Sequence[str] = (), is_cut: bool = False
) -> tuple[range, Callable[[dict], str]]:
    """Which entries of the log-probabilities are the text, and the function from an entry to its text.

    Args:
        entries: with "token" and perhaps "bytes", of everything that was generated.
        text: of the answer. Blanks are not compared, because servers cut or drop them.
        stop: strings that may have ended it; tokens after them are dropped.
        is_cut: the answer ended by its limit, so that empty tokens at its end are parts of a character.

    Raises:
        ValueError: no part of the entries spells the text, so they are evidence of other tokens.
    """
    whole = False  # no spelling so far has all parts of its characters
    for spelling in SPELLINGS:
        pieces = list(_decoded(map(spelling, entries)))
        lost = any(LOST in piece for piece in pieces)
        if lost and whole:
            continue
        whole = whole or not lost
        special = {n for n, piece in enumerate(pieces) if _SPECIAL.fullmatch(piece)}
        end = len(pieces)
        while end and (end - 1 in special or not pieces[end - 1].strip()):
            end -= 1
        after_special = max((n + 1 for n in special if n < end), default=0)
        for begin in dict.fromkeys((0, _after_thought(pieces[:end]), after_special)):
            if (length := _spelled(pieces[begin:end], text, stop)) is not None:
                begin, end = _with_blanks(pieces, begin, begin + length, text, is_cut)
                return range(begin, end), lambda entry, to=spelling: next(_decoded([to(entry)]))
    spelled = "".join(storable(str(entry["token"])) for entry in entries)
    raise ValueError(
        f"the log-probabilities are those of {spelled[:80]!r}, and the answer is {text[:80]!r}; turn off the reasoning "
        "parser of the server, or the thoughts of the model, or whatever writes tokens in another way than the answer"
    )


def _decoded(parts: Iterator[bytes] | Sequence[bytes]) -> Iterator[str]:
    """The text of each token. A character that is split over tokens belongs to the one that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        yield decoder.decode(part)


def _after_thought(pieces: Sequence[str]) -> int:
    """Index of the first piece after the last thought."""
    ends, position = end_of_thoughts("".join(pieces)), 0
    for index, piece in enumerate(pieces):
        if position >= ends:
            return index
        position += len(piece)
    return len(pieces)


def _spelled(pieces: Sequence[str], text: str, stop: Sequence[str]) -> int | None:
    """How many of the pieces spell the text: all, or those before a stop string's end. None if they do not."""
    if _same(pieces, text):
        return len(pieces)
    stop = tuple(filter(None, map(_squeezed, stop)))
    wanted, whole = _squeezed(text), _squeezed("".join(pieces))
    stopped = stop and (wanted.endswith(stop) or whole[len(wanted) :].startswith(stop))
    if not stopped or not whole.startswith(wanted):
        return None
    length, n = 0, 0
    while length < len(wanted):
        length += len(_squeezed(pieces[n]))
        n += 1
    return n


def _same(pieces: Sequence[str], text: str) -> bool:
    """Whether the pieces spell the text, blanks aside. Lost parts stand for characters that are not ASCII."""
    rest, at, lost = _squeezed(text).replace(LOST, ""), 0, False
    for c in _squeezed("".join(pieces)):
        if c == LOST:
            lost = True
            continue
        while lost and at < len(rest) and rest[at] != c and not rest[at].isascii():
            at += 1
        if rest[at : at + 1] != c:
            return False
        at, lost = at + 1, False
    return at == len(rest) or (lost and not any(c.isascii() for c in rest[at:]))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _with_blanks(pieces: Sequence[str], begin: int, end: int, text: str, is_cut: bool) -> tuple[int, int]:
    """The range without blank pieces that the text lacks at its ends, and with those that it has.

    An empty piece before a character that is not ASCII, or at the end of a cut answer, is a part of a character;
    others are no text.
    """
    while begin < end and (not pieces[begin] or (pieces[begin].isspace() and not text[:1].isspace())):
        begins = text[:1] if text[:1] == LOST else "".join(pieces[begin:end])[:1]
        if not pieces[begin] and not begins.isascii():
            break
        begin += 1
    while end < len(pieces) and pieces[end].isspace() and text[-1:].isspace():
        end += 1
    while is_cut and end < len(pieces) and not pieces[end]:
        end += 1
    return begin, end
