"""Schemas that go forward, and code that goes back: mail and spool are never put back, so the old code must bear them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from services.storage import schema
from services.storage.errors import NewerSchema
from services.storage.queue import NewMessage
from services.storage.queue_store import SqliteQueue
from services.storage.schema import migrate
from services.storage.spool import Spool

ONE = "CREATE TABLE letters (id INTEGER PRIMARY KEY, word TEXT NOT NULL);"
# A migration that only adds, and says so; one that needs whoever opens it to know it.
ADDS = "-- readable from: 1\nALTER TABLE letters ADD COLUMN colour TEXT NOT NULL DEFAULT 'black';"
BREAKS = "ALTER TABLE letters RENAME COLUMN word TO words;"


def folder_of(path: Path, *scripts: str) -> str:
    """The migrations of a program that knows `scripts`."""
    folder = path / f"knows{len(scripts)}-{abs(hash(scripts)) % 10_000}"
    folder.mkdir(exist_ok=True)
    for number, script in enumerate(scripts, 1):
        (folder / f"{number:04}_step.sql").write_text(script)
    return str(folder)


def made_by(path: Path, *scripts: str) -> sqlite3.Connection:
    """A file that the program which knows `scripts` has opened."""
    connection = sqlite3.connect(path / "state.db", isolation_level=None)
    migrate(connection, folder_of(path, *scripts), "state.db")
    return connection


def test_what_only_adds_is_opened_by_the_program_before_and_goes_on_after(tmp_path: Path) -> None:
    newer = made_by(tmp_path, ONE, ADDS)
    newer.execute("INSERT INTO letters (word, colour) VALUES ('new', 'red')")
    older = made_by(tmp_path, ONE)
    older.execute("INSERT INTO letters (word) VALUES ('old')")
    assert older.execute("PRAGMA user_version").fetchone() == (2,), "what it does not know it leaves alone"
    again = made_by(tmp_path, ONE, ADDS)
    assert again.execute("SELECT word, colour FROM letters").fetchall() == [("new", "red"), ("old", "black")]
    for each in (newer, older, again):
        each.close()


@pytest.mark.parametrize(
    "scripts",
    [
        (ONE, BREAKS),
        (ONE, BREAKS, ADDS),  # one that claims less than a step before it needs does not count
        (ONE, "-- readable from: 2\n" + BREAKS),
        (ONE, "-- a remark\n-- readable from: 1\n" + BREAKS),  # the first line, or nobody finds it
    ],
)
def test_what_changes_the_meaning_is_refused_by_the_program_before(tmp_path: Path, scripts: tuple[str, ...]) -> None:
    made_by(tmp_path, *scripts).close()
    with pytest.raises(NewerSchema, match="it is from a newer one"):
        made_by(tmp_path, ONE)
    made_by(tmp_path, *scripts).close()


def test_two_steps_that_only_add_are_still_readable(tmp_path: Path) -> None:
    made_by(tmp_path, ONE, ADDS, "-- readable from: 1\nCREATE TABLE more (x);").close()
    made_by(tmp_path, ONE).close()
    made_by(tmp_path, ONE, ADDS).close()


def test_a_file_from_before_the_rule_is_taken_forward_and_back(tmp_path: Path) -> None:
    before = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    before.executescript(f"{ONE}PRAGMA user_version=1;")
    before.close()
    made_by(tmp_path, ONE, ADDS).close()
    made_by(tmp_path, ONE).close()


def test_a_version_that_nothing_was_said_of_is_refused(tmp_path: Path) -> None:
    connection = made_by(tmp_path, ONE, ADDS)
    connection.execute("PRAGMA user_version=7")
    connection.close()
    with pytest.raises(NewerSchema):
        made_by(tmp_path, ONE)


def test_a_power_cut_leaves_schema_and_claim_together(tmp_path: Path) -> None:
    """Both stand in one page of one transaction: a step that fails leaves neither."""
    made_by(tmp_path, ONE).close()
    with pytest.raises(sqlite3.OperationalError):
        made_by(tmp_path, ONE, ADDS + "SELECT * FROM nowhere;")
    connection = made_by(tmp_path, ONE)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("PRAGMA application_id").fetchone() == (1 << 16 | 1,)
    connection.close()


# --- the queue, with a migration that a later version might bring


FUTURE = "-- readable from: {known}\nALTER TABLE messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;"


@pytest.fixture
def newer_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches between this version's migrations and those of a later one."""
    this = Path(schema.MIGRATIONS)
    later = tmp_path / "migrations"
    shutil.copytree(this, later)
    known = len(list((this / "queue").glob("*.sql")))
    (later / "queue" / f"{known + 1:04}_priority.sql").write_text(FUTURE.format(known=known))

    def switch(on: bool) -> None:
        monkeypatch.setattr(schema, "MIGRATIONS", str(later if on else this))

    return switch


def test_the_queue_goes_forward_and_back_with_its_mail(tmp_path: Path, newer_queue: Callable[[bool], None]) -> None:
    (tmp_path / "spool").mkdir()

    async def visit(identity: str) -> list[str]:
        spool = Spool(str(tmp_path / "spool"))
        queue = SqliteQueue(spool, 1.0)
        draft = spool.draft(identity)
        draft.write(b"Subject: x\r\n\r\nhello\r\n")
        await draft.settle()
        spooled = await draft.commit(b"")
        to = (("bob@far.test", "far.test"),)
        await queue.add(NewMessage(identity, identity, "submission", "a@home.test", "a@home.test", 1.0, spooled, to))
        listed = [each.id for each in await queue.listing(10)]
        assert (await queue.claim("far.test", 2.0)).work is not None
        await asyncio.to_thread(queue.close)
        spool.close()
        return listed

    seen = []
    for number, newer in enumerate((False, True, False, True)):
        newer_queue(newer)
        seen.append(asyncio.run(visit(f"m{number}")))
    assert seen == [["m0"], ["m0", "m1"], ["m0", "m1", "m2"], ["m0", "m1", "m2", "m3"]]
