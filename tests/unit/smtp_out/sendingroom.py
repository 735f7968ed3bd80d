"""A whole smtp-out room on loopback for tests: its directory published, its certificate installed, and scripted servers
where dkim, smtp-in, the relay and the world would be.

    async with SendingRoom(tmp_path) as room:
        reply = await room.send("anna@home.test", ["bob@far.test"], b"...")
"""

import asyncio
import contextlib
import dataclasses
import smtplib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.passwords import hash_password
from services.directory.publish import Publisher
from services.runtime import secrets
from services.runtime.dns import ZoneLookup
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerRefused, Request, Response, Routes, serve_http
from services.runtime.process import Context
from services.runtime.values import Settings
from services.smtp_out import room as smtp_out_room
from tests.certificates import issue
from tests.remote import Remote

PASSWORD = "correct horse battery"
HASH = hash_password(PASSWORD)
ISSUED = issue("mail.home.test", now=time.time())
ZONE: dict[tuple[str, str], list[object]] = {
    ("far.test", "MX"): [(10, "mx.far.test")],
    ("mx.far.test", "A"): ["127.0.0.1"],
}


@dataclasses.dataclass
class Recorded:
    """An `Events` that remembers."""

    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "trace": trace, "outcome": outcome, **fields})

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.lines
            if line["kind"] == kind and all(line.get(name) == value for name, value in wanted.items())
        ]


