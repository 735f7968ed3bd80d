"""A message's body on its way in: between 354 and the final dot (DATA), or in chunks of a told length (BDAT).

Two readers with one face for `smtp_session.py`: bytes in, `Chunk`s out, `Spoilt` once when the message cannot be taken
any more, and the end. After `Spoilt` the rest is read and dropped, so that the peer gets its reply where it waits for
it. Both refuse bare CR and LF: a chunk needs no line ends for its own end, but the next server that the message meets
does (SMTP smuggling).
"""

from __future__ import annotations

from services.protocol import reply as replies
from services.protocol.lines import CRLF, BodyFault, BodyReader, LineReader, only_crlf
from services.protocol.reply import Reply
from services.protocol.smtp_events import Chunk, EndOfBody, EndOfChunk, Spoilt
from services.protocol.smtp_states import EMPTY_CHUNK, FAILED_CHUNK


def endless(octets: int, size_limit: int) -> bool:
    """Whether `octets` are more than are read of a message that is refused: who goes on to twice of what is allowed
    reads no reply, and is better cut off than read for an hour."""
    return octets > 2 * size_limit + (1 << 20)


class DottedBody:
    """DATA's."""

    __slots__ = ("_incoming", "_limit", "_reader", "_size", "_spoilt")

    def __init__(self, size_limit: int) -> None:
        """At the first byte after DATA's CRLF."""
        self._limit = size_limit
        self._reader = BodyReader()
        self._incoming = b""  # not read yet
        self._size = 0
        self._spoilt: Reply | None = None

    def receive(self, data: bytes) -> None:
        """Take what the network brought."""
        self._incoming = self._incoming + data if self._incoming else data

    @property
    def rest(self) -> bytes:
        """What followed the final dot."""
        return self._reader.rest or b""

    def next(self) -> Chunk | Spoilt | EndOfBody | None:
        """What happened next; None while more must be received."""
        reader = self._reader
        if self._incoming and reader.rest is None and reader.fault is not BodyFault.FALSE_END:
            data, self._incoming = self._incoming, b""
            chunk = reader.feed(data)
            # What is not handed on counts too: it bounds how long a body that is refused anyway is read.
            self._size += len(chunk) if reader.fault is None else len(data)
            if self._spoilt is None:
                if reader.fault is not None:
                    self._spoilt = replies.BARE_LINE_END_IN_BODY
                elif self._size > self._limit:
                    self._spoilt = replies.MESSAGE_TOO_BIG
                if self._spoilt is not None:
                    return Spoilt(self._spoilt)
                if chunk:
                    return Chunk(chunk)
        too_much = self._spoilt is not None and endless(self._size, self._limit)
        if reader.rest is None and reader.fault is not BodyFault.FALSE_END and not too_much:
            return None
        return EndOfBody(self._size, self._spoilt, close=reader.rest is None)


class ChunkedBody:
    """BDAT's (RFC 3030 §2): a message in one or more chunks, `open`ed one after the other."""

    __slots__ = (
        "_answered", "_held_cr", "_last", "_left", "_limit", "_line_ended", "_lines", "_octets", "_refused", "_size",
        "_spoilt", "_told",
    )  # fmt: skip

    def __init__(self, lines: LineReader, size_limit: int, spoilt: Reply | None = None) -> None:
        """`lines` is what the session reads commands from: a chunk's octets stand between them.

        `spoilt`: refused from the start; its chunks are read and dropped (RFC 3030 §2).
        """
        self._lines, self._limit, self._spoilt = lines, size_limit, spoilt
        self._told = spoilt is not None
        self._size = self._left = self._octets = 0
        self._last = self._answered = self._refused = False
        self._held_cr = False  # the last chunk's last octet: its LF may be the next one's first
        self._line_ended = True

    def open(self, octets: int, last: bool) -> None:
        """A BDAT command of so many octets was read."""
        self._octets = self._left = octets
        self._last = last
        if self._size + octets > self._limit:
            self.spoil(replies.MESSAGE_TOO_BIG)  # RFC 1870 §6.3: before its octets travel

    def spoil(self, fault: Reply) -> None:
        """The message will not be taken."""
        self._spoilt = self._spoilt or fault

    @property
    def spoilt(self) -> Reply | None:
        """Why it will not be taken."""
        return self._spoilt

    @property
    def size(self) -> int:
        """Octets of the message so far."""
        return self._size

    @property
    def kind(self) -> str:
        """What the reply to the open chunk counts as: nothing new where an earlier one was refused for the same."""
        if self._octets == 0:
            return EMPTY_CHUNK
        return FAILED_CHUNK if self._refused else "BDAT"

    def next(self) -> Chunk | Spoilt | EndOfChunk | EndOfBody | None:
        """What happened next; None while more must be received. After an end, `open` comes first."""
        if self._left:
            data = self._lines.take(self._left)
            self._left -= len(data)
            self._size += len(data)
            chunk = self._checked(data) if data and self._spoilt is None else b""
            if chunk:
                return Chunk(chunk)
        if self._spoilt is not None and not self._told:
            self._told = True
            return Spoilt(self._spoilt)
        if self._left:
            return None
        if not self._last:
            self._refused = self._answered and self._spoilt is not None
            self._answered = self._spoilt is not None
            return EndOfChunk(self._octets, self._spoilt)
        if self._held_cr:
            self._held_cr = False
            self.spoil(replies.BARE_LINE_END_IN_BODY)
            return self.next()
        if self._spoilt is None and not self._line_ended:
            # A chunk needs no line end, a message in a mailbox does; DKIM counts one there anyway (RFC 6376 §3.4.3).
            self._line_ended = True
            return Chunk(CRLF)
        return EndOfBody(self._size, self._spoilt)

    def _checked(self, data: bytes) -> bytes:
        """`data` when its line ends are sound, all but a CR at its end."""
        if self._held_cr:
            data = b"\r" + data
        self._held_cr = data.endswith(b"\r")
        if self._held_cr:
            data = data[:-1]
        if not only_crlf(data):
            self.spoil(replies.BARE_LINE_END_IN_BODY)
            return b""
        if data:
            self._line_ended = data.endswith(CRLF)
        return data
