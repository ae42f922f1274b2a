"""Verdicts of judging models, kept for good: no verdict is paid for twice.

All runs share one SQLite file. Each reply is committed when it arrives, so a killed process loses none. The file must
be on a local disk, because SQLite's write-ahead log does not work across machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..paths import shown

_AT_ONCE = 500  # keys per query


class CachedReply(NamedTuple):
    """The text of a reply, and the tokens that it was charged."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def reply_key(model: str, protocol: str, messages: Sequence[Mapping], **settings: object) -> str:
    """Hash of all that a reply depends on: the model, the protocol, every word of the prompt, the settings."""
    inputs = {"model": model, "protocol": protocol, "messages": list(messages), "settings": settings}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class ReplyCache:
    """Replies by `reply_key`. Every method raises UserError, with the file's name, where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: every insert is on its own; the event loop's thread writes, the caller's reads
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT, protocol TEXT, text TEXT, "
                "prompt_tokens INTEGER, completion_tokens INTEGER, asked_utc TEXT) WITHOUT ROWID"
            )

    def get(self, keys: Iterable[str]) -> dict[str, CachedReply]:
        """The stored replies to these keys."""
        wanted, replies = list(dict.fromkeys(keys)), {}
        with self._named_errors():
            for at in range(0, len(wanted), _AT_ONCE):
                part = wanted[at : at + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = "SELECT key, text, prompt_tokens, completion_tokens FROM replies WHERE key IN"
                rows = self._db.execute(f"{query} ({marks})", part)
                replies |= {key: CachedReply(*rest) for key, *rest in rows}
        return replies

    def put(self, key: str, model: str, protocol: str, reply: CachedReply) -> None:
        """Keep a reply; the first one to a key stays."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._named_errors():
            row = (key, model, protocol, *reply, now)
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the replies to these keys."""
        with self._named_errors():
            self._db.executemany("DELETE FROM replies WHERE key = ?", [(key,) for key in keys])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{shown(self.path)}: the judge's replies cannot be stored in this file ({error}); "
                "fix that, or name another file in judge_cache"
            ) from None
