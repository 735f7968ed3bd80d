"""The writers of small state, for power cuts: directory and snapshots, certificates, keys, facts, bans, records, pages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import ssl
from pathlib import Path
from typing import Any

from certificates import NOW as CERTIFIED
from certificates import issue

from services.acme import self_signed
from services.acme.certificate import Pair
from services.acme.install import publish, published
from services.admin import bootstrap
from services.admin.event_index import EventIndex
from services.admin.sessions import Sessions
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.lookup import SnapshotDirectory
from services.directory.publish import Publisher
from services.dkim.keys import KeyStore
from services.runtime import facts
from services.runtime.events import EventLog, NoEvents
from services.runtime.facts import FactQueue
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerUnavailable, Response
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.setup import apply
from services.setup.places import ROOMS
from services.smtp_out.login import Logins
from services.updater import history
from services.updater.journal import Journal
from services.updater.watch import Updater
from tests.faults.writer import Promises, Tell, Writer

NOW = 1_800_000_000.0


def nothing(root: Path) -> None:
    """A first start."""


def folders(*names: str) -> Any:
    def make(root: Path) -> None:
        for name in names:
            (root / name).mkdir(parents=True)

    return make


def context(root: Path, room: str = "imap", **settings: Any) -> Context:
    given = Settings(room_dir=str(root / "room"), log_level="error", **settings)
    return Context(room, given, NoEvents(), Secrets("/nowhere"), Health(room), clock=lambda: NOW)


# --- directory.db, the two snapshots, the first password


def directories(root: Path) -> Directories:
    database = Database(str(root / "admin/directory.db"))
    return Directories(database, Publisher(str(root / "routing"), str(root / "auth")))


def directory_write(root: Path, tell: Tell) -> None:
    made = directories(root)
    settings = Settings(admin_dir=str(root / "admin"))
    address = bootstrap.prepare(made, settings, str(root / "admin"))
    tell(first=address)
    for number in range(3):
        made.add_account(f"a{number}@example.test", f"$hash-{number}")
        tell(account=f"a{number}@example.test", hash=f"$hash-{number}")
    made.add_alias("family@example.test", "a1@example.test")
    tell(alias="family@example.test")
    tell(changing="a0@example.test")
    made.set_password("a0@example.test", "$hash-new")
    tell(account="a0@example.test", hash="$hash-new")
    tell(changing="a2@example.test")
    made.delete_account("a2@example.test")
    tell(deleted="a2@example.test")
    made.database.close()


def directory_check(root: Path, promised: Promises) -> None:
    # A room that reads before admin has started again sees a whole generation or none.
    for folder in ("routing", "auth"):
        if (root / folder / "current").is_symlink():
            assert (root / folder / "current").exists(), f"{folder}: current names a generation that is not there"
            SnapshotDirectory(str(root / folder)).accounts()
    with_database = directories(root)
    settings = Settings(admin_dir=str(root / "admin"))
    bootstrap.prepare(with_database, settings, str(root / "admin"))
    with_database.republish()
    database = with_database.database
    assert database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    first = database.account("admin@example.test")
    assert first is not None
    words = (root / "admin/first-password").read_text()
    assert re.fullmatch(r"(?:[a-z]{6}-){3}[a-z]{6}\n", words), "the first password can be read"
    changing = {one["changing"] for one in promised if "changing" in one}
    deleted = {one["deleted"] for one in promised if "deleted" in one}
    hashes = {one["account"]: one["hash"] for one in promised if "account" in one}
    for address, kept in hashes.items():
        if address in deleted:
            assert database.account(address) is None, f"{address} was deleted and is back"
        elif address not in changing or kept == "$hash-new":
            assert database.password_hash(address) == kept, address
    if any("alias" in one for one in promised):
        assert database.targets("family@example.test") == ["a1@example.test"]
    auth, routing = SnapshotDirectory(str(root / "auth")), SnapshotDirectory(str(root / "routing"))
    assert str(auth.generation) == str(routing.generation) == database.meta("generation")
    assert {each.address for each in auth.accounts()} == {each.account.address for each in database.accounts()}
    for each in database.accounts():
        found = auth.login(each.account.address)
        assert found is not None and found.password_hash == database.password_hash(each.account.address)
    database.close()


# --- certificates and their authority

ISSUED = tuple(issue("mail.example.test", serial=number) for number in (0x11, 0x22, 0x33))
SERIALS = (0x11, 0x22, 0x33)


def pairs(root: Path) -> list[Pair]:
    return [
        Pair((root / f"given/{number}.crt").read_bytes(), (root / f"given/{number}.key").read_bytes(), b"CA")
        for number in range(3)
    ]


def certificates_prepare(root: Path) -> None:
    folders("certs", "given")(root)
    for number, one in enumerate(ISSUED):
        (root / f"given/{number}.crt").write_bytes(one.chain)
        (root / f"given/{number}.key").write_bytes(one.key)


def certificates_write(root: Path, tell: Tell) -> None:
    for number, pair in enumerate(pairs(root)):
        publish(str(root / "certs"), pair, f"{SERIALS[number]:08x}", CERTIFIED + number)
        tell(published=number)


def certificates_check(root: Path, promised: Promises) -> None:
    given = pairs(root)
    found = published(str(root / "certs"))
    last = max((one["published"] for one in promised), default=-1)
    if found is None:
        assert last == -1, "there was a certificate"
    else:
        assert (found.chain, found.key) in [(pair.chain, pair.key) for pair in given[max(0, last) :]]
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(root / "certs/current/fullchain.pem", root / "certs/current/privkey.pem")
    publish(str(root / "certs"), given[2], "00000033", CERTIFIED + 60)
    found = published(str(root / "certs"))
    assert found is not None and found.key == given[2].key
    left = [path.name for path in (root / "certs").iterdir() if not path.is_symlink()]
    assert len(left) <= 2 and not list((root / "certs").glob("current.*")), left


def authority_write(root: Path, tell: Tell) -> None:
    self_signed.make(str(root / "ca"), "mail.example.test", "example.test", CERTIFIED)
    tell(ca=self_signed.read_ca(str(root / "ca")).decode())


def authority_check(root: Path, promised: Promises) -> None:
    kept = self_signed.read_ca(str(root / "ca"))
    if promised:
        assert kept.decode() == promised[0]["ca"], "people have trusted this one"
    pair = self_signed.make(str(root / "ca"), "mail.example.test", "example.test", CERTIFIED + 60)
    now = self_signed.read_ca(str(root / "ca"))
    assert not promised or now == kept
    assert self_signed.is_current(
        pair, now, self_signed.names_for("mail.example.test", "example.test"), CERTIFIED + 90
    )  # fmt: skip


# --- DKIM keys: published in DNS by the owner, so one that was told must stay


def keys_write(root: Path, tell: Tell) -> None:
    store = KeyStore(str(root / "dkim"), lambda: NOW)
    for domain in ("one.example", "two.example"):
        for made in store.make(domain):
            tell(domain=domain, selector=made.selector, record=key_text(root, domain, made.selector))


def key_text(root: Path, domain: str, selector: str) -> str:
    return (root / f"dkim/{domain}/{selector}.pem").read_text()


def keys_check(root: Path, promised: Promises) -> None:
    # The keys of a domain are told together, by `make`'s return; those after the cut may be there or not.
    store = KeyStore(str(root / "dkim"), lambda: NOW + 40 * 86_400)
    for domain in store.domains():
        store.complete()
        assert len(store.keys(domain)) == 2, domain
    for one in promised:
        assert key_text(root, one["domain"], one["selector"]) == one["record"]
    store.make("two.example")
    assert len(store.keys("two.example")) == 2


# --- facts for admin, which is away


class Away(Client):
    """Admin's side: not there, or there."""

    def __init__(self, there: bool) -> None:
        self.there = there
        self.taken: list[dict[str, Any]] = []

    async def post(self, path: str, value: Any) -> Response:
        if not self.there:
            raise PeerUnavailable("admin is away")
        self.taken += value["facts"]
        return Response()

    def close(self) -> None:
        pass


