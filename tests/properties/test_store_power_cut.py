"""The IMAP store at any crash point: index and Maildir agree again, nothing told is lost, no UID is used twice.

A script of commands runs on a recorded disk until the power is cut; what may survive is opened as the imap room would.
Each message has a text of its own, so a text is a message: copies excepted, one text is one message.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage import sqlite_state
from services.storage.account import AccountStore, NewMessage
from services.storage.atomic import write_all
from services.storage.errors import MailboxMissing, StorageError
from services.storage.mailbox import Mailbox
from services.storage.provision import provision
from services.storage.sqlite_state import SqliteState
from tests.mail_volume import ANNA, House
from tests.properties.disk_model import Disk

# A folder that is collected after the cut would fsync, and cannot.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BOXES = ("INBOX", "Sent", "Extra", "Other")
FLAGS = ("\\Seen", "\\Flagged", "word", "other-word")
STATE = "state/family.example/anna/state.db"

Command = tuple[str, int, int, int]
commands = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive", "arrive", "look", "append", "copy", "move", "expunge", "store", "settle",
             "create", "delete", "rename", "foreign-flag", "foreign-remove"]
        ),
        st.integers(0, 3), st.integers(0, 3), st.integers(0, 5),
    ),
    min_size=3, max_size=14,
)  # fmt: skip


@dataclass
class Told:
    """What clients were told, and what must therefore hold after the cut."""

    mail: dict[str, Counter[bytes]] = field(default_factory=dict)  # by mailbox
    uids: dict[int, dict[int, bytes]] = field(default_factory=dict)  # by UIDVALIDITY: all UIDs ever shown
    expunged: set[tuple[int, int]] = field(default_factory=set)
    modseq: dict[int, int] = field(default_factory=dict)
    flags: dict[tuple[int, int], bytes] = field(default_factory=dict)  # settled
    waiting: Counter[bytes] = field(default_factory=Counter)  # delivered and not yet looked at
    removed: set[bytes] = field(default_factory=set)  # by another program, without an fsync: may come back
    # The command under way: texts whose number may be less or more than told, and what must hold of them.
    under_way: str = ""
    touched: set[bytes] = field(default_factory=set)


class Run:
    """One life of the imap room on a recorded disk."""

    def __init__(self, house: House, told: Told) -> None:
        self.house = house
        self.told = told
        self.store = house.open()
        self.number = 0

    def all_boxes(self) -> dict[str, Mailbox]:
        names = [info.name for info in self.store.mailboxes() if info.exists]
        return {name: self.store.mailbox(name) for name in names}

    def note(self) -> None:
        """A session of each mailbox is told what is there."""
        told = self.told
        mail: dict[str, Counter[bytes]] = {}
        for name, mailbox in self.all_boxes().items():
            texts = {uid: message.read() for uid, message in mailbox.bodies(list(mailbox.uids))}
            assert list(texts) == list(mailbox.uids)
            mail[name] = Counter(texts.values())
            known = told.uids.setdefault(mailbox.uidvalidity, {})
            for uid in known.keys() - texts.keys():
                told.expunged.add((mailbox.uidvalidity, uid))
                told.flags.pop((mailbox.uidvalidity, uid), None)
            known.update(texts)
            told.modseq[mailbox.uidvalidity] = mailbox.highestmodseq
        told.mail, told.touched = mail, set()
        told.waiting.clear()

    def do(self, command: Command) -> None:
        verb, one, two, count = command
        self.number += 1
        source, target = BOXES[one], BOXES[two]
        told = self.told
        told.under_way, told.touched = verb, set()
        if verb == "arrive":
            text = f"arrived {self.number}\r\n".encode()
            told.touched = {text}
            self.arrive(text)
            told.waiting[text] += 1
            told.touched = set()
            return
        if verb == "settle":
            self.store.settle()
            for mailbox in self.all_boxes().values():
                for uid, bits in zip(mailbox.uids, mailbox.flags, strict=True):
                    told.flags[mailbox.uidvalidity, uid] = mailbox.flag_text(bits)
            return
        with contextlib.suppress(StorageError):
            self.change(verb, source, target, count)
        self.note()

    def change(self, verb: str, source: str, target: str, count: int) -> None:
        store, told = self.store, self.told
        if verb == "create":
            store.create(source)
            return
        if verb == "append":
            texts = [f"appended {self.number}.{n}\n".encode() for n in range(count + 1)]
            told.touched = {text.replace(b"\n", b"\r\n") for text in texts}  # as they are served
            store.append(source, [NewMessage(text, FLAGS[:count]) for text in texts])
            return
        mailbox = store.mailbox(source)
        uids = list(mailbox.uids)[:: max(1, count)]
        texts = [message.read() for _, message in mailbox.bodies(uids)]
        if verb == "store":
            for uid in uids:
                told.flags.pop((mailbox.uidvalidity, uid), None)
            mailbox.store(uids, "+-="[count % 3], FLAGS[count % 4 :])  # type: ignore[arg-type]
        elif verb in ("foreign-flag", "foreign-remove"):
            self.foreign(mailbox, uids[:1], texts[:1], verb)
        elif verb == "delete" and source != "INBOX":
            told.touched = set(told.mail.get(source, ()))
            store.delete(source)
        elif verb == "rename" and source != "INBOX":
            told.touched = set(told.mail.get(source, ()))
            store.rename(source, target)
        elif verb in ("copy", "move", "expunge"):
            told.touched = set(texts)
            if verb == "expunge":
                mailbox.remove(uids)
            else:
                getattr(mailbox, verb)(uids, target)

    def arrive(self, text: bytes) -> None:
        """As smtp-in delivers: durable before it is told."""
        new = self.house.maildir / "new"
        name = f"{1_700_000_000 + self.number}.M{self.number}.mx,S={len(text)}"
        descriptor = os.open(self.house.maildir / "tmp" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        write_all(descriptor, text)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(self.house.maildir / "tmp" / name, new / name)
        folder = os.open(new, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def foreign(self, mailbox: Mailbox, uids: list[int], texts: list[bytes], verb: str) -> None:
        folder = self.house.maildir / mailbox.folder.row.folder / "cur"
        for uid, file in mailbox.folder.opened.state.files(mailbox.folder.row.id, uids).items():
            self.told.flags.pop((mailbox.uidvalidity, uid), None)
            if verb == "foreign-flag":
                base, _, letters = file.partition(":2,")
                os.rename(folder / file, folder / f"{base}:2,{'' if 'R' in letters else 'R'}{letters}")
            else:
                self.told.touched = set(texts)
                self.told.removed |= set(texts)
                os.unlink(folder / file)
        mailbox.sync(force=True)

    def end(self) -> None:
        """The process is gone: no settling, no clean close."""
        self.house.stores.clear()
        with contextlib.suppress(Exception):
            self.store._unlock()


@contextmanager
def recorded(disk: Disk) -> Iterator[None]:
    """state.db's commits as steps of the disk; a boot of its own."""
    real = SqliteState.transaction

    @contextmanager
    def transaction(self: SqliteState, *, durable: bool) -> Iterator[None]:
        with real(self, durable=durable):
            yield
            disk.step()
        disk.commit(STATE, self._database.serialize(), durable)

    with mock.patch.object(SqliteState, "transaction", transaction):
        yield