class SendingRoom:
    """See above. `relay`, `lmtp` and `world` are scripted servers; `sign` answers for dkim."""

    def __init__(self, folder: Path, *, direct: bool = False, zone: Any = None, **settings: Any) -> None:
        self.folder, self.direct, self.zone = folder, direct, zone or ZONE
        self.relay = Remote(name="relay.test", extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN"))
        self.lmtp = Remote(
            name="smtp-in", lmtp=True, extensions=("PIPELINING", "8BITMIME", "XMAILSTEAD 1", "AUTH PLAIN")
        )
        self.world = Remote()
        self.given = settings
        self.events = Recorded()
        self.signed: list[Request] = []
        self.ahead = 0.0  # what the room's clock is ahead of the wall's
        self.sign: Callable[[Request], Response] = lambda _: Response(200, b"DKIM-Signature: d=home.test; b=x\r\n")
        self.context: Context = None  # type: ignore[assignment]

    async def __aenter__(self) -> "SendingRoom":
        self._stack = contextlib.AsyncExitStack()
        for remote in (self.relay, self.lmtp, self.world):
            await self._stack.enter_async_context(remote)
        self._prepare()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._stack.callback(self._dkim.close)
        await self._stack.aclose()

    def _prepare(self) -> None:
        for name in ("routing", "auth", "certs/1", "spool", "room", "secrets"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "certs/1/fullchain.pem").write_bytes(ISSUED.chain)
        (self.folder / "certs/1/privkey.pem").write_bytes(ISSUED.key)
        (self.folder / "certs/current").symlink_to("1")
        secrets.make(str(self.folder / "secrets"), secrets.every_name())
        self._database = Database(str(self.folder / "directory.db"))
        self._stack.callback(self._database.close)
        self.directory = Directories(self._database, Publisher(str(self.folder / "routing"), str(self.folder / "auth")))
        self.directory.add_domain("home.test")
        self.directory.add_account("admin@home.test", HASH, administrator=True)
        self.directory.add_account("anna@home.test", HASH)
        self.directory.add_account("ben@home.test", HASH)
        self.directory.add_alias("family@home.test", "anna@home.test")
        self.directory.add_alias("family@home.test", "ben@home.test")

    def settings(self) -> Settings:
        at = "127.0.0.1:0"
        values: dict[str, Any] = {
            "mail_domain": "home.test",
            "spool_dir": str(self.folder / "spool"),
            "room_dir": str(self.folder / "room"),
            "auth_dir": str(self.folder / "auth"),
            "certs_dir": str(self.folder / "certs"),
            "secrets_dir": str(self.folder / "secrets"),
            "http_listen": at,
            "forward_listen": at,
            "submissions_listen": at,
            "submission_listen": at,
            "dkim_url": f"http://127.0.0.1:{self._dkim.port}",
            "admin_url": "http://127.0.0.1:9",
            "lmtp_address": f"127.0.0.1:{self.lmtp.port}",
            "mx_port": self.world.port,
            "grace_seconds": 1,
            "log_level": "error",
        }
        if not self.direct:
            values |= {"relay_host": "127.0.0.1", "relay_port": self.relay.port, "relay_tls": "none"}
            values |= {"relay_user": "us", "relay_password": "secret"}
        return Settings(**(values | self.given))

    async def start(self) -> None:
        secret = secrets.Secrets(str(self.folder / "secrets"))
        routes = Routes()
        routes.add("POST", "/v1/sign", self._signing, allow=("smtp-out",))
        dkim = Context("dkim", Settings(), self.events, secret, Health("dkim"))
        self._dkim = await serve_http(dkim, routes, "127.0.0.1:0")
        self.context = Context(
            "smtp-out", self.settings(), self.events, secret, Health("smtp-out"), clock=lambda: time.time() + self.ahead
        )
        with mock.patch.object(smtp_out_room, "Resolver", lambda _: ZoneLookup(self.zone)):
            self._serving = asyncio.create_task(smtp_out_room.serve(self.context))
            async with asyncio.timeout(10):
                while not self.context.health.started and not self._serving.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        if self._serving.done():
            await self._serving
        self.admin = Client("admin", secret, "smtp-out", f"http://127.0.0.1:{self.port('http')}")

    async def stop(self) -> None:
        self.admin.close()
        self.context.stop.set()
        await self._serving
        self._dkim.close()

    async def _signing(self, request: Request) -> Response:
        self.signed.append(request)
        return self.sign(request)

    def port(self, name: str) -> int:
        return self.context.ports[name]

    # --- what a client does

    def client(self, listener: str = "submissions", source: str = "127.0.0.1") -> smtplib.SMTP:
        """Connected, under TLS, not logged in. Blocks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if listener == "submissions":
            return smtplib.SMTP_SSL(
                "127.0.0.1", self.port(listener), "laptop", timeout=10, context=context, source_address=(source, 0)
            )
        client = smtplib.SMTP("127.0.0.1", self.port(listener), "laptop", timeout=10, source_address=(source, 0))
        client.starttls(context=context)
        return client

    async def send(
        self,
        sender: str,
        recipients: Sequence[str],
        message: bytes,
        *,
        login: str = "anna@home.test",
        password: str = PASSWORD,
        listener: str = "submissions",
        source: str = "127.0.0.1",
        options: Sequence[str] = (),
    ) -> str:
        """Log in and send; the reply to the final dot, or to what was refused, as `code text`."""

        def talk() -> str:
            try:
                with self.client(listener, source) as client:
                    client.login(login, password)
                    code, text = client.mail(sender, options)
                    for recipient in recipients if code == 250 else ():
                        code, text = client.rcpt(recipient)
                        if code != 250:
                            break
                    if code == 250:
                        code, text = client.data(message)
                    return f"{code} {text.decode()}"
            except smtplib.SMTPResponseException as error:
                text = error.smtp_error
                return f"{error.smtp_code} {text.decode() if isinstance(text, bytes) else text}"

        return await asyncio.to_thread(talk)

    async def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> Any:
        """As admin; JSON, or the status where it is an error."""
        try:
            return (await self.admin.request(method, path, body=body, query=query or None)).json()
        except PeerRefused as refused:
            return refused.response.status

    async def queue(self) -> list[dict[str, Any]]:
        """What is queued, once nothing of it is in flight."""
        async with asyncio.timeout(10):
            while True:
                messages = (await self.ask("GET", "/v1/queue"))["messages"]
                if not any(each["state"] == "in flight" for message in messages for each in message["recipients"]):
                    return messages  # type: ignore[no-any-return]
                await asyncio.sleep(0.005)


async def until(condition: Callable[[], Any], seconds: float = 5) -> Any:
    """Wait for `condition` to give something true."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return found


@contextlib.asynccontextmanager
async def sending(folder: Path, **options: Any) -> AsyncIterator[SendingRoom]:
    """A room, open."""
    async with SendingRoom(folder, **options) as room:
        yield room