async def post_facts(root: Path, names: list[str], admin: Away, until_sent: bool = False) -> None:
    """A room's run: the facts are posted one after the other, each written before the next."""
    room = context(root)
    facts.WRITE_SECONDS = facts.RETRY_FIRST = facts.RETRY_MOST = 0.001
    waiting = FactQueue(room, str(root / "room/facts.jsonl"), client=admin)
    running = asyncio.create_task(waiting.run())
    for name in names:
        waiting.post("ban", "", key=name)
        while waiting._unwritten:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
    while until_sent and len(waiting):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    room.stop.set()
    await running


def facts_write(root: Path, tell: Tell) -> None:
    for start in ("a", "b"):  # two runs of the room
        names = [f"{start}{number}" for number in range(3)]
        asyncio.run(post_facts(root, names, Away(False)))
        tell(posted=names)


def facts_check(root: Path, promised: Promises) -> None:
    names = [name for one in promised for name in one["posted"]]
    # The room starts, learns one more thing while admin is away, and dies; then admin is there.
    asyncio.run(post_facts(root, ["later"], Away(False)))
    admin = Away(True)
    asyncio.run(post_facts(root, [], admin, until_sent=True))
    taken = {fact.get("key") for fact in admin.taken}
    assert taken >= {*names, "later"}, f"{({*names, 'later'}) - taken} were on disk and are lost"


