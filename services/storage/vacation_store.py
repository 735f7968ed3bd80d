"""Whom the rules of accounts have answered, and how many messages they have sent on today (RFC 5230 §4.2). SQLite.

`<room_dir>/vacation.db` of smtp-in, shared by its worker processes (WAL, and a wait where another one writes).
Blocking: called in a thread. A file that cannot be used is put aside and begun again: then somebody is told twice
that a person is away. Bounded, since strangers choose the senders: at most MOST answers are remembered, those that end
first go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator

from services.storage.errors import CorruptState, StorageError
from services.storage.schema import open_database, transaction

# 200 octets each: 20 MB.
MOST = 100_000
_LONGEST = 320  # RFC 5321 §4.5.3.1 has no longer path
_DAY = 86_400


class Unavailable(StorageError):
    """The file cannot be read or written now."""


class VacationStore:
    """One process's connection to the file; any thread, one at a time."""

    def __init__(self, path: str, *, most: int = MOST) -> None:
        """Opens or makes it. Raises Unavailable, OSError, NewerSchema."""
        self._most = most
        self._lock = threading.Lock()
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
            return open_database(path, "vacation", durable=False, page_cache_kib=256)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def claim(self, account: str, handle: str, sender: str, now: float, seconds: float) -> bool:
        """Whether `sender` is to be answered now; then not again for `seconds`, whichever worker asks.

        Raises Unavailable.
        """
        key = (account, _short(handle), sender.lower()[:_LONGEST])
        with self._lock, _told(), transaction(self._connection) as connection:
            row = connection.execute(
                "SELECT until FROM answers WHERE account = ? AND handle = ? AND sender = ?", key
            ).fetchone()
            # A clock that was set back, or a period that was shortened, must not silence for longer than asked.
            if row is not None and now < row[0] <= now + seconds:
                return False
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (*key, now + seconds))
            self._tidy(connection, now)
        return True

    def release(self, account: str, handle: str, sender: str) -> None:
        """The answer was not sent after all. Raises Unavailable."""
        with self._lock, _told():
            self._connection.execute(
                "DELETE FROM answers WHERE account = ? AND handle = ? AND sender = ?",
                (account, _short(handle), sender.lower()[:_LONGEST]),
            )

    def redirect(self, account: str, now: float, most: int) -> bool:
        """Count one more message sent on; False where today's `most` are reached. Raises Unavailable."""
        day = int(now // _DAY)
        with self._lock, _told(), transaction(self._connection) as connection:
            row = connection.execute(
                "SELECT messages FROM redirects WHERE account = ? AND day = ?", (account, day)
            ).fetchone()
            if row is not None and row[0] >= most:
                return False
            connection.execute("DELETE FROM redirects WHERE day < ? OR day > ?", (day - 1, day + 1))
            connection.execute(
                "INSERT INTO redirects VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET messages = messages + 1",
                (account, day),
            )
        return True

    def _tidy(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("DELETE FROM answers WHERE until <= ?", (now,))
        (rows,) = connection.execute("SELECT count(*) FROM answers").fetchone()
        if rows > self._most:
            connection.execute(
                "DELETE FROM answers WHERE (account, handle, sender) IN"
                " (SELECT account, handle, sender FROM answers ORDER BY until LIMIT ?)",
                (rows - self._most,),
            )


def _short(handle: str) -> str:
    return hashlib.sha256(handle.encode("utf-8", "replace")).hexdigest()[:32]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """SQLite's errors as the store's own."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise CorruptState(f"vacation.db: {error}") from error
        raise Unavailable(f"vacation.db: {error}") from error
