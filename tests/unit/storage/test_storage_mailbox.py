"""A mailbox: UIDs, flags, copies, expunges; and what other programs do to the same Maildir."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from services.storage import look as looking
from services.storage.account import AccountStore, NewMessage
from services.storage.cache import Parsed, Parser
from services.storage.errors import BadName, LimitReached, MailboxMissing, MessageGone, OverQuota
from services.storage.incoming import Incoming
from services.storage.mailbox import Mailbox
from services.storage.seen import Seen
from tests.mail_volume import House, files, flags, parse, texts


def mails(house: House, store: AccountStore, count: int = 3) -> Mailbox:
    for number in range(count):
        house.drop(b"Subject: %d\r\n\r\n" % number, f"{1_700_000_000 + number}.M1.other")
    return store.mailbox("INBOX")


def agrees(house: House, store: AccountStore) -> None:
    """State, memory and disk say the same, and a second store reads it so from the disk."""
    for info in store.mailboxes():
        if not info.exists:
            continue
        mailbox = store.mailbox(info.name)
        folder = house.maildir / mailbox.folder.row.folder
        known = mailbox.folder.opened.state.files(mailbox.folder.row.id)
        assert sorted(known.values()) == files(folder / "cur")
        assert list(known) == list(mailbox.uids)
        assert files(folder / "new") == files(folder / "tmp") == []
        columns = mailbox.folder.opened.state.columns(mailbox.folder.row.id)
        assert (columns.uids, columns.flags, columns.modseqs, columns.octets, columns.dates) == (
            mailbox.uids, mailbox.flags, mailbox.modseqs, mailbox.octets, mailbox.dates,
        )  # fmt: skip
        status = store.status(info.name)
        assert status.messages == len(mailbox.uids)
        assert status.octets == sum(mailbox.octets)
        assert status.unseen == sum(b"\\Seen" not in text for text in flags(mailbox).values())
        assert status.deleted == sum(b"\\Deleted" in text for text in flags(mailbox).values())
        assert all(modseq <= mailbox.highestmodseq for modseq in mailbox.modseqs)
        assert mailbox.sync(force=True) == mailbox.sync(), "a look changes nothing any more"


def test_new_mail_gets_uids_in_the_order_of_arrival(house: House, store: AccountStore) -> None:
    house.drop(b"Subject: 2\r\n\r\n", "1700000002.M5.h")
    house.drop(b"Subject: 1\r\n\r\n", "1700000002.M4.h")
    house.drop(b"Subject: 0\r\n\r\n", "1700000001.M9.h:2,FS")
    old = house.drop(b"Subject: old\r\n\r\n", "a-name-without-a-time")
    os.utime(house.maildir / "new" / old, (1_600_000_000, 1_600_000_000))
    inbox = store.mailbox("INBOX")
    assert list(texts(inbox).values()) == [b"Subject: old\r\n\r\n"] + [b"Subject: %d\r\n\r\n" % n for n in range(3)]
    assert list(inbox.uids) == [1, 2, 3, 4]
    assert flags(inbox) == {1: b"", 2: b"\\Flagged \\Seen", 3: b"", 4: b""}
    assert inbox.dates[0] == 1_600_000_000
    assert [change.added for change in house.changes] == [(1, 2, 3, 4)]
    agrees(house, store)
    house.drop()
    assert inbox.sync().added == (5,)
    assert inbox.sync().added == ()
    assert inbox.uidnext == 6


def test_what_is_no_message_is_left_alone(house: House, store: AccountStore) -> None:
    new = house.maildir / "new"
    (new / ".hidden").write_bytes(b"x")
    (new / "folder").mkdir()
    (new / "link").symlink_to("/etc/passwd")
    os.mkfifo(new / "fifo")
    (house.maildir / "cur/link2").symlink_to("/etc/passwd")
    inbox = store.mailbox("INBOX")
    assert len(inbox.uids) == 0
    assert files(new) == [".hidden", "fifo", "folder", "link"]


def test_a_link_that_takes_the_place_of_a_message_is_not_read(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 1)
    (name,) = files(house.maildir / "cur")
    (house.maildir / "cur" / name).unlink()
    (house.maildir / "cur" / name).symlink_to("/etc/passwd")
    with pytest.raises(MessageGone):
        inbox.open(1)


def test_flags_go_into_names_and_state(house: House, store: AccountStore) -> None:
    inbox = mails(house, store)
    stored = inbox.store([1, 2, 99], "+", ["\\Seen", "\\Flagged", "$Junk"], origin="me")
    assert stored.changed == (1, 2)
    assert flags(inbox) == {1: b"\\Flagged \\Seen $Junk", 2: b"\\Flagged \\Seen $Junk", 3: b""}
    assert [name.partition(":2,")[2] for name in files(house.maildir / "cur")] == ["FSa", "FSa", ""]
    assert (house.maildir / "dovecot-keywords").read_text() == "0 $Junk\n"
    assert (house.changes[-1].flagged, house.changes[-1].origin) == ((1, 2), "me")
    assert inbox.highestmodseq == stored.modseq == inbox.modseqs[0]
    again = inbox.store([1, 2, 3], "+", ["\\SEEN"])
    assert again.changed == (3,), "what changes nothing gets no new modseq"
    assert inbox.modseqs[0] == stored.modseq
    inbox.store([1], "-", ["\\Flagged", "unknown"])
    inbox.store([2], "=", ["$junk", "Other", "\\Recent"])
    assert flags(inbox) == {1: b"\\Seen $Junk", 2: b"$Junk Other", 3: b"\\Seen"}
    assert inbox.keywords == ("$Junk", "Other"), "a keyword that is only taken away is not made"
    agrees(house, store)
    store.close()
    store = house.open()
    assert flags(store.mailbox("INBOX")) == {1: b"\\Seen $Junk", 2: b"$Junk Other", 3: b"\\Seen"}


def test_store_unless_changed_since(house: House, store: AccountStore) -> None:
    inbox = mails(house, store)
    before = inbox.highestmodseq
    inbox.store([2], "+", ["\\Seen"])
    stored = inbox.store([1, 2, 3], "+", ["\\Deleted"], unchanged_since=before)
    assert (stored.changed, stored.refused) == ((1, 3), (2,))


def test_a_file_that_another_program_renamed_keeps_both_changes(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 2)
    names = files(house.maildir / "cur")
    os.rename(house.maildir / "cur" / names[0], house.maildir / "cur" / (names[0] + "FP"))
    inbox.store([1, 2], "+", ["\\Seen"])
    assert flags(inbox) == {1: b"\\Flagged \\Seen", 2: b"\\Seen"}
    assert files(house.maildir / "cur")[0].endswith(":2,FPS"), "P means nothing to us, and stays"
    os.rename(house.maildir / "cur" / files(house.maildir / "cur")[1], house.maildir / "cur" / (names[1] + "T"))
    assert inbox.open(2).read() == b"Subject: 1\r\n\r\n"
    assert flags(inbox)[2] == b"\\Deleted"
    agrees(house, store)


def test_keywords_beyond_z_live_in_state(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 2)
    words = [f"word{n}" for n in range(55)]
    inbox.store([1], "+", words)
    (name, _) = files(house.maildir / "cur")
    assert name.endswith(":2,abcdefghijklmnopqrstuvwxyz")
    with pytest.raises(LimitReached):
        inbox.store([2], "+", ["one-more"])
    with pytest.raises(BadName):
        inbox.store([2], "+", ["two words"])
    assert flags(inbox)[2] == b""
    inbox.store([1], "-", ["word3", "word50"])
    inbox.store([2], "+", ["one-more", "and-more"])  # numbers out of use are given again
    assert flags(inbox)[2] == b"one-more and-more"
    os.rename(
        house.maildir / "cur" / files(house.maildir / "cur")[0], house.maildir / "cur" / f"{name.partition(':')[0]}:2,S"
    )
    inbox.sync(force=True)
    assert flags(inbox)[1] == b"\\Seen " + b" ".join(word.encode() for word in words if word[4:].isdigit() and int(word[4:]) >= 26 and word != "word50")  # fmt: skip
    store.close()
    assert len(house.open().mailbox("INBOX").keywords) == 55


def test_keywords_of_another_server(house: House, store: AccountStore) -> None:
    (house.maildir / "dovecot-keywords").write_text("0 $Forwarded\n3 NonJunk\nrubbish\n99 x\n4 two words\n")
    house.drop(name="1.M1.h:2,Sadx", where="cur")
    inbox = store.mailbox("INBOX")
    assert flags(inbox) == {1: b"\\Seen $Forwarded NonJunk"}
    inbox.store([1], "+", ["mine", "$FORWARDED"])
    assert (house.maildir / "dovecot-keywords").read_text() == "0 $Forwarded\n1 mine\n3 NonJunk\n"
    assert files(house.maildir / "cur") == ["1.M1.h:2,Sabdx"]
    (house.maildir / "dovecot-keywords").write_text("0 $Forwarded\n1 mine\n3 NonJunk\n23 theirs\n")
    house.drop(name="2.M1.h:2,x", where="cur")
    inbox.sync()
    assert flags(inbox)[2] == b"theirs"


def test_expunge_leaves_no_file_and_remembers_the_uid(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 4)
    before = inbox.highestmodseq
    inbox.store([1, 3, 4], "+", ["\\Deleted"])
    assert inbox.expunge([2, 3]) == (3,)
    assert inbox.expunge(origin="me") == (1, 4)
    assert house.changes[-1].expunged == (1, 4)
    assert list(inbox.uids) == [2]
    assert inbox.changes_since(before).expunged == (1, 3, 4)
    assert inbox.expunged_since(before, [3, 4, 5]) == (3, 4)
    assert inbox.changes_since(inbox.highestmodseq).expunged == ()
    assert inbox.uidnext == 5
    agrees(house, store)
    assert inbox.remove([2, 2, 77]) == (2,)
    house.drop()
    assert inbox.sync().added == (5,)


def test_expunges_are_forgotten_from_the_oldest(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mails(house, store, 6)
    marks = []
    for uid in (1, 2, 3, 4):
        marks.append(inbox.highestmodseq)
        inbox.remove([uid])
    store.close()
    monkeypatch.setattr("services.storage.account._EXPUNGED_KEPT", 2)
    inbox = house.open().mailbox("INBOX")
    assert inbox.expunged_since(marks[2]) == (3, 4)
    assert inbox.changes_since(marks[2]).expunged_complete
    assert not inbox.changes_since(marks[0]).expunged_complete
    assert inbox.expunged_since(marks[0], [1, 2, 5, 9]) == (1, 2), "all that are asked for and not here"
    assert inbox.expunged_since(0) == (1, 2, 3, 4)


def test_a_file_expunged_while_another_program_renames_it_goes(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 1)
    (name,) = files(house.maildir / "cur")
    os.rename(house.maildir / "cur" / name, house.maildir / "cur" / (name + "R"))
    assert inbox.remove([1]) == (1,)
    assert files(house.maildir / "cur") == []
    store.settle()
    assert inbox.sync(force=True).added == ()


def test_a_file_restored_by_hand_is_a_message_again(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 1)
    (name,) = files(house.maildir / "cur")
    inbox.remove([1])
    store.settle()
    (house.maildir / "cur" / name).write_bytes(b"restored")
    assert inbox.sync(force=True).added == (2,)


def test_what_was_removed_before_a_crash_goes_again(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mails(house, store, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *_, **__: None)  # as if a power cut undid it
        inbox.remove([1])
    assert len(files(house.maildir / "cur")) == 2
    store._unlock()  # the process is gone without a close
    house.stores.clear()
    inbox = house.open().mailbox("INBOX")
    assert list(inbox.uids) == [2]
    assert len(files(house.maildir / "cur")) == 1


@pytest.mark.parametrize("times", [1, 9])
def test_append(house: House, store: AccountStore, times: int) -> None:
    large = store.incoming(100)
    for _ in range(1000):
        large.write(b"line\n")
    large.flush()
    small = store.incoming()
    small.write(b"small\r\n")
    messages = [
        NewMessage(b"bytes\r\n", ["\\Seen", "$Mine"], 1_500_000_000.7),
        NewMessage(large, ["\\Draft"]),
        NewMessage(small),
    ] * times
    appended = store.append("Sent", messages, origin="me")
    sent = store.mailbox("Sent")
    assert appended.uids == tuple(sent.uids) == tuple(range(1, 3 * times + 1))
    assert appended.uidvalidity == sent.uidvalidity
    assert list(texts(sent).values()) == [b"bytes\r\n", b"line\r\n" * 1000, b"small\r\n"] * times
    assert list(flags(sent).values()) == [b"\\Seen $Mine", b"\\Draft", b""] * times
    assert sent.dates[0] == 1_500_000_000
    assert house.changes[-1].origin == "me"
    names = files(house.maildir / ".Sent/cur")
    assert names[0].endswith(",S=7,W=7:2,Sa")
    assert names[1].endswith(",S=5000,W=6000:2,D")
    assert os.stat(house.maildir / ".Sent/cur" / names[0]).st_mtime == 1_500_000_000
    assert all(os.stat(house.maildir / ".Sent/cur" / name).st_mode & 0o777 == 0o600 for name in names)
    agrees(house, store)
    large.close()
    small.close()


def test_append_is_all_or_none(house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = store.mailbox("Sent")
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(5, "EIO")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="EIO"):
        store.append("Sent", [NewMessage(b"1"), NewMessage(b"2"), NewMessage(b"3")])
    assert files(house.maildir / ".Sent/cur") == files(house.maildir / ".Sent/tmp") == []
    assert list(sent.uids) == []
    assert store.append("Sent", [NewMessage(b"4")]).uids == (1,)
    agrees(house, store)


def test_limits_of_space(house: House, store: AccountStore) -> None:
    store.append("Sent", [NewMessage(b"x" * 100)])
    house.quota = 250
    with pytest.raises(OverQuota):
        store.append("Sent", [NewMessage(b"x" * 100), NewMessage(b"x" * 51)])
    sent = store.mailbox("Sent")
    sent.copy([1], "Trash")
    with pytest.raises(OverQuota):
        sent.copy([1], "Trash")
    sent.move([1], "Archive")  # needs no room
    house.quota = 0
    house.room = False
    with pytest.raises(OverQuota):
        store.append("Sent", [NewMessage(b"x")])
    assert store.usage().octets == 200


def test_copy_is_a_link_with_everything(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 3)
    inbox.store([2, 3], "+", ["\\Seen", "only-here", "both"])
    store.append("Archive", [NewMessage(b"x", ["both", "only-there"])])
    house.time += 1
    copied = inbox.copy([3, 2, 99], "Archive", origin="me")
    assert (copied.source, copied.target) == ((2, 3), (2, 3))
    archive = store.mailbox("Archive")
    assert copied.uidvalidity == archive.uidvalidity
    assert flags(archive) == {1: b"both only-there", 2: b"\\Seen both only-here", 3: b"\\Seen both only-here"}
    assert texts(archive)[3] == b"Subject: 2\r\n\r\n"
    assert archive.dates[1:] == inbox.dates[1:]
    assert inbox.email_ids([2, 3]) == {2: archive.email_ids([2])[2], 3: archive.email_ids([3])[3]}
    assert len({*inbox.email_ids([1, 2, 3]).values(), *archive.email_ids([1]).values()}) == 4
    assert archive.save_dates([2])[2] > inbox.save_dates([2])[2]
    assert [
        os.stat(house.maildir / ".Archive/cur" / name).st_nlink for name in files(house.maildir / ".Archive/cur")
    ] == [1, 2, 2]
    inbox.copy([1], "INBOX")
    assert texts(inbox)[4] == texts(inbox)[1]
    assert inbox.copy([], "Archive").target == ()
    with pytest.raises(MailboxMissing):
        inbox.copy([1], "Nowhere")
    agrees(house, store)


def test_copy_without_links(house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mails(house, store, 2)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "fs.protected_hardlinks")

    monkeypatch.setattr(os, "link", refuse)
    inbox.copy([1, 2], "Archive")
    archive = store.mailbox("Archive")
    assert texts(archive) == texts(inbox)
    assert (
        os.stat(house.maildir / ".Archive/cur" / files(house.maildir / ".Archive/cur")[0]).st_mtime_ns
        == os.stat(house.maildir / "cur" / files(house.maildir / "cur")[0]).st_mtime_ns
    )
    agrees(house, store)


def test_move(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 4)
    inbox.store([2], "+", ["\\Flagged", "word"])
    ids = inbox.email_ids([2])
    list(inbox.parsed([2]))
    moved = inbox.move([2, 3], "Trash")
    assert (moved.source, moved.target) == ((2, 3), (1, 2))
    trash = store.mailbox("Trash")
    assert list(inbox.uids) == [1, 4]
    assert flags(trash) == {1: b"\\Flagged word", 2: b""}
    assert trash.email_ids([1])[1] == ids[2]
    assert [change.expunged or change.added for change in house.changes[-2:]] == [(2, 3), (1, 2)]
    assert len(trash.folder.opened.cache.answers(trash.folder.row.id, [1, 2], ["size"])) == 1, (
        "parsed answers move along"
    )
    assert inbox.move([1], "INBOX").target == (5,)
    assert list(inbox.uids) == [4, 5]
    agrees(house, store)


@pytest.mark.parametrize("moving", [True, False])
def test_a_transfer_that_fails_leaves_all_where_it_was(
    house: House, store: AccountStore, moving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mails(house, store, 3)
    before = files(house.maildir / "cur")
    name = "rename" if moving else "link"
    real, calls = getattr(os, name), []

    def fail(*paths: object, **folders: object) -> None:
        calls.append(paths)
        if len(calls) == 3:
            raise OSError(5, "EIO")
        real(*paths, **folders)

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="EIO"):
        (inbox.move if moving else inbox.copy)([1, 2, 3], "Trash")
    assert files(house.maildir / "cur") == before
    assert files(house.maildir / ".Trash/cur") == []
    assert list(inbox.uids) == [1, 2, 3]
    agrees(house, store)


def test_a_transfer_of_what_is_gone(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 2)
    names = files(house.maildir / "cur")
    os.rename(house.maildir / "cur" / names[0], house.maildir / "cur" / (names[0] + "S"))
    assert inbox.copy([1], "Trash").target == (1,)
    (house.maildir / "cur" / names[1]).unlink()
    with pytest.raises(MessageGone):
        inbox.copy([1, 2], "Trash")
    assert list(inbox.uids) == [1]
    assert list(store.mailbox("Trash").uids) == [1]
    agrees(house, store)


# --- other programs


def test_other_programs_add_remove_and_flag(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 4)
    cur = house.maildir / "cur"
    one, two, three, _ = files(cur)
    (cur / one).unlink()
    os.rename(cur / two, cur / (two + "RS"))
    os.rename(cur / three, house.maildir / "new" / three)  # mutt's way of "new again"
    (cur / "9.M1.mutt:2,F").write_bytes(b"by mutt")
    changes = inbox.sync(force=True)
    assert (changes.added, changes.flagged, changes.expunged) == ((5,), (2,), (1,))
    assert flags(inbox) == {2: b"\\Answered \\Seen", 3: b"", 4: b"", 5: b"\\Flagged"}
    assert texts(inbox)[3] == b"Subject: 2\r\n\r\n", "back in cur/, with its UID"
    agrees(house, store)


def test_the_same_name_twice_is_two_messages_or_one_inode(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 2)
    cur = house.maildir / "cur"
    one, two = files(cur)
    os.link(cur / one, cur / (one + "S"))
    (cur / (two + "S")).write_bytes(b"another")
    (house.maildir / "new" / two.partition(":")[0]).write_bytes(b"third")
    inbox.sync(force=True)
    assert sorted(texts(inbox).values()) == [b"Subject: 0\r\n\r\n", b"Subject: 1\r\n\r\n", b"another", b"third"]
    house.drop(b"fourth", two.partition(":")[0])
    time.sleep(0.03)
    inbox.sync()
    assert sorted(texts(inbox).values())[-2:] == [b"fourth", b"third"]
    agrees(house, store)


@pytest.mark.parametrize("where", ["new", "cur"])
def test_names_that_no_database_holds_get_ours(house: House, store: AccountStore, where: str) -> None:
    folder = os.fsencode(str(house.maildir / where))
    Path(os.fsdecode(folder + b"/1.M1.h\xff:2,S")).write_bytes(b"latin")
    Path(os.fsdecode(folder + b"/" + b"x" * 255)).write_bytes(b"long")
    inbox = store.mailbox("INBOX")
    assert sorted(texts(inbox).values()) == [b"latin", b"long"]
    inbox.store(inbox.uids, "+", ["\\Flagged"])
    assert all(b"\\Flagged" in text for text in flags(inbox).values())
    agrees(house, store)


def test_a_listing_that_misses_a_file_expunges_nothing(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mails(house, store, 3)
    real, listings = looking.scan, []

    def scan(folder: int) -> set[str]:
        names = real(folder)
        listings.append(folder)
        return names if len(listings) % 2 == 0 else names - {min(names, default="")}

    monkeypatch.setattr(looking, "scan", scan)
    house.drop(where="cur")
    inbox.sync(force=True)
    assert list(inbox.uids)[:3] == [1, 2, 3]


def test_changes_are_noticed_without_force(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 1)
    time.sleep(0.03)
    inbox.sync()
    time.sleep(0.03)
    assert inbox.folder.cur_seen.verified
    (name,) = files(house.maildir / "cur")
    os.rename(house.maildir / "cur" / name, house.maildir / "cur" / (name + "S"))
    assert inbox.sync().flagged == (1,)
    house.drop()
    assert inbox.sync().added == (2,)
    house.drop()  # within the same tick of the file system's clock
    assert inbox.sync().added == (3,)


def test_an_unchanged_folder_is_not_listed(house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mails(house, store, 1)
    time.sleep(0.03)
    inbox.sync()
    time.sleep(0.03)
    inbox.store([1], "+", ["\\Seen"])
    monkeypatch.setattr(looking, "scan", lambda _: pytest.fail("listed"))
    assert inbox.sync().flagged == ()


def test_a_restart_lists_only_what_may_have_changed(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mails(house, store, 1)
    for _ in range(2):
        time.sleep(0.03)
        inbox.sync()
    store.close()
    listed = []
    monkeypatch.setattr(looking, "scan", lambda folder: listed.append(folder) or set())
    store = house.open()
    assert (store.status("INBOX").messages, list(store.mailbox("INBOX").uids)) == (1, [1])
    assert listed == []


def test_times_that_cannot_be_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    now = 5_000_000_000_123
    os.utime(folder, ns=(now, now))
    monkeypatch.setattr(time, "time_ns", lambda: now + 5_000_000)
    seen = Seen(descriptor)
    assert seen.is_other(patient=True)
    seen.listed(now, now + 1_000_000)
    assert (seen.verified, seen.is_other(patient=True), seen.is_other(patient=False)) == (0, False, True)
    monkeypatch.setattr(time, "time_ns", lambda: now + 50_000_000)
    assert seen.is_other(patient=True)
    seen.listed(now, now + 50_000_000)
    assert (seen.verified, seen.is_other(patient=False)) == (now, False)
    with seen.changing():
        os.utime(folder, ns=(now + 5, now + 5))
    assert (seen.verified, seen.is_other(patient=False)) == (0, False)
    monkeypatch.setattr(time, "monotonic", lambda later=time.monotonic() + 61: later)
    assert seen.is_other(patient=True), "a change in the same tick as ours is found after a minute"
    seen.listed(now + 5, now - 10_000_000_000)
    assert seen.verified, "a clock set back: this time does not come again"
    coarse = 5_000_000_000_000
    seen.listed(coarse, coarse + 1_500_000_000)
    assert seen.verified == 0, "a file system that knows seconds only"
    os.close(descriptor)


# --- bodies and answers


def test_bodies_are_served_with_crlf(house: House, store: AccountStore) -> None:
    house.drop(b"Subject: lf\n\nbody\n")
    inbox = store.mailbox("INBOX")
    with inbox.open(1) as message:
        assert (message.size, message.raw_size) == (21, 18)
        assert message.read() == b"Subject: lf\r\n\r\nbody\r\n"
    with pytest.raises(MessageGone):
        inbox.open(2)


def test_answers_are_made_once(house: House, store: AccountStore) -> None:
    made: list[int] = []

    def counted(octets: bytes) -> Parsed:
        made.append(len(octets))
        return parse(octets)

    store.close()
    house.parser = Parser(2, counted)  # type: ignore[arg-type]
    inbox = mails(house, house.open(), 5)
    first = dict(inbox.parsed([5, 1, 2]))
    assert list(first) == [5, 1, 2]
    assert first[5] == parse(b"Subject: 4\r\n\r\n")
    assert len(made) == 3
    assert dict(inbox.parsed(list(inbox.uids))).keys() == {1, 2, 3, 4, 5}
    assert len(made) == 5
    assert dict(inbox.parsed([1, 99, 5])) == {1: parse(b"Subject: 0\r\n\r\n"), 5: first[5]}
    rows = list(inbox.answers([1, 3, 99], ["size", "h_subject", "sent", "preview"]))
    assert rows == [(1, 14, b"Subject: 0\r\n", 12345, "préview"), (3, 14, b"Subject: 2\r\n", 12345, "préview")]
    assert list(inbox.answers([2], ["size"])) == [(2, 14)]
    with pytest.raises(ValueError, match="no such columns"):
        list(inbox.answers([1], ["uid; DROP TABLE answers"]))
    inbox.remove([1])
    assert inbox.folder.opened.cache.answers(inbox.folder.row.id, [1, 2], ["size"]) == [(2, 14)]
    assert len(made) == 5
    house.stores[-1].close()
    house.parser = Parser(3, counted)  # type: ignore[arg-type]
    list(house.open().mailbox("INBOX").parsed([2, 3, 4, 5]))
    assert len(made) == 9, "another parser makes its own answers"


def test_a_large_message_is_parsed_from_a_private_copy(house: House, store: AccountStore) -> None:
    body = b"Subject: large\r\n\r\n" + b"x" * 2_000_000
    house.drop(body)
    house.drop(body.replace(b"\r\n", b"\n"))
    inbox = store.mailbox("INBOX")
    parsed = dict(inbox.parsed([1, 2]))
    assert parsed[1].size == len(body)
    assert parsed[2].size == len(body) - 2, "the parser gets the file as it lies"
    assert sorted(os.listdir(house.state)) == sorted(set(os.listdir(house.state)) & {"cache.db", "cache.db-wal", "cache.db-shm", "state.db", "state.db-wal", "state.db-shm", "lock"})  # fmt: skip


def test_the_cache_may_vanish_or_rot_at_any_time(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 3)
    list(inbox.parsed([1, 2, 3]))
    for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
        (house.state / name).unlink()
    assert len(dict(inbox.parsed([1, 2, 3]))) == 3
    store.close()
    for rubbish in (b"rubbish" * 1000, b""):
        (house.state / "cache.db").write_bytes(rubbish)
        store = house.open()
        assert len(dict(store.mailbox("INBOX").parsed([1, 2, 3]))) == 3
        store.close()
    (house.state / "cache.db").unlink()
    (house.state / "cache.db").mkdir()  # cannot even be made
    store = house.open()
    assert len(dict(store.mailbox("INBOX").parsed([1, 2, 3]))) == 3


def test_recent_is_claimed_once(house: House, store: AccountStore) -> None:
    inbox = mails(house, store, 2)
    assert store.status("INBOX").recent == 2
    assert inbox.recent_from == 1
    assert inbox.claim_recent() == 1
    assert inbox.claim_recent() == 3
    assert store.status("INBOX").recent == 0
    house.drop()
    inbox.sync()
    assert store.status("INBOX").recent == 1
    assert inbox.claim_recent() == 3


def test_an_incoming_of_the_store_needs_no_copy(house: House, store: AccountStore) -> None:
    incoming = store.incoming(10)
    assert isinstance(incoming, Incoming)
    incoming.write(b"x" * 100)
    incoming.flush()
    inode = os.fstat(incoming.descriptor()).st_ino
    store.append("Sent", [NewMessage(incoming)])
    incoming.close()
    (name,) = files(house.maildir / ".Sent/cur")
    assert os.stat(house.maildir / ".Sent/cur" / name).st_ino == inode
    assert os.stat(house.maildir / ".Sent/cur" / name).st_nlink == 1


def test_old_leftovers_in_tmp_go(house: House, store: AccountStore) -> None:
    for name, age in (("old", 40), ("young", 30)):
        (house.maildir / "tmp" / name).write_bytes(b"x")
        stamp = time.time() - age * 3600
        os.utime(house.maildir / "tmp" / name, (stamp, stamp))
    store.mailbox("INBOX")
    assert files(house.maildir / "tmp") == ["old", "young"], "ctime is young: somebody touched it"


def test_old_leftovers_in_tmp_go_once_their_ctime_is_old_too(
    house: House, store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (house.maildir / "tmp/old").write_bytes(b"x")
    later = time.time() + 37 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    store.mailbox("INBOX")
    assert files(house.maildir / "tmp") == []
