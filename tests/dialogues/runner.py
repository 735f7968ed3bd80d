"""Plays dialogues: one protocol corner per text file, against any line-based server (SMTP, LMTP, IMAP).

A dialogue file:

    # What this shows, in a sentence: the lines above the first command are its title.
    @max_errors: 3            a setting for the test that starts the server; keys are the test's to read
    c: EHLO client.test       the client sends the line and CRLF
    c| NOOP\\nNOOP\\r\\n      sends exactly this, with Python's escapes
    c* 1000 a line            sends the line and CRLF a thousand times
    c= 70000 x                sends the text seventy thousand times, without a line end
    s: 250-mail.test ...      the server's next line is this; ... stands for any characters
    s~ 250-SIZE (?P<size>\\d+)   its next line matches this regular expression, whole
    s* 250 HELP               lines are skipped until this one
    s- silence                nothing arrives for a moment
    c: MAIL FROM:<a@b> SIZE=${size}    named groups are kept
    tls                       both sides do the TLS handshake now
    c. closes                 the client ends its sending side
    s. closes                 the server closes the connection

Several connections: `c2:` and `s2:` are those of a second one, opened where it is first named. A server's line must end
with CRLF, and when the file ends nothing may be left unread.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 5.0  # seconds for a line that must come
SILENCE = 0.03  # seconds in which a line that must not come would have come
_STEP = re.compile(r"(?P<side>[cs])(?P<connection>[0-9]?)(?P<kind>[:|*=~.-]) ?(?P<text>.*)")
_SETTING = re.compile(r"@(?P<key>\w+): *(?P<value>.*)")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a dialogue."""

    number: int
    side: str  # c, s, or tls
    connection: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A parsed file."""

    path: Path
    title: str
    settings: dict[str, str]
    steps: tuple[Step, ...]


@dataclass(slots=True)
class Connection:
    """One client connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True)
class Player:
    """Plays one dialogue against `host:port`.

    `variables` fills `${name}`; `tls_from_start` is for implicit TLS; `tls` is the client's context.
    """

    host: str
    port: int
    variables: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    tls_from_start: bool = False
    connections: dict[str, Connection] = field(default_factory=dict)

    async def play(self, dialogue: Dialogue) -> None:
        """Raises AssertionError with file and line where the server says something else."""
        try:
            for step in dialogue.steps:
                try:
                    await self._step(step)
                except (AssertionError, TimeoutError, OSError, EOFError) as error:
                    said = str(error) or type(error).__name__
                    raise AssertionError(f"{dialogue.path}:{step.number}: {step.text!r}: {said}") from error
            for name, connection in self.connections.items():
                rest = bytes(connection.reader._buffer)  # type: ignore[attr-defined]
                assert not rest, f"{dialogue.path}: connection {name or 1}: unread at the end: {rest!r}"
        finally:
            for connection in self.connections.values():
                connection.writer.transport.abort()

    async def _step(self, step: Step) -> None:
        connection = await self._connection(step.connection)
        text = _VARIABLE.sub(lambda match: self.variables[match[1]], step.text)
        if step.side == "tls":
            assert self.tls is not None, "the test gave no TLS context"
            await asyncio.wait_for(connection.writer.start_tls(self.tls, server_hostname="localhost"), PATIENCE)
        elif step.side == "c":
            await _send(connection, step.kind, text)
        else:
            await self._expect(connection, step.kind, text)

    async def _connection(self, name: str) -> Connection:
        if name not in self.connections:
            context = self.tls if self.tls_from_start else None
            name_in_tls = "localhost" if context else None
            reader, writer = await asyncio.open_connection(
                self.host, self.port, limit=1 << 22, ssl=context, server_hostname=name_in_tls
            )
            self.connections[name] = Connection(reader, writer)
        return self.connections[name]

    async def _expect(self, connection: Connection, kind: str, text: str) -> None:
        if kind == ".":
            rest = await asyncio.wait_for(_to_end(connection.reader), PATIENCE)
            assert not rest, f"the server sent {rest!r} instead of closing"
        elif kind == "-":
            try:
                line = await asyncio.wait_for(connection.reader.readline(), SILENCE)
            except TimeoutError:
                return
            assert line == b"", f"the server sent {line!r}"
        elif kind == "*":
            skipped: list[str] = []
            while not _matches(line_text := await _line(connection.reader), text):
                skipped.append(line_text)
                assert len(skipped) < 100_000, f"not in {skipped[-5:]}"
        elif kind == "~":
            line_text = await _line(connection.reader)
            match = re.fullmatch(text, line_text)
            assert match, f"the server sent {line_text!r}"
            self.variables.update({name: value or "" for name, value in match.groupdict().items()})
        else:
            line_text = await _line(connection.reader)
            assert _matches(line_text, text), f"the server sent {line_text!r}"


