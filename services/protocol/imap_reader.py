"""Collects IMAP commands from the octets that arrive: lines with literals in them (RFC 3501 §4.3, RFC 7888).

The connection feeds it and asks for the next event; whoever reads the events decides about each announced literal:
take it into the command (`accept`), have it chunk by chunk (`stream`: the message of an APPEND), or not at all
(`refuse`). Pure, no IO. Memory is bounded: a line by `LINE_LIMIT`, a literal by whoever accepts it, a command by
`COMMAND_LIMIT`.

A line may end with a bare LF, as Dovecot takes it: between a client and its server no third party reads the same bytes,
so there is nothing to smuggle, and people type commands by hand. A NUL in a line spoils the command (§9).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# RFC 2683 §3.2.1.5 has clients stay below 1,000 and servers take 8,000 octets; UID sets of large mailboxes need more.
LINE_LIMIT = 65_536
# A command with its literals, the streamed ones aside.
COMMAND_LIMIT = 262_144

_ANNOUNCED = re.compile(rb"(~?)\{(\d+)(\+?)\}\Z")
# A tag that can be echoed when nothing else of the line can be trusted.
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]{1,64}(?= )')


@dataclass(frozen=True, slots=True)
class Command:
    """One whole command without its line end; literals in it as they came."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class LiteralAnnounced:
    """The command so far, without the announcement itself, and what the client wants to send. Decide before going on.

    `synchronizing`: the client waits for a continuation request (or for a tagged refusal).
    """

    octets: bytes
    size: int
    synchronizing: bool
    binary: bool = False


@dataclass(frozen=True, slots=True)
class LiteralChunk:
    """A piece of a streamed literal; `last` with its end."""

    octets: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end, in line mode: an answer to a challenge, or DONE."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Faulty:
    """A command that cannot be read. It has been skipped, so the next one can; `tag` is empty where none was found."""

    tag: bytes
    reason: str


Event = Command | LiteralAnnounced | LiteralChunk | Line | Faulty


class CommandReader:
    """Bytes in, events out."""

    __slots__ = (
        "_announced",
        "_buffer",
        "_command",
        "_drain",
        "_line_mode",
        "_reported",
        "_scanned",
        "_stream",
        "_wanted",
    )

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._buffer = bytearray()
        self._scanned = 0  # octets of the buffer in which no line feed is
        self._command = bytearray()  # the command's earlier lines and literals
        self._announced: LiteralAnnounced | None = None  # waits for a decision
        self._wanted = -1  # octets of an accepted literal still to come into the buffer
        self._stream = -1  # octets of a streamed literal still to come
        self._drain = -1  # octets of a refused literal still to be skipped
        self._line_mode = False
        self._reported = False  # the command in hand is faulty: skip the rest of it

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Octets received and not read; the connection stops reading when they are many."""
        return len(self._buffer)

    @property
    def idle(self) -> bool:
        """Whether nothing of a next command has arrived."""
        return not self._buffer and not self._command and self._announced is None

    def discard(self) -> int:
        """Forget what was received and not read (STARTTLS: it came in the clear). How much it was."""
        count = len(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return count

    def lines(self, wanted: bool) -> None:
        """In line mode the next event is one `Line`, without literals (AUTHENTICATE, IDLE)."""
        self._line_mode = wanted

    # --- decisions about an announced literal

    def accept(self) -> None:
        """Take the literal into the command; it then ends where the command does."""
        announced = self._decided()
        self._command += b"%s{%d}\r\n" % (b"~" if announced.binary else b"", announced.size)
        self._wanted = announced.size

    def stream(self) -> None:
        """Give the literal as `LiteralChunk`s; the rest of the command comes as a `Command` of its own after it."""
        announced = self._decided()
        self._command.clear()
        self._stream = announced.size

    def refuse(self) -> None:
        """Give the command up. A synchronizing literal is not sent then; another one is skipped with the rest."""
        announced = self._decided()
        self._command.clear()
        if not announced.synchronizing:
            self._drain = announced.size
            self._reported = True

    def _decided(self) -> LiteralAnnounced:
        announced = self._announced
        assert announced is not None, "no literal was announced"
        self._announced = None
        return announced

    # --- reading

    def next_event(self) -> Event | None:
        """The next event, or None until more is fed (or until an announced literal is decided about)."""
        while self._announced is None:
            if self._stream >= 0:
                return self._next_chunk()
            if self._drain >= 0:
                if not self._skip():
                    return None
                continue
            if self._wanted >= 0:
                if len(self._buffer) < self._wanted:
                    return None
                self._command += self._take(self._wanted)
                self._wanted = -1
                continue
            line = self._next_line()
            if line is None:
                return None
            event = line if isinstance(line, Faulty) else self._read_line(line)
            if event is not None:
                return event
        return None

    def _next_chunk(self) -> LiteralChunk | None:
        if not self._buffer and self._stream:
            return None
        chunk = self._take(min(self._stream, len(self._buffer)))
        self._stream -= len(chunk)
        last = self._stream == 0
        if last:
            self._stream = -1
        return LiteralChunk(chunk, last)

    def _skip(self) -> bool:
        count = min(self._drain, len(self._buffer))
        del self._buffer[:count]
        self._scanned = 0
        self._drain -= count
        if self._drain:
            return False
        self._drain = -1
        return True

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._scanned = 0
        return taken

    def _next_line(self) -> bytes | Faulty | None:
        at = self._buffer.find(b"\n", self._scanned)
        if at < 0:
            self._scanned = len(self._buffer)
            if self._scanned <= LINE_LIMIT:
                return None
            # What came of the line is dropped at once; what comes until its end is skipped.
            fault = None if self._reported else self._fault(bytes(self._buffer[:80]), "the line is too long")
            self._take(self._scanned)
            self._reported = True
            return fault
        line = self._take(at + 1)
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def _fault(self, start: bytes, reason: str) -> Faulty:
        match = _TAG.match(bytes(self._command) or start)
        self._command.clear()
        return Faulty(match.group() if match else b"", reason)

    def _read_line(self, line: bytes) -> Event | None:
        match = _ANNOUNCED.search(line) if line.endswith(b"}") else None
        if self._reported:
            # The rest of a faulty command: up to a line end that announces no literal which comes without asking.
            if match is not None and match.group(3):
                self._drain = int(match.group(2))
            else:
                self._reported = False
            return None
        if self._line_mode:
            return Line(line)
        for wrong, reason in (
            (len(line) > LINE_LIMIT, "the line is too long"),
            (b"\0" in line, "NUL is not allowed in a command"),
            (len(self._command) + len(line) > COMMAND_LIMIT, "the command is too long"),
        ):
            if wrong:
                if match is not None and match.group(3):
                    self._reported, self._drain = True, int(match.group(2))
                return self._fault(line, reason)
        if match is None:
            self._command += line
            command = bytes(self._command)
            self._command.clear()
            return Command(command)
        self._command += line[: match.start()]
        self._announced = LiteralAnnounced(
            bytes(self._command), int(match.group(2)), not match.group(3), bool(match.group(1))
        )
        return self._announced
