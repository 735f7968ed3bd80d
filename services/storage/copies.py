"""Copies of the stores' databases: taken while their room writes, made fit for use after a restore.

Used by the backup, which runs beside the rooms, as root: SQLite then gives the -wal and -shm files it makes to the
database's owner, so that the room can go on. Knows the schema of state.db; everything else is copied as it is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from services.storage import maildir

BUSY_SECONDS = 30.0
# More than any mailbox is sent between two backups; of the 2^32 that there are, four thousand restores fit in.
UIDS_SKIPPED = 1_000_000
# Any text that is not the name of a boot: state.db then gives every message a new modseq when it is opened.
RESTORED = "restored"


class CopyFailed(OSError):
    """A database could not be copied or changed; the text has SQLite's words."""


# In the mail volume from before a restore's first change until all of it is on the disk: what lies beside it is half a
# house, which no room may serve and no backup may save.
RESTORE_MARK = ".restore-unfinished"


def restore_unfinished(mail_dir: str) -> bool:
    """True where a restore into these volumes was cut off."""
    return os.path.lexists(os.path.join(mail_dir, RESTORE_MARK))


def copy_database(source: str, target: str) -> None:
    """Copy the database `source` as of one moment, its log included, to the new file `target` (0600).

    Raises CopyFailed, OSError.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with (
        _naming(source),
        contextlib.closing(sqlite3.connect(f"file:{quote(source)}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as reading,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as writing,
    ):
        # All pages in one step: the read transaction sees one moment, and with a log nobody waits for it.
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")  # one file; the room switches its log on again


def known_messages(state: str) -> dict[str, dict[str, str]]:
    """Of a copy of state.db: folder below the Maildir ("" is INBOX) → base name → the name in cur/, flags and all.

    Raises CopyFailed.
    """
    known: dict[str, dict[str, str]] = {}
    with _naming(state), contextlib.closing(sqlite3.connect(f"file:{quote(state)}?mode=ro", uri=True)) as database:
        for (folder,) in database.execute("SELECT folder FROM mailboxes"):
            known[folder] = {}
        rows = database.execute("SELECT folder, file FROM messages JOIN mailboxes ON mailboxes.id = messages.mailbox")
        for folder, file in rows:
            known[folder][maildir.split(file)[0]] = file
    return known


def after_restore(state: str) -> None:
    """Keep a restored state.db from telling clients old numbers again.

    What was delivered after the backup had UIDs that clients have seen: RFC 3501 §2.3.1.1 never lets one come again, so
    each mailbox skips some. RFC 7162 §3.1.2: the modseqs go past those of the lost time when the file is next opened.
    Raises CopyFailed.
    """
    with _naming(state), contextlib.closing(sqlite3.connect(state, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE mailboxes SET uidnext = uidnext + ?", (UIDS_SKIPPED,))
        database.execute("UPDATE account SET unsettled_boot = ?", (RESTORED,))
        database.execute("COMMIT")


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CopyFailed(f"{path}: {error}") from error
