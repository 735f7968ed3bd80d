"""The client's grammar without a socket: replies in any pieces, and bodies that end where we say and nowhere else."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.protocol.smtp_body import BodyEncoder
from services.protocol.smtp_client import Greeting
from services.protocol.smtp_remote import ProtocolFault, RemoteReply, ReplyReader


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at `cuts`."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def read(data: bytes, cuts: list[int]) -> list[RemoteReply]:
    reader, replies = ReplyReader(), []
    for piece in pieces(data, cuts):
        reader.feed(piece)
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies


STREAM = b"220 mx ready\r\n250-first\r\n250-\r\n250 last\n354\r\n550 5.1.1 no \x1b[1m\xff\r\n"
READ = [
    RemoteReply(220, ("mx ready",)),
    RemoteReply(250, ("first", "", "last")),
    RemoteReply(354, ("",)),
    RemoteReply(550, ("5.1.1 no ?[1m�",)),
]


@settings(max_examples=200, deadline=None)
@given(cuts=st.lists(st.integers(0, 1000), max_size=40))
def test_replies_come_in_any_pieces(cuts: list[int]) -> None:
    assert read(STREAM, cuts) == READ


def test_replies_come_byte_by_byte() -> None:
    assert read(STREAM, list(range(len(STREAM)))) == READ


@pytest.mark.parametrize(
    "data",
    [b"\r\n", b"hello\r\n", b"1\r\n", b"650 x\r\n", b"150 x\r\n", b"250x\r\n", b"250-a\r\n251 b\r\n", b"2500 a\r\n"],
)
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(ProtocolFault):
        read(data, [])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_a_fault(data: bytes) -> None:
    try:
        for reply in read(data + b"\r\n", []):
            assert 200 <= reply.code < 600 and all(line.isprintable() for line in reply.lines)
    except ProtocolFault:
        pass


def test_what_is_left_over_is_known() -> None:
    reader = ReplyReader()
    reader.feed(b"220 go\r\n250-")
    assert reader.next_reply() is not None and reader.pending
    reader.feed(b"x\r\n")
    assert reader.next_reply() is None and reader.pending


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (550, "5.1.1 no such user", "5.1.1"),
        (550, "5.1.1", "5.1.1"),
        (550, "4.1.1 mismatched", "5.0.0"),
        (550, "no such user", "5.0.0"),
        (450, "4.7.123 greylisted", "4.7.123"),
        (250, "2.0.0 Ok", "2.0.0"),
        (554, "5.7.1.2 odd", "5.0.0"),
    ],
)
def test_enhanced_codes(code: int, text: str, enhanced: str) -> None:
    assert RemoteReply(code, (text,)).enhanced == enhanced


def test_several_lines_are_quoted_as_one() -> None:
    assert RemoteReply(550, ("5.7.1 first", "", "second")).text == "550 5.7.1 first second"


@pytest.mark.parametrize(("value", "size"), [("", None), ("0", None), ("1000", 1000), ("many", None), ("9" * 30, None)])
def test_size(value: str, size: int | None) -> None:
    assert Greeting({"SIZE": value}).size == size


def encoded(data: bytes, cuts: list[int]) -> bytes:
    encoder = BodyEncoder()
    return b"".join(encoder.encode(piece) for piece in pieces(data, cuts)) + encoder.end()


def decoded(wire: bytes) -> bytes:
    """What a strict server makes of it: it must end at the end, and nowhere before."""
    assert wire.endswith(b".\r\n")
    lines = wire.split(b"\r\n")
    assert lines[-1] == b"" and lines[-2] == b"."
    assert b"." not in lines[:-2]
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


def clean(data: bytes) -> bytes:
    """The body with CRLF line ends, complete."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if lines and not lines.endswith(b"\n"):
        lines += b"\n"
    return lines.replace(b"\n", b"\r\n")


TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"MAIL FROM:<x>", b"\x00", b"\xff"]))


@settings(max_examples=1000, deadline=None)
@given(parts=TRICKY, cuts=st.lists(st.integers(0, 500), max_size=10))
def test_a_body_ends_where_we_say(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    assert decoded(encoded(data, cuts)) == clean(data)


@pytest.mark.parametrize(
    "smuggled", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n\x00.\r\n", b"\r\r\n.\r\r\n"]
)
def test_known_smuggling_ends_arrive_as_text(smuggled: bytes) -> None:
    body = b"before" + smuggled + b"MAIL FROM:<evil@far.test>\r\n"
    for cut in range(len(body)):
        assert decoded(encoded(body, [cut])) == clean(body)
