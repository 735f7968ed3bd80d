"""Replies as bytes: codes, several lines, nothing that forges a line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol import reply as replies
from services.protocol.reply import Reply


@pytest.mark.parametrize(
    ("reply", "encoded"),
    [
        (Reply(250, "2.0.0", "OK"), b"250 2.0.0 OK\r\n"),
        (Reply(354, "", "go on"), b"354 go on\r\n"),
        (Reply(250, "", "a\nb\nc"), b"250-a\r\n250-b\r\n250 c\r\n"),
        (Reply(550, "5.1.1", "a\nb"), b"550-5.1.1 a\r\n550 5.1.1 b\r\n"),
        (Reply(550, "5.1.1", "<x\r250 OK>"), b"550 5.1.1 <x?250 OK>\r\n"),
        (Reply(550, "5.1.1", "ü"), "550 5.1.1 ü\r\n".encode()),
    ],
)
def test_encoding(reply: Reply, encoded: bytes) -> None:
    assert reply.encode() == encoded


@given(st.integers(200, 599), st.sampled_from(["", "5.7.1"]), st.text(max_size=1000))
def test_every_line_is_a_reply_line_of_at_most_512_octets(code: int, enhanced: str, text: str) -> None:
    encoded = Reply(code, enhanced, text).encode()
    lines = encoded.split(b"\r\n")
    assert lines.pop() == b""
    for number, line in enumerate(lines):
        assert re.match(rb"%d%s" % (code, b"-" if number < len(lines) - 1 else b" "), line)
        assert not re.search(rb"[\r\n\0]", line)
        assert len(line) <= 510


def test_what_a_code_means() -> None:
    assert (replies.OK.positive, replies.OK.temporary, replies.OK.permanent) == (True, False, False)
    assert (replies.START_BODY.positive, replies.TIMED_OUT.temporary, replies.NO_RECIPIENTS.permanent) == (True,) * 3


def test_all_named_replies_have_an_enhanced_code_of_their_class() -> None:
    """RFC 2034 §4: the classes must agree; greetings, 354 and 334 have none."""
    named = [value for value in vars(replies).values() if isinstance(value, Reply)]
    assert len(named) > 30
    for reply in named:
        assert reply.enhanced[:1] in (str(reply.code)[0], ""), reply
        assert reply.enhanced or reply.code == 354, reply


def test_in_the_record_a_reply_is_one_line() -> None:
    assert str(Reply(250, "", "a\nb")) == "250 a / b"
    assert str(Reply(550, "5.1.1", "no")) == "550 5.1.1 no"
