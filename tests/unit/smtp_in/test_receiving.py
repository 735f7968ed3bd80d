"""The smtp-in room on loopback: what it takes, writes, records, and tells its neighbours."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.policy import intake
from services.policy.verdict import Reason, Verdict
from services.runtime.internal_http import PeerRefused
from services.smtp import gateway
from services.smtp_in import room as smtp_in_room
from services.storage.delivery import Delivery, Failed
from tests.dialogues.test_smtp_dialogues import client_context
from tests.receivingroom import ReceivingRoom

ANNA, BERTA = "anna@example.test", "berta@example.test"
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\nMessage-ID: <1@sender.test>\r\n\r\nbody \xff\r\n.dot\r\n"


def run(tmp_path: Path, story: Callable[[ReceivingRoom], Awaitable[None]], **settings: Any) -> None:
    async def play() -> None:
        async with asyncio.timeout(30), ReceivingRoom(tmp_path, **settings) as room:
            await story(room)
            assert not room.events.of("bug"), room.events.of("bug")

    asyncio.run(play())


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(5):
        while not (found := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        return found


# --- what lies in the mailbox


def test_a_message_lies_in_the_mailbox_as_it_came_with_our_lines_on_top(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        answer = await client.send("a@sender.test", [ANNA], MESSAGE)
        trace = answer.split()[2]
        assert answer == f"250 2.6.0 {trace} delivered"
        (stored,) = room.messages()
        assert stored.endswith(MESSAGE)
        assert re.fullmatch(
            rb"Return-Path: <a@sender\.test>\r\n"
            rb"Delivered-To: anna@example\.test\r\n"
            rb"Received: from client\.test \(\[127\.0\.0\.1\]\)\r\n"
            rb"\tby mail\.example\.test with ESMTP id %s\r\n"
            rb"\tfor <anna@example\.test>; \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n" % trace.encode(),
            stored[: -len(MESSAGE)],
        )

    run(tmp_path, story)


def test_the_null_sender_stays_null(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("", [ANNA], MESSAGE)
        assert room.messages()[0].startswith(b"Return-Path: <>\r\n")

    run(tmp_path, story)


def test_a_second_recipient_is_not_told_of_the_first(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [ANNA, BERTA], MESSAGE)
        assert b"berta" not in room.messages(ANNA)[0]
        assert b"anna" not in room.messages(BERTA)[0]

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("recipient", "anna", "berta", "original"),
    [
        ("Anna@Example.Test", 1, 0, b""),
        ("anna+shop@example.test", 1, 0, b"X-Original-To: anna+shop@example.test"),
        ("family@example.test", 1, 1, b"X-Original-To: family@example.test"),
        ("anything@catch.test", 1, 0, b"X-Original-To: anything@catch.test"),
        ("team@example.test", 0, 1, b""),
    ],
)
def test_where_addresses_lead(tmp_path: Path, recipient: str, anna: int, berta: int, original: bytes) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@sender.test", [recipient], MESSAGE)).startswith("250")
        stored = room.messages(ANNA), room.messages(BERTA)
        assert [len(each) for each in stored] == [anna, berta]
        assert original in b"".join(stored[0] + stored[1])
        assert b"X-Original-To: anna@example.test" not in b"".join(stored[0])

    run(tmp_path, story)


def test_two_names_of_one_mailbox_make_one_copy(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [ANNA, "family@example.test", "x@catch.test"], MESSAGE)
        assert (len(room.messages(ANNA)), len(room.messages(BERTA))) == (1, 1)

    run(tmp_path, story)


@pytest.mark.parametrize("start", [b" a fold", b"\ta fold"])
def test_a_message_cannot_add_to_our_lines(tmp_path: Path, start: bytes) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [ANNA], start + b" of Received\r\n")
        assert room.messages()[0].endswith(b" +0000\r\n\r\n" + start + b" of Received\r\n")

    run(tmp_path, story)


def test_a_junk_verdict_goes_to_junk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict("data", "junk", None, (Reason("test", "it looks like junk", 9),))
    monkeypatch.setattr(intake, "message", lambda *_, **__: verdict)

    async def story(room: ReceivingRoom) -> None:
        (room.mail / "example.test/anna/.Junk/new").mkdir(parents=True)
        client = await room.client()
        assert (await client.send("a@sender.test", [ANNA], MESSAGE)).startswith("250")
        assert (len(room.messages()), len(room.messages(mailbox=".Junk"))) == (0, 1)
        assert room.events.of("delivered", outcome="junk")
        assert room.events.of("data", outcome="junk")[0]["reason"] == "it looks like junk"

    run(tmp_path, story)


def test_postmaster_is_the_administrator(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", ["postmaster"], MESSAGE)
        await client.send("a@sender.test", ["postmaster@example.test"], MESSAGE)
        assert len(room.messages("admin@example.test")) == 2

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("hello", "tls", "parameters", "protocol"),
    [
        ("HELO client.test", False, "", b"SMTP"), ("EHLO client.test", False, "", b"ESMTP"),
        ("EHLO client.test", True, "", b"ESMTPS"), ("EHLO client.test", True, " SMTPUTF8", b"UTF8SMTPS"),
    ],
)  # fmt: skip
def test_received_says_how(tmp_path: Path, hello: str, tls: bool, parameters: str, protocol: bytes) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        if tls:
            await client.say("STARTTLS")
            await client.writer.start_tls(client_context(), server_hostname="localhost")
        await client.say(hello)
        await client.send("a@sender.test", [ANNA], MESSAGE, parameters)
        assert b" with %s id " % protocol in room.messages()[0]
        assert (b"(TLSv1.3 " in room.messages()[0]) is tls

    run(tmp_path, story)


# --- the record


def test_each_stage_is_recorded_with_its_verdict(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        answer = await client.send("a@sender.test", ["nobody@example.test"], MESSAGE)
        assert answer.startswith("550 5.1.1")
        await client.say("RSET")
        answer = await client.send("a@sender.test", [ANNA], MESSAGE)
        trace = answer.split()[2]
        await client.say("QUIT")
        await until(lambda: room.events.of("disconnect"))
        (connect,) = room.events.of("connect")
        (refused,) = room.events.of("rcpt", outcome="reject")
        assert refused["recipient"] == "nobody@example.test"
        assert refused["rules"] == "unknown-recipient"
        assert refused["reply"].startswith("550 5.1.1")
        told = [line for line in room.events.lines if line["trace"] == trace]
        assert [(line["kind"], line["outcome"]) for line in told] == [
            ("mail", "accept"), ("rcpt", "accept"), ("data", "accept"), ("delivered", "accept"),
        ]  # fmt: skip
        assert {line["conn"] for line in told} == {connect["trace"]}
        data = told[2]
        assert (data["message_id"], data["size"]) == ("<1@sender.test>", len(MESSAGE))
        assert (data["sender"], data["recipients"]) == ("a@sender.test", [ANNA])
        assert room.events.of("helo")[0]["helo"] == "client.test"
        assert room.events.of("disconnect")[0]["messages"] == 1

    run(tmp_path, story)


def test_refused_connections_are_recorded(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        await room.client()
        with pytest.raises(AssertionError):
            await room.connect()
        assert room.events.of("connect", outcome="defer")[0]["reply"].startswith("421 4.3.2")

    run(tmp_path, story, max_connections=1)


def test_it_says_once_that_everybody_comes_from_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_in_room, "default_gateways", lambda: frozenset({"127.0.0.1"}))

    async def story(room: ReceivingRoom) -> None:
        for _ in range(gateway.CERTAIN_AFTER + 2):
            (await room.client()).close()
        (told,) = room.events.of("connect", stage="gateway")
        assert "127.0.0.1" in told["reason"]
        assert (await room.admin.request("GET", "/v1/status")).json()["gateway"] == "127.0.0.1"

    run(tmp_path, story, max_connections_per_peer=1)


# --- the neighbours


def test_imap_is_told_of_new_files_off_the_replys_path(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [ANNA], MESSAGE)
        (hint,) = await until(lambda: room.hints)
        assert (hint["account"], hint["mailbox"]) == (ANNA, "INBOX")
        assert [path.name for path in (room.mail / "example.test/anna/new").iterdir()] == [hint["name"]]
        for _ in range(20):
            await client.send("a@sender.test", [ANNA], MESSAGE)
        await until(lambda: len(room.hints) == 21)

    run(tmp_path, story)


def test_mail_is_taken_while_imap_is_away(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@sender.test", [ANNA], MESSAGE)).startswith("250")

    run(tmp_path, story, imap=False)


def test_a_new_account_gets_its_mailbox_with_its_first_message(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@sender.test", ["late@example.test", ANNA], MESSAGE)).startswith("250")
        assert room.provisioned == ["late@example.test"]
        assert (len(room.messages("late@example.test")), len(room.messages(ANNA))) == (1, 1)

    run(tmp_path, story)


def test_a_mailbox_that_cannot_be_made_is_not_the_senders_fault(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.provisions = False
        client = await room.client()
        answer = await client.send("a@sender.test", ["late@example.test"], MESSAGE)
        assert answer.startswith("451 4.3.0")
        assert room.events.of("delivered", outcome="defer", account="late@example.test")
        room.provisions = True
        assert (await client.send("a@sender.test", ["late@example.test"], MESSAGE)).startswith("250")

    run(tmp_path, story)


def test_status_is_for_admin_alone(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@sender.test", [ANNA], MESSAGE)
        status = (await room.admin.request("GET", "/v1/status")).json()
        assert (status["messages"], status["smtp"]["connections"], status["gateway"]) == (1, 1, "")
        assert status["directory"] > 0
        with pytest.raises(PeerRefused):
            await room.admin.request("POST", "/v1/status")

    run(tmp_path, story)


# --- when something is not well


def test_without_a_directory_nobody_is_refused_for_good(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        answer = await client.send("a@sender.test", [ANNA], MESSAGE)
        assert answer.startswith("451 4.3.0")
        await until(lambda: room.context.health.parts.get("directory"))
        room.publish()
        assert (await client.say(f"RCPT TO:<{ANNA}>")).startswith("250")

    run(tmp_path, story, publish=False)


def test_below_the_reserve_mail_waits_at_its_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room_left = [True]
    monkeypatch.setattr(smtp_in_room, "disk_reserve", lambda *_: room_left[0])

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.say("MAIL FROM:<a@sender.test>", f"RCPT TO:<{ANNA}>")
        room_left[0], room.ahead = False, 2.0
        assert (await client.say("DATA")).startswith("452 4.3.1")
        assert (await client.say("RSET", "MAIL FROM:<a@sender.test>")).startswith("452 4.3.1")
        assert room.events.of("mail", outcome="defer")[0]["rules"] == "disk-reserve"
        room_left[0], room.ahead = True, -100.0  # a clock set back does not freeze the answer
        assert (await client.say("MAIL FROM:<a@sender.test>")).startswith("250")

    run(tmp_path, story)


def test_a_disk_that_fails_is_451_and_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Delivery) -> list[Failed]:
        return [Failed(each[0], each[1], each[2], OSError(5, "Input/output error")) for each in self._recipients]

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        with monkeypatch.context() as patched:
            patched.setattr(Delivery, "commit", broken)
            assert (await client.send("a@sender.test", [ANNA], MESSAGE)).startswith("451 4.3.0")
        assert not room.messages()
        assert "Input/output error" in room.events.of("delivered", outcome="defer")[0]["reason"]
        assert (await client.send("a@sender.test", [ANNA], MESSAGE)).startswith("250")

    run(tmp_path, story)


def test_a_stop_finishes_the_message_in_flight(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.say("MAIL FROM:<a@sender.test>", f"RCPT TO:<{ANNA}>", "DATA")
        room.context.stop.set()
        await asyncio.sleep(0.02)
        assert (await client.say("late but here\r\n.")).startswith("250")
        assert (await client.reply()).startswith("421 4.3.2")
        assert len(room.messages()) == 1

    run(tmp_path, story)


def test_the_peer_may_go_before_its_250(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.say("MAIL FROM:<a@sender.test>", f"RCPT TO:<{ANNA}>", "DATA")
        client.writer.write(MESSAGE + b".\r\n")
        await asyncio.sleep(0)
        client.writer.close()
        await until(lambda: room.messages())

    run(tmp_path, story)
