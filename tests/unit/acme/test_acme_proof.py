"""Proof on the wire: each kind of listener shows its certificate, each fault is said in words."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Issued, issue

from services.acme import proof
from services.acme.proof import Prover, Served, prove, serial_of
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings

HOST = "mail.example.test"
ONE, TWO = issue(HOST, serial=0x0ABC), issue(HOST, serial=0x0DEF)
Dialogue = list[tuple[bytes, bytes]]  # (what is expected, what is answered), the first expecting nothing

SMTP: Dialogue = [
    (b"", b"220-mail.example.test\r\n220 ESMTP\r\n"),
    (b"EHLO mail.example.test\r\n", b"250-mail.example.test\r\n250-STARTTLS\r\n250 SIZE\r\n"),
    (b"STARTTLS\r\n", b"220 2.0.0 go\r\n"),
]
IMAP: Dialogue = [
    (b"", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n"),
    (b"a STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\na OK begin\r\n"),
]


def context_of(folder: Path, issued: Issued) -> ssl.SSLContext:
    (folder / "c.pem").write_bytes(issued.chain)
    (folder / "k.pem").write_bytes(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "GREETING_SECONDS", 0.03)
    monkeypatch.setattr(proof, "SETTLE_SECONDS", 0)


@contextlib.asynccontextmanager
async def listener(context: ssl.SSLContext | None, dialogue: Dialogue | None) -> AsyncIterator[str]:
    """A server that plays `dialogue` and then speaks TLS; without a dialogue TLS comes first. Gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, ConnectionError):
            for expected, answer in dialogue or []:
                if expected and await reader.readexactly(len(expected)) != expected:
                    break
                writer.write(answer)
            else:
                if dialogue and context:
                    await writer.start_tls(context)
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if dialogue is not None else context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def one(address: str) -> Served:
    return (await prove([address], HOST))[address]


@pytest.mark.parametrize("dialogue", [SMTP, IMAP, None], ids=["SMTP", "IMAP", "implicit TLS"])
def test_the_serial_is_read_from_each_kind_of_listener(tmp_path: Path, dialogue: Dialogue | None) -> None:
    async def story() -> None:
        async with listener(context_of(tmp_path, ONE), dialogue) as address:
            assert await one(address) == Served("ABC")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("dialogue", "words"),
    [
        ([(b"", b"220 hello\r\n"), (b"EHLO mail.example.test\r\n", b"500 no\r\n")], "it answered '500 no'"),
        ([*SMTP[:2], (b"STARTTLS\r\n", b"454 4.7.0 not now\r\n")], "it answered '454 4.7.0 not now'"),
        ([*IMAP[:1], (b"a STARTTLS\r\n", b"a NO not now\r\n")], "it answered 'a NO not now'"),
        ([(b"", b"554 go away\r\n")], "it greets with '554 go away'"),
        ([(b"", b"HTTP/1.1 400\r\n")], "it greets with"),
        ([(b"", b"x" * 10_000)], "limit"),
        ([*SMTP, (b"\x16", b"this is not TLS at all, not in the least\r\n")], "SSL"),
    ],
)
def test_faults_are_said_in_words(dialogue: Dialogue, words: str) -> None:
    async def story() -> None:
        async with listener(None, dialogue) as address:
            served = await one(address)
            assert not served.serial and words in served.problem, served

    asyncio.run(story())


def test_a_closed_connection_and_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def story() -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(close, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert (await one(address)).problem == "it closed the connection at once"
        server.close()
        await server.wait_closed()
        assert "refused" in (await one(address)).problem.lower()
        assert "not host:port" in (await one("nonsense")).problem
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert (await one("nobody.test:25")).problem == "Name or service not known"

    asyncio.run(story())


def test_a_listener_that_hangs_does_not_hold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SECONDS", 0.2)

    async def story() -> None:
        async with (
            listener(context_of(tmp_path, ONE), SMTP) as good,
            listener(None, [*SMTP[:1], (b"EHLO mail.example.test\r\n", b"")]) as hanging,
        ):
            found = await prove([good, hanging], HOST)
            assert found[good].serial == "ABC" and "no answer" in found[hanging].problem

    asyncio.run(story())


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 0x100, 0x0ABC, (1 << 159) - 1])
def test_the_serial_is_read_as_cryptography_reads_it(serial: int) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    der = issue(HOST, serial=serial).certificate.public_bytes(Encoding.DER)
    assert serial_of(der) == f"{serial:X}"
    for cut in (0, 1, 2, 5, 10, 14):
        with pytest.raises(ValueError, match="certificate"):
            serial_of(der[:cut])
    with pytest.raises(ValueError, match="not a certificate"):
        serial_of(b"\x02\x01\x05")


class World:
    """A prover over listeners that tests open, without waiting."""

    def __init__(self, addresses: list[str], serial: str = "ABC") -> None:
        self.lines: list[dict[str, Any]] = []
        self.told = asyncio.Event()
        self.serial = serial
        settings = Settings(proof_addresses=", ".join(addresses), log_level="error")
        context = Context("acme", settings, self, Secrets("/nowhere"), Health("acme"))
        self.prover = Prover(context, lambda: self.serial)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "outcome": outcome, **fields})
        self.told.set()


def play(folder: Path, issued: list[Issued], story: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with contextlib.AsyncExitStack() as stack:
            addresses = []
            for number, each in enumerate(issued):
                (folder / str(number)).mkdir()
                context = context_of(folder / str(number), each)
                addresses.append(await stack.enter_async_context(listener(context, SMTP)))
            await story(World(addresses))

    asyncio.run(whole())


def test_all_listeners_serve_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.prover.prove()
        assert [served.serial for served in world.prover.results.values()] == ["ABC", "ABC"]
        assert [(line["outcome"], line["reason"]) for line in world.lines] == [
            ("info", "every listener serves the certificate ABC")
        ]

    play(tmp_path, [ONE, ONE], story)


def test_a_listener_with_the_old_one_is_an_error_after_its_time(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        stale = list(world.prover._addresses)[1]
        await world.prover.prove()
        assert [line["outcome"] for line in world.lines] == ["error"]
        assert stale in world.lines[0]["reason"] and world.prover._addresses[0] not in world.lines[0]["reason"]

    play(tmp_path, [ONE, TWO], story)


def test_a_listener_that_is_not_there_is_no_alarm(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.prover._addresses.append("127.0.0.1:1")
        await world.prover.prove()
        assert [line["outcome"] for line in world.lines] == ["info"] and "127.0.0.1:1" in world.lines[0]["reason"]

    play(tmp_path, [ONE], story)


def test_nothing_is_asked_while_nothing_is_installed_or_nobody_named(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.serial = ""
        await world.prover.prove()
        assert not world.prover.results and not world.lines
        await World([]).prover.follow()

    play(tmp_path, [ONE], story)


def test_follow_proves_after_each_installation(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        following = asyncio.create_task(world.prover.follow())
        for count in (1, 2):
            world.prover.soon()
            await world.told.wait()
            world.told.clear()
            assert len(world.lines) == count
        following.cancel()

    play(tmp_path, [ONE], lambda world: asyncio.wait_for(story(world), 10))
