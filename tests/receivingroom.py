"""A whole smtp-in room on loopback for tests: its directory published, its certificate installed, and stand-ins where
imap (HTTP) and smtp-out (a scripted SMTP server) would be.

    async with ReceivingRoom(tmp_path) as room:
        client = await room.client()
        reply = await client.send("a@sender.test", ["anna@example.test"], b"Subject: x\\r\\n")
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.directory.models import Account, Alias, Domain
from services.directory.publish import Contents, Publisher
from services.runtime import secrets
from services.runtime.dns import ZoneLookup
from services.runtime.health import Health
from services.runtime.internal_http import Client as HttpClient
from services.runtime.internal_http import Request, Response, Routes, serve_http
from services.runtime.process import Context
from services.runtime.values import Settings
from services.smtp_in import room as smtp_in_room
from services.storage.personal import RULES, publish
from services.storage.provision import provision
from tests.certificates import issue
from tests.remote import Remote

ISSUED = issue("mail.example.test", now=time.time())
ACCOUNTS = ("admin", "anna", "berta", "retired", "late")
ALIASES = (
    Alias("family@example.test", "anna@example.test"),
    Alias("family@example.test", "berta@example.test"),
    Alias("both@example.test", "anna@example.test"),
    Alias("both@example.test", "out@far.test"),
    Alias("away@example.test", "out@far.test"),
    Alias("team@example.test", "retired@example.test"),
    Alias("team@example.test", "berta@example.test"),
    Alias("@catch.test", "anna@example.test"),
)


@dataclass
class Recorded:
    """An `Events` that remembers."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "trace": trace, "outcome": outcome, **fields})

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """The lines of a kind whose fields are as wanted."""
        return [
            line
            for line in self.lines
            if line["kind"] == kind and all(line.get(name) == value for name, value in wanted.items())
        ]


