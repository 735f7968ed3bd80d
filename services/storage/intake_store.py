"""What smtp-in remembers of senders across restarts: who tried, who came back, which domains delivered. SQLite.

`<room_dir>/intake.db`, shared by the worker processes of smtp-in (WAL, and a wait where another one writes). Blocking:
called in a thread. Everything in it can be forgotten: a file that cannot be used is put aside and begun again, which
makes senders wait once more and loses nothing. Bounded, since strangers choose what is written: rows that are old go
once an hour, and the oldest beyond MOST with them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from services.storage.errors import CorruptState, StorageError
from services.storage.schema import open_database, transaction

# 200,000 rows are 25 MB; a family's senders of a month are a few thousand, the rest is what strangers tried.
MOST = 200_000
TIDY_SECONDS = 3600.0
# A day's precision is enough for what is forgotten after weeks, and saves a write with each message.
_NOTE_SECONDS = 86_400.0
# Addresses and names come from strangers; RFC 5321 §4.5.3.1 has no longer path.
_LONGEST = 320

Key = tuple[str, str, str]  # network, who, recipient: see policy/greylist.py
Row = tuple[float, float, bool]  # first and last try (epoch seconds), whether it passed


class Unavailable(StorageError):
    """The file cannot be read or written now."""


class IntakeStore:
    """One process's connection to the file. One thread at a time."""

    def __init__(self, path: str, *, forget_try: float, forget_known: float, most: int = MOST) -> None:
        """Opens or makes it; seconds after which who only tried, and who is known, are forgotten.

        Raises Unavailable, OSError, NewerSchema.
        """
        self._forget_try, self._forget_known, self._most = forget_try, forget_known, most
        self._tidied = float("-inf")
        try:
            self._connection = self._open(path)
        except CorruptState:
            for name in (path, path + "-wal", path + "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(name, name + ".broken")
            self._connection = self._open(path)

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        with _told():
            return open_database(path, "intake", durable=False, page_cache_kib=1024)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def tried(self, keys: Sequence[Key], decide: Callable[[list[Row | None]], Sequence[Row]], now: float) -> None:
        """Give `decide` what is known of each key, and keep what it answers for each. Raises Unavailable.

        One transaction: two workers that meet the same sender agree on who came first.
        """
        wanted = [(network[:_LONGEST], who[:_LONGEST], recipient[:_LONGEST]) for network, who, recipient in keys]
        with _told(), transaction(self._connection):
            for key, row in zip(wanted, decide([self._row(key) for key in wanted]), strict=True):
                self._keep(key, row)
            self._tidy(now)

    def delivered(self, domain: str, now: float) -> None:
        """A message of `domain` came with SPF pass and was taken. Raises Unavailable."""
        domain = domain.lower()[:_LONGEST]
        with _told():
            row = self._connection.execute("SELECT last FROM domains WHERE domain = ?", (domain,)).fetchone()
            if row is None or not 0 <= now - row[0] < _NOTE_SECONDS:
                self._connection.execute(
                    "INSERT INTO domains (domain, last) VALUES (?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
                    (domain, now),
                )

    def known(self, domain: str, now: float) -> bool:
        """Whether `domain` delivered here with SPF pass lately. Raises Unavailable."""
        with _told():
            row = self._connection.execute(
                "SELECT last FROM domains WHERE domain = ?", (domain.lower()[:_LONGEST],)
            ).fetchone()
        return row is not None and now - float(row[0]) <= self._forget_known

    def _row(self, key: Key) -> Row | None:
        row = self._connection.execute(
            "SELECT first, last, passed FROM tries WHERE network = ? AND who = ? AND recipient = ?", key
        ).fetchone()
        return (float(row[0]), float(row[1]), bool(row[2])) if row else None

    def _keep(self, key: Key, row: Row) -> None:
        self._connection.execute(
            "INSERT INTO tries (network, who, recipient, first, last, passed) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET first = excluded.first, last = excluded.last, passed = excluded.passed",
            (*key, *row),
        )

    def _tidy(self, now: float) -> None:
        if 0 <= now - self._tidied < TIDY_SECONDS:
            return
        self._tidied = now
        run = self._connection.execute
        run("DELETE FROM tries WHERE last < ? AND NOT passed", (now - self._forget_try,))
        run("DELETE FROM tries WHERE last < ?", (now - self._forget_known,))
        run("DELETE FROM domains WHERE last < ?", (now - self._forget_known,))
        for table, key in (("tries", "network, who, recipient"), ("domains", "domain")):
            (rows,) = run(f"SELECT count(*) FROM {table}").fetchone()
            if rows > self._most:
                run(
                    f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} ORDER BY last LIMIT ?)",
                    (rows - self._most,),
                )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(str(error)) from error