def check(left: Path, told: Told, now: float) -> None:
    """Open what survived, as after a reboot."""
    house = House(left, time=now)
    store = house.open()
    try:
        boxes = {info.name: store.mailbox(info.name) for info in store.mailboxes() if info.exists}
        found: dict[str, Counter[bytes]] = {}
        for name, mailbox in boxes.items():
            agrees(left, store, mailbox)
            texts = {uid: message.read() for uid, message in mailbox.bodies(list(mailbox.uids))}
            found[name] = Counter(texts.values())
            check_uids(told, mailbox, texts)
        check_mail(told, found)
        again = {name: (list(box.uids), list(box.flags), list(box.modseqs)) for name, box in boxes.items()}
    finally:
        store.close()
    store = house.open()
    assert again == {
        name: (list((box := store.mailbox(name)).uids), list(box.flags), list(box.modseqs)) for name in again
    }, "recovery is over when it is over"
    store.close()


def check_uids(told: Told, mailbox: Mailbox, texts: dict[int, bytes]) -> None:
    known = told.uids.get(mailbox.uidvalidity, {})
    for uid, text in texts.items():
        if uid in known:
            assert text == known[uid], "a UID names one message for ever"
            if (mailbox.uidvalidity, uid) in told.expunged:
                raise AssertionError("a UID told expunged is back")
        else:
            assert uid > max(known, default=0), "a UID below one that was told is new"
        expected = told.flags.get((mailbox.uidvalidity, uid))
        if expected is not None:
            assert mailbox.flag_text(mailbox.flags[mailbox.index(uid)]) == expected, "a settled flag"
    assert mailbox.uidnext > max(known, default=0)
    assert mailbox.highestmodseq >= told.modseq.get(mailbox.uidvalidity, 0)


