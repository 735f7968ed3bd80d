"""The room as it runs: snapshot, certificate, listeners, HTTP with secrets; and real clients: imaplib and mbsync."""

import asyncio
import contextlib
import imaplib
import mailbox
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mailclients
import pytest

from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.passwords import hash_password
from services.directory.publish import Publisher
from services.imap import wire
from services.imap.room import serve
from services.runtime import secrets
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerRefused
from services.runtime.process import Context
from services.runtime.values import Settings
from tests.certificates import issue
from tests.unit.imap.imap_world import Record, client_tls, letters, until

PASSWORD = "correct horse battery"
ANNA = "anna@home.test"


class Room:
    """One running room with its directory published."""

    def __init__(self, folder: Path, grace_seconds: int) -> None:
        self.folder, self.grace_seconds = folder, grace_seconds
        self.record = Record()
        self.context: Context = None  # type: ignore[assignment]

    def prepare(self) -> None:
        for name in ("routing", "auth", "certs/1", "room", "secrets", "mail", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        issued = issue("mail.home.test", now=time.time())
        (self.folder / "certs/1/fullchain.pem").write_bytes(issued.chain)
        (self.folder / "certs/1/privkey.pem").write_bytes(issued.key)
        (self.folder / "certs/current").symlink_to("1")
        secrets.make(str(self.folder / "secrets"), secrets.every_name())
        self.database = Database(str(self.folder / "directory.db"))
        self.directory = Directories(self.database, Publisher(str(self.folder / "routing"), str(self.folder / "auth")))
        self.directory.add_domain("home.test")
        self.directory.add_account(ANNA, hash_password(PASSWORD), login="anna")

    async def __aenter__(self) -> "Room":
        self.prepare()
        at = "127.0.0.1:0"
        settings = Settings(
            mail_domain="home.test", mail_dir=str(self.folder / "mail"), state_dir=str(self.folder / "state"),
            room_dir=str(self.folder / "room"), auth_dir=str(self.folder / "auth"),
            certs_dir=str(self.folder / "certs"), secrets_dir=str(self.folder / "secrets"), http_listen=at,
            imaps_listen=at, imap_listen=at, admin_url="http://127.0.0.1:9", grace_seconds=self.grace_seconds, log_level="error",
            disk_reserve_bytes=0,
        )  # fmt: skip
        known = secrets.Secrets(settings.secrets_dir)
        self.context = Context("imap", settings, self.record, known, Health("imap"))
        self.serving = asyncio.create_task(serve(self.context))
        await until(lambda: self.context.health.started or self.serving.done())
        if self.serving.done():
            await self.serving
        self.admin = Client("admin", known, "imap", f"http://127.0.0.1:{self.port('http')}")
        self.smtp_in = Client("smtp-in", known, "imap", f"http://127.0.0.1:{self.port('http')}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.admin.close()
        self.smtp_in.close()
        self.context.stop.set()
        await self.serving
        self.database.close()

    def port(self, name: str) -> int:
        return self.context.ports[name]

    def maildir(self) -> Path:
        return self.folder / "mail" / "home.test" / "anna"


@contextlib.asynccontextmanager
async def room(folder: Path, *, grace_seconds: int = 1) -> AsyncIterator[Room]:
    async with Room(folder, grace_seconds) as running:
        yield running


def test_imaplib_reads_mail_over_tls_and_starttls(tmp_path: Path) -> None:
    message = b"From: a@b.example\r\nSubject: hi\r\n\r\nwords\r\n"

    def over_tls(port: int) -> list[Any]:
        with mailclients.imap(port, "anna", PASSWORD) as client:
            assert client.append("INBOX", "(\\Seen)", None, message)[0] == "OK"  # type: ignore[arg-type]
            assert client.append("Sent", None, imaplib.Time2Internaldate(time.time()), message)[0] == "OK"  # type: ignore[arg-type]
            assert client.select("INBOX") == ("OK", [b"1"])
            status, listed = client.list()
            assert (status, len(listed)) == ("OK", 6)
            assert client.search(None, "SUBJECT", "hi") == ("OK", [b"1"])
            status, fetched = client.uid("FETCH", "1", "(FLAGS BODY[])")
            assert client.store("1", "+FLAGS", "\\Deleted")[0] == "OK"
            assert client.expunge() == ("OK", [b"1"])
            assert client.close()[0] == "OK"
            return fetched

    def over_starttls(port: int) -> str:
        client = imaplib.IMAP4("127.0.0.1", port, 10)
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            client.login(ANNA, PASSWORD)
        client.starttls(mailclients.trusting())
        status, _ = client.authenticate("PLAIN", lambda _: b"\0anna\0" + PASSWORD.encode())
        client.logout()
        return status

    async def work() -> None:
        async with room(tmp_path) as running:
            ((head, body), *_) = await asyncio.to_thread(over_tls, running.port("imaps"))
            assert body == message and b"\\Seen" in head
            assert await asyncio.to_thread(over_starttls, running.port("imap")) == "OK"
            # Told to admin when it is there: kept on disk until then.
            assert (running.folder / "room" / "facts.jsonl").exists() or running.record.of("login")
            assert [event["version"] for event in running.record.of("tls")]

    asyncio.run(work())


def test_other_rooms_ask_with_their_secret(tmp_path: Path) -> None:
    async def work() -> None:
        async with room(tmp_path) as running:
            assert running.maildir().is_dir(), "provisioned at the start"
            (running.maildir() / "new" / "1.M1P1.x").write_bytes(b"x\r\n")
            item = {"account": ANNA, "mailbox": "INBOX", "name": "1.M1P1.x"}
            assert (await running.smtp_in.post("/v1/hint", {"items": [item]})).status == 200
            assert (await running.smtp_in.post("/v1/provision", {"address": ANNA})).json() == {"made": False}
            used = (await running.admin.request("GET", "/v1/usage")).json()["accounts"]
            assert used == {ANNA: {"bytes": 3, "messages": 1}}
            with pytest.raises(PeerRefused, match="403"):
                await running.smtp_in.request("DELETE", f"/v1/mail/{ANNA}")
            health = await running.admin.request("GET", "/health")
            assert health.json()["state"] == "ok"

    asyncio.run(work())


def test_a_new_account_can_log_in_within_seconds(tmp_path: Path) -> None:
    def log_in(port: int) -> None:
        with mailclients.imap(port, "ben@home.test", PASSWORD) as client:
            assert client.select("Junk")[0] == "OK"

    async def work() -> None:
        async with room(tmp_path) as running:
            await asyncio.to_thread(running.directory.add_account, "ben@home.test", hash_password(PASSWORD))
            await asyncio.sleep(0)
            for _ in range(100):
                try:
                    await asyncio.to_thread(log_in, running.port("imaps"))
                    return
                except imaplib.IMAP4.error:
                    await asyncio.sleep(0.05)
            raise AssertionError("ben cannot log in")

    asyncio.run(work())


def test_mbsync_syncs_both_ways(tmp_path: Path) -> None:
    """Pull, change on both sides, sync, and compare: messages, flags, deletions, a folder made on the client."""
    assert shutil.which("mbsync"), "isync is installed by scripts/test"
    near = tmp_path / "near"

    def sync(port: int) -> None:
        done = mailclients.mbsync(near, port, ANNA, PASSWORD)
        assert done.status == 0, done.output

    def names(folder: str) -> dict[str, str]:
        """Subject → flags of the client's copy."""
        found = mailbox.Maildir(near / "mail" / folder, factory=None, create=False)
        return {str(message["Subject"]): message.get_flags() for message in found}  # type: ignore[attr-defined]

    def first_changes(port: int) -> None:
        with mailclients.imap(port, "anna", PASSWORD) as client:
            client.select("INBOX")
            client.store("2", "+FLAGS", "\\Flagged")
            client.store("3", "+FLAGS", "\\Deleted")
            client.expunge()
        found = mailbox.Maildir(near / "mail" / "INBOX", factory=None, create=False)
        for key, message in found.items():
            if message["Subject"] == "letter 1":
                message.add_flag("S")  # type: ignore[attr-defined]
                found[key] = message
            elif message["Subject"] == "letter 4":
                found.discard(key)
        own = mailbox.Maildir(near / "mail" / "Archive", create=False)
        own.add(b"Subject: from the client\n\nwritten here\n")

    def server_side(port: int) -> tuple[dict[str, str], str]:
        with mailclients.imap(port, "anna", PASSWORD) as client:
            client.select("INBOX", readonly=True)
            _, fetched = client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
            inbox = {
                part[1].decode().split(": ")[1].strip(): part[0].decode().split("FLAGS (")[1].split(")")[0]
                for part in fetched
                if isinstance(part, tuple)
            }
            client.select("Archive", readonly=True)
            _, ((_, text), *_) = client.fetch("1", "(BODY.PEEK[])")
            return inbox, text.decode()

    async def work() -> None:
        async with room(tmp_path) as running:
            for number, message in enumerate(letters(5), 1):
                (running.maildir() / "new" / f"{number}.M{number}P1.x").write_bytes(message)
            port = running.port("imaps")
            await asyncio.to_thread(sync, port)
            assert set(names("INBOX")) == {f"letter {number}" for number in range(1, 6)}
            await asyncio.to_thread(first_changes, port)
            await asyncio.to_thread(sync, port)
            await asyncio.to_thread(sync, port)
            assert names("INBOX") == {"letter 1": "S", "letter 2": "F", "letter 5": ""}
            inbox, archived = await asyncio.to_thread(server_side, port)
            assert {name: flags.replace("\\Recent", "").strip() for name, flags in inbox.items()} == {
                "letter 1": "\\Seen", "letter 2": "\\Flagged", "letter 5": ""
            }  # fmt: skip
            assert archived.startswith("Subject: from the client\r\n") and "\n" not in archived.replace("\r\n", "")
            assert running.record.of("bug") == []

    asyncio.run(work())


@pytest.mark.parametrize("tls", [True, False])
def test_a_client_that_stays_after_bye_does_not_hold_up_the_stop(
    tmp_path: Path, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "GOODBYE_SECONDS", 0.05)
    monkeypatch.setattr(wire, "LINGER_SECONDS", 3600.0)

    async def story() -> None:
        async with room(tmp_path, grace_seconds=3600) as running:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port("imaps" if tls else "imap"), ssl=client_tls() if tls else None
            )
            assert (await reader.readline()).startswith(b"* OK")
            # No close from here: over TLS the server waits for our close_notify, over TCP for nothing.
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            running.context.stop.set()
            await asyncio.wait_for(running.serving, 20)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await reader.readline()).startswith(b"* BYE [UNAVAILABLE] the server is going down")
            writer.transport.abort()

    asyncio.run(story())


def test_an_append_in_flight_is_kept_and_answered_before_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with room(tmp_path, grace_seconds=20) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port("imaps"), ssl=client_tls())
            await reader.readline()
            writer.write(f'a LOGIN anna "{PASSWORD}"\r\n'.encode())
            await reader.readline()
            message = b"Subject: kept\r\n\r\n" + b"x" * 100_000 + b"\r\n"
            writer.write(b"b APPEND INBOX {%d}\r\n" % len(message))
            assert (await reader.readline()).startswith(b"+")
            writer.write(message + b"\r\n")
            running.context.stop.set()
            lines = (await asyncio.wait_for(reader.read(), 20)).split(b"\r\n")
            writer.close()
            kept = [
                path for path in running.maildir().rglob("*") if path.is_file() and b"kept" in path.read_bytes()[:40]
            ]
            assert any(line.startswith(b"* BYE") for line in lines), lines
            assert bool(kept) == any(line.startswith(b"b OK") for line in lines), "what was acknowledged is there"

    asyncio.run(asyncio.wait_for(story(), 40))
