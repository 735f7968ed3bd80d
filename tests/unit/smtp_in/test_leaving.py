"""Forwards over the wire: never junk, never in a circle, never a report to somebody who did not write; reports of success
to those who asked and are proven."""

import email
import email.policy
from pathlib import Path
from typing import Any

import pytest

from services.smtp_in.forward import Forwarder
from tests.receivingroom import ReceivingRoom
from tests.unit.smtp_in.test_judging import ANNA, letter, run

AWAY, BOTH = "away@example.test", "both@example.test"
ADMIN = "admin@example.test"
DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN", "XMAILSTEAD 1", "DSN", "REQUIRETLS")


def admins_junk(room: ReceivingRoom) -> list[bytes]:
    return room.messages(ADMIN, ".Junk")


def with_junk(room: ReceivingRoom) -> None:
    for name in ("cur", "new", "tmp"):
        (room.mail / "example.test/admin/.Junk" / name).mkdir(parents=True, exist_ok=True)


async def say(room: ReceivingRoom, sender: str, recipient: str, message: bytes, mail: str = "", rcpt: str = "") -> str:
    client = await room.client()
    answer = await client.say(f"MAIL FROM:<{sender}>{mail}", f"RCPT TO:<{recipient}>{rcpt}")
    if answer.startswith("250"):
        answer = await client.say("DATA")
        client.writer.write(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        answer = await client.reply()
    return answer


def test_junk_for_outside_alone_is_kept_by_the_administrator(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        with_junk(room)
        assert (await say(room, "a@fail.test", AWAY, letter("a@fail.test"))).startswith("250")
        assert not room.smtp_out.messages
        (kept,) = admins_junk(room)
        assert b"X-Original-To: away@example.test" in kept
        (told,) = room.events.of("forwarded")
        assert told["rules"] == "forward-junk forward-kept" and "out@far.test left out" in told["reason"]
        (delivered,) = room.events.of("delivered")
        assert (delivered["account"], delivered["mailbox"], delivered["outcome"]) == (ADMIN, "Junk", "junk")

    run(tmp_path, story)


def test_junk_for_outside_alone_is_refused_where_the_owner_wants(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        with_junk(room)
        answer = await say(room, "a@fail.test", AWAY, letter("a@fail.test"))
        assert answer.startswith("550 5.7.1") and "not forwarded" in answer
        assert not room.smtp_out.messages and not admins_junk(room)
        # One reply for two: what cannot be refused alone is kept.
        client = await room.client()
        assert (await client.send("a@fail.test", [AWAY, ANNA], letter("a@fail.test"))).startswith("250")
        assert len(admins_junk(room)) == 1 and not room.smtp_out.messages

    run(tmp_path, story, forward_junk="refuse")


def test_good_mail_is_forwarded_as_it_came(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        message = letter()
        assert (await say(room, "a@good.test", BOTH, message)).startswith("250")
        (sent,) = room.smtp_out.messages
        assert sent.body.endswith(message)  # whatever signature it has still verifies
        assert len(room.messages(ANNA)) == 1

    run(tmp_path, story)


def test_a_forward_that_comes_back_does_not_go_there_again(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        await say(room, "a@good.test", AWAY, letter())
        (sent,) = room.smtp_out.messages
        # Somebody's forwarding sends it here again, without the Delivered-To that it had.
        back = sent.body.replace(b"\r\n..", b"\r\n.").partition(b"\r\n")[2]
        answer = await say(room, "a@good.test", AWAY, back)
        assert answer.startswith("554 5.4.6") and len(room.smtp_out.messages) == 1
        assert (await say(room, "a@good.test", BOTH, back)).startswith("250")
        assert len(room.messages(ANNA)) == 1 and len(room.smtp_out.messages) == 1
        assert {each["rules"] for each in room.events.of("forwarded", outcome="reject")} == {"loop"}
        # A mark that nobody here made keeps nothing from being forwarded.
        forged = b"X-Mailstead-Forwarded: aaaaaaaaaaaaaaaa\r\n" + letter()
        assert (await say(room, "a@good.test", AWAY, forged)).startswith("250")
        assert len(room.smtp_out.messages) == 2

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("sender", "author", "recipient", "asked", "handed"),
    [
        ("a@good.test", "a@good.test", AWAY, "", "ORCPT=rfc822;away@example.test"),
        ("a@soft.test", "a@soft.test", AWAY, "", "NOTIFY=NEVER ORCPT=rfc822;away@example.test"),
        ("a@nobody.test", "a@nobody.test", AWAY, " NOTIFY=SUCCESS,FAILURE", "NOTIFY=NEVER ORCPT=rfc822;away@example.test"),
        ("a@good.test", "a@good.test", AWAY, " NOTIFY=SUCCESS ORCPT=rfc822;x@y.test", "NOTIFY=SUCCESS ORCPT=rfc822;x@y.test"),
        ("a@good.test", "a@good.test", BOTH, " NOTIFY=SUCCESS", "NOTIFY=NEVER ORCPT=rfc822;both@example.test"),
        ("", "a@good.test", AWAY, "", "NOTIFY=NEVER ORCPT=rfc822;away@example.test"),
    ],
)  # fmt: skip
def test_reports_go_to_proven_senders_alone(
    tmp_path: Path, sender: str, author: str, recipient: str, asked: str, handed: str
) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.extensions = DSN
        answer = await say(room, sender, recipient, letter(author), " RET=HDRS ENVID=e1", asked)
        assert answer.startswith("250"), answer
        sent = room.smtp_out.messages[0]
        assert sent.recipients == [f"RCPT TO:<out@far.test> {handed}"]
        assert "RET=HDRS ENVID=e1" in sent.mail

    run(tmp_path, story)


# --- reports of success


def told(room: ReceivingRoom) -> list[Any]:
    return [
        email.message_from_bytes(each.body.replace(b"\r\n..", b"\r\n."), policy=email.policy.default)
        for each in room.smtp_out.messages
        if each.mail.startswith("MAIL FROM:<>")
    ]


@pytest.mark.parametrize(
    ("sender", "recipient", "asked", "action"),
    [
        ("a@good.test", ANNA, " NOTIFY=SUCCESS ORCPT=rfc822;Anna@example.test", "delivered"),
        ("a@good.test", "anna+x@example.test", " NOTIFY=SUCCESS,DELAY", "delivered"),
        ("a@good.test", "family@example.test", " NOTIFY=SUCCESS", "expanded"),
        ("a@good.test", BOTH, " NOTIFY=SUCCESS", "expanded"),
        ("a@good.test", AWAY, " NOTIFY=SUCCESS", ""),  # the next server tells
        ("a@good.test", ANNA, " NOTIFY=FAILURE", ""),
        ("a@good.test", ANNA, "", ""),
        ("a@soft.test", ANNA, " NOTIFY=SUCCESS", ""),  # nobody vouches for the sender
        ("a@fail.test", ANNA, " NOTIFY=SUCCESS", ""),  # junk
        ("", ANNA, " NOTIFY=SUCCESS", ""),
    ],
)
def test_success_is_told_to_who_asked_and_is_proven(
    tmp_path: Path, sender: str, recipient: str, asked: str, action: str
) -> None:
    async def story(room: ReceivingRoom) -> None:
        answer = await say(room, sender, recipient, letter(sender or "a@good.test"), " ENVID=e+2B1", asked)
        assert answer.startswith("250"), answer
        reports = told(room)
        if not action:
            assert not reports and not room.events.of("bounced")
            return
        (report,) = reports
        about, one = list(report.iter_parts())[1].get_payload()
        assert about["Original-Envelope-Id"] == "e+1"
        assert (one["Action"], one["Status"], one["Final-Recipient"]) == (action, "2.0.0", f"rfc822; {recipient}")
        assert one["Original-Recipient"] == ("rfc822; Anna@example.test" if "ORCPT" in asked else None)
        assert report["To"] == sender and report["Auto-Submitted"] == "auto-replied"
        (event,) = room.events.of("bounced")
        assert event["recipients"] == [recipient] and action in event["reason"]

    run(tmp_path, story)


def test_a_report_that_cannot_be_made_does_not_bring_the_letter_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*arguments: Any, **more: Any) -> None:
        raise KeyError("a header that nobody thought of")

    monkeypatch.setattr("services.smtp_in.dsn.report", stumble)

    async def story(room: ReceivingRoom) -> None:
        answer = await say(room, "a@good.test", ANNA, letter(), "", " NOTIFY=SUCCESS")
        assert answer.startswith("250"), answer
        assert room.events.of("bug") and len(room.messages(ANNA)) == 1

    run(tmp_path, story, bugs=True)


def test_what_was_to_be_protected_is_not_told_of_in_the_open(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        conversation = await room.lmtp()
        await conversation.say("MAIL FROM:<berta@example.test> REQUIRETLS", f"RCPT TO:<{ANNA}> NOTIFY=SUCCESS", "DATA")
        conversation.writer.write(letter() + b".\r\n")
        assert (await conversation.reply()).startswith("250")
        (report,) = told(room)
        assert len(list(report.iter_parts())) == 2 and "Sunday" not in report.as_string()

    run(tmp_path, story)


def test_a_report_that_cannot_be_given_costs_no_letter(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.replies = {"MAIL": "451 4.3.0 not now"}
        assert (await say(room, "a@good.test", ANNA, letter(), "", " NOTIFY=SUCCESS")).startswith("250")
        (event,) = room.events.of("bounced")
        assert event["outcome"] == "error" and "not now" in event["reason"]

    run(tmp_path, story)


def test_what_nobody_asked_for_is_handed_over_without_reports(tmp_path: Path) -> None:
    """As the rules of accounts do it: a redirect that is refused must not write to whoever the sender claims to be."""

    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.extensions = DSN
        forwarder = Forwarder(room.context, lambda domain: False)
        more: Any = {"trace": "0" * 16, "smtputf8": False}
        assert await forwarder.hand_over("a@far.test", ("b@far.test",), letter(), None, **more) == {}
        (sent,) = room.smtp_out.messages
        assert sent.recipients == ["RCPT TO:<b@far.test> NOTIFY=NEVER"]

    run(tmp_path, story)


def test_a_sender_too_long_to_be_rewritten_is_not_the_postmasters_to_hear_of(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        room.smtp_out.extensions = DSN
        sender = f"bounces-{'x' * 50}@good.test"
        assert (await say(room, sender, AWAY, letter())).startswith("250")
        (sent,) = room.smtp_out.messages
        assert sent.mail.startswith("MAIL FROM:<postmaster@example.test>") and "NOTIFY=NEVER" in sent.recipients[0]

    run(tmp_path, story)
