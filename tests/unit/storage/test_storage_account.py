"""An account: its mailboxes by name, what a lost or foreign state means, subscriptions, annotations, backup."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from services.storage import account, mailbox_list, sqlite_state
from services.storage.account import AccountStore, NewMessage
from services.storage.errors import (
    BadName,
    Busy,
    CorruptState,
    LimitReached,
    MailboxExists,
    MailboxInUse,
    MailboxMissing,
    MailboxUnderItself,
    NewerSchema,
)  # fmt: skip
from services.storage.notifier import Change, LocalNotifier
from services.storage.schema import migrate, open_database, rows_by_key, transaction
from services.storage.sqlite_state import SqliteState
from tests.mail_volume import House, flags, texts

FIRST = ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]


def names(store: AccountStore) -> list[str]:
    return [info.name for info in store.mailboxes() if info.exists]


def test_a_new_account_has_its_mailboxes(house: House, store: AccountStore) -> None:
    infos = {info.name: info for info in store.mailboxes()}
    assert list(infos) == FIRST
    assert {name: info.special_use for name, info in infos.items()} == {
        "INBOX": "", "Archive": "\\Archive", "Drafts": "\\Drafts", "Junk": "\\Junk", "Sent": "\\Sent", "Trash": "\\Trash",
    }  # fmt: skip
    assert all(info.exists and info.subscribed and not info.has_children for info in infos.values())
    assert len({info.mailboxid for info in infos.values()}) == 6
    status = store.status("inbox")
    assert (status.messages, status.uidnext, status.unseen, status.recent) == (0, 1, 0, 0)
    assert status.uidvalidity >= 1_800_000_000
    assert status.highestmodseq >= 1_800_000_000_000_000


def test_create_list_delete(house: House, store: AccountStore) -> None:
    made = store.create("Reisen.2026.Mai")
    assert (made.name, made.exists, made.subscribed) == ("Reisen.2026.Mai", True, False)
    assert (house.maildir / ".Reisen.2026.Mai/maildirfolder").exists()
    infos = {info.name: info for info in store.mailboxes()}
    assert (infos["Reisen"].exists, infos["Reisen"].has_children) == (False, True)
    assert (infos["Reisen.2026"].exists, infos["Reisen.2026"].has_children) == (False, True)
    store.create("Reisen")
    for name, error in {
        "Reisen": MailboxExists, "inbox": MailboxExists, "a..b": BadName, "": BadName, "a/b": BadName,
    }.items():  # fmt: skip
        with pytest.raises(error):
            store.create(name)
    open_one = store.mailbox("Reisen.2026.Mai")
    store.append("Reisen.2026.Mai", [NewMessage(b"x")])
    store.delete("Reisen")
    assert "Reisen.2026.Mai" in names(store), "children stay"
    store.delete("Reisen.2026.Mai")
    assert names(store) == FIRST
    assert sorted(os.listdir(house.maildir)) == [".Archive", ".Drafts", ".Junk", ".Sent", ".Trash", "cur", "new", "tmp"]
    with pytest.raises(MailboxMissing):
        open_one.sync()
    with pytest.raises(MailboxMissing):
        open_one.store([1], "+", ["\\Seen"])
    with pytest.raises(MailboxMissing):
        store.delete("Reisen")
    with pytest.raises(MailboxInUse):
        store.delete("INBOX")


def test_a_mailbox_made_again_is_another_one(store: AccountStore) -> None:
    store.create("x")
    store.append("x", [NewMessage(b"1")])
    before = store.status("x")
    store.delete("x")
    store.create("x")
    after = store.status("x")
    assert after.uidvalidity > before.uidvalidity
    assert after.mailboxid != before.mailboxid
    assert after.highestmodseq > before.highestmodseq
    assert after.messages == 0


def test_special_use(store: AccountStore) -> None:
    assert store.create("Important", "\\Flagged").special_use == "\\Flagged"
    assert store.create("Odd", "\\Nonsense").special_use == ""
    store.rename("Sent", "Gesendet")
    assert store.create("Sent").special_use == "", "there is one"
    assert [info.special_use for info in store.mailboxes() if info.name == "Gesendet"] == ["\\Sent"]


def test_rename(house: House, store: AccountStore) -> None:
    for name in ("A", "A.B", "A.B.C", "AB", "X.Y"):
        store.create(name)
    store.append("A.B", [NewMessage(b"one")])
    selected = store.mailbox("A.B")
    before = store.status("A.B")
    store.rename("A", "N.M")
    assert [name for name in names(store) if name not in FIRST] == ["AB", "N.M", "N.M.B", "N.M.B.C", "X.Y"]
    after = store.status("N.M.B")
    assert (after.uidvalidity, after.mailboxid, after.uidnext) == (before.uidvalidity, before.mailboxid, before.uidnext)
    assert selected.name == "N.M.B"
    assert texts(selected) == {1: b"one"}
    selected.store([1], "+", ["word"])
    assert (house.maildir / ".N.M.B/dovecot-keywords").exists()
    store.rename("X", "Z")  # a name that only has children
    assert "Z.Y" in names(store)
    for old, new, error in (
        ("nothing", "y", MailboxMissing), ("AB", "N.M", MailboxExists), ("AB", "AB", MailboxExists),
        ("AB", "inbox", MailboxExists), ("AB", "a..b", BadName),
        ("AB", "AB.C", MailboxUnderItself), ("Sent", "Sent.2026", MailboxUnderItself),  # its name would have no mailbox
    ):  # fmt: skip
        with pytest.raises(error):
            store.rename(old, new)
    store.close()
    assert [name for name in names(house.open()) if name not in FIRST] == ["AB", "N.M", "N.M.B", "N.M.B.C", "Z.Y"]


def test_rename_of_inbox_moves_its_messages(house: House, store: AccountStore) -> None:
    house.drop(b"old mail")
    store.create("INBOX.sub")
    store.rename("INBOX", "Old")
    assert texts(store.mailbox("Old")) == {1: b"old mail"}
    assert store.status("INBOX").messages == 0
    assert "INBOX.sub" in names(store), "RFC 3501 §6.3.5: inferiors of INBOX stay"


def test_rename_is_undone_where_one_folder_fails(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "A.B"):
        store.create(name)
    real, calls = os.rename, []

    def rename(*paths: object, **folders: int) -> None:
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(5, "EIO")
        real(*paths, **folders)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(OSError, match="EIO"):
            store.rename("A", "Q")
    assert [name for name in names(store) if name not in FIRST] == ["A", "A.B"]


def test_folders_of_other_programs_come_and_go(house: House, store: AccountStore) -> None:
    store.append("Archive", [NewMessage(b"kept")])
    before = store.status("Archive")
    selected = store.mailbox("Archive")
    for part in ("cur", "new", "tmp"):
        (house.maildir / ".By-mutt" / part).mkdir(parents=True)
    (house.maildir / ".Only-cur/cur").mkdir(parents=True)
    (house.maildir / ".no-mailbox").mkdir()
    (house.maildir / "..dovecot").mkdir()
    (house.maildir / ".link").symlink_to(house.maildir / ".Sent")
    shutil.rmtree(house.maildir / ".Trash")
    os.rename(house.maildir / ".Archive", house.maildir / ".Arch&AOk-")
    assert names(store) == ["INBOX", "Arché", "By-mutt", "Drafts", "Junk", "Only-cur", "Sent"]
    after = store.status("Arché")
    assert (after.uidvalidity, after.mailboxid) == (before.uidvalidity, before.mailboxid), (
        "the same mails: the same mailbox"
    )
    assert texts(selected) == {1: b"kept"}
    assert (house.maildir / ".Only-cur/new").is_dir()
    with pytest.raises(MailboxMissing):
        store.status("Trash")


def test_two_folders_for_one_name_are_two_mailboxes(house: House, store: AccountStore) -> None:
    for folder, text in ((".Entw&APw-rfe", b"utf-7"), (".Entwürfe", b"utf-8")):
        (house.maildir / folder / "new").mkdir(parents=True)
        (house.maildir / folder / "cur").mkdir()
        (house.maildir / folder / "new/1.M1.h").write_bytes(text)
    found = {name: list(texts(store.mailbox(name)).values()) for name in names(store) if name not in FIRST}
    assert found == {"Entwürfe": [b"utf-7"], "Entwürfe-2": [b"utf-8"]}


def test_mailboxes_are_limited(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_list, "MOST_MAILBOXES", 7)
    store.create("seventh")
    with pytest.raises(LimitReached):
        store.create("eighth")


def test_an_interrupted_delete_is_finished(house: House, store: AccountStore) -> None:
    store.close()
    (house.maildir / "..gone.abc/cur").mkdir(parents=True)
    house.open()
    assert not (house.maildir / "..gone.abc").exists()


def test_many_mailboxes_keep_few_descriptors(house: House, store: AccountStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        store.create(f"M{number}")
        store.append(f"M{number}", [NewMessage(b"x")])
    held = store.mailbox("M0")
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * 16 + 2
    assert store.mailbox("M0") is held
    assert [store.status(f"M{number}").messages for number in range(40)] == [1] * 40
    assert store.usage().messages == 40
    held.store([1], "+", ["\\Seen"])
    assert store.status("M0").unseen == 0


# --- subscriptions, annotations


def test_subscriptions(house: House, store: AccountStore) -> None:
    store.subscribe("Nowhere.Ünder")
    store.subscribe("Junk", False)
    store.subscribe("Junk", False)
    assert store.subscriptions() == {*FIRST, "Nowhere.Ünder"} - {"Junk"}
    infos = {info.name: info for info in store.mailboxes()}
    assert (infos["Nowhere.Ünder"].exists, infos["Nowhere.Ünder"].subscribed) == (False, True)
    assert (
        (house.maildir / "subscriptions").read_text().startswith("V\t2\n\nArchive\nDrafts\nINBOX\nNowhere\t&ANw-nder\n")
    )
    with pytest.raises(BadName):
        store.subscribe("a/b")
    store.close()
    (house.state / "state.db").unlink()
    assert house.open().subscriptions() == {*FIRST, "Nowhere.Ünder"} - {"Junk"}, "a lost state reads Dovecot's file"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("V\t2\n\nSent\nA\tB&AOk-\n", {"Sent", "A.Bé"}),
        ("Sent\nA.B\n\n", {"Sent", "A.B"}),
        ("a/b\nINBOX\n&broken\n", {"INBOX"}),
        ("", set()),
    ],
)
def test_subscriptions_of_another_server(house: House, text: str, expected: set[str]) -> None:
    (house.maildir / "subscriptions").write_text(text)
    assert house.open().subscriptions() == expected


def test_annotations(house: House, store: AccountStore) -> None:
    store.annotate("", "/private/comment", b"server")
    store.annotate("Sent", "/private/comment", b"\0binary")
    store.annotate("Sent", "/private/x", b"y")
    store.annotate("Sent", "/private/x", None)
    assert store.metadata() == {"/private/comment": b"server"}
    assert store.metadata("Sent") == {"/private/comment": b"\0binary"}
    with pytest.raises(MailboxMissing):
        store.annotate("Nowhere", "/x", b"")
    store.delete("Sent")
    store.create("Sent")
    assert store.metadata("Sent") == {}


# --- what was lost


def test_a_lost_state_begins_anew_above_all_that_clients_know(house: House, store: AccountStore) -> None:
    house.drop(b"one")
    house.drop(b"two")
    inbox = store.mailbox("INBOX")
    inbox.store([1], "+", ["\\Seen", "word"])
    inbox.remove([2])
    list(inbox.parsed([1]))
    before, known = store.status("INBOX"), inbox.highestmodseq
    store.close()
    (house.state / "state.db").unlink()
    house.time += 60
    store = house.open()
    inbox = store.mailbox("INBOX")
    after = store.status("INBOX")
    assert after.uidvalidity > before.uidvalidity
    assert min(inbox.modseqs) > known
    assert texts(inbox) == {1: b"one"}
    assert flags(inbox) == {1: b"\\Seen word"}
    assert inbox.folder.opened.cache.answers(inbox.folder.row.id, [1], ["size"]) == [], "answers of another state"


def test_a_state_that_cannot_be_read_is_kept_aside(house: House, store: AccountStore) -> None:
    house.drop(b"one")
    store.mailbox("INBOX")
    store.close()
    (house.state / "state.db").write_bytes(b"rubbish" * 2000)
    store = house.open()
    assert texts(store.mailbox("INBOX")) == {1: b"one"}
    assert "state.db" in store.repairs[0]
    assert any(name.startswith("state.db.unreadable.") for name in os.listdir(house.state))


def test_a_state_of_a_newer_version_is_not_touched(house: House, store: AccountStore) -> None:
    store.close()
    with sqlite3.connect(house.state / "state.db") as database:
        database.execute("PRAGMA user_version = 999")
    before = (house.state / "state.db").read_bytes()
    with pytest.raises(NewerSchema, match="newer"):
        house.open()
    assert (house.state / "state.db").read_bytes() == before


def test_one_process_has_an_account(house: House, store: AccountStore) -> None:
    with pytest.raises(Busy):
        house.open()
    store.close()
    with open(house.state / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Busy):
            house.open()
    house.open()


def test_an_account_without_a_maildir(house: House) -> None:
    shutil.rmtree(house.maildir)
    with pytest.raises(MailboxMissing):
        house.open()
    assert not house.state.exists()


def test_a_failed_opening_leaves_no_descriptor(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(account, "Cache", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no"):
        house.open()
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.undo()
    house.open()


@pytest.mark.parametrize(("boot", "bumped"), [("another", True), ("same", False)])
def test_after_a_power_cut_every_client_asks_for_all_flags_again(
    house: House, boot: str, bumped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_state, "boot_id", lambda: "same")
    store = house.open()
    house.drop()
    inbox = store.mailbox("INBOX")
    inbox.store([1], "+", ["\\Seen"])
    known = inbox.highestmodseq
    store._unlock = lambda: None  # the machine stops: no close
    house.stores.clear()
    copy = house.state.with_name("copied")
    shutil.copytree(house.state, copy)
    monkeypatch.setattr(sqlite_state, "boot_id", lambda: boot)
    state = SqliteState(str(copy / "state.db"), house.clock)
    assert (state.columns(1).modseqs[0] > known) is bumped
    assert (state.mailboxes()[0].modseq > known) is bumped
    state.close()
    store.close()


def test_a_clean_close_needs_no_such_thing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    store = house.open()
    house.drop()
    inbox = store.mailbox("INBOX")
    inbox.store([1], "+", ["\\Seen"])
    known = inbox.highestmodseq
    store.close()
    monkeypatch.setattr(sqlite_state, "boot_id", lambda: "another")
    assert house.open().mailbox("INBOX").highestmodseq == known


def test_what_is_durable_when(house: House, store: AccountStore) -> None:
    """UIDs and expunges are fsynced before they are told; flags when the store is settled."""
    statements: list[str] = []
    database = store._opened.state._database  # type: ignore[attr-defined]
    house.drop()
    inbox = store.mailbox("INBOX")
    database.set_trace_callback(statements.append)

    def level(work: object) -> int:
        statements.clear()
        work()  # type: ignore[operator]
        return int(database.execute("PRAGMA synchronous").fetchone()[0])

    assert level(lambda: inbox.store([1], "+", ["\\Seen"])) == 1
    assert level(store.settle) == 2
    assert any("COMMIT" in statement for statement in statements)
    assert level(store.settle) == 2
    assert not any("COMMIT" in statement for statement in statements), "nothing was pending"
    house.drop()
    assert level(inbox.sync) == 2
    assert level(lambda: inbox.store([1], "-", ["\\Seen"])) == 1
    assert level(lambda: inbox.remove([1])) == 2
    assert level(lambda: store.append("Sent", [NewMessage(b"x")])) == 2
    assert level(lambda: inbox.move([2], "Sent")) == 2


def test_a_full_disk_is_an_oserror_and_changes_nothing(house: House, store: AccountStore) -> None:
    house.drop()
    inbox = store.mailbox("INBOX")
    database = store._opened.state._database  # type: ignore[attr-defined]
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count={pages}")
    before = (store.status("INBOX"), flags(inbox))
    with pytest.raises(OSError, match=r"state\.db") as raised:
        for number in range(300):
            store.annotate("INBOX", f"/private/{number}", b"x" * 1000)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"state\.db"):
        store.append("Sent", [NewMessage(b"x" * 100)] * 200)
    assert os.listdir(house.maildir / ".Sent/cur") == []
    assert (store.status("INBOX"), flags(inbox)) == before
    database.execute("PRAGMA max_page_count=100000")
    assert store.append("Sent", [NewMessage(b"x")]).uids == (1,)


# --- backup


def test_a_backup_has_a_list_and_a_state_that_fit(house: House, store: AccountStore, folder: Path) -> None:
    house.drop(b"one")
    store.append("Sent", [NewMessage(b"two")])
    listed = list(store.manifest())
    assert sorted((house.maildir / path).read_bytes() for path in listed) == [b"one", b"two"]
    store.snapshot(str(folder / "copy.db"))
    with sqlite3.connect(folder / "copy.db") as copy:
        assert {file for (file,) in copy.execute("SELECT file FROM messages")} == {
            path.rpartition("/")[2] for path in listed
        }


# --- schema


def test_migrations_are_applied_once_and_whole(folder: Path) -> None:
    steps = folder / "steps"
    steps.mkdir()
    (steps / "0001_one.sql").write_text("CREATE TABLE a (x);")
    (steps / "README").write_text("no migration")
    database = sqlite3.connect(":memory:", isolation_level=None)
    migrate(database, str(steps), "x.db")
    migrate(database, str(steps), "x.db")
    (steps / "0002_two.sql").write_text("CREATE TABLE b (x);\nCREATE TABLE a (x);")
    with pytest.raises(sqlite3.Error):
        migrate(database, str(steps), "x.db")
    database.execute("ROLLBACK")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    (steps / "0002_two.sql").write_text("CREATE TABLE b (x);")
    migrate(database, str(steps), "x.db")
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    (steps / "0002_two.sql").unlink()
    with pytest.raises(NewerSchema):
        migrate(database, str(steps), "x.db")


def test_databases_are_private_and_checked(folder: Path) -> None:
    open_database(str(folder / "a.db"), "state", durable=True, page_cache_kib=64).close()
    assert os.stat(folder / "a.db").st_mode & 0o777 == 0o600
    (folder / "b.db").write_bytes(b"x" * 5000)
    with pytest.raises(CorruptState):
        open_database(str(folder / "b.db"), "state", durable=True, page_cache_kib=64)
    (folder / "c.db").symlink_to(folder / "a.db")
    with pytest.raises(OSError, match="symbolic"):
        open_database(str(folder / "c.db"), "state", durable=True, page_cache_kib=64)


def test_transactions_and_rows_by_key() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("CREATE TABLE t (m INTEGER, k INTEGER, v TEXT)")
    with transaction(database):
        database.executemany("INSERT INTO t VALUES (1, ?, ?)", [(key, str(key)) for key in range(0, 4000, 2)])
        database.execute("INSERT INTO t VALUES (2, 5, 'other')")
    with pytest.raises(KeyError), transaction(database):
        database.execute("DELETE FROM t")
        raise KeyError
    select = "SELECT k, v FROM t WHERE m = ? AND"
    for wanted in ([], [7], [8], [5, 4, 1], list(range(2000)), list(range(0, 4000, 40)), [0, 3998]):
        rows = list(rows_by_key(database, select, "k", wanted, 1))
        assert rows == [(key, str(key)) for key in sorted(wanted) if key % 2 == 0 and key < 4000]


# --- the notifier


def test_listeners_hear_what_they_asked_for() -> None:
    notifier = LocalNotifier()
    heard: list[str] = []
    stop_one = notifier.subscribe("anna", "F1", lambda change: heard.append(f"one {change.mailboxid}"))
    notifier.subscribe("anna", "", lambda change: heard.append(f"any {change.mailboxid}"))
    notifier.subscribe("anna", "F1", lambda _: 1 / 0)
    notifier.subscribe("anna", "F1", lambda change: heard.append("after an error"))
    for account_name, mailboxid in (("anna", "F1"), ("anna", "F2"), ("bert", "F1")):
        notifier.publish(Change(account_name, mailboxid, 1))
    assert heard == ["one F1", "after an error", "any F1", "any F2"]
    stop_one()
    stop_one()
    heard.clear()
    notifier.publish(Change("anna", "F1", 1))
    assert heard == ["after an error", "any F1"]


def test_a_clock_that_is_set_back(house: House) -> None:
    store = house.open()
    house.drop()
    inbox = store.mailbox("INBOX")
    before, valid = inbox.highestmodseq, store.status("INBOX").uidvalidity
    house.time -= 86_400
    inbox.store([1], "+", ["\\Seen"])
    assert inbox.highestmodseq > before
    store.create("x")
    assert store.status("x").uidvalidity > valid
    store.close()
    store = house.open()
    store.mailbox("INBOX").store([1], "-", ["\\Seen"])
    assert store.mailbox("INBOX").highestmodseq > before + 1