# --- bans


def logins(root: Path) -> Logins:
    return Logins(context(root, "smtp-out"), None, None, None)  # type: ignore[arg-type]


def bans_write(root: Path, tell: Tell) -> None:
    for number in range(1, 4):
        room = logins(root)
        room.ban(f"203.0.113.{number}", "address", NOW + 9000, "tried")
        room.save()
        tell(banned=f"203.0.113.{number}")


def bans_check(root: Path, promised: Promises) -> None:
    room = logins(root)
    keys = {ban.key for ban in room.bans()}
    assert keys >= {one["banned"] for one in promised}
    room.ban("203.0.113.99", "address", NOW + 9000, "again")
    room.save()
    assert "203.0.113.99" in {ban.key for ban in logins(root).bans()}


# --- the record and its index: may lose its tail


def record_of(root: Path, clock: float) -> EventLog:
    return EventLog(str(root / "events/imap"), "imap", clock=lambda: clock)


def record_write(root: Path, tell: Tell) -> None:
    for start in range(2):
        log = record_of(root, NOW + start)
        for number in range(6):
            log.emit("test", "", number=start * 10 + number, padding="x" * 900)
            log.flush()
        log.close()
        tell(run=start)


def index_of(root: Path) -> EventIndex:
    return EventIndex(str(root / "admin/events.db"), str(root / "events"), ("imap",), clock=lambda: NOW + 60)


def record_check(root: Path, promised: Promises) -> None:
    log = record_of(root, NOW + 30)
    log.emit("test", "", number=99)
    log.close()
    index = index_of(root)
    while index.ingest():
        pass
    found = [json.loads(row[0]) for row in index._connection.execute("SELECT text FROM events ORDER BY id")]
    numbers = [event.get("number") for event in found]
    assert 99 in numbers, "what follows a torn line is read"
    assert len(numbers) == len(set(numbers)) or None in numbers, "no line twice"
    index.close()


def index_prepare(root: Path) -> None:
    folders("events/imap", "admin")(root)
    log = record_of(root, NOW)
    for number in range(40):
        log.emit("test", f"{number:016d}", number=number)
    log.close()


def index_write(root: Path, tell: Tell) -> None:
    index = index_of(root)
    for start in range(3):
        while index.ingest():
            pass
        log = record_of(root, NOW + start + 1)
        for number in range(40):
            log.emit("test", "", number=(start + 1) * 40 + number)
        log.close()
    index.close()


def index_check(root: Path, promised: Promises) -> None:
    lines = set()
    for path in (root / "events/imap").iterdir():
        for line in path.read_bytes().split(b"\n")[:-1]:
            if line.startswith(b"{") and line.endswith(b"}"):
                lines.add(json.loads(line)["number"])
    index = index_of(root)
    while index.ingest():
        pass
    rows = [json.loads(text)["number"] for (text,) in index._connection.execute("SELECT text FROM events")]
    assert index._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    index.close()
    assert len(rows) == len(set(rows)), "a line was taken twice"
    # A segment that the cut made shorter than what was read of it: the index keeps what it had read.
    assert set(rows) >= lines or lines - set(rows) <= {99}, sorted(lines - set(rows))


# --- what only has to be readable: log-ins of the page, the updater's report