def load(path: Path) -> Dialogue:
    """Parse a file; raises ValueError for a line that is no step."""
    settings: dict[str, str] = {}
    steps: list[Step] = []
    title: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        if line.startswith("#"):
            if not steps:
                title.append(line.lstrip("# "))
        elif setting := _SETTING.fullmatch(line):
            settings[setting["key"]] = setting["value"]
        elif re.fullmatch(r"tls[0-9]?", line.strip()):
            steps.append(Step(number, "tls", line.strip()[3:], "", line))
        elif step := _STEP.fullmatch(line):
            steps.append(Step(number, step["side"], step["connection"], step["kind"], step["text"]))
        else:
            raise ValueError(f"{path}:{number}: not a step: {line!r}")
    if not title:
        raise ValueError(f"{path}: no title")
    return Dialogue(path, " ".join(title), settings, tuple(steps))


def collect(folder: Path) -> list[Any]:
    """The dialogues below `folder` as pytest parameters, named by file."""
    found = sorted(folder.rglob("*.txt"))
    assert found, f"no dialogues in {folder}"
    return [pytest.param(load(path), id=str(path.relative_to(folder).with_suffix(""))) for path in found]


def feedings(whole: bytes, trailing: bytes = b"") -> list[tuple[str, list[bytes]]]:
    """The ways a reader is fed: whole, byte by byte, in two cuts, each with `trailing` after the end."""
    data = whole + trailing
    middle = len(data) // 2
    return [
        ("whole", [data]),
        ("byte by byte", [data[i : i + 1] for i in range(len(data))]),
        ("two halves", [data[:middle], data[middle:]]),
        ("all but the last byte", [data[:-1], data[-1:]]),
    ]


def play_all_ways(whole: bytes, play: Callable[[list[bytes]], Any], trailing: bytes = b"") -> Any:
    """Call `play` with each feeding and hold the results equal; returns that result."""
    results = [(name, play(pieces)) for name, pieces in feedings(whole, trailing)]
    first = results[0][1]
    for name, result in results[1:]:
        assert result == first, f"fed {name}: {result!r}, fed whole: {first!r}"
    return first


async def _send(connection: Connection, kind: str, text: str) -> None:
    if kind == ".":
        connection.writer.write_eof()
        return
    if kind == "|":
        data = text.encode().decode("unicode_escape").encode("latin-1") if "\\" in text else text.encode()
    elif kind == "*":
        times, _, line = text.partition(" ")
        data = (line.encode() + b"\r\n") * int(times)
    elif kind == "=":
        times, _, piece = text.partition(" ")
        data = piece.encode() * int(times)
    else:
        data = text.encode() + b"\r\n"
    connection.writer.write(data)
    await asyncio.wait_for(connection.writer.drain(), PATIENCE)


async def _line(reader: asyncio.StreamReader) -> str:
    line = await asyncio.wait_for(reader.readline(), PATIENCE)
    if not line:
        raise EOFError("the server closed the connection")
    assert line.endswith(b"\r\n"), f"a line that does not end with CRLF: {line!r}"
    return line[:-2].decode("utf-8", "surrogateescape")


async def _to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def _matches(line: str, pattern: str) -> bool:
    if "..." not in pattern:
        return line == pattern
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("...")), line) is not None
