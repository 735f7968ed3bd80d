"""Submission end to end on loopback: Python's smtplib on one side, scripted servers on the other, the real room."""

import asyncio
import hashlib
import json
import smtplib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.internal_http import Response
from tests.unit.smtp_out.sendingroom import PASSWORD, SendingRoom, until

LETTER = (
    b"From: Anna <anna@home.test>\r\nTo: bob@far.test\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 02:33:00 +0000\r\n"
    b"Message-ID: <1@home.test>\r\n\r\nHello.\r\n.dot\r\n"
)


def in_room(folder: Path, test: Callable[[SendingRoom], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with SendingRoom(folder, **options) as room:
            await test(room)

    asyncio.run(run())


@pytest.mark.parametrize("listener", ["submissions", "submission"])
@pytest.mark.parametrize("login", ["anna@home.test", "ANNA@Home.Test", "anna"])
def test_a_message_is_signed_queued_and_relayed(listener: str, login: str, tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        reply = await room.send("anna@home.test", ["bob@far.test"], LETTER, listener=listener, login=login)
        assert reply.startswith("250 2.6.0 ") and reply.endswith("queued")
        trace = reply.split()[2]
        await until(lambda: room.relay.messages)
        body = room.relay.messages[0].body
        top, _, rest = body.partition(b"DKIM-Signature: d=home.test; b=x\r\n")
        assert top.startswith(b"Received: by mail.home.test with ESMTPSA id " + trace.encode())
        assert b"for <bob@far.test>" in top and b"127.0.0.1" not in top and b"laptop" not in top
        assert rest == LETTER.replace(b"\r\n.dot", b"\r\n..dot")
        assert any(command.startswith("AUTH PLAIN") for command in room.relay.commands)
        request = room.signed[0]
        assert request.query == {"domain": "home.test"} and request.body == LETTER.partition(b"Hello.")[0]
        assert request.headers["mailstead-signatures"] == "rsa" and request.headers["mailstead-trace"] == trace
        for kind, outcome in (("submitted", "accept"), ("queued", "accept"), ("attempt", "accept")):
            (line,) = await until(lambda: room.events.of(kind, trace=trace))  # noqa: B023
            assert line["outcome"] == outcome
        assert room.events.of("submitted")[0]["message_id"] == "<1@home.test>"
        assert room.events.of("login", outcome="accept")[0]["account"] == "anna@home.test"
        await until(lambda: not list((tmp_path / "spool" / "msg").iterdir()))

    in_room(tmp_path, test)


def test_mail_within_the_house_goes_by_lmtp(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        reply = await room.send("anna@home.test", ["ben@home.test", "family@home.test", "bob@far.test"], LETTER)
        await until(lambda: room.lmtp.messages and room.relay.messages)
        assert room.lmtp.messages[0].recipients == ["RCPT TO:<ben@home.test>", "RCPT TO:<family@home.test>"]
        assert f"XTRACE={reply.split()[2]}" in room.lmtp.messages[0].mail
        assert room.relay.messages[0].recipients == ["RCPT TO:<bob@far.test>"]
        assert b"for <" not in room.relay.messages[0].body.partition(b"DKIM")[0]
        assert not any("XTRACE" in command for command in room.relay.commands)

    in_room(tmp_path, test)


def test_direct_delivery_asks_for_both_signatures(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await room.send("anna@home.test", ["bob@far.test"], LETTER)
        await until(lambda: room.world.messages)
        assert room.signed[0].headers["mailstead-signatures"] == "both"

    in_room(tmp_path, test, direct=True)


def test_the_header_is_repaired(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        message = (
            b"Subject: x\r\nBcc: hidden@far.test\r\n more@far.test\r\nReturn-Path: <x@y>\r\n"
            b"Authentication-Results: mail.home.test; dkim=pass\r\n\r\nbody\r\n"
        )
        await room.send("anna@home.test", ["bob@far.test"], message)
        await until(lambda: room.relay.messages)
        body = room.relay.messages[0].body
        for gone in (b"hidden", b"more@far", b"Bcc", b"Return-Path", b"Authentication-Results"):
            assert gone not in body
        for added in (b"\r\nDate: ", b"\r\nMessage-ID: <", b"\r\nFrom: <anna@home.test>", b"\r\nTo: undisclosed"):
            assert added in body
        assert "bcc removed" in room.events.of("submitted")[0]["reason"]
        assert room.signed[0].body.endswith(b"\r\n\r\n") and b"Date: " in room.signed[0].body

    in_room(tmp_path, test)


def test_mail_waits_with_its_sender_while_the_clock_is_not_set(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.ahead = -50 * 365 * 86_400.0  # a board without a battery
        reply = await room.send("anna@home.test", ["bob@far.test"], LETTER)
        assert reply == "451 4.3.0 the clock is not set yet, try again in a few minutes"
        assert not room.signed and await room.queue() == []
        room.ahead = 0.0
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith("250 ")

    in_room(tmp_path, test)


def test_nothing_goes_without_a_log_in(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        def talk() -> None:
            with room.client() as client:
                client.ehlo()
                assert client.mail("anna@home.test")[0] == 530
            with smtplib.SMTP("127.0.0.1", room.port("submission"), "laptop", timeout=5) as plain:
                plain.ehlo()
                assert not plain.has_extn("auth") and plain.has_extn("starttls")
                assert plain.docmd("AUTH PLAIN AGEAYg==")[0] in (503, 530, 538)

        await asyncio.to_thread(talk)

    in_room(tmp_path, test)


REFUSED = [
    # sender, recipient, message, reply
    ("ben@home.test", "bob@far.test", LETTER, "550 5.7.1 anna@home.test may not send as ben@home.test"),
    ("x@elsewhere.test", "bob@far.test", LETTER, "550 5.7.1"),
    ("", "bob@far.test", LETTER, "550 5.7.1"),
    ("anna@home.test", "nobody@home.test", LETTER, "550 5.1.1"),
    ("anna@home.test", "bob@localhost", LETTER, "550 5.1.2"),
    ("anna@home.test", "bob@127.0.0.1", LETTER, "550 5.1.2"),
    ("anna@127.0.0.1", "bob@far.test", LETTER, "550 5.7.1"),
    ("anna@home.test", "bob@far.test", LETTER.replace(b"anna@", b"ben@"), "550 5.7.1"),
    ("anna@home.test", "bob@far.test", b"From: ben@home.test\r\n" + LETTER, "550 5.7.1"),
    ("anna@home.test", "bob@far.test", b"Sender: ben@home.test\r\n" + LETTER, "550 5.7.1"),
    ("anna@home.test", "bob@far.test", b"Received: x\r\n" * 100 + LETTER, "554 5.4.6"),
    ("anna@home.test", "bob@far.test", b"X: " + b"y" * 900 + b"\r\n" + b"Z: z\r\n" * 50_000 + LETTER, "552 5.3.4"),
]


@pytest.mark.parametrize(("sender", "recipient", "message", "reply"), REFUSED)
def test_what_is_refused(sender: str, recipient: str, message: bytes, reply: str, tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        got = await room.send(sender, [recipient], message)
        assert got.startswith(reply), got
        assert await room.queue() == []
        assert list((tmp_path / "spool" / "msg").iterdir()) == list((tmp_path / "spool" / "tmp").iterdir()) == []
        (line,) = [line for line in room.events.lines if line["outcome"] == "reject"]
        assert line["reason"] and line["account"] == "anna@home.test" and reply[:5] in line["reply"]

    in_room(tmp_path, test)


@pytest.mark.parametrize("sender", ["anna+shop@home.test", "family@home.test"])
def test_own_addresses(sender: str, tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        message = LETTER.replace(b"anna@home.test", sender.encode())
        assert (await room.send(sender, ["bob@far.test"], message)).startswith("250")

    in_room(tmp_path, test)


def test_a_domain_without_a_key_sends_unsigned(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.sign = lambda _: Response.error(404, "no key")
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith("250")
        await until(lambda: room.relay.messages)
        assert b"DKIM-Signature" not in room.relay.messages[0].body
        assert "no DKIM key" in room.events.of("signed")[0]["reason"]

    in_room(tmp_path, test)


@pytest.mark.parametrize(
    ("answer", "reply"), [(Response.error(500, "broken"), "451 4.3.0"), (Response.error(400, "two From"), "554 5.6.0")]
)
def test_what_cannot_be_signed_is_not_taken(answer: Response, reply: str, tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.sign = lambda _: answer
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith(reply)
        assert await room.queue() == [] and list((tmp_path / "spool" / "msg").iterdir()) == []

    in_room(tmp_path, test)


def test_without_dkim_the_client_tries_again(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith("451 4.3.0")

    in_room(tmp_path, test, dkim_url="http://127.0.0.1:9")


def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith("452 4.3.1")

    in_room(tmp_path, test, disk_reserve_percent=50, disk_reserve_bytes=1 << 60)


def test_an_account_disabled_meanwhile_may_not_send(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        def talk() -> None:
            with room.client() as client:
                client.login("anna@home.test", PASSWORD)
                room.directory.update_account("anna@home.test", enabled=False)
                until_sync(lambda: client.rset()[0] == 250 and client.mail("anna@home.test")[0] == 550)

        await asyncio.to_thread(talk)

    in_room(tmp_path, test)


def until_sync(condition: Callable[[], bool]) -> None:
    import time

    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_large_message_arrives_octet_for_octet(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        lines = b"".join(b"%07d " % n + b"x" * 60 + b"\r\n" for n in range(100_000))
        message = LETTER.partition(b"Hello.")[0] + lines
        assert (await room.send("anna@home.test", ["bob@far.test"], message)).startswith("250")
        await until(lambda: room.relay.messages, 20)
        got = room.relay.messages[0].body
        assert hashlib.sha256(got.partition(b"\r\n\r\n")[2]).digest() == hashlib.sha256(lines).digest()
        from services.message.body_hash import BodyHash

        expected = BodyHash()
        expected.update(lines)
        assert room.signed[0].headers["mailstead-body-hash"] == expected.digest()

    in_room(tmp_path, test)


def test_utf8_addresses_and_headers(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        message = LETTER.replace(b"hello", "你好".encode())

        def talk() -> None:
            with room.client() as client:
                client.login("anna@home.test", PASSWORD)
                client.command_encoding = "utf-8"
                assert client.mail("anna@home.test", ["SMTPUTF8", "BODY=8BITMIME"])[0] == 250
                assert client.rcpt("bob@bücher.test")[0] == 250
                assert client.data(message)[0] == 250

        await asyncio.to_thread(talk)
        await until(lambda: room.relay.messages)
        assert "SMTPUTF8" in room.relay.messages[0].mail and "BODY=8BITMIME" in room.relay.messages[0].mail
        assert room.relay.messages[0].recipients == ["RCPT TO:<bob@xn--bcher-kva.test>"]
        assert b"with UTF8SMTPSA id" in room.relay.messages[0].body

    in_room(tmp_path, test)


# --- log-ins


def test_guessing_is_slowed_banned_listed_and_lifted(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        source = "127.0.0.66"

        async def guess(password: str, source: str = source) -> str:
            return (await room.send("anna@home.test", ["ben@home.test"], LETTER, password=password, source=source))[:3]

        assert [await guess(f"guess {number}") for number in range(3)] == ["535"] * 3
        assert await guess(PASSWORD) in ("421", "454")
        assert await guess(PASSWORD, "127.0.0.67") == "250"
        (ban,) = (await room.ask("GET", "/v1/bans"))["bans"]
        assert (ban["key"], ban["kind"]) == (source, "address") and ban["until"] > room.context.clock()
        assert room.events.of("ban")[0]["key"] == source
        assert room.events.of("connect", outcome="reject")[0]["peer"] == source
        await room.stop()
        await room.start()
        assert await guess(PASSWORD) in ("421", "454")  # bans outlive a restart
        assert await room.ask("DELETE", "/v1/bans", json.dumps({"key": source}).encode())
        assert await guess(PASSWORD) == "250"
        assert await room.ask("DELETE", "/v1/bans", json.dumps({"key": source}).encode()) == 404

    in_room(tmp_path, test, ban_failures=3)


def test_bans_by_hand(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        until = room.context.clock() + 1000
        ban = {"key": "127.0.0.50", "kind": "address", "until": until, "reason": "told by imap"}
        assert (await room.ask("POST", "/v1/bans", json.dumps(ban).encode()))["ban"]["until"] == until
        reply = await room.send("anna@home.test", ["ben@home.test"], LETTER, source="127.0.0.50")
        assert reply.startswith("421 4.7.0")
        for wrong in ({}, {"key": "x", "kind": "moon", "until": 1}, {"key": "x", "kind": "address", "until": "x"}):
            assert await room.ask("POST", "/v1/bans", json.dumps(wrong).encode()) == 400

    in_room(tmp_path, test)


def test_unknown_names_and_disabled_accounts_sound_alike(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await room.stop()
        room.directory.update_account("ben@home.test", enabled=False)
        await room.start()
        replies = {
            (
                await room.send(
                    "anna@home.test", ["ben@home.test"], LETTER, login=login, password=password,
                    source=f"127.0.0.{70 + number}",  # each waits as for a first guess
                )
            )
            for number, (login, password) in enumerate((
                ("nobody@home.test", PASSWORD), ("ben@home.test", PASSWORD), ("anna@home.test", "wrong"), ("x", "y"),
            ))
        }  # fmt: skip
        assert len(replies) == 1 and replies.pop().startswith("535 5.7.8")
        reasons = [line["reason"] for line in room.events.of("login", outcome="reject")]
        assert reasons == ["no such account", "account disabled", "wrong password", "no such account"]

    in_room(tmp_path, test)


def test_a_password_never_reaches_the_record(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await room.send("anna@home.test", ["ben@home.test"], LETTER, password="this one is wrong")
        await room.send("anna@home.test", ["ben@home.test"], LETTER)
        written = repr(room.events.lines) + "".join(
            path.read_text("latin-1") for path in (tmp_path / "room").iterdir() if path.is_file()
        )
        assert "this one is wrong" not in written and PASSWORD not in written

    in_room(tmp_path, test)


# --- admin's test message


def test_admins_test_message_takes_the_same_way(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        answer = await room.ask("POST", "/v1/submit", LETTER, sender="anna@home.test", recipient="bob@far.test")
        await until(lambda: room.relay.messages)
        assert room.events.of("submitted", trace=answer["trace"])[0]["peer"] == "admin" and room.signed
        assert await room.ask("POST", "/v1/submit", LETTER, sender="x@home.test", recipient="b@far.test") == 404
        assert await room.ask("POST", "/v1/submit", LETTER, sender="anna@home.test", recipient="b") == 400
        assert await room.ask("POST", "/v1/submit", LETTER, sender="ben@home.test", recipient="b@far.test") == 400

    in_room(tmp_path, test)
