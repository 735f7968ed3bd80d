"""Proxies and relays of the owner's before the whole room: who the peer is, who the client, and who may say so."""

import asyncio
import hashlib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from services.protocol.smtp_true_client import Client
from services.runtime.values import WrongSetting
from services.smtp.engine import Session
from services.smtp_in.intake import Intake
from tests.certificates import issue
from tests.receivingroom import Conversation, ReceivingRoom

RELAY = issue("vps.test", now=time.time())
FINGERPRINT = hashlib.sha256(
    ssl.PEM_cert_to_DER_cert(RELAY.chain.decode().split("-----END")[0] + "-----END CERTIFICATE-----")
).hexdigest()
HEADER = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 25\r\n"


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Client, bool]]:
    """The client that each MAIL is judged by, and whether its relay is trusted."""
    seen: list[tuple[Client, bool]] = []
    before = Intake.handle_MAIL

    def handle(self: Intake, server: Any, session: Session, *rest: Any) -> Any:
        seen.append((session.client, session.trusted))
        return before(self, server, session, *rest)

    monkeypatch.setattr(Intake, "handle_MAIL", handle)
    return seen


async def proxied(room: ReceivingRoom, header: bytes) -> Conversation:
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port("proxy"))
    writer.write(header)
    conversation = Conversation(reader, writer)
    room._conversations.append(conversation)
    return conversation


async def upgraded(conversation: Conversation, folder: Path, certificate: bytes) -> None:
    assert (await conversation.say("EHLO relay.test", "STARTTLS")).startswith("220")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        (folder / "client.pem").write_bytes(certificate)
        context.load_cert_chain(folder / "client.pem")
    await conversation.writer.start_tls(context)
    assert (await conversation.say("EHLO relay.test")).startswith("250")


def test_who_comes_through_a_proxy_is_the_peer(tmp_path: Path, sessions: list[tuple[Client, bool]]) -> None:
    async def run() -> None:
        async with ReceivingRoom(tmp_path, proxy_peers="127.0.0.1") as room:
            client = await proxied(room, HEADER)
            assert (await client.reply()).startswith("220")
            assert (await client.say("EHLO h.test", "MAIL FROM:<a@b.test>")).startswith("250")
            assert {line["peer"] for line in room.events.lines if "peer" in line} == {"203.0.113.9"}
            nobody = await proxied(room, b"PROXY UNKNOWN\r\n")
            assert (await nobody.reply()).startswith("220")
            await nobody.say("EHLO h.test", "MAIL FROM:<a@b.test>")

    asyncio.run(run())
    assert sessions == [
        (Client("203.0.113.9", "h.test", "", "proxy"), False),
        (Client("", "h.test", "", "proxy"), False),
    ]


@pytest.mark.parametrize(("peers", "reason"), [("", "is not in PROXY_PEERS"), ("127.0.0.1", "does not begin with")])
def test_who_may_not_speak_is_recorded(tmp_path: Path, peers: str, reason: str) -> None:
    async def run() -> None:
        async with ReceivingRoom(tmp_path, proxy_peers=peers) as room:
            stranger = await proxied(room, b"EHLO x\r\n")
            assert await stranger.reply() == ""
            (line,) = room.events.of("connect", stage="proxy", outcome="reject")
            assert reason in line["reason"] and line["peer"] == "127.0.0.1"

    asyncio.run(run())


def test_a_header_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp.proxy.HEADER_SECONDS", 0.05)

    async def run() -> None:
        async with ReceivingRoom(tmp_path, proxy_peers="127.0.0.1", max_connections=2) as room:
            waiting = [await proxied(room, HEADER[:10]) for _ in range(3)]
            assert [await each.reply() for each in waiting] == ["", "", ""]
            reasons = [line["reason"] for line in room.events.of("connect", stage="proxy")]
            assert any("within" in reason for reason in reasons) and any("too many" in reason for reason in reasons)

    asyncio.run(run())


def test_xclient_and_xforward_name_the_client(tmp_path: Path, sessions: list[tuple[Client, bool]]) -> None:
    async def run() -> None:
        async with ReceivingRoom(tmp_path, trusted_forwarders="127.0.0.1") as room:
            relay = await room.client()
            assert (await relay.send("a@b.test", ["anna@example.test"], b"Subject: x\r\n\r\n")).startswith("250")
            await relay.say("XFORWARD ADDR=203.0.113.9 NAME=n.test", "XFORWARD HELO=h.test")
            assert (await relay.send("a@b.test", ["anna@example.test"], b"Subject: x\r\n\r\n")).startswith("250")
            await relay.say("MAIL FROM:<a@b.test>", "RSET", "XCLIENT ADDR=203.0.113.10", "EHLO other.test")
            await relay.say("MAIL FROM:<a@b.test>", "RSET")
            await relay.say("XFORWARD ADDR=[UNAVAILABLE] HELO=h.test", "MAIL FROM:<a@b.test>")

    asyncio.run(run())
    peer = (Client("127.0.0.1", "client.test"), True)
    assert sessions == [
        peer,
        (Client("203.0.113.9", "h.test", "n.test", "xforward"), True),
        peer,
        (Client("203.0.113.10", "other.test", "", "xclient"), True),
        (Client("", "h.test", "", "xforward"), True),
    ]


@pytest.mark.parametrize(
    ("certificate", "addresses", "trusted"),
    [(RELAY.chain + RELAY.key, "", True), (RELAY.chain + RELAY.key, "192.0.2.1", False), (b"", "", False)],
)
def test_a_relay_is_known_by_its_certificate(
    tmp_path: Path, sessions: list[tuple[Client, bool]], certificate: bytes, addresses: str, trusted: bool
) -> None:
    """No CA has signed it, and none is asked: the fingerprint decides. Before TLS nobody is trusted."""

    async def run() -> None:
        async with ReceivingRoom(tmp_path, trusted_forwarder_certs=FINGERPRINT, trusted_forwarders=addresses) as room:
            relay = await room.client()
            assert (await relay.say("XCLIENT ADDR=203.0.113.9")).startswith("500")
            relay = await room.connect()
            await upgraded(relay, tmp_path, certificate)
            assert (await relay.say("XFORWARD ADDR=203.0.113.9")).startswith("250" if trusted else "500")
            await relay.say("MAIL FROM:<a@b.test>")
            assert bool(room.events.of("connect", rules="trusted-forwarder")) is trusted

    asyncio.run(run())
    assert [found for _, found in sessions] == [trusted]


def test_a_stranger_s_certificate_does_not_shut_him_out(tmp_path: Path) -> None:
    other = issue("somebody.test", now=time.time())

    async def run() -> None:
        async with ReceivingRoom(tmp_path, trusted_forwarder_certs=FINGERPRINT) as room:
            client = await room.connect()
            await upgraded(client, tmp_path, other.chain + other.key)
            assert (await client.send("a@b.test", ["anna@example.test"], b"Subject: x\r\n\r\n")).startswith("250")

    asyncio.run(run())


@pytest.mark.parametrize(
    "settings", [{"proxy_peers": "frp"}, {"trusted_forwarders": "vps.test"}, {"trusted_forwarder_certs": "ab:cd"}]
)
def test_a_wrong_name_ends_the_start(tmp_path: Path, settings: dict[str, str]) -> None:
    async def run() -> None:
        with pytest.raises(WrongSetting, match=r"env/edge\.env"):
            async with ReceivingRoom(tmp_path, **settings):
                pass

    asyncio.run(run())
