"""The whole room with its short process, and a listener beside it: a certificate swapped under an open connection."""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Issued, issue

from services.acme import proof, room, watch
from services.acme.certificate import Pair
from services.acme.install import publish
from services.acme.proof import serial_of
from services.runtime import secrets, tls
from services.runtime.events import NoEvents
from services.runtime.health import Health
from services.runtime.internal_http import Client
from services.runtime.process import Context
from services.runtime.values import Settings, WrongSetting

HOST = "mail.example.test"


class World:
    """A running acme room, a TLS listener that follows what it publishes, and admin."""

    def __init__(self, folder: Path, port: int, **values: str) -> None:
        secrets.make(str(folder / "secrets"), secrets.every_name())
        settings = Settings(
            certs_dir=str(folder / "certs"),
            room_dir=str(folder / "room"),
            http_listen="127.0.0.1:0",
            proof_addresses=f"127.0.0.1:{port}",
            log_level="error",
            **values,
        )
        self.port = port
        known = secrets.Secrets(str(folder / "secrets"))
        self.context = Context("acme", settings, NoEvents(), known, Health("acme"))

    async def ask(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.context.ports['http']}"
        client = Client("admin", self.context.secrets, "acme", url)
        try:
            answer: dict[str, Any] = (await client.request("GET", "/v1/status")).json()
            return answer
        finally:
            client.close()

    async def connect(self) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection to the listener, and the serial it was served."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls.client_context(verify=False))
        return serial_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)), reader, writer

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status once it is as wanted."""
        for _ in range(3000):
            if wanted(status := await self.ask()):
                return status
            await asyncio.sleep(0.01)
        pytest.fail(f"it stayed {status}")


def play(folder: Path, story: Callable[[World], Awaitable[None]], **values: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    async def whole() -> None:
        (folder / "certs").mkdir(exist_ok=True)
        certificates = tls.ServerCertificates(str(folder / "certs"))
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificates.context())
        world = World(folder, server.sockets[0].getsockname()[1], **values)
        running = asyncio.create_task(room.serve(world.context))
        following = asyncio.create_task(certificates.follow())
        try:
            while not world.context.health.started:
                if running.done():
                    await running
                await asyncio.sleep(0.005)
            if world.context.health.healthy:
                await certificates.wait()
            async with asyncio.timeout(30):
                await story(world)
        finally:
            world.context.stop.set()
            following.cancel()
            server.close()
            await running

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(proof, "GREETING_SECONDS", 0.03)
    monkeypatch.setattr(proof, "SETTLE_SECONDS", 0.03)


def write(folder: Path, issued: Issued) -> dict[str, str]:
    for name, content in (("k.pem", issued.key), ("c.pem", issued.chain)):
        (folder / f"{name}.new").write_bytes(content)
        (folder / f"{name}.new").rename(folder / name)
    return {"ssl_type": "manual", "ssl_cert_path": str(folder / "c.pem"), "ssl_key_path": str(folder / "k.pem")}


def test_a_certificate_is_swapped_under_an_open_connection(tmp_path: Path) -> None:
    old, new = issue(HOST, now=time.time()), issue(HOST, now=time.time())

    async def story(world: World) -> None:
        serial, reader, writer = await world.connect()
        assert serial == old.serial
        write(tmp_path, new)
        await world.until(lambda status: status["serial"] == new.serial)
        while (served := await world.connect())[0] != new.serial:
            served[2].transport.abort()
        served[2].transport.abort()
        for _ in range(3):
            writer.write(b"still here\r\n")
            assert await reader.readline() == b"still here\r\n", "the open connection lives on"
        status = await world.until(lambda status: any(each["current"] for each in status["listeners"].values()))
        assert status["listeners"] == {
            f"127.0.0.1:{world.port}": {"serial": new.serial, "current": True, "problem": ""}
        }
        writer.transport.abort()

    play(tmp_path, story, **write(tmp_path, old))


def test_status_of_a_self_signed_start(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        status = await world.ask()
        assert status["mode"] == "self-signed" and status["problem"] == ""
        assert status["subject"] == f"CN={HOST}" and "Mailstead CA" in status["issuer"]
        assert HOST in status["names"] and status["not_before"] < time.time() < status["not_after"]
        assert (await world.connect())[0] == status["serial"]
        trusting = ssl.create_default_context(cafile=str(tmp_path / "certs" / "current" / "ca.pem"))
        _, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=trusting, server_hostname=HOST)
        writer.close()

    play(tmp_path, story)


def test_a_restart_proves_what_is_installed_already(tmp_path: Path) -> None:
    good = issue(HOST, now=time.time())
    (tmp_path / "certs").mkdir()
    publish(str(tmp_path / "certs"), Pair(good.chain, good.key), good.serial, time.time())

    async def story(world: World) -> None:
        await world.until(lambda status: any(each["current"] for each in status["listeners"].values()))

    play(tmp_path, story, **write(tmp_path, good))


def test_a_start_without_a_certificate_says_so_and_recovers(tmp_path: Path) -> None:
    values = {"ssl_type": "manual", "ssl_cert_path": str(tmp_path / "c.pem"), "ssl_key_path": str(tmp_path / "k.pem")}

    async def story(world: World) -> None:
        status = await world.ask()
        assert status["problem"].endswith("c.pem is not there") and status["serial"] == "" and status["names"] == []
        assert not world.context.health.healthy
        good = issue(HOST, now=time.time())
        write(tmp_path, good)
        await world.until(lambda status: status["serial"] == good.serial)
        assert world.context.health.healthy

    play(tmp_path, story, **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ssl_type": "manual"}, "SSL_CERT_PATH='' .* is not allowed"),
        ({"ssl_type": "manual", "ssl_cert_path": "/c", "ssl_key_path": "k"}, "SSL_KEY_PATH='k'"),
    ],
)
def test_a_wrong_setting_ends_the_start(tmp_path: Path, values: dict[str, str], words: str) -> None:
    async def story(world: World) -> None:
        pytest.fail("it started")

    with pytest.raises(WrongSetting, match=words):
        play(tmp_path, story, **values)


def test_a_folder_that_cannot_be_written_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    async def story(world: World) -> None:
        pytest.fail("it started")

    with pytest.raises(OSError, match=f"cannot be read and written by uid {os.geteuid()}"):
        play(tmp_path, story)
