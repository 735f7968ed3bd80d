"""Header fields: found, counted, prepended and taken out, never re-serialised."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.headers import (
    Loops,
    Passage,
    field_line,
    fields,
    find,
    find_all,
    header_length,
    is_whole,
    loops,
    received,
    without,
)

HEADER = (
    b"Received: from a\r\n\tby b\r\nSubject: folded\r\n value \r\nTo : anna@example.test\r\nsubject: second\r\n"
    b"X-Empty:\r\nBcc: berta@example.test,\r\n carl@example.test\r\n"
)


@pytest.mark.parametrize(
    ("message", "length", "whole"),
    [
        (HEADER + b"\r\nbody\r\n\r\n", len(HEADER), True),
        (b"\r\nbody", 0, True),
        (HEADER, len(HEADER), False),
        (b"", 0, False),
        (b"A: b\n\nno empty line of CRLF", 27, False),
    ],
)
def test_where_a_header_ends(message: bytes, length: int, whole: bool) -> None:
    assert (header_length(message), is_whole(message)) == (length, whole)


def test_fields_are_unfolded_and_know_where_they_stand() -> None:
    found = list(fields(HEADER))
    assert [(field.name, field.value) for field in found] == [
        (b"Received", b"from a\tby b"),
        (b"Subject", b"folded value"),
        (b"To", b"anna@example.test"),
        (b"subject", b"second"),
        (b"X-Empty", b""),
        (b"Bcc", b"berta@example.test, carl@example.test"),
    ]
    assert b"".join(HEADER[field.start : field.end] for field in found) == HEADER


def test_finding() -> None:
    first = find(HEADER, b"SUBJECT")
    assert first is not None
    assert first.value == b"folded value"
    assert len(find_all(HEADER, b"Subject")) == 2
    assert find(HEADER, b"Cc") is None


def test_lines_that_are_no_field_are_passed_over() -> None:
    odd = b"From someone Sun Nov 22\r\nno colon here\r\n: no name\r\nSubject: x\r\n stray\r\nTo: y"
    assert [field.name for field in fields(odd)] == [b"Subject", b"To"]


def test_taking_out_leaves_every_other_octet() -> None:
    odd = b"no colon\r\n" + HEADER + b"Bcc: again\r\nLast:  spaces  kept \r\n"
    expected = b"no colon\r\n" + HEADER[: HEADER.index(b"Bcc")] + b"Last:  spaces  kept \r\n"
    assert without(odd, [b"bcc"]) == expected
    assert without(odd, [b"x-none"]) == odd


@given(st.lists(st.sampled_from([b"A: b", b"Bcc: x", b"\r\n", b" ", b"\t", b"\r", b"\n", b":", b"\xff", b"Bcc"])))
def test_no_octets_make_it_fail_or_change(parts: list[bytes]) -> None:
    header = b"".join(parts)
    found = list(fields(header))
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert without(header, []) == header
    assert not find_all(without(header, [b"Bcc"]), b"Bcc") or b"Bcc" in header
    assert loops(header).hops == 0


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("short", b"X: short\r\n"),
        ("a b\r\nInjected: yes", b"X: a b  Injected: yes\r\n"),
        (
            " ".join(["word"] * 30),
            b"X: " + b" ".join([b"word"] * 14) + b"\r\n " + b" ".join([b"word"] * 15) + b"\r\n word\r\n",
        ),
        ("x" * 200, b"X: " + b"x" * 200 + b"\r\n"),
    ],
)
def test_a_line_of_our_own(value: str, line: bytes) -> None:
    assert field_line("X", value) == line


NOW = 1_795_315_980.0  # 2026-11-22T02:53:00Z
PASSAGE = Passage("client.test", "192.0.2.1", "mail.example.test", "ESMTPS", "0123456789abcdef")


def test_received_tells_the_passage() -> None:
    """RFC 5321 §4.4."""
    full = Passage(
        "client.test", "2001:db8::1", "mail.example.test", "ESMTPS", "0123456789abcdef", "TLSv1.3 TLS_AES_256_GCM_SHA384",
        "anna@example.test",
    )  # fmt: skip
    assert received(full, NOW) == (
        b"Received: from client.test ([IPv6:2001:db8::1])\r\n"
        b"\tby mail.example.test with ESMTPS id 0123456789abcdef\r\n"
        b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tfor <anna@example.test>; Sun, 22 Nov 2026 02:53:00 +0000\r\n"
    )
    assert received(PASSAGE, NOW) == (
        b"Received: from client.test ([192.0.2.1])\r\n"
        b"\tby mail.example.test with ESMTPS id 0123456789abcdef; Sun, 22 Nov 2026 02:53:00 +0000\r\n"
    )


@pytest.mark.parametrize("helo", ["x(comment)", "a;b", "<script>", "x\r\nInjected: yes", ""])
def test_what_a_peer_calls_itself_cannot_break_our_line(helo: str) -> None:
    line = received(Passage(helo, "192.0.2.1", "m", "SMTP", "t"), NOW)
    assert line.startswith(b"Received: from unknown ([192.0.2.1])\r\n")


def test_where_a_message_has_been() -> None:
    header = (
        b"Received: from a\r\n\tby b\r\nReceived: from c\r\nX-Received: no\r\nDELIVERED-TO: <Anna@Example.test>\r\n"
        b"Message-ID:\r\n <1@example.test>\r\nMessage-Id: <2@example.test>\r\nSubject: Received: no\r\n"
    )
    assert loops(header) == Loops(2, frozenset({"anna@example.test"}), "<1@example.test>")
    assert loops(b"") == Loops(0, frozenset(), "")
