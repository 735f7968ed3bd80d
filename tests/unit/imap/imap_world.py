"""An imap room for tests: real stores on a temporary folder, a directory of two accounts, plain or TLS on loopback."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from services.directory.models import Account, Credentials
from services.directory.passwords import Passwords, hash_password
from services.imap.accounts import Accounts
from services.imap.api import Api
from services.imap.connection import Connection
from services.imap.desk import Desk
from services.imap.door import Door
from services.imap.gate import Gate
from services.imap.peers import Peers
from services.imap.trainer import Trainer
from services.imap.watch import Watches
from services.runtime.health import Health
from services.runtime.listener import Listener, listen, listen_tls
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.storage.notifier import LocalNotifier
from services.storage.provision import provision

ANN, BOB = "ann@example.test", "bob@example.test"
PASSWORD = "correct horse"
DELAY = 0.01  # what the first wrong password waits; the rule's half second is for guessers


@cache
def password_hash() -> str:
    return hash_password(PASSWORD)


@dataclass
class Record:
    """Events in memory."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.events.append({"kind": kind, "trace": trace, "outcome": outcome, **fields})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]


@dataclass
class FakeDirectory:
    """ann (also by her user name) and bob."""

    generation: int = 1
    people: dict[str, Account] = field(
        default_factory=lambda: {
            ANN: Account(ANN, "example.test", "ann", login="ann"),
            BOB: Account(BOB, "example.test", "bob"),
        }
    )

    def domain_alias(self, domain: str) -> str:
        return getattr(self, "aliased", {}).get(domain, "")

    def is_local(self, domain: str) -> bool:
        return domain == "example.test"

    def account(self, address: str) -> Account | None:
        return self.people.get(address.lower())

    def aliases(self, source: str) -> tuple[str, ...]:
        return ()

    def sources_for(self, address: str) -> tuple[str, ...]:
        return ()

    def domains(self) -> tuple[str, ...]:
        return ("example.test",)

    def look_anew(self) -> None:
        pass

    def accounts(self) -> tuple[Account, ...]:
        return tuple(self.people.values())

    def login(self, name: str) -> Credentials | None:
        for account in self.people.values():
            if name.lower() in (account.address, account.login) and name:
                return Credentials(account, password_hash() if account.enabled else "")
        return None

    def set(self, address: str, **changes: Any) -> None:
        self.people[address] = replace(self.people[address], **changes)


@dataclass
class FakeFacts:
    """What admin would be told."""

    posted: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def post(self, kind: str, account: str, **fields: Any) -> None:
        self.posted.append((kind, account, fields))


@dataclass
class Clock:
    """The room's time, moved by hand."""

    now: float = 1_770_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """One running room. Listeners: `port` takes log-ins in the clear, `strict_port` does not, `tls_port` is TLS."""

    folder: Path
    settings: Settings
    context: Context
    record: Record
    directory: FakeDirectory
    facts: FakeFacts
    accounts: Accounts
    gate: Gate
    watches: Watches
    api: Api
    desk: Desk
    trainer: Trainer
    port: int = 0
    strict_port: int = 0
    tls_port: int = 0

    def maildir(self, address: str = ANN, mailbox: str = "") -> Path:
        local, _, domain = address.partition("@")
        return self.folder / "mail" / domain / local / mailbox

    def deliver(self, message: bytes, address: str = ANN, mailbox: str = "", name: str = "") -> Path:
        """Put a file into new/ as smtp-in does."""
        folder = self.maildir(address, mailbox) / "new"
        number = len(list(folder.iterdir())) + len(list((folder.parent / "cur").iterdir()))
        path = folder / (name or f"{1_770_000_000 + number}.M{number:06d}P1.host")
        path.write_bytes(message)
        return path


@cache
def certificate(folder: str) -> tuple[str, str]:
    """A self-signed certificate, made once a run."""
    chain, key = f"{folder}/chain.pem", f"{folder}/key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", chain, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key