@dataclass
class Conversation:
    """A client connection: lines out, replies in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def reply(self) -> str:
        """The last line of the next reply; "" at the end."""
        async with asyncio.timeout(10):
            while (line := await self.reader.readline()) and line[3:4] == b"-":
                pass
        return line.decode().rstrip("\r\n")

    async def say(self, *lines: str) -> str:
        """Send lines; the reply to the last."""
        answer = ""
        for line in lines:
            self.writer.write(line.encode() + b"\r\n")
            answer = await self.reply()
        return answer

    async def send(self, sender: str, recipients: list[str], message: bytes, parameters: str = "") -> str:
        """One message; the reply to its final dot, or to what was refused before."""
        answer = await self.say(f"MAIL FROM:<{sender}>{parameters}", *(f"RCPT TO:<{each}>" for each in recipients))
        if answer.startswith("2"):
            answer = await self.say("DATA")
        if answer.startswith("354"):
            self.writer.write(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            answer = await self.reply()
        return answer

    def close(self) -> None:
        self.writer.transport.abort()


class ReceivingRoom:
    """See above. `hints` and `provisioned` are what imap was told; `smtp_out` is where forwards go.

    `quotas` are octets by local part. With a `zone` (see runtime.dns.ZoneLookup) mail is judged by what it says; without one nobody judges.
    """

    def __init__(
        self,
        folder: Path,
        *,
        publish: bool = True,
        imap: bool = True,
        zone: Mapping[tuple[str, str], list[object]] | None = None,
        quotas: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self._quotas = quotas or {}
        self.folder, self.given, self._publish, self._has_imap = folder, settings, publish, imap
        self._lookup = ZoneLookup(zone) if zone is not None else None
        self.events = Recorded()
        self.hints: list[dict[str, str]] = []
        self.provisioned: list[str] = []
        self.provisions = True
        self.ahead = 0.0  # what the room's clock is ahead of the wall's
        self.smtp_out = Remote(
            name="smtp-out", extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN", "XMAILSTEAD 1")
        )
        self._conversations: list[Conversation] = []

    @property
    def mail(self) -> Path:
        return self.folder / "mail"

    async def __aenter__(self) -> "ReceivingRoom":
        self._stack = contextlib.AsyncExitStack()
        await self._stack.enter_async_context(self.smtp_out)
        for name in ("mail", "routing", "auth", "personal", "certs/1", "room", "secrets"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "certs/1/fullchain.pem").write_bytes(ISSUED.chain)
        (self.folder / "certs/1/privkey.pem").write_bytes(ISSUED.key)
        (self.folder / "certs/current").symlink_to("1")
        secrets.make(str(self.folder / "secrets"), secrets.every_name())
        for local in ACCOUNTS[:-1]:
            for name in ("cur", "new", "tmp"):  # `provision` would fsync each, and the test does not pull the plug
                (self.mail / "example.test" / local / name).mkdir(parents=True)
        if self._publish:
            self.publish()
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for conversation in self._conversations:
            conversation.close()
        await self.stop()
        self._imap.close()
        await self._stack.aclose()

    def publish(self) -> None:
        """The routing snapshot that admin would publish."""
        accounts = [
            Account(
                f"{local}@example.test",
                "example.test",
                local,
                enabled=local != "retired",
                administrator=local == "admin",
                quota_bytes=self._quotas.get(local, 0),
            )
            for local in ACCOUNTS
        ]
        publisher = Publisher(str(self.folder / "routing"), str(self.folder / "auth"))
        generation = publisher.next_generation(0)
        domains = [Domain("example.test"), Domain("catch.test")]
        publisher.prepare(Contents(generation, domains, accounts, ALIASES, {each.address: "*" for each in accounts}))
        publisher.link(generation)

    async def _start(self) -> None:
        at = "127.0.0.1:0"
        self.secrets = secrets.Secrets(str(self.folder / "secrets"))
        routes = Routes()
        routes.add("POST", "/v1/hint", self._hint, allow=("smtp-in",))
        routes.add("POST", "/v1/provision", self._provision, allow=("smtp-in",))
        routes.add("POST", "/v1/mailbox", self._mailbox, allow=("smtp-in",))
        self._imap = await serve_http(
            Context("imap", Settings(), self.events, self.secrets, Health("imap")), routes, at
        )
        values: dict[str, Any] = {
            "mail_domain": "example.test",
            "mail_dir": str(self.mail),
            "routing_dir": str(self.folder / "routing"),
            "certs_dir": str(self.folder / "certs"),
            "room_dir": str(self.folder / "room"),
            "secrets_dir": str(self.folder / "secrets"),
            "smtp_listen": at,
            "smtp_proxy_listen": at,
            "lmtp_listen": at,
            "http_listen": at,
            "imap_url": f"http://127.0.0.1:{self._imap.port if self._has_imap else 9}",
            "forward_address": f"127.0.0.1:{self.smtp_out.port}",
            "grace_seconds": 2,
            "log_level": "error",
            "disk_reserve_percent": 0,  # a test machine's disk may be nearly full
            "personal_dir": str(self.folder / "personal"),
            "mail_checks": "off" if self._lookup is None else "on",
        }
        await self._run_room(values | self.given)

    async def _run_room(self, values: dict[str, Any]) -> None:
        self.context = Context(
            "smtp-in", Settings(**values), self.events, self.secrets, Health("smtp-in"),
            clock=lambda: time.time() + self.ahead,
        )  # fmt: skip
        self._serving = asyncio.create_task(smtp_in_room.serve(self.context, self._lookup))
        async with asyncio.timeout(10):
            while not self.context.health.started and not self._serving.done():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        if self._serving.done():
            await self._serving
        self.admin = HttpClient("admin", self.secrets, "smtp-in", f"http://127.0.0.1:{self.port('http')}")

    async def stop(self) -> None:
        """Stop the room as SIGTERM does."""
        self.admin.close()
        self.context.stop.set()
        await self._serving

    def port(self, name: str) -> int:
        return self.context.ports[name]

    @property
    def login(self) -> str:
        """smtp-out's AUTH PLAIN on the internal listener, as base64."""
        return base64.b64encode(f"\0smtp-out\0{self.secrets.pair('smtp-in', 'smtp-out')}".encode()).decode()

    async def connect(self, listener: str = "smtp") -> Conversation:
        """A connection, greeted."""
        conversation = Conversation(*await asyncio.open_connection("127.0.0.1", self.port(listener), limit=1 << 22))
        self._conversations.append(conversation)
        assert (await conversation.reply()).startswith("220")
        return conversation

    async def client(self) -> Conversation:
        """A connection to port 25 that has said EHLO."""
        conversation = await self.connect()
        assert (await conversation.say("EHLO client.test")).startswith("250")
        return conversation

    async def lmtp(self) -> Conversation:
        """A connection of smtp-out, logged in."""
        conversation = await self.connect("lmtp")
        assert (await conversation.say("LHLO smtp-out", f"AUTH PLAIN {self.login}")).startswith("235")
        return conversation

    def messages(self, account: str = "anna@example.test", mailbox: str = "") -> list[bytes]:
        """What lies in `new`, in the order of names."""
        local, _, domain = account.partition("@")
        new = self.mail / domain / local / mailbox / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    async def _hint(self, request: Request) -> Response:
        self.hints += request.json()["items"]
        return Response.of({})

    def rules(self, account: str, script: str) -> None:
        """The account's rules, as imap publishes them."""
        publish(str(self.folder / "personal"), account, RULES, script.encode())

    async def _mailbox(self, request: Request) -> Response:
        asked = request.json()
        local, _, domain = asked["address"].partition("@")
        if not self.provisions:
            return Response.error(503, "not now")
        for name in ("cur", "new", "tmp"):
            (self.mail / domain / local / f".{asked['mailbox']}" / name).mkdir(parents=True)
        return Response.of({"made": True})

    async def _provision(self, request: Request) -> Response:
        address = request.json()["address"]
        self.provisioned.append(address)
        if not self.provisions:
            return Response.error(503, "not now")
        provision(str(self.mail), address)
        return Response.of({})
