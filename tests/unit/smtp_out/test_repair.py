"""Headers: where they end, in any pieces, and what is repaired in them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.smtp_out.repair import MAX_HEADER, HeaderReader, fields_of, received, repaired, values


def read(message: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    """Field names and the body, the message fed in pieces."""
    reader, body = HeaderReader(), b""
    edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    for start, end in itertools.pairwise(edges):
        body += reader.feed(message[start:end])
    body += reader.finish()
    assert reader.fields is not None
    return [field.name for field in reader.fields], body


MESSAGES = [
    (b"A: 1\r\nB: 2\r\n\r\nbody\r\n", [b"a", b"b"], b"body\r\n"),
    (b"A: 1\r\n 2\r\n\t3\r\nB:\r\n\r\n\r\n", [b"a", b"b"], b"\r\n"),
    (b"\r\nbody\r\n", [], b"body\r\n"),
    (b"A: 1\r\n\r\n", [b"a"], b""),
    (b"A: 1\r\n", [b"a"], b""),
    (b"", [], b""),
    # a line that is no field ends the header, and is text
    (b"A: 1\r\nHello there\r\nB: 2\r\n\r\nbody\r\n", [b"a"], b"Hello there\r\nB: 2\r\n\r\nbody\r\n"),
    (b"Hello\r\n", [], b"Hello\r\n"),
    (b" folded first\r\nA: 1\r\n\r\nx\r\n", [], b" folded first\r\nA: 1\r\n\r\nx\r\n"),
    (b"Obsolete : 1\r\n\r\nx\r\n", [b"obsolete"], b"x\r\n"),
    (b"A: 1\r\n\r\nB: 2\r\n\r\nC\r\n", [b"a"], b"B: 2\r\n\r\nC\r\n"),
]


@pytest.mark.parametrize(("message", "names", "body"), MESSAGES)
def test_where_a_header_ends(message: bytes, names: list[bytes], body: bytes) -> None:
    assert read(message, []) == (names, body)
    assert read(message, list(range(len(message) + 1))) == (names, body)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.sampled_from([b"A: 1", b" fold", b"\r\n", b"\r\n", b"text", b"B:", b"\xff", b"."]), max_size=20),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_nothing_is_lost_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    message = b"".join(parts)
    message += b"" if message.endswith(b"\r\n") or not message else b"\r\n"
    names, body = read(message, cuts)
    assert (names, body) == read(message, [])
    header = message[: len(message) - len(body)]
    assert sum(len(field.raw) for field in fields_of(header.removesuffix(b"\r\n\r\n") + b"\r\n")[0]) <= len(message)
    assert body == b"" or message.endswith(body)


@pytest.mark.parametrize("step", [1 << 10, 1 << 20])
def test_a_header_without_end_is_not_kept(step: int) -> None:
    reader = HeaderReader()
    for _ in range(2 * MAX_HEADER // step + 1):
        reader.feed(b"X: " + b"y" * (step - 5) + b"\r\n")
    assert reader.too_long and reader.fields is None and len(reader._held) == 0


def repair(header: bytes) -> tuple[list[bytes], list[str]]:
    fields, _ = fields_of(header)
    kept, done = repaired(fields, sender="anna@home.test", trace="t", now=0, domain="home.test")
    return [field.raw for field in kept], done


def test_a_good_header_is_left_alone() -> None:
    header = b"From: a@b\r\nDate: x\r\nMessage-Id: <x>\r\nCC: c@d\r\nSubject: a\r\n  b\r\n"
    kept, done = repair(header)
    assert b"".join(kept) == header and done == []


def test_what_is_missing_is_added_below() -> None:
    kept, done = repair(b"Subject: x\r\n")
    assert kept == [
        b"Subject: x\r\n",
        b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n",
        b"From: <anna@home.test>\r\n",
        b"Message-ID: <t@home.test>\r\n",
        b"To: undisclosed-recipients:;\r\n",
    ]
    assert done == ["date added", "from added", "message-id added", "to added"]


@pytest.mark.parametrize("name", [b"Bcc", b"BCC ", b"Resent-Bcc", b"Return-Path", b"Authentication-Results"])
def test_what_must_not_leave_goes(name: bytes) -> None:
    kept, done = repair(b"To: a@b\r\n" + name + b": secret\r\n\tfolded secret\r\nX-Bcc: kept\r\n")
    assert b"secret" not in b"".join(kept) and b"X-Bcc: kept\r\n" in kept
    assert done[0] == f"{name.strip().lower().decode()} removed"


def test_received_names_nobody() -> None:
    line = received(hostname="mail.home.test", trace="t", now=0, recipients=["b@far.test"], tls=True, utf8=False)
    assert line == (
        b"Received: by mail.home.test with ESMTPSA id t\r\n\tfor <b@far.test>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
    )
    two = received(hostname="h", trace="t", now=0, recipients=["b@c", "d@e"], tls=False, utf8=True)
    assert b"for <" not in two and b"with UTF8SMTPA id" in two


def test_values() -> None:
    fields, _ = fields_of(b"From: a\r\n b\r\nX: 1\r\nfrom:c\r\n")
    assert values(fields, b"from") == [b" a\r\n b\r\n", b"c\r\n"]