def pages_write(root: Path, tell: Tell) -> None:
    for number in range(3):
        Sessions(str(root / "sessions.json"), clock=lambda: NOW).open(f"a{number}@example.test", "mark")
        updater = Updater(context(root, "updater", docker_url="tcp://x:1"), None)  # type: ignore[arg-type]
        updater.checked = NOW + number
        updater._keep()


def pages_check(root: Path, promised: Promises) -> None:
    sessions = Sessions(str(root / "sessions.json"), clock=lambda: NOW)
    assert sessions.find(sessions.open("new@example.test", "mark")) is not None
    updater = Updater(context(root, "updater", docker_url="tcp://x:1"), None)  # type: ignore[arg-type]
    updater._recall()
    assert updater.checked in (0.0, NOW, NOW + 1, NOW + 2)
    updater._keep()


# --- the updater's journal and history: an entry before each step, an end that is told once


def journal_write(root: Path, tell: Tell) -> None:
    for run in range(2):
        journal = Journal(str(root), lambda: NOW)
        for number in range(3):
            tell(begins=(run, number))
            journal.append({"run": run, "number": number})
            tell(entries=(run, number))
        history.add(str(root), {"id": f"u{run}"})
        journal.remove()
        tell(ended=run)


def journal_check(root: Path, promised: Promises) -> None:
    said = {name: value for promise in promised for name, value in promise.items()}
    journal = Journal(str(root), lambda: NOW)
    entries = [(entry["run"], entry["number"]) for entry in journal.read()]
    ended = [entry["id"] for entry in history.read(str(root))]
    assert sorted(ended) == [f"u{run}" for run in range(len(ended))]
    assert len(ended) >= said.get("ended", -1) + 1, "the end was promised"
    last, began = said.get("entries"), said.get("begins")
    if last and last[0] > said.get("ended", -1) and not ended[last[0] : last[0] + 1]:
        assert tuple(last) in entries, "the step was begun after this"
    assert entries == [
        (run, number) for run, number in entries if run == entries[0][0] and number == entries.index((run, number))
    ]
    assert not entries or entries[-1] <= tuple(began)
    journal.append({"run": 9, "number": 9})
    assert len(journal.read()) == len(entries) + 1


# --- setup's secrets

OWNERS = [(room, os.geteuid(), os.getegid()) for room in ROOMS]


def secrets_prepare(root: Path) -> None:
    folders("secrets", *(f"secrets-{room}" for room, _, _ in OWNERS))(root)


def secrets_write(root: Path, tell: Tell) -> None:
    apply.hold_secrets(str(root), OWNERS)
    os.sync()  # as services.setup does before the rooms start
    tell(secrets={path.name: path.read_text() for path in sorted((root / "secrets").iterdir())})


def secrets_check(root: Path, promised: Promises) -> None:
    apply.hold_secrets(str(root), OWNERS)
    store = {path.name: path.read_text() for path in (root / "secrets").iterdir() if not path.name.endswith(".new")}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in store.values()), store
    assert not promised or store == promised[0]["secrets"], "the rooms had started with these"
    for room, _, _ in OWNERS:
        for path in (root / f"secrets-{room}").iterdir():
            assert path.read_text() == store[path.name], path


def database_is_whole(path: Path) -> bool:
    with sqlite3.connect(path) as database:
        return database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


WRITERS = {
    "directory": Writer(
        "directory.db, snapshots, first password", folders("admin", "routing", "auth"), directory_write, directory_check
    ),
    "certificates": Writer("generations of chain and key", certificates_prepare, certificates_write, certificates_check),
    "authority": Writer("the self-signed CA", folders("ca"), authority_write, authority_check),
    "keys": Writer("DKIM private keys", folders("dkim"), keys_write, keys_check),
    "facts": Writer("facts on their way to admin", folders("room"), facts_write, facts_check),
    "bans": Writer("bans and known addresses", folders("room"), bans_write, bans_check),
    "record": Writer("event segments", folders("events/imap", "admin"), record_write, record_check),
    "index": Writer("events.db", index_prepare, index_write, index_check),
    "pages": Writer("sessions and report (not fsynced)", folders("room"), pages_write, pages_check),
    "journal": Writer("the updater's journal and history", folders("room"), journal_write, journal_check),
    "secrets": Writer("setup's secrets", secrets_prepare, secrets_write, secrets_check),
}  # fmt: skip
