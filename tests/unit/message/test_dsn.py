"""Reports: what Python's own parser reads in them, and that nobody else's words can become fields of ours."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest

from services.message.date import header_date
from services.message.dsn import Reported, field_value, report

ORIGINAL = (
    b"Received: by mail.home.test; Sun, 22 Nov 2026 02:33:00 +0000\r\nFrom: Anna <anna@home.test>\r\n"
    b"To: bob@far.test\r\nSubject: Lunch on\r\n Sunday?\r\nMessage-ID: <abc@home.test>\r\n\r\n"
)
BOB = Reported("bob@far.test", "5.1.1", "550 5.1.1 No such user", remote="mx.far.test [192.0.2.1]", last_attempt=7200)


def made(action: str = "failed", header: bytes = ORIGINAL, recipients: Any = (BOB,), **other: Any) -> EmailMessage:
    raw = report(
        action,  # type: ignore[arg-type]
        server="mail.home.test",
        sender="mailer-daemon@home.test",
        recipient="anna@home.test",
        recipients=recipients,
        arrived=0,
        now=7200,
        until=432_000,
        header=header,
        trace="0123456789abcdef",
        identity="fedcba9876543210",
        **other,
    )
    assert all(len(line) <= 998 for line in raw.split(b"\r\n")) and b"\n" not in raw.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def status_of(message: EmailMessage) -> list[Any]:
    part = list(message.iter_parts())[1]
    assert part.get_content_type() == "message/delivery-status"
    return part.get_payload()  # type: ignore[return-value]


def test_a_failure() -> None:
    message = made()
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["Subject"] == "Not delivered: Lunch on Sunday?"
    assert message["To"] == "anna@home.test" and "mailer-daemon@home.test" in message["From"]
    assert message["Auto-Submitted"] == "auto-replied" and message["In-Reply-To"] == "<abc@home.test>"
    about, bob = status_of(message)
    assert about["Reporting-MTA"] == "dns; mail.home.test" and about["Arrival-Date"] == header_date(0)
    assert bob["Final-Recipient"] == "rfc822; bob@far.test"
    assert (bob["Action"], bob["Status"]) == ("failed", "5.1.1")
    assert bob["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user" and bob["Remote-MTA"] == "dns; mx.far.test"
    assert bob["Last-Attempt-Date"] == header_date(7200) and bob["Will-Retry-Until"] is None
    text, _, header = message.iter_parts()
    assert header.get_content_type() == "text/rfc822-headers" and b"Lunch on" in header.get_payload(decode=True)
    words = text.get_content()
    assert "could not be delivered" in words and "550 5.1.1 No such user" in words and "bob@far.test" in words


def test_a_delay() -> None:
    message = made("delayed", recipients=[Reported("bob@far.test", "4.4.1", reason="cannot connect")])
    assert message["Subject"].startswith("Late, still trying")
    block = status_of(message)[1]
    assert block["Action"] == "delayed" and block["Will-Retry-Until"] == header_date(432_000)
    assert block["Diagnostic-Code"] is None  # no server said anything
    words = " ".join(next(message.iter_parts()).get_content().split())
    assert "nothing to do" in words and header_date(432_000) in words and "cannot connect" in words


def test_several_recipients_have_a_block_each() -> None:
    message = made(recipients=[BOB, Reported("eve@far.test", "5.2.2", "552 5.2.2 full")])
    assert [block["Final-Recipient"] for block in status_of(message)[1:]] == [
        "rfc822; bob@far.test",
        "rfc822; eve@far.test",
    ]


@pytest.mark.parametrize(
    "reply",
    ["550 a\r\nStatus: 2.0.0", "550 a\n\nFinal-Recipient: rfc822; x", "550 \x00\x1b[2J \x85", "550 " + "x" * 5000],
)
def test_a_remotes_words_stay_words(reply: str) -> None:
    message = made(recipients=[Reported("bob@far.test", "5.0.0", reply)])
    blocks = status_of(message)
    assert len(blocks) == 2 and blocks[1]["Status"] == "5.0.0" and len(blocks[1].keys()) == 4


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?B?5Y2I6aWt?= =?utf-8?Q?_=E5=90=97?=", "午饭 吗"),
        (b"=?gb2312?B?zuk=?=", "伍"),
        (b"=?no-such?B?xxxx?=", None),
        (b"=?utf-8?B?!!?=", None),
        ("grüße".encode(), "grüße"),
        (b"x" * 200, "x" * 79 + "…"),
        (b"", "(no subject)"),
    ],
)
def test_the_subject_is_readable(subject: bytes, shown: str | None) -> None:
    message = made(header=b"Subject: " + subject + b"\r\n\r\n")
    if shown is not None:
        assert message["Subject"] == f"Not delivered: {shown}"


@pytest.mark.parametrize("message_id", [b"<a b>", b"no brackets", b"<a>\r\n <b>", b"<" + b"x" * 300 + b">"])
def test_a_broken_message_id_is_not_referred_to(message_id: bytes) -> None:
    assert made(header=b"Message-ID: " + message_id + b"\r\n\r\n")["In-Reply-To"] is None


def test_an_internationalised_address_and_header() -> None:
    header = "From: jörg@home.test\r\nSubject: 你好\r\n\r\n".encode()
    raw = report(
        "failed", server="mail.home.test", sender="mailer-daemon@home.test", recipient="jörg@home.test",
        recipients=[Reported("张@far.test", "5.1.1", "550 no")], arrived=0, now=0, until=0, header=header, trace="t",
        identity="i",
    )  # fmt: skip
    assert b"message/global-headers" in raw and b"message/global-delivery-status" in raw
    assert "Final-Recipient: utf-8; 张@far.test".encode() in raw
    assert "你好".encode() in raw  # in the quoted header, as it was


@pytest.mark.parametrize(
    "header", [b"", b"\r\n", b"no field at all\r\n\r\n", b"Subject: x", b"X: " + b"y" * 2000 + b"\r\n\r\n"]
)
def test_any_header_makes_a_report(header: bytes) -> None:
    assert len(list(made(header=header).iter_parts())) == 3


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"Subject: a\r\nMessage-ID: <x@y>\r\n\r\n", "<x@y>"),
        (b"MESSAGE-id :\r\n <x@y>\r\n\r\n", "<x@y>"),
        (b"X-Message-ID: <x@y>\r\n\r\n", ""),
    ],
)
def test_field_value(header: bytes, value: str) -> None:
    assert field_value(header, b"message-id") == value


def test_header_date_is_rfc_5322() -> None:
    assert header_date(1_795_314_780) == "Sun, 22 Nov 2026 02:33:00 +0000"