def check_mail(told: Told, found: dict[str, Counter[bytes]]) -> None:
    everywhere: Counter[bytes] = sum(found.values(), Counter())
    before: Counter[bytes] = sum(told.mail.values(), Counter())
    before += told.waiting
    for text in (before.keys() | everywhere.keys()) - told.removed:
        if text not in told.touched:
            assert everywhere[text] == before[text], f"{text!r} is there as often as it was told"
            for name, mail in told.mail.items():
                extra = told.waiting[text] if name == "INBOX" else 0
                if mail[text] and not (told.under_way == "rename" and name not in found):
                    assert found[name][text] == mail[text] + extra, f"{text!r} is where it was told"
        elif told.under_way in ("arrive", "append"):
            assert everywhere[text] <= 1
        elif told.under_way in ("move", "rename", "store", "foreign-flag"):
            assert everywhere[text] == before[text], f"{text!r} is in one of both places"
        elif told.under_way == "copy":
            assert before[text] <= everywhere[text] <= 2 * before[text]
        else:
            assert everywhere[text] <= before[text]


def agrees(left: Path, store: AccountStore, mailbox: Mailbox) -> None:
    """State, memory and disk say the same."""
    folder = left / "mail/family.example/anna" / mailbox.folder.row.folder
    files = mailbox.folder.opened.state.files(mailbox.folder.row.id)
    assert sorted(files.values()) == sorted(path.name for path in (folder / "cur").iterdir())
    assert list((folder / "new").iterdir()) == []
    columns = mailbox.folder.opened.state.columns(mailbox.folder.row.id)
    assert (columns.uids, columns.flags) == (mailbox.uids, mailbox.flags)
    status = store.status(mailbox.name)
    assert (status.messages, status.octets) == (len(mailbox.uids), sum(mailbox.octets))


def play(script: list[Command], steps: int, seed: int, lost: str) -> tuple[int, bool]:
    """Run the script, cut after `steps`, check what survives; (steps made, whether it was cut)."""
    base = Path(tempfile.mkdtemp(prefix="mailstead-cut-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    run: Run | None = None
    try:
        (base / "before/mail").mkdir(parents=True)
        (base / "before/state/family.example/anna").mkdir(parents=True)
        provision(str(base / "before/mail"), ANNA)
        house, told = House(base / "before"), Told()
        disk = Disk(base / "before")
        with mock.patch.object(sqlite_state, "boot_id", lambda: "before"), recorded(disk), disk.recording(steps):
            run = Run(house, told)
            run.note()
            for command in script:
                run.do(command)
        left = disk.survivor(Random(seed), base / "after", lost)
        for name in ("cache.db", "cache.db-wal", "cache.db-shm", "state.db-wal", "state.db-shm", "lock"):
            (left / "state/family.example/anna" / name).unlink(missing_ok=True)
        with mock.patch.object(sqlite_state, "boot_id", lambda: "after"):
            check(left, told, house.time + 60)
        return disk.step_number, disk.cut
    finally:
        if run:
            run.end()
        shutil.rmtree(base)


@settings(max_examples=150, deadline=None)
@given(commands, st.integers(0, 220), st.integers(0, 2**32), st.sampled_from(["some", "some", "all", "none"]))
def test_any_commands_cut_anywhere(script: list[Command], steps: int, seed: int, lost: str) -> None:
    play(script, steps, seed, lost)


STORY: list[Command] = [
    ("create", 2, 0, 0), ("arrive", 0, 0, 0), ("arrive", 0, 0, 0), ("look", 0, 0, 0), ("store", 0, 0, 0),
    ("settle", 0, 0, 0), ("copy", 0, 2, 1), ("append", 1, 0, 2), ("move", 0, 1, 2), ("expunge", 2, 0, 2),
    ("settle", 0, 0, 0), ("rename", 2, 3, 0), ("arrive", 0, 0, 0), ("expunge", 0, 0, 1), ("delete", 3, 0, 0),
]  # fmt: skip


def test_one_story_cut_at_every_step() -> None:
    steps = 0
    while play(STORY, steps, steps, ("some", "all", "none")[steps % 3])[1]:
        steps += 1
    assert steps > 80


def test_the_model_finds_a_store_that_commits_too_lazily() -> None:
    """UIDs told and then lost are found: this is what `durable=True` is for."""
    real = Disk.commit
    failures = 0
    for kept in range(8, 32, 2):

        def forgetful(self: Disk, name: str, content: bytes, durable: bool, kept: int = kept) -> None:
            real(self, name, content, durable and len(self.commits.get(name, ())) < kept)

        with mock.patch.object(Disk, "commit", forgetful):
            try:
                play(STORY, -1, kept, "all")
            except (AssertionError, MailboxMissing):
                failures += 1
    assert failures
