"""BDAT (RFC 3030): chunks in any pieces make one message, a refused one's octets are never commands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol import reply as replies
from services.protocol import smtp_events as events
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_session import State
from tests.dialogues.runner import play_all_ways
from tests.smtpowner import Owner, greeted

OFFER = Offer("mail.test", 1000, chunking=True, max_errors=100)
TRANSACTION = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


def chunk(data: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n%s" % (len(data), b" LAST" if last else b"", data)


def play(stream: bytes, offer: Offer = OFFER, **refuse: Any) -> tuple[list[int], bytes, State]:
    """The codes, the body (of a message that is not spoilt) and the state, however the stream is cut."""

    def once(pieces: list[bytes]) -> tuple[list[int], bytes, State]:
        owner = greeted(offer)
        owner.refuse.update({getattr(events, name): reply for name, reply in refuse.items()})
        for piece in pieces:
            owner.feed(piece)
        spoilt = any(isinstance(event, events.Spoilt) for event in owner.seen)
        return owner.codes, b"" if spoilt else owner.body, owner.session.state

    played: tuple[list[int], bytes, State] = play_all_ways(stream, once)
    return played


def test_it_is_offered() -> None:
    assert "CHUNKING" in OFFER.reply(secured=False, authenticated=False).text.split("\n")
    assert "BINARYMIME" not in OFFER.reply(secured=False, authenticated=False).text


def test_one_chunk() -> None:
    assert play(TRANSACTION + chunk(b"Subject: x\r\n\r\n.\r\n..\r\n", last=True) + b"NOOP\r\n") == (
        [250, 250, 250, 250], b"Subject: x\r\n\r\n.\r\n..\r\n", State.READY
    )  # fmt: skip


def test_chunks_are_pipelined() -> None:
    """RFC 3030 §4.2: the whole transaction in one packet, and the next one behind it."""
    stream = TRANSACTION + chunk(b"a\r") + chunk(b"\nb\r\n") + chunk(b"", last=True)
    codes, body, state = play(stream + stream + b"QUIT\r\n")
    assert (codes, body, state) == ([250] * 10 + [221], b"a\r\nb\r\n" * 2, State.CLOSED)


def test_an_empty_message() -> None:
    assert play(TRANSACTION + chunk(b"", last=True)) == ([250] * 3, b"", State.READY)


def test_a_missing_line_end_is_added() -> None:
    """Chunks need none at a message's end; a mailbox and the next hop do."""
    assert play(TRANSACTION + chunk(b"a\r\nb") + chunk(b"c", last=True))[1] == b"a\r\nbc\r\n"


@pytest.mark.parametrize("lower", [b"bdat 3 last\r\na\r\n", b"BDAT 3  LAST \r\na\r\n", b"BDAT 03 Last\r\na\r\n"])
def test_spellings(lower: bytes) -> None:
    assert play(TRANSACTION + lower) == ([250] * 3, b"a\r\n", State.READY)


@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"\n.\n", b"a\r\n.\nMAIL FROM:<x@y>\r\n", b"a\r\r\n"])
@pytest.mark.parametrize("last", [False, True])
def test_bare_line_ends_are_refused(bad: bytes, last: bool) -> None:
    """What a chunk carries past us must not end a message at the next server (CVE-2023-51764 and its family)."""
    codes, body, _ = play(TRANSACTION + chunk(b"good\r\n") + chunk(bad, last) + b"NOOP\r\n")
    assert (codes, body) == ([250, 250, 250, 550, 250], b"")


def test_a_cr_at_the_end_of_the_message_is_bare() -> None:
    assert play(TRANSACTION + chunk(b"a\r", last=True) + b"NOOP\r\n")[0] == [250, 250, 550, 250]
    assert play(TRANSACTION + chunk(b"a\r") + chunk(b"", last=True))[0] == [250, 250, 250, 550]
    assert play(TRANSACTION + chunk(b"a\r") + chunk(b"b", last=True))[0] == [250, 250, 250, 550]


