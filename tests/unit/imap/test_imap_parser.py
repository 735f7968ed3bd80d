"""What the cache keeps of a message: sizes, dates, header fields as they stand; and that nothing makes it fail."""

import random
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.imap import sections
from services.imap.parser import header_lines, parse, sent_at, sent_day
from services.storage.cache import CACHED_FIELDS


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (b"Mon, 7 Feb 1994 21:52:25 -0800 (PST)", datetime(1994, 2, 8, 5, 52, 25, tzinfo=UTC)),
        (b"7 Feb 94 21:52 PST", datetime(1994, 2, 8, 5, 52, tzinfo=UTC)),
        (b"Sun, 01 Feb 2026\r\n 00:00:00 +0000", datetime(2026, 2, 1, tzinfo=UTC)),
        (b"1 Feb 26", datetime(2026, 2, 1, tzinfo=UTC)),
        (b"Sun, 1 February 2026 12:00:60 GMT", datetime(2026, 2, 1, 12, 0, 59, tzinfo=UTC)),
        (b"1-Feb-2026 12:00 Z", datetime(2026, 2, 1, 12, tzinfo=UTC)),
    ],
)
def test_dates_of_all_ages(value: bytes, moment: datetime) -> None:
    found = sent_at(value)
    assert found is not None and found == moment


@pytest.mark.parametrize(
    "value", [b"", b"garbage", b"32 Feb 2026", b"1 Foo 2026", b"1 Feb 2026 25:00:00 +0000", b"1 Feb 2026 12:00 +9999"]
)
def test_what_is_no_date(value: bytes) -> None:
    assert sent_at(value) is None


def test_the_day_is_the_one_that_was_written() -> None:
    assert sent_day(b"Sun, 1 Feb 2026 23:30:00 -0800") == date(2026, 2, 1)


HEADER = b"Received: x\r\nTo: a\r\nFrom: b\r\n\tc\r\nto: d\r\nX-Y: z\r\nSubject: s"


def test_header_lines_keep_their_form_and_their_order() -> None:
    assert header_lines(HEADER + b"\r\n\r\n") == {
        "to": b"To: a\r\nto: d\r\n", "from": b"From: b\r\n\tc\r\n", "subject": b"Subject: s\r\n"
    }  # fmt: skip
    assert header_lines(HEADER) == header_lines(HEADER.replace(b"\r\n", b"\n"))
    assert list(header_lines(HEADER)) == ["to", "from", "subject"]


def test_fields_are_joined_as_they_stand() -> None:
    assert sections.joined([b"To: a\r\n", b"From: b\r\n"]) == b"To: a\r\nFrom: b\r\n\r\n"
    assert sections.joined([b"To: a\r\n\tb\r\n", b"From: c\r\n"]) == b"To: a\r\n\tb\r\nFrom: c\r\n\r\n"
    assert sections.joined([b"To: a\r\nTo: b\r\n"]) == b"To: a\r\nTo: b\r\n\r\n"
    assert sections.joined([]) == b"\r\n"
    # One of two came twice: whether the other stood between, the cache does not know.
    assert sections.joined([b"To: a\r\nTo: b\r\n", b"From: c\r\n"]) is None


def test_the_numbers_of_fields_are_the_caches() -> None:
    for number, name in enumerate(CACHED_FIELDS):
        assert sections.number(name.encode()) == number
        assert sections.column(name.encode()) == "h_" + name.replace("-", "_")


def test_a_parsed_message() -> None:
    raw = b"Subject: x\nDate: Sun, 1 Feb 2026 00:00:00 +0000\n\nbody\n"
    parsed = parse(raw)
    served = raw.replace(b"\n", b"\r\n")
    assert parsed.size == len(served)
    assert parsed.header_size == served.index(b"body")
    assert parsed.sent == 1769904000
    assert parsed.preview == "body"
    assert parsed.fields["subject"] == b"Subject: x\r\n"


@given(st.binary(max_size=300))
def test_any_octets(raw: bytes) -> None:
    parsed = parse(raw)
    assert parsed.size == len(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert set(parsed.fields) <= set(CACHED_FIELDS)


def test_a_thousand_broken_headers() -> None:
    source = random.Random(3)
    words = [
        b"Date: ",
        b"Subject:",
        b"From :",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b"\0",
        b"\xff",
        b"1 Feb 2026",
        b"x" * 50,
    ]
    for _ in range(1000):
        parse(b"".join(source.choice(words) for _ in range(source.randrange(30))))
