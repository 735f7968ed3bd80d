"""Line and body readers: only CRLF ends a line, however the bytes arrive."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.lines import BodyFault, BodyReader, LineFault, LineReader
from tests.dialogues.runner import feedings, play_all_ways

BARE, ONLY_BARE, TOO_LONG = LineFault.BARE, LineFault.ONLY_BARE, LineFault.TOO_LONG


def lines_of(pieces: list[bytes], limit: int = 20) -> list[bytes | LineFault]:
    reader, found = LineReader(), list[bytes | LineFault]()
    for piece in pieces:
        reader.feed(piece)
        while (line := reader.next(limit)) is not None:
            found.append(line)
            if line is ONLY_BARE:
                return found  # the session closes there
    return found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"NOOP\r\n", [b"NOOP"]),
        (b"a\r\nb\r\n\r\nrest", [b"a", b"b", b""]),
        (b"unfinished\r", []),
        # Bare ends are no ends: the line is refused once, up to its CRLF.
        (b"a\rb\r\nc\r\n", [BARE, b"c"]),
        (b"a\nb\r\nc\r\n", [BARE, b"c"]),
        (b"a\r\r\nc\r\n", [BARE, b"c"]),
        (b"\na\r\nc\r\n", [BARE, b"c"]),
        # A second LF in it: that peer ends no line with CRLF.
        (b"a\nb\nc\r\nd\r\n", [BARE, ONLY_BARE]),
        # The limit counts the CRLF.
        (b"x" * 18 + b"\r\nc\r\n", [b"x" * 18, b"c"]),
        (b"x" * 19 + b"\r\nc\r\n", [TOO_LONG, b"c"]),
        (b"x" * 500 + b"\r\nc\r\n", [TOO_LONG, b"c"]),
        (b"x" * 18 + b"\rx\r\nc\r\n", [BARE, b"c"]),
        (b"x" * 19 + b"\rx\r\nc\r\n", [TOO_LONG, b"c"]),
        (b"x" * 500 + b"\rx\r\r\nc\r\n", [TOO_LONG, b"c"]),
    ],
)
def test_lines(data: bytes, lines: list[bytes | LineFault]) -> None:
    assert play_all_ways(data, lines_of) == lines


def test_a_faulty_line_is_reported_before_it_ends() -> None:
    reader = LineReader()
    reader.feed(b"EHLO x\n")
    assert reader.next(100) is BARE
    assert reader.next(100) is None


def test_a_long_line_is_not_kept() -> None:
    reader = LineReader()
    for _ in range(1000):
        reader.feed(b"x" * 1000)
        reader.next(100)
    assert len(reader.take_rest()) < 2000


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"xxxxxx"]), max_size=12), st.data())
def test_lines_do_not_depend_on_how_bytes_arrive(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert lines_of(pieces, 8) == lines_of([whole], 8)


def body_of(pieces: list[bytes]) -> tuple[bytes | None, BodyFault | None, bytes | None]:
    """Body (None after a fault), fault, and what followed the end."""
    reader, body = BodyReader(), b""
    for number, piece in enumerate(pieces):
        body += reader.feed(piece)
        if reader.fault is BodyFault.FALSE_END:
            return None, reader.fault, None
        if reader.rest is not None:
            return None if reader.fault else body, reader.fault, reader.rest + b"".join(pieces[number + 1 :])
    return None if reader.fault else body, reader.fault, reader.rest


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),  # RFC 5321 §4.5.2: any first dot of a longer line goes
        (b"a.\r\n.b.\r\n.\r\n", b"a.\r\nb.\r\n"),
        (b"a\r\n\r\n..\r\n..\r\n.\r\n", b"a\r\n\r\n.\r\n.\r\n"),
        (b"x" * 5000 + b"\r\n.\r\n", b"x" * 5000 + b"\r\n"),
        (b"\0\xff\r\n.\r\n", b"\0\xff\r\n"),
    ],
)
def test_bodies(data: bytes, body: bytes) -> None:
    assert play_all_ways(data, body_of, trailing=b"QUIT\r\n") == (body, None, b"QUIT\r\n")


@pytest.mark.parametrize(
    "data", [b"a\nb\r\n.\r\n", b"a\rb\r\n.\r\n", b"a\r\r\n.\r\n", b"\na\r\n.\r\n", b"a\r\n\n\r\n.\r\n", b"a\n\r\n.\r\n"]
)
def test_a_bare_end_spoils_the_body_up_to_the_true_end(data: bytes) -> None:
    assert play_all_ways(data, body_of, trailing=b"QUIT\r\n") == (None, BodyFault.BARE, b"QUIT\r\n")


FALSE_ENDS = [
    before + b"." + after
    for before in (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n\n")
    for after in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n")
    if (before, after) != (b"\r\n", b"\r\n")
]


@pytest.mark.parametrize("end", FALSE_ENDS)
def test_a_false_end_is_found_and_never_an_end(end: bytes) -> None:
    smuggled = b"MAIL FROM:<smuggled@example.test>\r\n.\r\n"
    assert play_all_ways(b"a" + end + smuggled, body_of) == (None, BodyFault.FALSE_END, None)


def test_a_false_end_is_reported_without_waiting_for_more() -> None:
    """Its sender thinks that the message ended and waits for a reply."""
    for end in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n"):
        reader = BodyReader()
        reader.feed(b"a" + end)
        assert reader.fault is BodyFault.FALSE_END, end


def stuffed(body: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", body) + b".\r\n"


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b"a.", b".a", b"\0", b"x" * 70])), st.data())
def test_dots_make_the_round_trip(lines: list[bytes], data: st.DataObject) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    wire = stuffed(body) + b"NOOP\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert body_of(pieces) == (body, None, b"NOOP\r\n")


@given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a", b"\r\n.\r\n"]), max_size=14))
def test_no_way_of_feeding_changes_what_a_body_is(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    results = {repr(body_of(pieces)) for _, pieces in feedings(whole, b"\r\n.\r\nQUIT\r\n")}
    assert len(results) == 1, results


@given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a", b"MAIL FROM:<>"]), max_size=14))
def test_nothing_is_smuggled(parts: list[bytes]) -> None:
    """Whatever a body is made of, what comes after its end is what follows the first CRLF.CRLF, or nothing at all."""
    whole = b"\r\n" + b"".join(parts) + b"\r\n.\r\nQUIT\r\n"
    body, fault, rest = body_of([whole[2:]])
    if rest is not None:
        end = whole.index(b"\r\n.\r\n")
        assert rest == whole[end + 5 :]
        if body is not None:
            assert b"\n" not in body.replace(b"\r\n", b"") and b"\r" not in body.replace(b"\r\n", b"")
    else:
        assert fault is BodyFault.FALSE_END
