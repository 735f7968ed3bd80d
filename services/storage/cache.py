"""cache.db: answers made once from a message's bytes. May be deleted at any time; nothing but speed is lost.

Used by mailbox, edit and transfer. Rows are found by mailbox and UID, which are never used twice within one state.db;
the file names the state and the parser it was made with, and is emptied if either is another. It is never trusted to be
there: what SQLite cannot read is thrown away, and where no file can be made the answers live in memory.

The parser is passed in by the imap room; it is made of `services.message`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any

from services.storage.errors import StorageError
from services.storage.schema import open_database, rows_by_uid, transaction

# The file as it lies (bare LF and all: sizes are the parser's to count). Both can be searched and sliced.
Octets = bytes | mmap

_PAGE_CACHE_KIB = 1_024

CACHED_FIELDS = (
    "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "in-reply-to", "references",
    "content-type", "list-id", "x-priority", "importance",
)  # fmt: skip
_FIELD_COLUMNS = tuple("h_" + name.replace("-", "_") for name in CACHED_FIELDS)
_COLUMNS = ("size", "header_size", "sent", "envelope", "bodystructure", "body", "parts", "preview", "field_order")
_ALL = (*_COLUMNS, *_FIELD_COLUMNS)
_INSERT = (
    f"INSERT OR REPLACE INTO answers (mailbox, uid, {', '.join(_ALL)}) VALUES ({', '.join('?' * (len(_ALL) + 2))})"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser makes of one message, and what `Mailbox.parsed` gives back."""

    size: int  # RFC822.SIZE
    header_size: int  # octets of the header with its empty line
    envelope: bytes  # ready-made: what stands behind ENVELOPE
    bodystructure: bytes
    body: bytes  # BODY without extension data
    parts: bytes  # MIME offsets in the parser's own form
    sent: int | None  # Date as seconds since the epoch, for SENTBEFORE and SORT
    preview: str
    # Raw header fields (name, colon, value, CRLF) by lower-case name, those in CACHED_FIELDS, in the order of their
    # first occurrence; all occurrences of one together.
    fields: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parser:
    """`parse(octets)` must not raise for any input. Another `version` than the cache's empties the cache."""

    version: int
    parse: Callable[[Octets], Parsed]


class Cache:
    """The open cache of one account."""

    def __init__(self, path: str, state_id: str, version: int) -> None:
        """Open, make or empty it; never raises."""
        self._path = path
        self._origin = (state_id, version)
        self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        for attempt in range(2):
            with contextlib.suppress(sqlite3.Error, StorageError, OSError):
                database = open_database(self._path, "cache", durable=False, page_cache_kib=_PAGE_CACHE_KIB)
                try:
                    self._check_origin(database)
                except BaseException:
                    database.close()
                    raise
                return database
            if not attempt:  # of a newer version, or not a database: it can be made again
                for end in ("", "-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        os.unlink(self._path + end)
        database = open_database(":memory:", "cache", durable=False, page_cache_kib=_PAGE_CACHE_KIB)
        self._check_origin(database)
        return database

    def _check_origin(self, database: sqlite3.Connection) -> None:
        if database.execute("SELECT state_id, parser FROM origin").fetchone() != self._origin:
            with transaction(database):
                database.execute("DELETE FROM answers")
                database.execute("DELETE FROM origin")
                database.execute("INSERT INTO origin VALUES (?, ?)", self._origin)

    def _safely(self, work: Callable[[sqlite3.Connection], Any], otherwise: Any = None) -> Any:
        """Do `work`; where the file is beyond use, begin a new one and answer `otherwise`."""
        try:
            return work(self._database)
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.unlink(self._path + end)
            self._database = self._open()
            return otherwise

    def answers(self, mailbox: int, uids: Sequence[int], columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """(UID, columns...) of those that are here, ascending. `columns`: names of the table `answers`."""
        unknown = set(columns) - set(_ALL)
        if unknown:
            raise ValueError(f"no such columns: {unknown}")
        what = ", ".join(("uid", *columns))
        rows: list[tuple[Any, ...]] = self._safely(
            lambda database: list(rows_by_uid(database, what, "answers", mailbox, uids)), []
        )
        return rows

    def get(self, mailbox: int, uids: Sequence[int]) -> Iterator[tuple[int, Parsed]]:
        """What is here, ascending by UID."""
        for uid, size, header_size, sent, envelope, structure, body, parts, preview, order, *values in self.answers(
            mailbox, uids, _ALL
        ):
            fields = {CACHED_FIELDS[number]: values[number] for number in order}
            yield uid, Parsed(size, header_size, envelope, structure, body, parts, sent, preview, fields)

    def put(self, mailbox: int, parsed: Iterable[tuple[int, Parsed]]) -> None:
        """Keep answers. UIDs must be durable in state.db: they are not given again to other messages."""
        rows = []
        for uid, one in parsed:
            order = bytes(CACHED_FIELDS.index(name) for name in one.fields if name in CACHED_FIELDS)
            values = [one.fields.get(name) for name in CACHED_FIELDS]
            rows.append(
                (mailbox, uid, one.size, one.header_size, one.sent, one.envelope, one.bodystructure, one.body,
                 one.parts, one.preview, order, *values)
            )  # fmt: skip

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                database.executemany(_INSERT, rows)

        if rows:
            self._safely(work)

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Messages were copied or moved: their answers are the same."""
        what = ", ".join(_ALL)
        select = f"SELECT ?, ?, {what} FROM answers WHERE mailbox = ? AND uid = ?"
        sql = f"INSERT OR REPLACE INTO answers (mailbox, uid, {what}) {select}"

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                database.executemany(sql, [(target, new, source, old) for old, new in pairs])

        self._safely(work)

    def remove(self, mailbox: int, uids: Sequence[int] | None = None) -> None:
        """Messages, or a whole mailbox, are no more."""

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                if uids is None:
                    database.execute("DELETE FROM answers WHERE mailbox = ?", (mailbox,))
                else:
                    keys = [(mailbox, uid) for uid in uids]
                    database.executemany("DELETE FROM answers WHERE mailbox = ? AND uid = ?", keys)

        self._safely(work)

    def close(self) -> None:
        """Let go."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