def test_after_a_failed_chunk_the_rest_is_dropped() -> None:
    """RFC 3030 §2: chunks in the pipeline behind it are accepted and discarded; RSET makes a new start."""
    stream = TRANSACTION + chunk(b"\n") + chunk(b"MAIL FROM:<x@y>\r\n") + chunk(b"DATA\r\n", last=True)
    assert play(stream + b"NOOP\r\n")[0] == [250, 250, 550, 550, 550, 250]
    assert play(TRANSACTION + chunk(b"\n") + b"RSET\r\n" + TRANSACTION + chunk(b"a\r\n", True))[0] == [
        250, 250, 550, 250, 250, 250, 250
    ]  # fmt: skip


def test_the_size_is_refused_before_the_octets_travel() -> None:
    owner = greeted(OFFER)
    owner.feed(TRANSACTION + chunk(b"x" * 600))
    owner.feed(b"BDAT 401\r\n")
    assert isinstance(owner.seen[-1], events.Spoilt)
    owner.feed(b"x" * 401 + chunk(b"", last=True) + b"NOOP\r\n")
    assert owner.codes == [250, 250, 250, 552, 552, 250]
    assert play(TRANSACTION + chunk(b"x" * 600) + chunk(b"x" * 398 + b"\r\n", last=True))[0][-1] == 250


@pytest.mark.parametrize("octets", [b"9" * 20, b"1050577"])
def test_who_announces_far_too_much_is_cut_off(octets: bytes) -> None:
    assert play(TRANSACTION + b"BDAT " + octets + b"\r\nNOOP\r\n")[::2] == ([250, 250, 552], State.CLOSED)


def test_a_refused_message_of_many_chunks_is_one_error_and_has_an_end() -> None:
    owner = greeted(Offer("mail.test", 1000, chunking=True, max_errors=3))
    owner.feed(TRANSACTION + chunk(b"\n") + chunk(b"x" * 100) * 50 + chunk(b"x", last=True) + b"NOOP\r\n")
    assert owner.codes == [250, 250] + [550] * 52 + [250]
    for _ in range(2):
        owner.feed(TRANSACTION + chunk(b"\n"))
        for _ in range(3):
            owner.feed(chunk(b"x" * 500_000))
    assert owner.session.state is State.CLOSED


@pytest.mark.parametrize(
    ("before", "code", "after"),
    [(b"", 503, State.READY), (b"MAIL FROM:<a@b>\r\n", 554, State.MAIL)],
)
def test_bdat_out_of_place_is_swallowed(before: bytes, code: int, after: State) -> None:
    commands = b"RSET\r\nMAIL FROM:<smuggled@x>\r\n"
    for last in (False, True):
        codes, body, state = play(before + chunk(commands, last) + b"NOOP\r\n")
        assert (codes[-2:], body, state) == ([code, 250], b"", after)


def test_bdat_before_ehlo() -> None:
    owner = greeted(OFFER, hello=False)
    owner.feed(chunk(b"EHLO x\r\n") + b"NOOP\r\n")
    assert (owner.codes, owner.session.state) == ([503, 250], State.CONNECTED)


@pytest.mark.parametrize("command", [b"DATA", b"MAIL FROM:<a@b>", b"RCPT TO:<a@b>"])
def test_nothing_else_belongs_between_chunks(command: bytes) -> None:
    """RFC 3030 §2: DATA and BDAT are not mixed."""
    codes, _, state = play(TRANSACTION + chunk(b"a\r\n") + command + b"\r\n")
    assert (codes, state) == ([250, 250, 250, 503], State.CHUNKS)


