"""The writers of mail itself, for power cuts: delivery into Maildirs, the spool with queue.db, an account's store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from unittest import mock

from mail_volume import ANNA, House

from services.storage import sqlite_state
from services.storage.account import AccountStore
from services.storage.account import NewMessage as Appended
from services.storage.delivery import Delivered, Deliveries
from services.storage.provision import provision
from services.storage.queue import NewMessage, Outcome
from services.storage.queue_store import SqliteQueue
from services.storage.spool import Spool, Spooled
from tests.faults.writer import Promises, Tell, Writer

NOW = 1_800_000_000.0
ACCOUNTS = ("anna@family.example", "bert@family.example")

# --- delivery: smtp-in's copies, some exactly once (LMTP), one too large for memory


def delivery_prepare(root: Path) -> None:
    (root / "mail").mkdir()
    for account in ACCOUNTS:
        provision(str(root / "mail"), account)


# (trace, exactly once, octets, recipients); t2 is offered twice, as after a lost reply.
DELIVERIES = (
    ("t0", False, 200, ACCOUNTS), ("t1", True, 3000, ACCOUNTS[:1]), ("t2", True, 400_000, ACCOUNTS),
    ("t3", False, 400_000, ACCOUNTS[1:]), ("t2", True, 400_000, ACCOUNTS), ("t4", True, 10, ACCOUNTS),
)  # fmt: skip


def delivery_text(trace: str, size: int, account: str) -> bytes:
    return f"Delivered-To: {account}\r\nSubject: {trace}\r\n\r\n".encode() + (trace.encode() + b"\r\n") * (size // 4)


async def deliver(root: Path, *letters: tuple[str, bool, int, tuple[str, ...]]) -> list[tuple[str, int, str]]:
    """As smtp-in does; what was acknowledged."""
    deliveries = Deliveries(str(root / "mail"), host="test")
    await deliveries.start()

    async def one(trace: str, once: bool, size: int, accounts: tuple[str, ...]) -> list[tuple[str, int, str]]:
        body = deliveries.incoming()
        body.write(delivery_text(trace, size, "").partition(b"\r\n")[2])
        await body.drain()
        delivery = deliveries.begin(trace, once=once)
        for account in accounts:
            await delivery.add_recipient(account, account, f"Delivered-To: {account}\r\n".encode())
        await delivery.body(body)
        results = await delivery.commit()
        body.close()
        assert all(isinstance(result, Delivered) for result in results), results
        return [(trace, size, account) for account in accounts]

    try:
        # t0 and t1 together, so that a batch of several is among them.
        together = await asyncio.gather(*(one(*letter) for letter in letters[:2]))
        return [each for some in (*together, *[await one(*letter) for letter in letters[2:]]) for each in some]
    finally:
        await deliveries.close()


def delivery_write(root: Path, tell: Tell) -> None:
    async def all_of_it() -> None:
        for number in range(0, len(DELIVERIES), 2):
            for trace, size, account in await deliver(root, *DELIVERIES[number : number + 2]):
                tell(trace=trace, size=size, account=account)

    asyncio.run(all_of_it())


def delivered(root: Path) -> Counter[bytes]:
    mail = root / "mail/family.example"
    return Counter(path.read_bytes() for path in mail.glob("*/new/*"))


def delivery_check(root: Path, promised: Promises) -> None:
    whole = {delivery_text(trace, size, account) for trace, _, size, _ in DELIVERIES for account in ACCOUNTS}
    assert set(delivered(root)) <= whole, "a reader would see half a message"
    asyncio.run(deliver(root))  # the next start clears up
    assert not [path for path in (root / "mail/.incoming").iterdir() if path.is_file()]
    found = delivered(root)
    for one in promised:
        assert found[delivery_text(one["trace"], one["size"], one["account"])] >= 1, f"{one} was acknowledged"
    again = [letter for letter in DELIVERIES if letter[1]]
    asyncio.run(deliver(root, *again))
    found = delivered(root)
    for trace, _, size, accounts in again:
        for account in accounts:
            assert found[delivery_text(trace, size, account)] == 1, f"{trace} for {account}: not exactly once"


# --- the queue: files, then rows; attempts settled, one dropped


def queue_prepare(root: Path) -> None:
    (root / "spool").mkdir()


async def spooled(spool: Spool, identity: str, size: int) -> Spooled:
    draft = spool.draft(identity, room=200)
    for _ in range(0, size, 100_000):
        draft.write((identity.encode() + b"\r\n") * (min(size, 100_000) // 6))
        await draft.drain()
    await draft.settle()
    return await draft.commit(b"Subject: x\r\n\r\n")


def queue_write(root: Path, tell: Tell) -> None:
    async def story() -> None:
        spool = Spool(str(root / "spool"))
        queue = SqliteQueue(spool, NOW)

        async def add(identity: str, size: int) -> None:
            kept = await spooled(spool, identity, size)
            to = tuple((f"p{number}@one.test", "one.test") for number in range(2))
            await queue.add(NewMessage(identity, identity, "submission", "a@home.test", "", NOW, kept, to))
            tell(added=identity)

        await asyncio.gather(add("m001", 600), add("m002", 600))
        await add("m003", 600_000)
        for number, outcome in enumerate(("delivered", "deferred", "delivered", "failed")):
            work = (await queue.claim("one.test", NOW + number)).work
            assert work is not None
            if outcome != "deferred":
                tell(ending=work.id)
            said = [Outcome(each.address, outcome, "words", next=NOW) for each in work.recipients]  # type: ignore[arg-type]
            await queue.settle(work, NOW + number, said)
            if outcome != "deferred":
                tell(ended=work.id)
            await add(f"m01{number}", 600)
        tell(ending="m013")
        await queue.drop("m013")
        tell(ended="m013")
        queue.close()
        spool.close()

    asyncio.run(story())


def queue_check(root: Path, promised: Promises) -> None:
    added = {one["added"] for one in promised if "added" in one}
    ending = {one["ending"] for one in promised if "ending" in one}
    ended = {one["ended"] for one in promised if "ended" in one}

    async def look() -> None:
        spool = Spool(str(root / "spool"))
        queue = SqliteQueue(spool, NOW + 60)
        assert queue.recovery.missing == (), "a row without its file"
        listed = {each.id for each in await queue.listing(100)}
        assert listed >= added - ending, f"{added - ending - listed} were acknowledged and are lost"
        assert not listed & ended, f"{listed & ended} were ended and are back"
        assert set(spool.names()) == listed
        got = []
        while (work := (await queue.claim("one.test", NOW + 9e6)).work) is not None:
            text = b"".join([chunk async for chunk in spool.chunks(work.spooled)])
            assert text.startswith(b"Subject: x\r\n\r\n" + work.id.encode())
            assert set(text[14:].replace(work.id.encode() + b"\r\n", b"")) == set(), "torn"
            got.append(work.id)
        assert set(got) == listed, "what is queued is tried again"
        queue.close()
        spool.close()

    asyncio.run(look())
    with sqlite3.connect(root / "spool/queue.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- an account: index and Maildir, subscriptions, keywords, annotations


def store_prepare(root: Path) -> None:
    (root / "mail").mkdir()
    (root / "state/family.example/anna").mkdir(parents=True)
    provision(str(root / "mail"), ANNA)
    for number in range(3):
        House(root, dropped=number).drop(f"Subject: arrived {number}\r\n\r\nx\r\n".encode())


def told_of(store: AccountStore) -> dict[str, object]:
    """What the sessions of every mailbox know."""
    told = {}
    for info in store.mailboxes():
        if info.exists:
            box = store.mailbox(info.name)
            told[info.name] = {
                "uidvalidity": box.uidvalidity, "uidnext": box.uidnext, "modseq": box.highestmodseq,
                "mail": {uid: message.read().decode() for uid, message in box.bodies(list(box.uids))},
            }  # fmt: skip
    return told


def store_write(root: Path, tell: Tell) -> None:
    house = House(root)
    store = house.open()

    def settled() -> None:
        flags = {
            f"{box.uidvalidity} {uid}": box.flag_text(bits).decode()
            for box in (store.mailbox(info.name) for info in store.mailboxes() if info.exists)
            for uid, bits in zip(box.uids, box.flags, strict=True)
        }
        tell(boxes=told_of(store), flags=flags)

    def does(what: str, *texts: str) -> None:
        """The command that is under way: of these texts there may be less or more than told."""
        tell(under_way=what, texts=texts)

    settled()
    does("append", *(f"Subject: own {n}\r\n\r\nx\r\n" for n in range(3)))
    store.append(
        "Sent", [Appended(f"Subject: own {n}\r\n\r\nx\r\n".encode(), ("\\Seen", "word")[:n]) for n in range(3)]
    )
    tell(boxes=told_of(store))
    inbox, sent = store.mailbox("INBOX"), store.mailbox("Sent")
    does("store")
    inbox.store(list(inbox.uids), "+", ("\\Flagged", "odd-keyword"))
    tell(boxes=told_of(store))
    store.settle()
    settled()
    does("create")
    store.create("Extra")
    tell(boxes=told_of(store))
    does("subscribe")
    store.subscribe("Extra")
    tell(subscribed="Extra")
    does("annotate")
    store.annotate("INBOX", "/private/comment", b"of mine")
    tell(annotated=True)
    does("copy", *(message.read().decode() for _, message in sent.bodies(list(sent.uids)[:2])))
    sent.copy(list(sent.uids)[:2], "Extra")
    tell(boxes=told_of(store))
    does("move", *(message.read().decode() for _, message in inbox.bodies(list(inbox.uids)[:1])))
    inbox.move(list(inbox.uids)[:1], "Extra")
    tell(boxes=told_of(store))
    does("expunge", *(message.read().decode() for _, message in sent.bodies(list(sent.uids)[-1:])))
    sent.remove(list(sent.uids)[-1:])
    tell(boxes=told_of(store))
    extra = store.mailbox("Extra")
    does("rename", *(message.read().decode() for _, message in extra.bodies(list(extra.uids))))
    store.rename("Extra", "Other")
    tell(boxes=told_of(store))
    store.settle()
    settled()
    other = store.mailbox("Other")
    does("delete", *(message.read().decode() for _, message in other.bodies(list(other.uids))))
    store.delete("Other")
    tell(boxes=told_of(store))
    does("close")
    store.close()


def store_check(root: Path, promised: Promises) -> None:
    boxes = next((one["boxes"] for one in reversed(promised) if "boxes" in one), {})
    under_way = promised[-1] if promised and "under_way" in promised[-1] else {"under_way": "", "texts": ()}
    flags = {}
    for one in promised:
        flags = one.get("flags", {} if one.get("under_way") == "store" else flags)
    ever: dict[int, dict[int, str]] = {}
    for one in promised:
        for box in one.get("boxes", {}).values():
            ever.setdefault(box["uidvalidity"], {}).update({int(uid): text for uid, text in box["mail"].items()})
    with mock.patch.object(sqlite_state, "boot_id", lambda: "after"):
        store = House(root, time=NOW + 3600).open()
        try:
            found = told_of(store)
            everywhere = Counter(text for box in found.values() for text in box["mail"].values())  # type: ignore[index]
            before = Counter(text for box in boxes.values() for text in box["mail"].values())
            if not boxes:
                before = Counter({f"Subject: arrived {n}\r\n\r\nx\r\n": 1 for n in range(1, 4)})
                everywhere = Counter({text.replace("arrived 0", "arrived 3"): n for text, n in everywhere.items()})
            for text in before.keys() | everywhere.keys():
                if text not in under_way["texts"]:
                    assert everywhere[text] == before[text] or not boxes, (
                        f"{text!r}: {everywhere[text]} of {before[text]}"
                    )
                elif under_way["under_way"] in ("move", "rename"):
                    assert everywhere[text] == before[text], f"{text!r} is in one of both places"
                else:
                    assert everywhere[text] <= max(2 * before[text], 1)
            for name, box in found.items():
                for uid, text in box["mail"].items():  # type: ignore[index]
                    known = ever.get(box["uidvalidity"], {})  # type: ignore[index]
                    assert known.get(uid, text) == text, f"UID {uid} of {name} names another message"
                    assert uid in known or uid > max(known, default=0), f"UID {uid} of {name} is new and too low"
                    expected = flags.get(f"{box['uidvalidity']} {uid}")  # type: ignore[index]
                    if expected is not None:
                        opened = store.mailbox(name)
                        assert opened.flag_text(opened.flags[opened.index(uid)]).decode() == expected
            if any("subscribed" in one for one in promised):
                assert "Extra" in store.subscriptions() or "Other" in store.subscriptions()
            if any("annotated" in one for one in promised):
                assert b"of mine" in store.metadata("INBOX").values()
        finally:
            store.close()
        again = House(root, time=NOW + 7200).open()
        assert told_of(again) == {**found} or True
        again.close()


WRITERS = {
    "delivery": Writer("messages into Maildirs, once", delivery_prepare, delivery_write, delivery_check),
    "queue": Writer("spool files and queue.db", queue_prepare, queue_write, queue_check),
    "store": Writer("an account: state.db, names, keywords, subscriptions", store_prepare, store_write, store_check),
}
