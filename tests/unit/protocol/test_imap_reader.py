"""The command reader: lines and literals however they are cut, limits, and that a faulty command spoils only itself."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.imap_reader import (
    COMMAND_LIMIT,
    LINE_LIMIT,
    Command,
    CommandReader,
    Event,
    Faulty,
    Line,
    LiteralAnnounced,
    LiteralChunk,
)
from tests.dialogues.runner import play_all_ways


def play(pieces: list[bytes], decide: str = "accept") -> list[Event]:
    """Every event, each literal decided in the same way; chunks are joined, since their cuts are the network's."""
    reader = CommandReader()
    seen: list[Event] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next_event()) is not None:
            if isinstance(event, LiteralAnnounced):
                getattr(reader, decide)()
            if isinstance(event, LiteralChunk) and seen and isinstance(seen[-1], LiteralChunk):
                event = LiteralChunk(seen.pop().octets + event.octets, event.last)
            if isinstance(event, LiteralChunk) and not event.octets and not event.last:
                continue
            seen.append(event)
    return seen


WHOLE = [
    (b"a NOOP\r\n", [Command(b"a NOOP")]),
    (b"a NOOP\n", [Command(b"a NOOP")]),
    (b"\r\n", [Command(b"")]),
    (b"a NOOP\r\nb NOOP\r\n", [Command(b"a NOOP"), Command(b"b NOOP")]),
    (
        b"a LOGIN {3}\r\nann {4}\r\nword\r\n",
        [
            LiteralAnnounced(b"a LOGIN ", 3, True),
            LiteralAnnounced(b"a LOGIN {3}\r\nann ", 4, True),
            Command(b"a LOGIN {3}\r\nann {4}\r\nword"),
        ],
    ),
    (b"a X {2+}\r\n\r\n\r\n", [LiteralAnnounced(b"a X ", 2, False), Command(b"a X {2}\r\n\r\n")]),
    (b"a X {0}\r\n\r\n", [LiteralAnnounced(b"a X ", 0, True), Command(b"a X {0}\r\n")]),
    (b"a X ~{1}\r\nb\r\n", [LiteralAnnounced(b"a X ", 1, True, binary=True), Command(b"a X ~{1}\r\nb")]),
    (b"a X {1}b\r\n", [Command(b"a X {1}b")]),
    (b"a X {-1}\r\n", [Command(b"a X {-1}")]),
    (b'a X "{3}"\r\n', [Command(b'a X "{3}"')]),
]


@pytest.mark.parametrize(("octets", "events"), WHOLE)
def test_commands_however_they_are_cut(octets: bytes, events: list[Event]) -> None:
    assert play_all_ways(octets, play) == events
    assert play_all_ways(octets, lambda pieces: play(pieces)[: len(events)], trailing=b"z NOOP\r\n") == events


def test_a_streamed_literal_is_never_collected() -> None:
    octets = b"a APPEND x {6}\r\nhe\r\no!\r\nb NOOP\r\n"
    assert play_all_ways(octets, lambda pieces: play(pieces, "stream")) == [
        LiteralAnnounced(b"a APPEND x ", 6, True),
        LiteralChunk(b"he\r\no!", True),
        Command(b""),
        Command(b"b NOOP"),
    ]


def test_a_streamed_literal_of_no_octets_ends_at_once() -> None:
    assert play([b"a APPEND x {0}\r\n\r\n"], "stream")[1:] == [LiteralChunk(b"", True), Command(b"")]


def test_a_refused_literal_that_waits_is_not_sent() -> None:
    octets = b"a APPEND x {5}\r\nb NOOP\r\n"
    assert play_all_ways(octets, lambda pieces: play(pieces, "refuse"))[1:] == [Command(b"b NOOP")]


def test_a_refused_literal_that_does_not_wait_is_skipped_with_all_that_belongs_to_it() -> None:
    """RFC 7888 §4: it is read and thrown away; a line end inside it is no command."""
    octets = b"a APPEND x {9+}\r\nz NOOP\r\n. {4+}\r\nmore (\\Seen)\r\nb NOOP\r\n"
    assert play_all_ways(octets, lambda pieces: play(pieces, "refuse"))[1:] == [Command(b"b NOOP")]


