"""What an update leaves on disk beside its journal, for power cuts: the hold, the directory's snapshot and its way back."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from services.admin.snapshots import Snapshots, put_back
from services.runtime.hold import Hold
from tests.faults import small_writers
from tests.faults.small_writers import NOW, context, directories, folders
from tests.faults.writer import Promises, Tell, Writer

UPDATE = "u1"


# --- the hold: a room's successor starts held, and does not after the release


def hold_of(root: Path) -> Hold:
    return Hold(context(root, "smtp-in"), elapsed=lambda: 1000.0, boot=lambda: "boot")


def hold_write(root: Path, tell: Tell) -> None:
    async def story() -> None:
        hold = hold_of(root)
        for number in range(3):
            tell(asked=f"u{number}")
            await hold.take(f"u{number}", 120)
            tell(held=f"u{number}")
            tell(releasing=f"u{number}")
            await hold.release(f"u{number}")
            tell(released=f"u{number}")

    asyncio.run(story())


def hold_check(root: Path, promised: Promises) -> None:
    hold = hold_of(root)
    found = hold.lease.id if hold.lease else ""
    last = promised[-1] if promised else {}
    may = {
        "asked": {"", last.get("asked")}, "held": {last.get("held")}, "releasing": {"", last.get("releasing")},
        "released": {""},
    }.get(next(iter(last), ""), {""})  # fmt: skip
    assert found in may, f"held for {found!r} after {last}"
    asyncio.run(hold.take("u9", 120))
    again = hold_of(root).lease
    assert again is not None and again.id == "u9"


# --- the directory's snapshot: taken, and put back


def snapshots(root: Path) -> Snapshots:
    return Snapshots(str(root / "admin"), lambda: "old", lambda: NOW)


def directory_prepare(root: Path) -> None:
    folders("admin", "routing", "auth")(root)
    made = directories(root)
    made.add_domain("example.test")
    made.add_account("anna@example.test", "$hash")
    made.database.close()


def accounts(root: Path) -> list[str]:
    """The directory as the old code opens it."""
    made = directories(root)
    try:
        assert made.database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [each.account.address for each in made.database.accounts()]
    finally:
        made.database.close()


def snapshot_write(root: Path, tell: Tell) -> None:
    made = directories(root)
    kept = snapshots(root)
    kept.take(UPDATE, made.database)
    tell(taken=True)
    tell(settling=True)
    kept.settle(UPDATE)
    tell(settled=True)
    made.add_account("bert@example.test", "$hash")
    tell(added=True)
    made.database.close()


def snapshot_check(root: Path, promised: Promises) -> None:
    told = {name for one in promised for name in one}
    done = [one.id for one in put_back(str(root / "admin"), lambda: "old")]
    if "taken" in told and "settling" not in told:
        assert done == [UPDATE], "the old code finds what it left"
    if "settled" in told:
        assert done == [], "what is settled does not come back"
    found = accounts(root)
    assert "anna@example.test" in found
    assert "added" not in told or "bert@example.test" in found, "a change after the update is taken back"
    snapshots(root)
    left = [path.name for path in (root / "admin/snapshots").iterdir()] if (root / "admin/snapshots").exists() else []
    assert left in ([], [UPDATE]), left


def newer(root: Path, *, marked: bool) -> None:
    """What a new version has made of the directory after the snapshot."""
    directory_prepare(root)
    made = directories(root)
    kept = snapshots(root)
    kept.take(UPDATE, made.database)
    made.database.close()
    if marked:
        kept.mark()
    with sqlite3.connect(root / "admin/directory.db") as database:
        database.execute("CREATE TABLE of_the_future (a)")
        database.execute("DELETE FROM accounts")
        database.execute("PRAGMA user_version=99")
    database.close()


def put_back_write(root: Path, tell: Tell) -> None:
    assert put_back(str(root / "admin"), lambda: "old")
    tell(done=True)
    assert accounts(root) == ["anna@example.test"]


def put_back_check(root: Path, promised: Promises) -> None:
    put_back(str(root / "admin"), lambda: "old")
    assert accounts(root) == ["anna@example.test"]


def aside_check(root: Path, promised: Promises) -> None:
    put_back_check(root, promised)
    later = root / f"admin/directory.db.after-{UPDATE}"
    assert later.exists(), "what was changed after the update is kept"
    assert small_writers.database_is_whole(later)
    with sqlite3.connect(later) as database:
        assert database.execute("SELECT count(*) FROM of_the_future").fetchone() == (0,)
    database.close()


WRITERS = {
    "hold": Writer("a room's hold", folders("room"), hold_write, hold_check),
    "snapshot": Writer("the directory kept for an update", directory_prepare, snapshot_write, snapshot_check),
    "put-back": Writer(
        "the directory put back", lambda root: newer(root, marked=False), put_back_write, put_back_check
    ),
    "put-aside": Writer(
        "the directory put back, the later one kept", lambda root: newer(root, marked=True), put_back_write, aside_check
    ),
}
