"""Rules of accounts at delivery: folders, flags, what is sent on, refused, answered; and nothing is lost."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.receivingroom import ReceivingRoom

ANNA, BERTA, FAMILY = (f"{local}@example.test" for local in ("anna", "berta", "family"))
SENDER = "carl@far.test"
MESSAGE = (
    b"From: Carl <carl@far.test>\r\nTo: anna@example.test, family@example.test\r\nSubject: Invoice\r\n"
    b"Message-ID: <1@far.test>\r\nReferences: <0@far.test>\r\n\r\nbody\r\n"
)
AWAY = 'require "vacation"; vacation :days 3 "I am away.";'


def run(tmp_path: Path, story: Callable[[ReceivingRoom], Awaitable[None]], **settings: Any) -> None:
    # Whoever is answered has been found to be who it says.
    settings = {"zone": {("far.test", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"]}, **settings}

    async def play() -> None:
        async with asyncio.timeout(30), ReceivingRoom(tmp_path, **settings) as room:
            for mailbox in (".Work", ".Junk"):
                for name in ("cur", "new", "tmp"):
                    (room.mail / "example.test/anna" / mailbox / name).mkdir(parents=True)
            await story(room)
            assert not room.events.of("bug"), room.events.of("bug")

    asyncio.run(play())


async def send(room: ReceivingRoom, message: bytes = MESSAGE, sender: str = SENDER, to: list[str] | None = None) -> str:
    client = await room.client()
    return await client.send(sender, to or [ANNA], message)


def names(room: ReceivingRoom, mailbox: str = "") -> list[str]:
    return sorted(path.name for path in (room.mail / "example.test/anna" / mailbox / "new").iterdir())


def told(room: ReceivingRoom) -> dict[str, Any]:
    return room.events.of("delivered")[-1]


@pytest.mark.parametrize(
    ("script", "inbox", "work", "says"),
    [
        ("keep;", 1, 0, ""),
        ('require "fileinto"; fileinto "Work";', 0, 1, "the rules file it into Work"),
        ('require ["fileinto", "copy"]; fileinto :copy "Work";', 1, 1, "the rules file it into Work"),
        ('require "fileinto"; if header :contains "subject" "offer" { fileinto "Work"; }', 1, 0, ""),
        ('require "fileinto"; fileinto "Nowhere";', 1, 0, "Nowhere, which is not there: it is in INBOX"),
        ('require "fileinto"; fileinto "a/b";', 1, 0, "with a slash"),
        ("discard;", 0, 0, "the rules discard it"),
        ('require ["envelope", "fileinto"]; if envelope "from" "carl@far.test" { fileinto "Work"; }', 0, 1, "Work"),
        ('require "fileinto"; if header :contains "received" "client.test" { fileinto "Work"; }', 0, 1, "Work"),
        ('require ["body", "fileinto"]; if body :contains "body" { fileinto "Work"; }', 0, 1, "Work"),
        ('require ["mailbox", "fileinto"]; if mailboxexists "Work" { fileinto "Work"; }', 0, 1, "Work"),
        ('require ["special-use", "fileinto"]; fileinto :specialuse "\\\\Junk" "Work";', 0, 0, "Junk"),
        ("this is no script", 1, 0, "line 1 of the rules: "),
        ('require ["reject"]; keep; reject "no";', 1, 0, "line 1 of the rules: a message that is rejected"),
    ],
)
def test_where_a_message_goes(tmp_path: Path, script: str, inbox: int, work: int, says: str) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, script)
        assert (await send(room)).startswith("250")
        assert (len(names(room)), len(names(room, ".Work"))) == (inbox, work)
        assert says in told(room)["reason"]
        assert {hint["mailbox"] for hint in room.hints} <= {"INBOX", "Work", "Junk"}

    run(tmp_path, story)


def test_flags_are_in_the_name(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'require ["fileinto", "imap4flags"]; fileinto :flags ["\\\\Seen", "$Label1"] "Work";')
        await send(room)
        (name,) = names(room, ".Work")
        assert name.endswith(",K=$Label1:2,S")

    run(tmp_path, story)


def test_a_folder_that_create_names_is_asked_of_imap(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'require ["fileinto", "mailbox"]; fileinto :create "Fresh";')
        await send(room)
        assert len(names(room, ".Fresh")) == 1
        room.rules(ANNA, 'require ["fileinto", "mailbox"]; fileinto :create "Other one";')
        room.provisions = False
        room.ahead += 2  # a reader looks at the file once a second
        await send(room)
        assert len(names(room)) == 1 and "Other one could not be made" in told(room)["reason"]

    run(tmp_path, story)


def test_a_message_that_is_sent_on(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'redirect "else@far.test";')
        assert (await send(room)).startswith("250")
        (sent,) = room.smtp_out.messages
        assert sent.recipients[0].startswith("RCPT TO:<else@far.test>") and "SRS0=" in sent.mail
        assert sent.body.startswith(
            b"Delivered-To: anna@example.test\r\nX-Sieve-Redirected-From: anna@example.test\r\n"
        )
        assert names(room) == [] and "send it on to else@far.test" in told(room)["reason"]
        looped = b"X-Sieve-Redirected-From: anna@example.test\r\n" + MESSAGE
        assert (await send(room, looped)).startswith("250")
        assert len(room.smtp_out.messages) == 1 and len(names(room)) == 1, "what was sent on before is kept"

    run(tmp_path, story)


def test_a_message_that_cannot_be_sent_on_is_kept(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'redirect "else@far.test";')
        room.smtp_out.replies = {"MAIL": "451 4.3.0 not now"}
        assert (await send(room)).startswith("250")
        assert len(names(room)) == 1 and "not sent on to else@far.test" in told(room)["reason"]

    run(tmp_path, story)


def test_only_so_many_a_day_are_sent_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.rules.REDIRECTS_A_DAY", 2)

    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'redirect "else@far.test";')
        for _ in range(3):
            assert (await send(room)).startswith("250")
        assert len(room.smtp_out.messages) == 2 and len(names(room)) == 1
        assert "2 messages were today" in told(room)["reason"]

    run(tmp_path, story)


def test_a_refusal_while_the_sender_waits(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'require "reject"; reject "Please, nö\nmore";')
        assert await send(room) == "550 5.7.1 Please, n? more"
        assert names(room) == [] and told(room)["outcome"] == "reject"
        # Others get it too: no refusal, and no letter to whoever the sender may be.
        assert (await send(room, to=[ANNA, BERTA])).startswith("250")
        assert (await send(room, to=[FAMILY])).startswith("250")
        assert len(names(room)) == 2 and "it is kept" in room.events.of("delivered", account=ANNA)[-1]["reason"]
        assert not room.smtp_out.messages

    run(tmp_path, story)


def test_a_refusal_by_lmtp_is_that_recipients_own(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'require "ereject"; ereject "no";')
        client = await room.lmtp()
        assert (await client.say(f"MAIL FROM:<{BERTA}>", f"RCPT TO:<{ANNA}>", f"RCPT TO:<{BERTA}>", "DATA"))[
            :3
        ] == "354"
        client.writer.write(MESSAGE + b".\r\n")
        assert (await client.reply()) == "550 5.7.1 no"
        assert (await client.reply()).startswith("250")
        assert names(room) == [] and len(room.messages(BERTA)) == 1

    run(tmp_path, story)


def test_a_sender_is_answered_once(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        assert (await send(room)).startswith("250")
        (answer,) = room.smtp_out.messages
        assert answer.mail.startswith("MAIL FROM:<>") and answer.recipients[0].startswith(f"RCPT TO:<{SENDER}>")
        for line in (
            b"From: <anna@example.test>", b"To: <carl@far.test>", b"Subject: Auto: Invoice", b"In-Reply-To: <1@far.test>",
            b"References: <0@far.test>\r\n <1@far.test>", b"Auto-Submitted: auto-replied",
        ):  # fmt: skip
            assert line + b"\r\n" in answer.body, line
        assert answer.body.endswith(b"\r\n\r\nI am away.\r\n") and b"Delivered-To" not in answer.body
        assert len(names(room)) == 1, "and the message is kept"
        await send(room)
        assert len(room.smtp_out.messages) == 1 and "answered lately" in told(room)["reason"]
        room.ahead = 3 * 86_400 + 10
        await send(room)
        assert len(room.smtp_out.messages) == 2
        await send(room, sender="dora@far.test")
        assert len(room.smtp_out.messages) == 3
        assert [each["answer"] for each in room.events.of("answered")] == [
            re.search(r"XTRACE=(\w+)", each.mail)[1]
            for each in room.smtp_out.messages  # type: ignore[index]
        ]

    run(tmp_path, story)


def test_what_is_remembered_outlives_the_room(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        await send(room)
        await room.stop()
        await room._start()
        await send(room)
        assert len(room.smtp_out.messages) == 1

    run(tmp_path, story)


def test_an_answer_that_was_not_sent_is_sent_next_time(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        room.smtp_out.replies = {"MAIL": "451 4.3.0 not now"}
        assert (await send(room)).startswith("250")
        assert "no vacation reply" in told(room)["reason"] and len(names(room)) == 1
        room.smtp_out.replies = {}
        await send(room)
        assert len(room.smtp_out.messages) == 1

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("field", "sender", "why"),
    [
        ("", "", "no sender"),
        ("", "MAILER-DAEMON@far.test", "a program"),
        ("", "no-reply@far.test", "a program"),
        ("", "owner-list@far.test", "a program"),
        ("", "list-request@far.test", "a program"),
        ("", "anna@example.test", "the account itself"),
        ("", "anna+shop@example.test", "the account itself"),
        ("", "family@example.test", "the account itself"),
        ("List-Id: <talk.far.test>", SENDER, "a list"),
        ("List-Unsubscribe: <mailto:x@far.test>", SENDER, "a list"),
        ("Auto-Submitted: auto-generated", SENDER, "automatically"),
        ("Auto-Submitted: Auto-Replied; x=y", SENDER, "automatically"),
        ("Precedence: bulk", SENDER, "bulk"),
        ("X-Auto-Response-Suppress: DR, OOF, AutoReply", SENDER, "no automatic answers"),
        ("-To", SENDER, "not addressed"),
    ],
)
def test_who_is_not_answered(tmp_path: Path, field: str, sender: str, why: str) -> None:
    message = (
        MESSAGE.replace(b"To: anna@example.test, family@example.test", b"To: list@far.test")
        if field == "-To"
        else (f"{field}\r\n".encode() * bool(field) + MESSAGE)
    )

    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        assert (await send(room, message, sender)).startswith("250")
        assert not room.smtp_out.messages and len(names(room)) == 1
        assert why in told(room)["reason"], told(room)["reason"]

    run(tmp_path, story)


@pytest.mark.parametrize("field", ["Auto-Submitted: no", "Precedence: first-class"])
def test_who_is_answered_all_the_same(tmp_path: Path, field: str) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        await send(room, field.encode() + b"\r\n" + MESSAGE)
        assert len(room.smtp_out.messages) == 1

    run(tmp_path, story)


def test_an_answer_is_never_in_anothers_name(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, 'require "vacation"; vacation :from "boss@bank.test" "x";')
        await send(room)
        assert b"From: <anna@example.test>\r\n" in room.smtp_out.messages[0].body
        room.rules(ANNA, 'require "vacation"; vacation :from "family@example.test" "x";')
        room.ahead += 2  # a reader looks at the file once a second
        await send(room)
        assert b"From: <family@example.test>\r\n" in room.smtp_out.messages[1].body

    run(tmp_path, story)


FORGED: dict[tuple[str, str], list[object]] = {("far.test", "TXT"): ["v=spf1 -all"]}


def test_a_forged_sender_is_not_answered_and_junk_runs_no_rules(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        await send(room)
        assert not room.smtp_out.messages
        assert len(names(room)) + len(names(room, ".Junk")) == 1

    run(tmp_path, story, zone=FORGED, spf_fail="tag")
    run(tmp_path / "again", story, zone=FORGED, spf_fail="junk")
    run(tmp_path / "doubted", story, zone={("far.test", "TXT"): ["v=spf1 ~all"]})


def test_with_the_checks_off_a_stranger_is_not_answered(tmp_path: Path) -> None:
    """Nobody looked whether the sender is who it says: an answer might go to somebody who never wrote."""

    async def story(room: ReceivingRoom) -> None:
        room.rules(ANNA, AWAY)
        await send(room)
        assert not room.smtp_out.messages and len(names(room)) == 1

    run(tmp_path, story, zone=None)
