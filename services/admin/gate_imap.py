"""The little IMAP that the mail gate speaks: log in, read what is in the INBOX, delete it (RFC 3501).

One connection over TLS from the first byte, one command at a time. What the server sends is bounded; whoever calls
bounds the time.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from types import TracebackType

MOST_OCTETS = 4 << 20  # of one answer: two short letters and what a gate before may have left behind
_LITERAL = re.compile(rb"\{(\d{1,9})\}\r\n$")


class ImapFault(Exception):
    """The server did not do what was asked; the text says what it said. `temporary`: it asks to come back."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


class ImapSession:
    """`async with ImapSession(...) as session`. Raises ImapFault, OSError."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """`tls` is the caller's policy."""
        self._host, self._port, self._tls = host, port, tls
        self._count = 0

    async def __aenter__(self) -> ImapSession:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            greeting, _ = await self._response()
            if not greeting.startswith(b"* OK"):
                raise ImapFault(f"it greets with {_shown(greeting)}", temporary=b"[UNAVAILABLE]" in greeting)
        except BaseException:
            self._writer.transport.abort()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._writer.write(b"bye LOGOUT\r\n")
            self._writer.close()
        else:
            self._writer.transport.abort()

    async def log_in(self, user: str, password: str) -> None:
        """LOGIN; neither may hold a quote or a backslash."""
        await self._command(f'LOGIN "{user}" "{password}"', told="LOGIN")

    async def letters(self) -> list[bytes]:
        """Every message in the INBOX, whole."""
        await self._command("SELECT INBOX")
        answers = await self._command("UID FETCH 1:* (BODY.PEEK[])")
        return [literals[0] for _, literals in answers if literals]

    async def delete_all(self) -> int:
        """Delete what is in the selected mailbox; how many messages are left."""
        await self._command("STORE 1:* +FLAGS.SILENT (\\Deleted)")
        await self._command("EXPUNGE")
        for line, _ in await self._command("SELECT INBOX"):
            if found := re.fullmatch(rb"\* (\d{1,9}) EXISTS\r\n", line):
                return int(found[1])
        raise ImapFault("SELECT did not say how many messages there are")

    async def _command(self, text: str, told: str = "") -> list[tuple[bytes, list[bytes]]]:
        """The untagged answers, each as its line and its literals."""
        self._count += 1
        tag = f"g{self._count}".encode()
        self._writer.write(tag + b" " + text.encode("ascii") + b"\r\n")
        await self._writer.drain()
        answers: list[tuple[bytes, list[bytes]]] = []
        size = 0
        while True:
            line, literals = await self._response()
            size += len(line) + sum(len(each) for each in literals)
            if size > MOST_OCTETS:
                raise ImapFault(f"its answer to {told or text} does not end")
            if line.startswith(tag + b" OK"):
                return answers
            if line.startswith((tag + b" ", b"* BYE")):
                away = b"[UNAVAILABLE]" in line or line.startswith(b"*")
                raise ImapFault(f"it answers {told or text} with {_shown(line)}", temporary=away)
            answers.append((line, literals))

    async def _response(self) -> tuple[bytes, list[bytes]]:
        line, literals = await self._line(), list[bytes]()
        while found := _LITERAL.search(line):
            size = int(found[1])
            if size > MOST_OCTETS:
                raise ImapFault(f"it announces {size} octets")
            literals.append(await self._reader.readexactly(size))
            line = line[: found.start()] + await self._line()
        return line, literals

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise ImapFault("it sends a line without an end") from None
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("it closed the connection")
        return line


def _shown(line: bytes) -> str:
    return repr(line.decode("ascii", "replace").strip()[:200])
