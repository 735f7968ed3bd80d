"""Lines that end with CRLF, and SMTP's dotted body: the two readers under the sessions.

RFC 5321 §2.3.8: only CRLF ends a line. A bare CR or LF is where two servers disagree about where a message ends (SMTP
smuggling, CVE-2023-51764): here it is found and reported, in commands and in bodies, and never taken as a line's end.

Both readers work on whole chunks with bytes' own searches: a message costs a few passes at memory speed, not a Python
step per line. They keep no more than the unfinished line (commands) or four bytes (body).
"""

from __future__ import annotations

import enum
import re

CRLF = b"\r\n"
# What a browser begins with when a page sends it to us, or when somebody between it and its server turns it round
# (ALPACA, 2021: the certificate is good for both). A request's headers and body are lines that we would go on to obey.
HTTP_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PRI"])


class LineFault(enum.Enum):
    """What can be wrong with a command line."""

    TOO_LONG = "too long"
    BARE = "bare CR or LF"
    # The peer never ends a line with CRLF: what is a command and what is not cannot be known.
    ONLY_BARE = "only bare LF"


# A CR at the very end of what was received is not judged yet: its LF may come with the next bytes.
_END_OR_BARE = re.compile(rb"\r\n|\n|\r(?=[^\n])")
_END_OR_LF = re.compile(rb"\r\n|\n")
_NO_LINE_END = bytes(octet for octet in range(256) if octet not in CRLF)
# A dot alone between two line ends of any kind: what some server takes for the end of the data.
_LONE_DOT = re.compile(rb"[\r\n]\.[\r\n]")


class LineReader:
    """Bytes in, lines out. A faulty line is reported once, as soon as it shows, and skipped up to its CRLF."""

    __slots__ = ("_buffer", "_skipping", "_start", "began")

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.began = b""  # the first octets of the line that was last found faulty
        self._buffer = b""
        self._start = 0  # of the next line in the buffer
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        self._buffer = self._buffer[self._start :] + data if self._start < len(self._buffer) else data
        self._start = 0

    @property
    def empty(self) -> bool:
        """True when everything fed was read."""
        return self._start >= len(self._buffer)

    def take_rest(self) -> bytes:
        """Give up all that is not read yet: what follows is not lines (a body, TLS)."""
        rest = self._buffer[self._start :]
        self._buffer, self._start, self._skipping = b"", 0, False
        return rest

    def take(self, octets: int) -> bytes:
        """Up to so many octets that are not lines (a chunk of BDAT); what follows them stays to be read as lines."""
        data = self._buffer[self._start : self._start + octets]
        self._start += len(data)
        return data

    def next(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CRLF; None when there is no whole one yet. `limit` counts octets with the CRLF."""
        if self._skipping:
            fault = self._skip()
            if self._skipping:
                return fault
        start = self._start
        if start >= len(self._buffer):
            return None
        end = self._buffer.find(CRLF, start)
        if 0 <= end <= start + limit - 2:
            line = self._buffer[start:end]
            if b"\n" not in line and b"\r" not in line:
                self._start = end + 2
                return line
        return self._unusual(limit)

    def _unusual(self, limit: int) -> LineFault | None:
        """The line is unfinished, or has a fault: the first one in it is reported."""
        longest = self._start + limit - 2  # where the CR must stand at the latest
        found = _END_OR_BARE.search(self._buffer, self._start)
        if found and found.start() <= longest:
            self.began = self._buffer[self._start : self._start + 4]
            self._start, self._skipping = found.end(), True
            return LineFault.BARE
        if len(self._buffer) > longest and self._buffer[longest:] != b"\r":
            self.began = self._buffer[self._start : self._start + 4]
            self._start, self._skipping = longest, True
            return LineFault.TOO_LONG
        return None

    def _skip(self) -> LineFault | None:
        """Drop what is left of a faulty line."""
        found = _END_OR_LF.search(self._buffer, self._start)
        if not found:
            self._start = len(self._buffer) - (1 if self._buffer.endswith(b"\r", self._start) else 0)
            return None
        self._start = found.end()
        if found[0] == b"\n":
            return LineFault.ONLY_BARE
        self._skipping = False
        return None


class BodyFault(enum.Enum):
    """What can be wrong with the line ends of a body."""

    BARE = "bare CR or LF"
    # A lone dot between line ends that are not both CRLF: the peer either thinks that its message ends here, or
    # smuggles. Nothing that follows can be told to be body or command.
    FALSE_END = "a lone dot in a line that CRLF does not bound"


class BodyReader:
    """The body after DATA: dots unstuffed (RFC 5321 §4.5.2), ended by CRLF.CRLF and by nothing else.

    `feed` returns the body bytes ready so far. Then look at `fault`, and at `rest`: None until the end was found, then
    what followed it. After a fault no more body comes out, but the end is still looked for, so that the peer gets its
    reply where it waits for it.
    """

    __slots__ = ("_first", "_held", "fault", "rest")

    def __init__(self) -> None:
        """At the first byte after DATA's CRLF."""
        # The CRLF that ended the DATA line is part of an empty body's CRLF.CRLF.
        self._held = CRLF
        self._first = True  # that CRLF stands before the first output and is not body
        self.fault: BodyFault | None = None
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Take more bytes, give body."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self.fault is not None:
            self._look_for_end(data)
            return b""
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            body = data[: end + 2]
        else:
            held = _end_so_far(data)
            body = data[:-held] if held else data
        if not only_crlf(body):
            self.fault = BodyFault.BARE
            self._look_for_end(data)
            return b""
        if end >= 0:
            self.rest = data[end + 5 :]
        elif held:
            self._held = data[-held:]
        body = body.replace(b"\r\n.", CRLF)
        if self._first and body:
            self._first = False
            return body[len(CRLF) :]
        return body

    def _look_for_end(self, data: bytes) -> None:
        found = _LONE_DOT.search(data)
        if found:
            start = found.start() - 1
            whole = data[max(start, 0) : start + 5]
            if start >= 0 and whole == b"\r\n.\r\n":
                self.rest = data[start + 5 :]
                return
            if start < 0 or whole != b"\r\n.\r":  # that could still become the end
                self.fault = BodyFault.FALSE_END
                return
        self._held = data[-4:]


def only_crlf(data: bytes) -> bool:
    """Whether every CR and LF in `data` stands in a CRLF.

    Without its other octets a sound body is CR LF CR LF ..., and each pair stands together in it. Counting the three
    patterns says the same at half the speed.
    """
    ends = data.translate(None, _NO_LINE_END)
    return ends == CRLF * (len(ends) // 2) and data.count(CRLF) == len(ends) // 2


def _end_so_far(data: bytes) -> int:
    """How many bytes at the end of `data` could begin CRLF.CRLF."""
    for length in (4, 3, 2, 1):
        if data.endswith(b"\r\n.\r"[:length]):
            return length
    return 0
