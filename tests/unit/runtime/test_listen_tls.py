"""TLS from the first byte: no ClientHello is lost, who is refused gets no handshake, a stranger's silence is bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any

import pytest
from certificates import issue

from services.runtime.listener import listen_tls
from services.runtime.process import new_runner
from services.runtime.tls import client_context


class Greeter(asyncio.Protocol):
    """Greets at once, as SMTP and IMAP servers do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert transport.get_extra_info("ssl_object") is not None
        transport.write(b"hello\r\n")  # type: ignore[attr-defined]


class Door:
    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.failures: list[str] = []
        self.failed_twice = asyncio.Event()

    def admit(self, peer: str, handshaking: Collection[str]) -> bool:
        return len(handshaking) < self.most

    def failed(self, peer: str, error: OSError) -> None:
        self.failures.append(peer)
        if len(self.failures) == 2:
            self.failed_twice.set()


Loop = Callable[[Coroutine[Any, Any, None]], None]


def on_asyncio(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def on_uvloop(story: Coroutine[Any, Any, None]) -> None:
    with new_runner() as runner:
        runner.run(story)


@pytest.fixture(params=[on_asyncio, on_uvloop])
def loop(request: pytest.FixtureRequest) -> Loop:
    chosen: Loop = request.param
    return chosen


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("tls")
    issued = issue("localhost")
    (folder / "both.pem").write_bytes(issued.chain + issued.key)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "both.pem")
    return made


def test_a_hello_that_comes_with_the_connection_is_not_lost(loop: Loop, context: ssl.SSLContext) -> None:
    # Upgrading in connection_made lost it on uvloop whenever the client was quick; the client then waited for ever.
    async def story() -> None:
        listener = await listen_tls(Greeter, "127.0.0.1:0", lambda: context, Door())

        async def client() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=client_context(verify=False))
            line = await reader.readline()
            writer.close()
            return line

        async with asyncio.timeout(10):
            assert await asyncio.gather(*(client() for _ in range(40))) == [b"hello\r\n"] * 40
        listener.close()

    loop(story())


def test_who_is_not_admitted_gets_no_handshake(loop: Loop, context: ssl.SSLContext) -> None:
    async def story() -> None:
        door = Door(most=0)
        listener = await listen_tls(Greeter, "127.0.0.1:0", lambda: context, door)
        with pytest.raises(OSError):
            async with asyncio.timeout(5):
                await asyncio.open_connection("127.0.0.1", listener.port, ssl=client_context(verify=False))
        assert door.failures == []
        listener.close()

    loop(story())


def test_a_silent_or_babbling_peer_is_ended_and_named(loop: Loop, context: ssl.SSLContext) -> None:
    async def story() -> None:
        door = Door()
        listener = await listen_tls(Greeter, "127.0.0.1:0", lambda: context, door, handshake_seconds=0.05)
        for said in (b"", b"EHLO me\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(said)
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
        async with asyncio.timeout(5):
            await door.failed_twice.wait()
        assert door.failures == ["127.0.0.1"] * 2
        listener.close()

    loop(story())