def server_tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(str(folder)))
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def world(folder: Path, *, tls: ssl.SSLContext | None = None, **changes: Any) -> AsyncIterator[World]:
    """A room on `folder`; `changes` are settings."""
    changes.setdefault("disk_reserve_bytes", 0)  # tests run on full disks too
    settings = Settings(
        mail_dir=str(folder / "mail"), state_dir=str(folder / "state"), room_dir=str(folder / "room"),
        secrets_dir=str(folder / "secrets"), personal_dir=str(folder / "personal"), **changes,
    )  # fmt: skip
    for name in ("mail", "state", "room", "personal"):
        (folder / name).mkdir(exist_ok=True)
    record, directory, facts = Record(), FakeDirectory(), FakeFacts()
    context = Context("imap", settings, record, Secrets(settings.secrets_dir), Health("imap"))
    for address in directory.people:
        provision(settings.mail_dir, address)
    accounts = Accounts(context, directory, LocalNotifier())
    passwords = Passwords()
    gate = Gate(context, directory, passwords, facts)  # type: ignore[arg-type]
    gate.throttle.rules = replace(gate.throttle.rules, first_delay=DELAY)
    loop = asyncio.get_running_loop()
    listeners: list[Listener] = []
    async with asyncio.TaskGroup() as group:
        watches = Watches(context, accounts, group)
        peers = Peers(settings.max_connections, settings.max_connections_per_peer)
        api = Api(context, directory, accounts, gate, watches, peers)
        # No task of it: a test has it work when it says so.
        trainer = Trainer(context, directory, accounts)  # type: ignore[arg-type]
        desk = Desk(
            context, accounts, gate, watches, peers, group, loop, tls and (lambda: tls), settings.max_message_size, settings.max_errors,
            settings.imap_login_timeout, settings.imap_idle_timeout, teach=trainer.take,
        )  # fmt: skip
        open_desk = replace(desk, plaintext_login=True)
        listeners += [await listen(partial(Connection, each), "127.0.0.1:0") for each in (open_desk, desk)]
        if tls is not None:
            listeners.append(await listen_tls(partial(Connection, desk), "127.0.0.1:0", lambda: tls, Door(desk)))
        ports = [listener.port for listener in listeners]
        sweeper = group.create_task(peers.sweep())
        try:
            yield World(
                folder,
                settings,
                context,
                record,
                directory,
                facts,
                accounts,
                gate,
                watches,
                api,
                open_desk,
                trainer,
                *ports,
            )
        finally:
            for listener in listeners:
                listener.close()
            await peers.drain(1)
            watches.close()
            sweeper.cancel()
    await accounts.close()
    passwords.close()


class Client:
    """A client that sees whole responses, literals and all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.count = 0

    @classmethod
    async def connect(cls, port: int, *, tls: bool = False) -> "Client":
        context = client_tls() if tls else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26, ssl=context))

    @classmethod
    async def logged_in(cls, port: int, login: str = ANN, select: str = "") -> "Client":
        client = await cls.connect(port)
        await client.response()
        await client.ok(f'LOGIN {login} "{PASSWORD}"')
        if select:
            await client.ok(f"SELECT {select}")
        return client

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def response(self) -> bytes:
        """One response with its literals."""
        out = b""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 10)
            if not line:
                raise EOFError(out)
            out += line
            if not line.endswith(b"}\r\n") or b"{" not in line:
                return out
            size = line[line.rindex(b"{") + 1 : -3]
            if not size.isdigit():
                return out
            out += await asyncio.wait_for(self.reader.readexactly(int(size)), 10)

    async def command(self, text: str | bytes) -> list[bytes]:
        """All responses, the tagged one last."""
        self.count += 1
        tag = b"t%d" % self.count
        self.send(tag + b" " + (text.encode() if isinstance(text, str) else text) + b"\r\n")
        return await self.until(tag)

    async def until(self, tag: bytes) -> list[bytes]:
        out = []
        while True:
            out.append(await self.response())
            if out[-1].startswith(tag + b" "):
                return out

    async def ok(self, text: str | bytes) -> list[bytes]:
        """The untagged responses to a command that must succeed."""
        *untagged, tagged = await self.command(text)
        assert tagged.split()[1] == b"OK", (text, untagged, tagged)
        return untagged

    async def refused(self, text: str | bytes) -> bytes:
        """The tagged NO or BAD, without its tag."""
        tagged = (await self.command(text))[-1].split(b" ", 1)[1]
        assert tagged[:2] in (b"NO", b"BA"), tagged
        return tagged

    async def append(self, message: bytes, mailbox: str = "INBOX", arguments: str = "") -> None:
        await self.ok(b"APPEND %s %s{%d+}\r\n%s" % (mailbox.encode(), arguments.encode(), len(message), message))

    def close(self) -> None:
        self.writer.transport.abort()


def run(work: Any) -> Any:
    """Run one asynchronous test."""
    return asyncio.run(work)


def letters(count: int) -> Iterator[bytes]:
    """Small messages that differ."""
    for number in range(1, count + 1):
        yield b"From: a@b.example\r\nSubject: letter %d\r\nMessage-ID: <%d@x>\r\n\r\nbody %d\r\n" % (
            number,
            number,
            number,
        )


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task or thread does; ten seconds at most."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to pass")
