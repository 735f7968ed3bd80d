"""A scripted SMTP or LMTP server on loopback, for tests of what sends: every reply class, and every way to break off.

    async with Remote({"RCPT TO:<eve@far.test>": "550 5.1.1 no", "DATA": [STALL]}) as remote: ...

`replies` maps the beginning of a command (the longest that fits counts; "CONNECT" is the greeting, "BODY" the reply to
the final dot) to a reply, or to a list of replies, one per use, the last for ever. Instead of a reply: CLOSE (the
connection closes), RESET (it breaks), STALL (no answer), or a function that is given the command and returns a reply.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CLOSE, RESET, STALL = object(), object(), object()
EXTENSIONS = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")

Answer = Any


@dataclass
class Received:
    """One message as it came: the envelope's lines, and the body with its dots still stuffed."""

    mail: str
    recipients: list[str]
    body: bytes
    tls: bool
    connection: int


@dataclass
class Remote:
    """The server; `commands` are all lines it was sent, `messages` those whose final dot came."""

    replies: Mapping[str, Answer] = field(default_factory=dict)
    extensions: tuple[str, ...] = EXTENSIONS
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    lmtp: bool = False
    name: str = "mx.far.test"
    host: str = "127.0.0.1"
    body_bytes: int | None = None  # break off (CLOSE) after so many octets of a body
    body_gate: asyncio.Event | None = None  # the reply to the final dot waits for it
    commands: list[str] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    port: int = 0

    async def __aenter__(self) -> "Remote":
        self._uses: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        context = self.tls if self.implicit_tls else None
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError, _Over):
                await _Dialogue(self, reader, writer, self.connections).run()
        finally:
            self.open_now -= 1
            self._tasks.discard(task)
            writer.close()

    def answer(self, command: str, default: Answer) -> Answer:
        """What the script has for `command`, else `default`."""
        fitting = [start for start in self.replies if command.upper().startswith(start.upper())]
        if not fitting:
            return default
        start = max(fitting, key=len)
        answer = self.replies[start]
        if isinstance(answer, list):
            used = self._uses.get(start, 0)
            self._uses[start] = used + 1
            answer = answer[min(used, len(answer) - 1)]
        return answer(command) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]


class _Over(Exception):
    """The dialogue ends here."""


@dataclass
class _Dialogue:
    remote: Remote
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    mail: str = ""
    recipients: list[str] = field(default_factory=list)
    secured: bool = False

    async def run(self) -> None:
        self.secured = self.remote.implicit_tls
        await self.say("CONNECT", f"220 {self.remote.name} ESMTP")
        while line := await self.reader.readline():
            command = line.decode().rstrip("\r\n")
            self.remote.commands.append(command)
            await self.obey(command, command.partition(" ")[0].upper())

    async def obey(self, command: str, verb: str) -> None:
        if verb in ("EHLO", "LHLO"):
            offered = [self.remote.name, *self.remote.extensions]
            if self.remote.tls and not self.secured:
                offered.append("STARTTLS")
            lines = [f"250-{word}" for word in offered[:-1]] + [f"250 {offered[-1]}"]
            await self.say(command, "\r\n".join(lines))
        elif verb == "STARTTLS":
            if (await self.say(command, "220 go ahead")).startswith("220"):
                assert self.remote.tls is not None
                await self.writer.start_tls(self.remote.tls)
                self.secured = True
        elif verb == "MAIL":
            self.mail, self.recipients = command, []
            await self.say(command, "250 2.1.0 ok")
        elif verb == "RCPT":
            if (await self.say(command, "250 2.1.5 ok")).startswith("2"):
                self.recipients.append(command)
        elif verb == "DATA":
            if (await self.say(command, "354 go on")).startswith("354"):
                await self.body()
        elif verb == "AUTH":
            await self.say(command, "235 2.7.0 welcome")
        elif verb == "QUIT":
            await self.say(command, "221 2.0.0 bye")
            raise _Over
        else:
            await self.say(command, "250 2.0.0 ok")

    async def body(self) -> None:
        got = bytearray()
        while not (got.endswith(b"\r\n.\r\n") or got == b".\r\n"):
            limit = self.remote.body_bytes
            if limit is not None and len(got) >= limit:
                raise _Over
            piece = await self.reader.read(65536)
            if not piece:
                raise _Over
            got += piece
        message = Received(self.mail, list(self.recipients), bytes(got[:-3]), self.secured, self.number)
        self.remote.messages.append(message)
        if self.remote.body_gate is not None:
            await self.remote.body_gate.wait()
        for recipient in self.recipients if self.remote.lmtp else [""]:
            await self.say(f"BODY {recipient}".rstrip(), "250 2.0.0 taken")

    async def say(self, command: str, default: str) -> str:
        answer = self.remote.answer(command, default)
        if answer is CLOSE:
            raise _Over
        if answer is RESET:
            self.writer.transport.abort()
            raise _Over
        if answer is STALL:
            await asyncio.Event().wait()
        self.writer.write(answer.encode() + b"\r\n")
        await self.writer.drain()
        return str(answer)
