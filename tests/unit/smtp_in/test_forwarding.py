"""Forwards to smtp-out: before the local copies, in our name, and 250 only when everything is durable."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.receivingroom import ReceivingRoom
from tests.remote import CLOSE

ANNA, BERTA, BOTH, AWAY = (f"{local}@example.test" for local in ("anna", "berta", "both", "away"))
MESSAGE = b"Subject: x\r\nMessage-ID: <1@sender.test>\r\n\r\nbody\r\n.dot\r\n"


def run(tmp_path: Path, story: Callable[[ReceivingRoom], Awaitable[None]], **settings: Any) -> None:
    async def play() -> None:
        async with asyncio.timeout(30), ReceivingRoom(tmp_path, **settings) as room:
            await story(room)
            assert not room.events.of("bug"), room.events.of("bug")

    asyncio.run(play())


def test_a_forward_goes_to_smtp_out_with_the_secret_the_trace_and_a_sender_of_ours(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        answer = await client.send("a@sender.test", [AWAY], MESSAGE)
        trace = answer.split()[2]
        (forwarded,) = room.smtp_out.messages
        assert f"AUTH PLAIN {room_login(room)}" in room.smtp_out.commands
        assert forwarded.mail.startswith("MAIL FROM:<SRS0=")
        assert "=sender.test=a@example.test>" in forwarded.mail
        assert f"XTRACE={trace}" in forwarded.mail
        assert forwarded.recipients == ["RCPT TO:<out@far.test>"]
        assert re.match(
            rb"Delivered-To: away@example.test\r\nX-Mailstead-Forwarded: [a-z2-7]{16}\r\nReceived: from client.test",
            forwarded.body,
        )
        assert b"Subject: x\r\n" in forwarded.body
        assert b"Return-Path" not in forwarded.body
        (told,) = room.events.of("forwarded")
        assert (told["trace"], told["outcome"], told["remote"]) == (trace, "accept", "out@far.test")

    def room_login(room: ReceivingRoom) -> str:
        import base64

        return base64.b64encode(b"\0smtp-in\0" + room.secrets.pair("smtp-in", "smtp-out").encode()).decode()

    run(tmp_path, story)


def test_a_large_forward_arrives_whole(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        large = MESSAGE + b"0123456789abcdef\r\n" * 100_000
        assert (await client.send("a@sender.test", [BOTH], large)).startswith("250")
        assert room.smtp_out.messages[0].body.replace(b"\r\n..", b"\r\n.").endswith(large)
        assert room.messages(ANNA)[0].endswith(large)

    run(tmp_path, story)


def test_a_copy_here_and_a_forward(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@sender.test", [BOTH, BERTA], MESSAGE)).startswith("250")
        assert len(room.smtp_out.messages) == 1
        assert (len(room.messages(ANNA)), len(room.messages(BERTA))) == (1, 1)

    run(tmp_path, story)


def test_one_address_is_forwarded_to_once(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [BOTH, AWAY], MESSAGE)
        assert [each.recipients for each in room.smtp_out.messages] == [["RCPT TO:<out@far.test>"]]

    run(tmp_path, story)


@pytest.mark.parametrize("failure", ["451 4.3.0 not now", CLOSE])
@pytest.mark.parametrize("at", ["CONNECT", "MAIL", "RCPT", "BODY"])
def test_while_smtp_out_fails_nothing_is_delivered_twice(tmp_path: Path, at: str, failure: Any) -> None:
    """Forwards first: the likelier failure comes before the local copies, which the next attempt makes."""

    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.replies = {at: failure}
        client = await room.client()
        answer = await client.send("a@sender.test", [BOTH, BERTA], MESSAGE)
        assert answer.startswith("451 4.3.0")
        assert not room.messages(ANNA)
        assert not room.messages(BERTA)
        assert room.events.of("forwarded", outcome="defer")
        room.smtp_out.replies = {}
        assert (await client.send("a@sender.test", [BOTH, BERTA], MESSAGE)).startswith("250")
        assert (len(room.messages(ANNA)), len(room.messages(BERTA))) == (1, 1)

    run(tmp_path, story)


def test_a_forward_that_is_refused_for_good_stops_nobody_elses_copy(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.replies = {"RCPT": "550 5.7.1 never"}
        client = await room.client()
        assert (await client.send("a@sender.test", [BOTH], MESSAGE)).startswith("250")
        assert len(room.messages(ANNA)) == 1
        assert room.events.of("forwarded", outcome="reject")
        assert (await client.send("a@sender.test", [AWAY], MESSAGE)).startswith("550 5.7.1")

    run(tmp_path, story)


def test_a_bounce_goes_back_to_whoever_sent_first(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [AWAY], MESSAGE)
        rewritten = room.smtp_out.messages[0].mail.split("<")[1].split(">")[0]
        assert (await client.send("", [rewritten], MESSAGE)).startswith("250")
        bounce = room.smtp_out.messages[1]
        assert bounce.mail.startswith("MAIL FROM:<>")
        assert bounce.recipients == ["RCPT TO:<a@sender.test>"]
        for forged in ("SRS0=aaaaaaa=aa=victim.test=v@example.test", rewritten.replace("=a@", "=b@")):
            assert (await client.send("", [forged], MESSAGE)).startswith("550 5.1.1")
            await client.say("RSET")
        assert len(room.smtp_out.messages) == 2

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("sender", "rewritten"),
    [("", ""), ("anna@example.test", "anna@example.test"), ("x" * 60 + "@sender.test", "postmaster@example.test")],
)
def test_senders_that_are_not_rewritten(tmp_path: Path, sender: str, rewritten: str) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send(sender, [AWAY], MESSAGE)).startswith("250")
        assert room.smtp_out.messages[0].mail.startswith(f"MAIL FROM:<{rewritten}>")

    run(tmp_path, story)


def test_a_forward_that_comes_back_is_not_forwarded_again(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [AWAY], MESSAGE)
        came_back = room.smtp_out.messages[0].body
        assert (await client.send("a@sender.test", [AWAY], came_back)).startswith("554 5.4.6")
        assert len(room.smtp_out.messages) == 1
        assert room.events.of("data", outcome="reject")[0]["rules"] == "loop"

    run(tmp_path, story)


# --- LMTP


def test_by_lmtp_a_second_attempt_makes_no_second_copy(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        trace = " XTRACE=0123456789abcdef"
        for _ in range(2):
            client = await room.lmtp()
            assert (await client.send("a@sender.test", [ANNA], MESSAGE, trace)).startswith("250 2.6.0 0123456789abcdef")
        assert len(room.messages(ANNA)) == 1
        assert room.events.of("delivered")[1]["reason"] == "it was there already"
        client = await room.lmtp()
        assert (await client.send("a@sender.test", [BERTA], MESSAGE, trace)).startswith("250")
        assert len(room.messages(BERTA)) == 1

    run(tmp_path, story)


def test_by_lmtp_each_recipient_has_its_own_fate(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.replies = {"MAIL": "451 4.3.0 not now"}
        client = await room.lmtp()
        await client.say("MAIL FROM:<a@sender.test>", f"RCPT TO:<{BOTH}>", f"RCPT TO:<{BERTA}>", "DATA")
        client.writer.write(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert [(await client.reply())[:3] for _ in range(2)] == ["451", "250"]
        assert (len(room.messages(ANNA)), len(room.messages(BERTA))) == (0, 1)

    run(tmp_path, story)


def test_by_lmtp_a_recipient_where_it_has_been_is_done(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.lmtp()
        await client.say("MAIL FROM:<a@sender.test>", f"RCPT TO:<{ANNA}>", f"RCPT TO:<{BERTA}>", "DATA")
        client.writer.write(b"Delivered-To: anna@example.test\r\n\r\n.\r\n")
        assert [(await client.reply())[:3] for _ in range(2)] == ["250", "250"]
        assert (len(room.messages(ANNA)), len(room.messages(BERTA))) == (0, 1)

    run(tmp_path, story)


def test_by_lmtp_a_message_may_be_a_little_larger_than_it_was_taken(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.lmtp()
        assert (await client.send("a@sender.test", [ANNA], b"x" * 70_000 + b"\r\n")).startswith("250")
        outside = await room.client()
        assert (await outside.send("a@sender.test", [ANNA], b"x" * 70_000 + b"\r\n")).startswith("552")

    run(tmp_path, story, max_message_size=66_000)
