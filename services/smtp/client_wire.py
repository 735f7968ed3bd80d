"""The bytes of one outgoing connection: replies one way, commands and bodies the other, with back-pressure.

Made by `client.py`, which knows the session; this knows none. A protocol of our own instead of asyncio's streams: on
STARTTLS nothing that came in plain text may stay in a buffer that is read later as if TLS had protected it.
"""

from __future__ import annotations

import asyncio
from typing import cast

from services.protocol.smtp_remote import RemoteReply, ReplyReader

# Replies that nobody has read yet: a hundred pipelined ones are 10 KiB; more than this is meant to fill memory.
MAX_WAITING = 1 << 20


class ClientWire(asyncio.Protocol):
    """The bytes: replies one way, commands and bodies the other, with back-pressure. No session knowledge."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reader = ReplyReader()
        self.lost: str = ""
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        if self.reader.waiting > MAX_WAITING and self.transport is not None:
            self.lost = self.lost or "the server sends without being asked"
            self.transport.abort()
        self._wake(self._arrived)

    def eof_received(self) -> bool:
        self.lost = self.lost or "the server closed the connection"
        self._wake(self._arrived)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or (f"the connection broke: {exc}" if exc else "the server closed the connection")
        self._wake(self._arrived)
        self._wake(self._drained)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake(self._drained)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def reply(self) -> RemoteReply:
        while (found := self.reader.next_reply()) is None:
            if self.lost:
                raise OSError(self.lost)
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return found

    async def write(self, data: bytes) -> None:
        if self.lost or self.transport is None:
            raise OSError(self.lost)
        self.transport.write(data)
        while self._paused and not self.lost:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def abort(self) -> None:
        self.lost = self.lost or "closed by us"
        if self.transport is not None:
            self.transport.abort()