def test_a_literal_of_four_gigabytes_is_announced_not_awaited() -> None:
    reader = CommandReader()
    reader.feed(b"a APPEND x {4294967296+}\r\n")
    event = reader.next_event()
    assert isinstance(event, LiteralAnnounced) and event.size == 4294967296
    reader.refuse()
    reader.feed(b"x" * 1_000_000)
    assert reader.next_event() is None
    assert reader.buffered == 0


@pytest.mark.parametrize("size", [LINE_LIMIT + 1, 1_000_000])
def test_a_line_too_long_is_reported_once_and_the_next_is_read(size: int) -> None:
    long = b"a X " + b"y" * size + b"\r\nb NOOP\r\n"
    for pieces in ([long], [long[i : i + 1000] for i in range(0, len(long), 1000)]):
        assert play(pieces) == [Faulty(b"a", "the line is too long"), Command(b"b NOOP")]


def test_a_line_too_long_is_not_kept() -> None:
    reader = CommandReader()
    for _ in range(1000):
        reader.feed(b"y" * 1000)
        reader.next_event()
    assert reader.buffered <= LINE_LIMIT


def test_a_line_too_long_takes_its_literal_with_it() -> None:
    long = b"a X " + b"y" * LINE_LIMIT + b" {7+}\r\nz EVIL\r\nb NOOP\r\n"
    assert play([long]) == [Faulty(b"a", "the line is too long"), Command(b"b NOOP")]


def test_many_literals_do_not_make_a_command_larger_than_its_limit() -> None:
    reader = CommandReader()
    piece = b"x" * 60_000
    fault = None
    reader.feed(b"a X")
    for _ in range(COMMAND_LIMIT // 60_000 + 2):
        reader.feed(b" {60000+}\r\n" + piece)
        while (event := reader.next_event()) is not None:
            if isinstance(event, Faulty):
                fault = event
            elif isinstance(event, LiteralAnnounced):
                reader.accept()
    reader.feed(b"\r\nb NOOP\r\n")
    assert fault == Faulty(b"a", "the command is too long")
    assert reader.next_event() == Command(b"b NOOP")


def test_a_nul_spoils_the_command_only() -> None:
    octets = b"a NO\0OP\r\nb NOOP\r\n"
    assert play_all_ways(octets, play) == [Faulty(b"a", "NUL is not allowed in a command"), Command(b"b NOOP")]


def test_a_fault_without_a_tag_says_so() -> None:
    assert play([b"\0\r\n"]) == [Faulty(b"", "NUL is not allowed in a command")]


def test_line_mode_reads_no_literals() -> None:
    reader = CommandReader()
    reader.lines(True)
    reader.feed(b"AGFubgB3b3Jk {3}\r\na NOOP\r\n")
    assert reader.next_event() == Line(b"AGFubgB3b3Jk {3}")
    reader.lines(False)
    assert reader.next_event() == Command(b"a NOOP")


def test_what_came_before_tls_can_be_forgotten() -> None:
    reader = CommandReader()
    reader.feed(b"a STARTTLS\r\nb LOGIN ann word\r\n")
    assert reader.next_event() == Command(b"a STARTTLS")
    assert reader.discard() == len(b"b LOGIN ann word\r\n")
    assert reader.next_event() is None


@given(
    st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5), st.sampled_from(["accept", "refuse", "stream"])
)
def test_any_octets_in_any_cuts_mean_the_same(octets: bytes, cuts: list[int], decide: str) -> None:
    # More structure than plain noise has.
    octets = octets.replace(b"\x01", b"\r\n").replace(b"\x02", b" {3+}\r\n").replace(b"\x03", b" {2}\r\n")
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    pieces = [octets[start:end] for start, end in itertools.pairwise(places)]
    assert play(pieces, decide) == play([octets], decide)
