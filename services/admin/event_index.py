"""events.db: every room's record in one index, so that "why was this refused?" is one query.

Tails `events_dir/<room>/<start µs>.jsonl` for each room, a bounded batch at a time. The offset of each segment is
written in the transaction that writes its lines, so each line is taken exactly once over crashes; a last line that is
still being written waits. The index holds copies: a room that deletes its segments later does not unsay what was read.
It may be deleted at any time and is then rebuilt from the segments that remain; a broken file is, by itself.

Bounds: of each room as much text as the room may keep itself, and as long; so a room that floods pushes out its own
past, not its neighbours'. Synchronous; admin gives it one thread (`tail.py`). Only this module opens events.db.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.admin.event_lines import LINE_OCTETS, read_line, terms_of
from services.runtime.events import writer_of

SCHEMA = 1  # another number: deleted and built anew
READ_OCTETS = 256 * 1024  # one batch: about a thousand lines, 20-30 ms
SEGMENTS = 2000  # names looked at per room; the record's own retention keeps far fewer
DELETE_LINES = 2000

_SEGMENT = re.compile(r"\d{1,20}(-\d{1,3})?\.jsonl")
_TABLES = """
CREATE TABLE events (id INTEGER PRIMARY KEY, t INTEGER NOT NULL, room TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX by_room_and_time ON events (room, t);
CREATE TABLE rooms (room TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE terms (term TEXT NOT NULL, event INTEGER NOT NULL, PRIMARY KEY (term, event)) WITHOUT ROWID;
CREATE TABLE segments (room TEXT NOT NULL, name TEXT NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (room, name))
    WITHOUT ROWID;
"""

Event = dict[str, Any]

# What an index on a full or broken disk raises.
INDEX_PROBLEMS = (sqlite3.Error, OSError)


class EventIndex:
    """The open index."""

    def __init__(
        self,
        path: str,
        events_dir: str,
        rooms: Sequence[str],
        *,
        days: int = 30,
        room_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path` is events.db; `rooms` are the folders of `events_dir` to read. `room_bytes`: text kept per room."""
        self._path, self._events_dir, self._rooms = path, events_dir, tuple(rooms)
        self._days, self._room_bytes, self._clock = days, room_bytes, clock
        self._finished: set[tuple[str, str]] = set()
        self._offsets: dict[tuple[str, str], int] = {}
        self._connection = self._open()
        self.rebuilt = 0  # how often a broken file was thrown away

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def ingest(self) -> bool:
        """Take one batch of lines from every room; True where there is more to take at once."""
        more = False
        for room in self._rooms:
            names = self._unread(room)
            newest = _newest(names)
            for name in names:
                with self._rebuilding():
                    if self._take(room, name):
                        more = True
                        break  # a noisy room gets one batch per turn, so that it cannot hide the others
                    if name not in newest:
                        self._finished.add((room, name))  # what is left is a line that a crash cut
        return more

    def events(self, terms: Sequence[str], limit: int) -> list[Event]:
        """The newest `limit` events found by any of `terms`, oldest first; each has its number in the index as `id`."""
        marks = ",".join("?" * len(terms))
        sql = (
            f"SELECT id, text FROM events WHERE id IN (SELECT event FROM terms WHERE term IN ({marks}) "
            "ORDER BY event DESC LIMIT ?) ORDER BY t, id"
        )
        rows: list[tuple[int, str]] = []
        with self._rebuilding():
            rows = self._connection.execute(sql, (*terms, limit)).fetchall()
        return [{**json.loads(text), "id": number} for number, text in rows]

    def latest(self, limit: int, *, room: str = "", before: int = 0) -> list[Event]:
        """The newest `limit` events (of `room`, from before the time `before` in µs), oldest first; shaped as above."""
        where, values = ("", []) if not room else (" WHERE room = ? AND t < ?", [room, before or 1 << 62])
        order = "t DESC" if room else "id DESC"  # the order of arrival, for all rooms together, needs no other index
        rows: list[tuple[int, str]] = []
        with self._rebuilding():
            sql = f"SELECT id, text FROM events{where} ORDER BY {order} LIMIT ?"
            rows = self._connection.execute(sql, (*values, limit)).fetchall()
        return [{**json.loads(text), "id": number} for number, text in reversed(rows)]

    def retain(self) -> bool:
        """Drop a bounded piece of what is too old or too much; True where there is more to drop."""
        more = False
        with self._rebuilding():
            oldest = int((self._clock() - self._days * 86_400) * 1e6)
            for room, size in self._connection.execute("SELECT room, size FROM rooms").fetchall():
                before = (1 << 62) if size > self._room_bytes else oldest
                sql = "SELECT id, text FROM events WHERE room = ? AND t < ? ORDER BY t LIMIT ?"
                rows = self._connection.execute(sql, (room, before, DELETE_LINES)).fetchall()
                self._delete(room, rows)
                more = more or len(rows) == DELETE_LINES
            for room, name in list(self._offsets):
                if not os.path.lexists(os.path.join(self._events_dir, room, name)):
                    self._connection.execute("DELETE FROM segments WHERE room = ? AND name = ?", (room, name))
                    del self._offsets[room, name]
                    self._finished.discard((room, name))
        return more

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError:
            self._throw_away()
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # a lost last second is read again from the segments
            connection.execute("PRAGMA cache_size=-1024")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise sqlite3.DatabaseError("another schema")
            if version == 0:
                connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version={SCHEMA};COMMIT;")
            rows = connection.execute("SELECT room, name, offset FROM segments").fetchall()
        except BaseException:
            connection.close()
            raise
        self._offsets = {(room, name): offset for room, name, offset in rows}
        self._finished = set()
        return connection

    @contextlib.contextmanager
    def _rebuilding(self) -> Iterator[None]:
        """Throw a malformed file away instead of failing; a full disk or a lock is not that."""
        try:
            yield
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._connection.close()
            self._throw_away()
            self._connection = self._opened()
            self.rebuilt += 1

    def _throw_away(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path + suffix)

    def _unread(self, room: str) -> list[str]:
        """The segments of `room` that may have more, oldest first."""
        try:
            names = os.listdir(os.path.join(self._events_dir, room))
        except OSError:
            return []  # the room has not started yet
        segments = sorted((name for name in names if _SEGMENT.fullmatch(name)), key=_start)[-SEGMENTS:]
        newest = _newest(segments)
        for name in segments:
            if name in newest:
                continue
            if self._offsets.get((room, name), -1) >= self._size_of(room, name) >= 0:
                self._finished.add((room, name))
        return [name for name in segments if (room, name) not in self._finished]

    def _size_of(self, room: str, name: str) -> int:
        if (room, name) in self._finished:
            return -1
        try:
            return os.lstat(os.path.join(self._events_dir, room, name)).st_size
        except OSError:
            return -1

    def _take(self, room: str, name: str) -> bool:
        """Take a batch of one segment; True where lines were taken."""
        offset = self._offsets.get((room, name), 0)
        data = _read(os.path.join(self._events_dir, room, name), offset)
        taken = data.rfind(b"\n") + 1
        if not taken and len(data) > LINE_OCTETS:
            taken = len(data)  # no event is so long: its pieces will not parse, and what follows is read
        if not taken:
            return False
        now = int(self._clock() * 1e6)
        lines = [read_line(line, room, now) for line in data[:taken].split(b"\n")]
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            number = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
            rows: list[tuple[int, int, str, str]] = []
            terms: list[tuple[str, int]] = []
            for line in lines:
                if line is not None:
                    number += 1
                    rows.append((number, line.t, room, line.text))
                    terms += [(term, number) for term in line.terms]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
            terms.sort()  # neighbours in the tree are written together
            connection.executemany("INSERT INTO terms VALUES (?, ?)", terms)
            size = sum(len(row[3]) for row in rows)
            connection.execute(
                "INSERT INTO rooms VALUES (?, ?) ON CONFLICT DO UPDATE SET size = size + excluded.size", (room, size)
            )
            connection.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (room, name, offset + taken))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._offsets[room, name] = offset + taken
        return True

    def _delete(self, room: str, rows: list[tuple[int, str]]) -> None:
        if not rows:
            return
        # The terms of a line follow from its text, so that no second index from event to term is needed.
        terms = [(term, number) for number, text in rows for term in terms_of(json.loads(text))]
        size = sum(len(text) for _, text in rows)
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM terms WHERE term = ? AND event = ?", sorted(terms))
            self._connection.executemany("DELETE FROM events WHERE id = ?", [(number,) for number, _ in rows])
            self._connection.execute("UPDATE rooms SET size = size - ? WHERE room = ?", (size, room))


def _start(name: str) -> int:
    return int(name.partition(".")[0].partition("-")[0])


def _newest(names: Sequence[str]) -> set[str]:
    """The segments that are still written, of `names` in their order: one for each of the room's workers."""
    return set({writer_of(name): name for name in names}.values())


def _read(path: str, offset: int) -> bytes:
    """Up to a batch of bytes from `offset`; b"" where there is nothing, or where it is no plain file.

    A hostile room could put a link or a pipe there: neither is followed, neither blocks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.pread(descriptor, READ_OCTETS, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
