"""Publication: crash points, sweeping, readers while generations are swapped."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest

from services.directory import publish
from services.directory.lookup import DirectoryUnavailable, SnapshotDirectory
from services.directory.models import Account, Alias, Domain
from services.directory.publish import Contents, PublicationFailed, Publisher


def contents(generation, name="family.example"):
    account = Account(f"anna@{name}", name, "anna", "anna")
    return Contents(
        generation, [Domain(name)], [account], [Alias(f"x@{name}", account.address)], {account.address: "$h"}
    )


@pytest.fixture
def publisher(folders, clock):
    return Publisher(str(folders / "routing"), str(folders / "auth"), clock=clock)


def put(publisher, generation, name="family.example"):
    publisher.prepare(contents(generation, name))
    publisher.link(generation)


class Crash(BaseException):
    """The process ends here."""


STEPS = ["open", "fchmod", "rename", "symlink", "fsync"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_crash_at_any_step_leaves_a_whole_generation(publisher, folders, monkeypatch, step, which):
    """After a crash each folder's link leads to a whole generation, and the next publication is seen."""
    put(publisher, 1, "old.example")
    calls = 0
    real = getattr(publish.os, step)

    def crashing(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == which:
            raise Crash
        return real(*arguments, **options)

    monkeypatch.setattr(publish.os, step, crashing)
    try:
        put(publisher, 2, "new.example")
    except Crash:
        pass
    monkeypatch.undo()
    for name in ("routing", "auth"):
        assert SnapshotDirectory(str(folders / name)).domains() in (("old.example",), ("new.example",))
    put(publisher, publisher.next_generation(1), "newest.example")
    assert publisher.published() is not None
    for name in ("routing", "auth"):
        assert SnapshotDirectory(str(folders / name)).domains() == ("newest.example",)
    publisher.sweep()
    assert not list(folders.glob("*/*.partial"))


def test_links_that_differ_are_not_published(publisher, folders):
    put(publisher, 1)
    publisher.prepare(contents(2))
    publish._swap(str(folders / "routing"), "0000000000002.sqlite")
    assert publisher.published() is None
    publisher.link(2)
    assert publisher.published() == 2


def test_failed_preparation_leaves_nothing(publisher, folders, monkeypatch):
    put(publisher, 1)
    before = {path.name for path in (folders / "routing").iterdir()}
    real = publish._write

    def failing(folder, *rest):
        if folder.endswith("auth"):
            raise OSError(28, "No space left on device")
        return real(folder, *rest)

    monkeypatch.setattr(publish, "_write", failing)
    with pytest.raises(PublicationFailed, match="No space left"):
        publisher.prepare(contents(2))
    assert {path.name for path in (folders / "routing").iterdir()} == before


def test_files_are_for_every_room_whatever_the_umask(publisher, folders):
    old = os.umask(0o077)
    try:
        put(publisher, 1)
    finally:
        os.umask(old)
    assert (folders / "routing" / "current").stat().st_mode & 0o777 == 0o644


def test_files_in_a_folder_that_others_may_not_enter_are_the_groups(publisher, folders):
    (folders / "auth").chmod(0o2750)
    put(publisher, 1)
    assert (folders / "auth" / "current").stat().st_mode & 0o777 == 0o640
    assert (folders / "routing" / "current").stat().st_mode & 0o777 == 0o644


def test_old_generations_go_soon(publisher, folders, clock):
    for generation in (1, 2, 3):
        put(publisher, generation)
        os.utime(folders / "auth" / f"{generation:013d}.sqlite", (clock.now, clock.now))
        os.utime(folders / "routing" / f"{generation:013d}.sqlite", (clock.now, clock.now))
    publisher.sweep()
    assert len(list((folders / "auth").glob("*.sqlite"))) == 3
    clock.now += 11
    publisher.sweep()
    assert [path.name for path in (folders / "auth").glob("*.sqlite")] == ["0000000000003.sqlite"]
    assert publisher.published() == 3


def test_generations_grow_over_clock_and_files(publisher, clock):
    first = publisher.next_generation(0)
    assert first == int(clock.now * 1000)
    put(publisher, first)
    clock.now -= 1000
    assert publisher.next_generation(0) == first + 1
    assert publisher.next_generation(first + 10) == first + 11


def test_nothing_published_is_temporary(tmp_path):
    with pytest.raises(DirectoryUnavailable):
        SnapshotDirectory(str(tmp_path)).account("anna@family.example")


def test_link_is_looked_at_once_a_second(publisher, folders, clock, monkeypatch):
    put(publisher, 1, "old.example")
    seen = SnapshotDirectory(str(folders / "routing"), clock=clock)
    looks = []
    real = os.readlink
    monkeypatch.setattr("services.directory.lookup.os.readlink", lambda path: looks.append(path) or real(path))
    assert seen.is_local("old.example")
    put(publisher, 2, "new.example")
    clock.now += 0.9
    assert seen.is_local("old.example") and len(looks) == 1
    clock.now += 0.2
    assert seen.is_local("new.example") and len(looks) == 2


def test_who_was_just_added_is_found_and_logs_in_at_once(publisher, folders, clock):
    """A no is permanent to the peer: 550 to the first message, a ban for the new password."""
    put(publisher, 1, "old.example")
    routing = SnapshotDirectory(str(folders / "routing"), clock=clock)
    auth = SnapshotDirectory(str(folders / "auth"), clock=clock)
    assert not routing.is_local("new.example") and auth.login("ann@new.example") is None
    put(publisher, 2, "new.example")
    assert routing.is_local("new.example")
    assert auth.generation == 1 and auth.login("ann@old.example") is None and auth.generation == 2


@pytest.mark.parametrize("damage", ["garbage", "newer", "missing"])
def test_unreadable_generation_leaves_the_last_good_one(publisher, folders, clock, damage):
    put(publisher, 1)
    seen = SnapshotDirectory(str(folders / "routing"), clock=clock)
    assert seen.generation == 1
    publisher.prepare(contents(2))
    path = folders / "routing" / "0000000000002.sqlite"
    if damage == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif damage == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=99")
    publish._swap(str(folders / "routing"), path.name)
    if damage == "missing":
        path.unlink()
    clock.now += 2
    assert seen.generation == 1 and seen.problem
    put(publisher, 3)
    clock.now += 2
    assert seen.generation == 3 and seen.problem == ""


def test_reader_needs_no_writable_folder(publisher, folders):
    put(publisher, 1)
    folder = folders / "auth"
    folder.chmod(0o555)
    try:
        assert SnapshotDirectory(str(folder)).login("anna").password_hash == "$h"
        assert {path.suffix for path in folder.iterdir()} == {".sqlite", ""}  # no -wal, no -shm, no journal
    finally:
        folder.chmod(0o755)


def test_recent_answers_are_bounded(publisher, folders):
    put(publisher, 1)
    seen = SnapshotDirectory(str(folders / "routing"))
    for number in range(2000):
        assert seen.account(f"guess{number}@family.example") is None
        assert seen.aliases("x" * 5000 + str(number)) == ()
    assert len(seen._current().recent) <= 256


def test_lookups_in_threads_while_generations_are_swapped(publisher, folders):
    """Each answer is one of a generation that was published, never an error and never a mixture."""
    put(publisher, 1, "d1.example")
    clock = [0.0]
    seen = SnapshotDirectory(str(folders / "auth"), clock=lambda: clock[0])
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                clock[0] += 2.0  # every lookup looks at the link
                (account,) = seen.accounts()
                (domain,) = seen.domains()
                if account.address != f"anna@{account.domain}" or not domain.startswith("d"):
                    wrong.append(account)
                found = seen.login("anna")
                if found is None or found.password_hash != "$h":
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation in range(2, 40):
        put(publisher, generation, f"d{generation}.example")
        (folders / "auth" / f"{generation - 1:013d}.sqlite").unlink()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("asked", ["ANNA@Family.example", "Anna", "anna"])
def test_login_by_address_or_user_name(publisher, folders, asked):
    put(publisher, 1)
    assert SnapshotDirectory(str(folders / "auth")).login(asked).account.address == "anna@family.example"


@pytest.mark.parametrize("asked", ["", "bob", "x@family.example", "@", "anna@", "anna'--", "\0", "\ud800"])
def test_unknown_login(publisher, folders, asked):
    put(publisher, 1)
    assert SnapshotDirectory(str(folders / "auth")).login(asked) is None
