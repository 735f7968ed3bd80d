"""What a scanner is given, what it finds, and the connection that both go over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

# Scanners answer in well under a second; rspamd's own limit for one message is 8, SpamAssassin asks DNS for up to 15.
SECONDS = 30.0
LINE_OCTETS = 4096
MOST_LINES = 200
ANSWER_OCTETS = 1 << 20
MOST_RULES = 40
RULE_CHARACTERS = 80
# In pieces of this size the network may lag behind the disk without more than one of them in memory.
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for a scanner: its octets as received, and its envelope.

    `chunks` gives the octets in order, anew at each call; where `in_file` it blocks on the disk. `client` is the
    address judged by, "" where it is unknown. `sender` is "" for the null sender.
    """

    size: int
    in_file: bool
    chunks: Callable[[], Iterator[bytes]]
    trace: str
    client: str
    helo: str
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one scanner said.

    `share` is its score over its own threshold: 1.0 is where it begins to call mail junk, 0.0 and less is clean.
    `rules` are its names for what it saw, `virus` the name of one, "" for none. `problem`: why there is no opinion, in
    words for the owner; everything else is empty then.
    """

    scanner: str
    share: float = 0.0
    rules: tuple[str, ...] = ()
    virus: str = ""
    problem: str = ""


class Scanner(Protocol):
    """One scanner."""

    name: str

    async def scan(self, letter: Letter) -> Finding:
        """What it finds in `letter`, within `SECONDS`. Raises nothing."""


class Nonsense(Exception):
    """The scanner's answer is not one that its protocol has; the text says what came."""


class Link:
    """A connection to a scanner for one message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, octets: bytes) -> None:
        """Send, no faster than it is taken. Raises OSError."""
        self._writer.write(octets)
        await self._writer.drain()

    async def line(self) -> str:
        """The next line without its end. Raises Nonsense where it is longer than `LINE_OCTETS` or the link ended."""
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Nonsense(f"it broke off after {str(error)[:60]}") from None
        return line.rstrip(b"\r\n").decode("utf-8", "replace")

    async def rest(self, octets: int = ANSWER_OCTETS) -> bytes:
        """What comes until it closes, at most `octets`. Raises Nonsense for more."""
        found = b""
        while piece := await self._reader.read(PIECE):
            found += piece
            if len(found) > octets:
                raise Nonsense(f"its answer has more than {octets} octets")
        return found

    async def exactly(self, octets: int) -> bytes:
        """The next `octets`. Raises Nonsense where the link ends before."""
        if not 0 <= octets <= ANSWER_OCTETS:
            raise Nonsense(f"its answer has {octets} octets")
        try:
            return await self._reader.readexactly(octets)
        except asyncio.IncompleteReadError as error:
            raise Nonsense(f"it broke off after {len(error.partial)} of {octets} octets") from None


@contextlib.asynccontextmanager
async def linked(host: str, port: int) -> AsyncIterator[Link]:
    """A connection to host and port, closed with the block. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_OCTETS)
    try:
        yield Link(reader, writer)
    finally:
        writer.transport.abort()


async def opinion(
    name: str, host: str, port: int, seconds: float, ask: Callable[[Link], Awaitable[Finding]]
) -> Finding:
    """What `ask` makes of a connection to the scanner `name`, or a finding that says why there is no opinion."""
    try:
        async with asyncio.timeout(seconds), linked(host, port) as link:
            return await ask(link)
    except TimeoutError:
        return Finding(name, problem=f"{name} gave no answer within {seconds:g} seconds")
    except (OSError, Nonsense) as error:
        return Finding(name, problem=f"{name} cannot be asked: {error}")


async def pieces(letter: Letter) -> AsyncIterator[bytes]:
    """The letter's octets in pieces of at most `PIECE`; reading from the disk leaves the loop."""
    chunks = letter.chunks()
    while chunk := (await asyncio.to_thread(next, chunks, b"")) if letter.in_file else next(chunks, b""):
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]


def shown(text: str, characters: int = RULE_CHARACTERS) -> str:
    """A scanner's word as it may stand in the record: one printable line, bounded."""
    return "".join(character if character.isprintable() else "?" for character in text[:characters])
