"""Vacation replies: what they say, whatever the original and the script are like."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.vacation import Answer, reply

NOW = 1_795_000_000.0
HEADER = b"From: a@far.test\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@far.test>\r\n"


def made(answer: Answer, header: bytes = HEADER) -> email.message.EmailMessage:
    raw = reply(answer, header, message_id="t.vacation@mail.test", now=NOW)
    assert b"\n" not in raw.replace(b"\r\n", b""), "line ends are CRLF"
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    found = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(found, email.message.EmailMessage)
    return found


def test_a_plain_reply() -> None:
    found = made(Answer("anna@home.test", "a@far.test", "", "I am away.\nSee you"))
    assert (found["From"], found["To"], found["Subject"]) == ("anna@home.test", "a@far.test", "Auto: Grüße")
    assert (found["In-Reply-To"], found["References"]) == ("<1@far.test>", "<1@far.test>")
    assert found["Auto-Submitted"] == "auto-replied" and found["Message-ID"] == "<t.vacation@mail.test>"
    assert found.get_content().splitlines() == ["I am away.", "See you"]


def test_letters_beyond_ascii_and_long_lines() -> None:
    text = "我不在。" * 400
    found = made(Answer("anna@home.test", "a@far.test", "我不在办公室" * 10, text))
    assert found["Subject"] == "我不在办公室" * 10
    assert found.get_content() == text


def test_references_are_carried_on_and_bounded() -> None:
    before = b" ".join(b"<%d@far.test>" % number for number in range(100))
    found = made(Answer("a@home.test", "b@far.test", "x", "y"), HEADER + b"References: " + before + b"\r\n")
    references = found["References"].split()
    assert references[0] == "<0@far.test>" and references[-2:] == ["<99@far.test>", "<1@far.test>"]
    assert len(references) <= 20


def test_a_mime_entity_brings_its_own_content_and_nothing_else() -> None:
    body = "Bcc: all@far.test\r\nContent-Type: text/html; charset=utf-8\r\nFrom: boss@bank.test\r\n\r\n<b>Grüße</b>"
    found = made(Answer("anna@home.test", "a@far.test", "x", body, mime=True))
    assert found.get_content_type() == "text/html" and "<b>Grüße</b>" in found.get_content()
    assert found["Bcc"] is None and found["From"] == "anna@home.test"
    plain = made(Answer("anna@home.test", "a@far.test", "x", "no header here", mime=True))
    assert plain.get_content_type() == "text/plain" and "no header here" in plain.get_content()


@pytest.mark.parametrize("evil", ["x\r\nBcc: all@far.test", "x\nBcc: all@far.test", "x\r\n\r\nbody"])
def test_nothing_begins_a_field_of_its_own(evil: str) -> None:
    found = made(Answer("anna@home.test", "a@far.test", evil, "y"), HEADER + b"References: " + evil.encode() + b"\r\n")
    assert found["Bcc"] is None and "body" not in found.get_content()


@given(st.text(max_size=200), st.text(max_size=200), st.binary(max_size=300), st.booleans())
def test_any_text_and_any_header(subject: str, body: str, header: bytes, mime: bool) -> None:
    raw = reply(Answer("anna@home.test", "a@far.test", subject, body, mime), header, message_id="x@y", now=NOW)
    head = raw.partition(b"\r\n\r\n")[0]
    for line in head.split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        assert line[:1] in b" \t" or name.startswith(b"content-") or name in (
            b"from", b"to", b"subject", b"date", b"message-id", b"in-reply-to", b"references", b"auto-submitted",
            b"x-auto-response-suppress", b"mime-version",
        ), line  # fmt: skip