def test_another_marker_than_last() -> None:
    assert play(TRANSACTION + b"BDAT 6 FIRST\r\nNOOP\r\nNOOP\r\n")[::2] == ([250, 250, 501, 250], State.RCPT)
    codes, _, state = play(TRANSACTION + chunk(b"a\r\n") + b"BDAT 6 FIRST\r\nNOOP\r\n" + chunk(b"", last=True))
    assert (codes, state) == ([250, 250, 250, 501, 501], State.READY)


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT", b"BDAT x", b"BDAT -1", b"BDAT 1e3", b"BDAT +6", b"BDAT 6\t", b"BDAT\t6", b"BDAT " + b"9" * 21,
        b"BDAT 6\0", "BDAT ٦".encode(), b"BDAT 6 " + b"x" * 2100, b"BDAT 6\nLAST", b"bdat 6\r", b"BDAT LAST",
    ],
)  # fmt: skip
def test_a_length_that_cannot_be_read_ends_the_session(line: bytes) -> None:
    """What follows cannot be told to be body or command."""
    codes, _, state = play(TRANSACTION + line + b"\r\nNOOP\r\n")
    if line == b"BDAT 6\t":  # RFC 5321 §4.1.1: white space before CRLF is tolerated
        assert (codes, state) == ([250] * 3, State.CHUNKS)
        return
    assert (len(codes), codes[-1] // 100, state) == (3, 5, State.CLOSED)


def test_a_refused_beginning() -> None:
    stream = TRANSACTION + chunk(b"NOOP\r\n") + chunk(b"NOOP\r\n", last=True) + b"NOOP\r\n"
    codes, body, state = play(stream, Bdat=replies.INSUFFICIENT_STORAGE)
    assert (codes, body, state) == ([250, 250, 452, 452, 250], b"", State.READY)


def test_lmtp_answers_the_last_chunk_for_each_recipient() -> None:
    owner = greeted(Offer("mail.test", 1000, lmtp=True, chunking=True))
    owner.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n" + chunk(b"a\r\n"))
    owner.session.receive(chunk(b"b\r\n", last=True))
    assert isinstance(owner.session.next_event(), events.Chunk)
    assert owner.session.next_event() == events.EndOfBody(6, None)
    said = owner.session.send(replies.OK, replies.mailbox_unavailable("e@f"))
    assert [line[:3] for line in said.splitlines()] == [b"250", b"550"]


def test_empty_chunks_pass_the_time_only() -> None:
    owner = greeted(Offer("mail.test", 1000, chunking=True, max_idle_commands=5))
    owner.feed(TRANSACTION + chunk(b"") * 5)
    assert owner.codes[-2:] == [250, 421]
    owner = greeted(Offer("mail.test", 100_000, chunking=True, max_idle_commands=5))
    owner.feed(TRANSACTION + chunk(b"a") * 500 + chunk(b"", last=True))
    assert set(owner.codes) == {250}


def test_small_chunks_in_one_read_cost_their_own_length() -> None:
    """Each looked at as many octets as were left in the buffer, once: a read of 256 KiB took seconds."""
    import time

    owner = Owner(greeted(Offer("mail.test", 1_000_000, chunking=True)).session)
    stream = TRANSACTION + chunk(b"a") * 25_000
    began = time.process_time()
    owner.feed(stream)
    assert owner.body == b"a" * 25_000
    assert time.process_time() - began < 5


@given(
    st.lists(st.sampled_from([b"a\r\n", b".\r\n", b"..", b"x" * 70, b"\r\n", b"\r", b"\n", b""]), max_size=12),
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_cut_makes_the_same_message(lines: list[bytes], cuts: list[int], pieces: bool) -> None:
    body, chunks, rest = b"".join(lines), [], b"".join(lines)
    while rest:
        size = cuts[len(chunks) % len(cuts)]
        chunks.append(rest[:size])
        rest = rest[size:]
    stream = TRANSACTION + b"".join(chunk(each) for each in chunks) + chunk(b"", last=True) + b"NOOP\r\n"
    owner = greeted(OFFER)
    step = cuts[0] if pieces else len(stream)
    for start in range(0, len(stream), step):
        owner.feed(stream[start : start + step])
    sound = not body.replace(b"\r\n", b"").count(b"\r") and not body.replace(b"\r\n", b"").count(b"\n")
    assert owner.codes[-1] == 250 and owner.session.state is State.READY
    assert owner.codes[-2] == (250 if sound else 550)
    if sound:
        assert owner.body == body + (b"" if body.endswith(b"\r\n") or not body else b"\r\n")
