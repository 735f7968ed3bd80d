"""state.db of one account: `MailboxState` in SQLite; all SQL of the IMAP store but the cache's.

Made by account. The schema is in migrations/state; what is durable when, and why, stands in `state`.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

from services.storage.junk_memory import JunkMemory
from services.storage.schema import open_database, rows_by_key
from services.storage.state import Columns, Details, MailboxRow, MessageRow, ScriptRow

# The columns of an open mailbox are in memory anyway: pages are read once.
_PAGE_CACHE_KIB = 512


def boot_id() -> str:
    """Names this run of the machine; another one means that the power was off in between."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "unknown"  # then a power cut is not told from a crash, and flags of its last second may stay stale


_FIELDS = tuple(field.name for field in fields(MailboxRow))
_SELECT_MAILBOXES = f"SELECT {', '.join(_FIELDS)} FROM mailboxes ORDER BY id"
_INSERT_MAILBOX = f"INSERT INTO mailboxes ({', '.join(_FIELDS[1:])}) VALUES ({', '.join('?' * (len(_FIELDS) - 1))})"
_UPDATE_MAILBOX = f"UPDATE mailboxes SET {', '.join(name + ' = ?' for name in _FIELDS[1:])} WHERE id = ?"


class SqliteState:
    """`MailboxState` in a file."""

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        """Open or make `path`. Raises NewerSchema, CorruptState, sqlite3.Error."""
        self._clock = clock
        self._boot = boot_id()
        self._database = open_database(path, "state", durable=True, page_cache_kib=_PAGE_CACHE_KIB)
        self._durable = True
        self._unsettled = False
        row = self._database.execute("SELECT state_id, modseq, uidvalidity, unsettled_boot FROM account").fetchone()
        self.is_new = row is None
        if row is None:
            row = (secrets.token_hex(8), 0, 0, "")
            self._database.execute("INSERT INTO account VALUES (1, ?, ?, ?, ?)", row)
        self.state_id: str = row[0]
        self._modseq: int = row[1]
        self._uidvalidity: int = row[2]
        self._marked: str = row[3]
        # A lesson may be lost with the power, a commit for each is not worth its fsync.
        self.junk = JunkMemory(self._database, lambda: self.transaction(durable=False), clock)
        if self._marked not in ("", self._boot):
            self._after_power_cut()

    def _after_power_cut(self) -> None:
        with self.transaction(durable=True):
            modseq = self.next_modseq()
            self._database.execute("UPDATE messages SET modseq = ?", (modseq,))
            self._database.execute("UPDATE mailboxes SET modseq = ?", (modseq,))
            self._database.execute("UPDATE account SET unsettled_boot = ''")
        self._marked = ""

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """See MailboxState."""
        if not durable and self._marked != self._boot:
            with self.transaction(durable=True):
                self._database.execute("UPDATE account SET unsettled_boot = ?", (self._boot,))
            self._marked = self._boot
        self._be_durable(durable)
        before = (self._modseq, self._uidvalidity)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            if (self._modseq, self._uidvalidity) != before:
                self._database.execute(
                    "UPDATE account SET modseq = ?, uidvalidity = ?", (self._modseq, self._uidvalidity)
                )
            self._database.execute("COMMIT")
        except BaseException as error:
            # What was given stays given: numbers are not used twice, rolled back or not.
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):  # to a room it is what it is with any other file
                full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                raise OSError(errno.ENOSPC if full else errno.EIO, f"state.db: {error}") from error
            raise
        # A durable commit fsyncs the log, and with it every commit before.
        self._unsettled = not durable

    def settle(self) -> None:
        """See MailboxState."""
        if self._unsettled:
            with self.transaction(durable=True):
                self._database.execute("UPDATE account SET modseq = ?", (self._modseq,))

    def close(self) -> None:
        """See MailboxState."""
        if self._marked:
            with self.transaction(durable=True):
                self._database.execute("UPDATE account SET unsettled_boot = ''")
            self._marked = ""
        self._database.close()

    def snapshot(self, path: str) -> None:
        """See MailboxState."""
        self._database.execute("VACUUM INTO ?", (path,))

    def next_modseq(self) -> int:
        """See MailboxState."""
        self._modseq = max(self._modseq + 1, int(self._clock() * 1_000_000))
        return self._modseq

    def next_uidvalidity(self) -> int:
        """See MailboxState. RFC 3501 §2.3.1.1 suggests the time: a lost state.db then starts above the last one."""
        self._uidvalidity = max(self._uidvalidity + 1, int(self._clock()) & 0xFFFFFFFF)
        return self._uidvalidity

    def mailboxes(self) -> list[MailboxRow]:
        """See MailboxState."""
        return [MailboxRow(*row) for row in self._database.execute(_SELECT_MAILBOXES)]

    def insert_mailbox(self, row: MailboxRow) -> int:
        """See MailboxState."""
        cursor = self._database.execute(_INSERT_MAILBOX, [getattr(row, name) for name in _FIELDS[1:]])
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def save_mailbox(self, row: MailboxRow) -> None:
        """See MailboxState."""
        self._database.execute(_UPDATE_MAILBOX, [*(getattr(row, name) for name in _FIELDS[1:]), row.id])

    def remove_mailbox(self, mailbox: int) -> None:
        """See MailboxState."""
        for table in ("messages", "expunged", "doomed", "keywords", "metadata"):
            self._database.execute(f"DELETE FROM {table} WHERE mailbox = ?", (mailbox,))
        self._database.execute("DELETE FROM mailboxes WHERE id = ?", (mailbox,))

    def columns(self, mailbox: int) -> Columns:
        """See MailboxState."""
        rows = self._database.execute(
            "SELECT uid, flags, modseq, date, octets FROM messages WHERE mailbox = ? ORDER BY uid", (mailbox,)
        ).fetchall()
        parts = tuple(zip(*rows, strict=True)) or ((), (), (), (), ())
        uids, flags, modseqs, dates, octets = parts
        return Columns(array("I", uids), array("Q", flags), array("Q", modseqs), array("q", dates), array("Q", octets))

    def files(self, mailbox: int, uids: Sequence[int] | None = None) -> dict[int, str]:
        """See MailboxState."""
        if uids is None:
            sql = "SELECT uid, file FROM messages WHERE mailbox = ? ORDER BY uid"
            return dict(self._database.execute(sql, (mailbox,)).fetchall())
        sql = "SELECT uid, file FROM messages WHERE mailbox = ? AND"
        return dict(rows_by_key(self._database, sql, "uid", uids, mailbox))

    def add_messages(self, mailbox: int, modseq: int, rows: Iterable[MessageRow]) -> None:
        """See MailboxState."""
        self._database.executemany(
            "INSERT INTO messages (mailbox, uid, file, flags, modseq, date, saved, octets, emailid, threadid)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(mailbox, r.uid, r.file, r.flags, modseq, r.date, r.saved, r.octets, r.emailid, r.threadid) for r in rows],
        )

    def change_messages(self, mailbox: int, rows: Iterable[tuple[str, int, int, int]]) -> None:
        """See MailboxState."""
        self._database.executemany(
            "UPDATE messages SET file = ?, flags = ?, modseq = ? WHERE mailbox = ? AND uid = ?",
            [(file, flags, modseq, mailbox, uid) for file, flags, modseq, uid in rows],
        )

    def remove_messages(self, mailbox: int, uids: Sequence[int], modseq: int, bases: Iterable[str]) -> None:
        """See MailboxState."""
        keys = [(mailbox, uid) for uid in uids]
        self._database.executemany("DELETE FROM messages WHERE mailbox = ? AND uid = ?", keys)
        self._database.executemany(f"INSERT OR REPLACE INTO expunged VALUES (?, ?, {int(modseq)})", keys)
        self._database.executemany("INSERT OR IGNORE INTO doomed VALUES (?, ?)", [(mailbox, base) for base in bases])

    def doomed(self, mailbox: int) -> frozenset[str]:
        """See MailboxState."""
        rows = self._database.execute("SELECT base FROM doomed WHERE mailbox = ?", (mailbox,))
        return frozenset(base for (base,) in rows)

    def forget_doomed(self, mailbox: int) -> None:
        """See MailboxState."""
        self._database.execute("DELETE FROM doomed WHERE mailbox = ?", (mailbox,))

    def expunged(self, mailbox: int, after: int) -> list[int]:
        """See MailboxState."""
        rows = self._database.execute(
            "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid", (mailbox, after)
        )
        return [uid for (uid,) in rows]

    def forget_expunged(self, row: MailboxRow, keep: int) -> None:
        """See MailboxState."""
        last = self._database.execute(
            "SELECT modseq FROM expunged WHERE mailbox = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?", (row.id, keep)
        ).fetchone()
        if last:
            self._database.execute("DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?", (row.id, last[0]))
            row.forgotten = last[0]
            self.save_mailbox(row)

    def details(self, mailbox: int, uids: Sequence[int]) -> list[Details]:
        """See MailboxState."""
        sql = "SELECT uid, file, saved, emailid, threadid FROM messages WHERE mailbox = ? AND"
        return [Details(*row) for row in rows_by_key(self._database, sql, "uid", uids, mailbox)]

    def keywords(self, mailbox: int) -> dict[int, str]:
        """See MailboxState."""
        return dict(
            self._database.execute("SELECT number, name FROM keywords WHERE mailbox = ?", (mailbox,)).fetchall()
        )

    def set_keyword(self, mailbox: int, number: int, name: str) -> None:
        """See MailboxState."""
        self._database.execute("INSERT OR REPLACE INTO keywords VALUES (?, ?, ?)", (mailbox, number, name))

    def subscriptions(self) -> frozenset[str]:
        """See MailboxState."""
        return frozenset(name for (name,) in self._database.execute("SELECT name FROM subscriptions"))

    def subscribe(self, name: str, subscribed: bool) -> None:
        """See MailboxState."""
        if subscribed:
            self._database.execute("INSERT OR IGNORE INTO subscriptions VALUES (?)", (name,))
        else:
            self._database.execute("DELETE FROM subscriptions WHERE name = ?", (name,))

    def metadata(self, mailbox: int) -> dict[str, bytes]:
        """See MailboxState."""
        rows = self._database.execute("SELECT entry, value FROM metadata WHERE mailbox = ?", (mailbox,))
        return dict(rows.fetchall())

    def annotate(self, mailbox: int, entry: str, value: bytes | None) -> None:
        """See MailboxState."""
        if value is None:
            self._database.execute("DELETE FROM metadata WHERE mailbox = ? AND entry = ?", (mailbox, entry))
        else:
            self._database.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", (mailbox, entry, value))

    def scripts(self) -> list[ScriptRow]:
        """See MailboxState."""
        rows = self._database.execute("SELECT name, active, length(content), changed FROM scripts ORDER BY name")
        return [ScriptRow(name, bool(active), octets, changed) for name, active, octets, changed in rows]

    def script(self, name: str) -> bytes | None:
        """See MailboxState."""
        row = self._database.execute("SELECT content FROM scripts WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def put_script(self, name: str, content: bytes, changed: int) -> None:
        """See MailboxState."""
        self._database.execute(
            "INSERT INTO scripts VALUES (?1, ?2, 0, ?3) ON CONFLICT (name) DO UPDATE SET content = ?2, changed = ?3",
            (name, content, changed),
        )

    def remove_script(self, name: str) -> None:
        """See MailboxState."""
        self._database.execute("DELETE FROM scripts WHERE name = ?", (name,))

    def rename_script(self, old: str, new: str) -> None:
        """See MailboxState."""
        self._database.execute("UPDATE scripts SET name = ? WHERE name = ?", (new, old))

    def activate_script(self, name: str) -> None:
        """See MailboxState."""
        self._database.execute("UPDATE scripts SET active = 0 WHERE active = 1")
        self._database.execute("UPDATE scripts SET active = 1 WHERE name = ?", (name,))

    def looked_for_scripts(self, *, now_done: bool = False) -> bool:
        """See MailboxState."""
        if now_done:
            self._database.execute("INSERT INTO scripts_before_us VALUES (?)", (int(self._clock()),))
        return self._database.execute("SELECT 1 FROM scripts_before_us").fetchone() is not None

    def _be_durable(self, durable: bool) -> None:
        if durable is not self._durable:
            self._database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
