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
from services.storage.schema import open_database, rows_by_key, transaction

# The file as it lies (bare LF and all: sizes are the parser's to count). Both can be searched and sliced.
Octets = bytes | mmap

_PAGE_CACHE_KIB = 1_024
# Rows have 2 to 4 KB: on pages of 4 KB a third of the file would be empty.
_PAGE = 16_384

CACHED_FIELDS = (
    "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "in-reply-to", "references",
    "content-type", "list-id", "x-priority", "importance",
)  # fmt: skip
_MEASURES = ("size", "header_size", "sent")
_FIELD_COLUMNS = tuple("h_" + name.replace("-", "_") for name in CACHED_FIELDS)
_ANSWERS = ("envelope", "bodystructure", "body", "parts", "preview", "field_order", *_FIELD_COLUMNS)
_ALL = (*_MEASURES, *_ANSWERS)


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
                database = open_database(
                    self._path, "cache", durable=False, page_cache_kib=_PAGE_CACHE_KIB, page_size=_PAGE
                )
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
        database = open_database(":memory:", "cache", durable=False, page_cache_kib=_PAGE_CACHE_KIB, page_size=_PAGE)
        self._check_origin(database)
        return database

    def _check_origin(self, database: sqlite3.Connection) -> None:
        if database.execute("SELECT state_id, parser FROM origin").fetchone() != self._origin:
            with transaction(database):
                database.execute("DELETE FROM measures")
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
        """(UID, columns...) of those that are here, ascending. `columns`: of the tables `measures` and `answers`."""
        if unknown := set(columns) - set(_ALL):
            raise ValueError(f"no such columns: {unknown}")
        tables = "measures" if set(columns) <= set(_MEASURES) else "answers"
        if set(columns) & set(_MEASURES) and tables == "answers":
            tables = "answers JOIN measures USING (id)"
        base = mailbox << 32
        what = ", ".join((f"id - {base}", *columns))

        def work(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
            keys = [base + uid for uid in uids]
            return list(rows_by_key(database, f"SELECT {what} FROM {tables} WHERE", "id", keys, base=base))

        rows: list[tuple[Any, ...]] = self._safely(work, [])
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
        measures, answers = [], []
        for uid, one in parsed:
            key = (mailbox << 32) + uid
            order = bytes(CACHED_FIELDS.index(name) for name in one.fields if name in CACHED_FIELDS)
            values = [one.fields.get(name) for name in CACHED_FIELDS]
            measures.append((key, one.size, one.header_size, one.sent))
            answers.append(
                (key, one.envelope, one.bodystructure, one.body, one.parts, one.preview, order, *values)
            )  # fmt: skip

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                database.executemany(_insert("measures", _MEASURES), measures)
                database.executemany(_insert("answers", _ANSWERS), answers)

        if measures:
            self._safely(work)

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Messages were copied or moved: their answers are the same."""
        keys = [((target << 32) + new, (source << 32) + old) for old, new in pairs]

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                for table, columns in (("measures", _MEASURES), ("answers", _ANSWERS)):
                    what = ", ".join(columns)
                    sql = f"INSERT OR REPLACE INTO {table} (id, {what}) SELECT ?, {what} FROM {table} WHERE id = ?"
                    database.executemany(sql, keys)

        self._safely(work)

    def remove(self, mailbox: int, uids: Sequence[int] | None = None) -> None:
        """Messages, or a whole mailbox, are no more."""
        base = mailbox << 32

        def work(database: sqlite3.Connection) -> None:
            with transaction(database):
                for table in ("measures", "answers"):
                    if uids is None:
                        sql = f"DELETE FROM {table} WHERE id BETWEEN ? AND ?"
                        database.execute(sql, (base, base + (1 << 32) - 1))
                    else:
                        database.executemany(f"DELETE FROM {table} WHERE id = ?", [(base + uid,) for uid in uids])

        self._safely(work)

    def close(self) -> None:
        """Let go."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * (len(columns) + 1))
    return f"INSERT OR REPLACE INTO {table} (id, {', '.join(columns)}) VALUES ({marks})"
