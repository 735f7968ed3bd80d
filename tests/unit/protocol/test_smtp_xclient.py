"""XCLIENT and XFORWARD: read from trusted relays, unknown commands to everybody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol import smtp_events as events
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_paths import Refused
from services.protocol.smtp_session import State
from services.protocol.smtp_true_client import Client
from services.protocol.smtp_xclient import XCLIENT, XFORWARD, Told, parse
from tests.smtpowner import Owner, greeted

OFFER = Offer("mail.test", 1000, starttls=True, max_errors=100)


def relay(*, hello: bool = True) -> Owner:
    owner = greeted(OFFER, hello=False)
    owner.session.trusted = True
    if hello:
        owner.feed(b"EHLO relay.test\r\n")
        owner.said = b""
    return owner


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("ADDR=203.0.113.9", {"ADDR": "203.0.113.9"}),
        ("addr=IPV6:2001:DB8::9 name=spike.test", {"ADDR": "2001:db8::9", "NAME": "spike.test"}),
        ("ADDR=[UNAVAILABLE] NAME=[tempunavail]", {"ADDR": "", "NAME": ""}),
        ("HELO=[203.0.113.9] PROTO=esmtp PORT=4711", {"HELO": "[203.0.113.9]", "PROTO": "esmtp", "PORT": "4711"}),
        ("HELO=a+2Bb", {"HELO": "a+b"}),
    ],
)
def test_attributes(text: str, attributes: dict[str, str]) -> None:
    assert parse(text, XCLIENT).attributes == attributes


@pytest.mark.parametrize(
    "text",
    [
        "", "ADDR", "ADDR=", "ADDR=nonsense", "ADDR=203.0.113.9 ADDR=203.0.113.9", "IDENT=x", "PORT=65536", "PORT=x",
        "PROTO=LMTP", "NAME=a+20b", "NAME=-x", "NAME=a+0D+0Ab", "HELO=" + "x" * 256, "HELO=+FF", "HELO=a+b", "FOO=x",
    ],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text, XCLIENT)
    assert refused.value.reply.code == 501


def test_source_and_ident_are_xforward_s() -> None:
    assert parse("SOURCE=LOCAL IDENT=4Xyz", XFORWARD).attributes == {"SOURCE": "LOCAL", "IDENT": "4Xyz"}
    for text in ("SOURCE=OTHER", "LOGIN=x"):
        with pytest.raises(Refused):
            parse(text, XFORWARD)


def test_several_lines_add_up() -> None:
    """XFORWARD_README: what does not fit into one line comes in another."""
    first = Told({"ADDR": "203.0.113.9", "NAME": "a.test"}).over(None, via_xclient=False)
    assert Told({"HELO": "h", "NAME": ""}).over(first, via_xclient=False) == Client("203.0.113.9", "h", "", "xforward")
    assert Told({"ADDR": "127.0.0.1"}).over(None, via_xclient=True) == Client("", via="xclient")


@pytest.mark.parametrize("line", [b"XCLIENT ADDR=203.0.113.9", b"XFORWARD ADDR=203.0.113.9"])
def test_to_anybody_else_they_are_no_commands(line: bytes) -> None:
    owner = greeted(OFFER)
    assert owner.feed(line + b"\r\n").startswith(b"500 ")
    assert b"XCLIENT" not in owner.session.extensions().encode()


def test_a_relay_is_told_of_them() -> None:
    lines = relay().session.extensions().text.split("\n")
    assert "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT" in lines
    assert "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" in lines


@pytest.mark.parametrize("hello", [False, True])
def test_xclient_begins_the_session_anew(hello: bool) -> None:
    owner = relay(hello=hello)
    owner.feed(b"XCLIENT ADDR=203.0.113.9\r\n")
    assert isinstance(owner.seen[-1], events.XClient)
    assert owner.session.state is State.CONNECTED
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    assert owner.codes[-1] == 503


def test_xforward_may_be_pipelined_with_mail() -> None:
    owner = relay()
    owner.feed(b"XFORWARD ADDR=203.0.113.9 HELO=h\r\nMAIL FROM:<a@b>\r\n")
    assert (owner.codes, owner.session.state) == ([250, 250], State.MAIL)


def test_neither_belongs_into_a_transaction() -> None:
    owner = relay()
    owner.feed(b"MAIL FROM:<a@b>\r\nXFORWARD ADDR=203.0.113.9\r\n")
    owner.feed(b"XCLIENT ADDR=203.0.113.9\r\n")
    assert (owner.codes, owner.session.state) == ([250, 503, 503], State.MAIL)


def test_nothing_may_follow_xclient_before_its_reply() -> None:
    owner = relay()
    owner.feed(b"XCLIENT ADDR=203.0.113.9\r\nEHLO x\r\n")
    assert (owner.codes, owner.session.state) == ([503], State.CLOSED)


@given(st.text(max_size=60), st.sampled_from(XCLIENT + XFORWARD))
def test_no_text_raises_anything_else(text: str, name: str) -> None:
    for known in (XCLIENT, XFORWARD):
        for words in (text, f"{name}={text}"):
            try:
                told = parse(words, known)
            except Refused as refused:
                assert refused.reply.code == 501
            else:
                client = told.over(None, via_xclient=True)
                assert all(value.isprintable() for value in (client.address, client.helo, client.name))
