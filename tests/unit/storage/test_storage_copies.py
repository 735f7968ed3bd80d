"""Copies of databases: of one moment while somebody writes, and fit for clients after a restore."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from services.storage import copies
from services.storage.sqlite_state import SqliteState


def state_with(path: Path, files: dict[str, list[str]]) -> None:
    """A state.db whose mailboxes (by folder) hold these names."""
    SqliteState(str(path)).close()
    with sqlite3.connect(path) as database:
        for number, (folder, names) in enumerate(files.items(), 1):
            database.execute(
                "INSERT INTO mailboxes (id, mailboxid, name, folder, special_use, uidvalidity, uidnext, recent_from, "
                "modseq, forgotten, created) VALUES (?, ?, ?, ?, '', 1, ?, 1, 1, 0, 0)",
                (number, f"F{number}", folder or "INBOX", folder, len(names) + 1),
            )
            database.executemany(
                "INSERT INTO messages (mailbox, uid, file, flags, modseq, date, saved, octets) VALUES (?, ?, ?, 0, 1, 0, 0, 1)",
                [(number, uid, name) for uid, name in enumerate(names, 1)],
            )


def test_a_copy_has_what_is_committed_and_not_what_is_open(tmp_path: Path) -> None:
    source = tmp_path / "live.db"
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE t (n INTEGER)")
    writer.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO t VALUES (-1)")
    target = tmp_path / "copy.db"
    copies.copy_database(str(source), str(target))  # with a writer in the middle of a transaction
    writer.execute("COMMIT")
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT COUNT(*), MIN(n) FROM t").fetchone() == (1000, 0)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("copy.db-*")), "one file, without a log beside it"
    writer.close()


def test_a_copy_never_replaces_a_file(tmp_path: Path) -> None:
    state_with(tmp_path / "state.db", {})
    target = tmp_path / "copy.db"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        copies.copy_database(str(tmp_path / "state.db"), str(target))
    assert target.read_text() == "mine"


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "state.db"
    broken.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(copies.CopyFailed, match=r"state\.db"):
        copies.copy_database(str(broken), str(tmp_path / "copy.db"))


def test_the_messages_are_known_by_folder_and_base(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state_with(path, {"": ["1.a:2,S", "2.b:2,"], ".Sent": ["3.c:2,FS"], ".Empty": []})
    assert copies.known_messages(str(path)) == {
        "": {"1.a": "1.a:2,S", "2.b": "2.b:2,"},
        ".Sent": {"3.c": "3.c:2,FS"},
        ".Empty": {},
    }


def test_after_a_restore_no_uid_comes_again_and_every_modseq_is_new(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state_with(path, {"": ["1.a:2,S"]})
    before = 1_700_000_000.0
    copies.after_restore(str(path))
    state = SqliteState(str(path), clock=lambda: before)
    (mailbox,) = state.mailboxes()
    assert mailbox.uidnext == 2 + copies.UIDS_SKIPPED
    assert mailbox.modseq >= before * 1_000_000, "past what clients were told in the time that is lost"
    state.close()
    assert os.path.exists(path)
