"""A connection's transport: bytes out with back-pressure, TLS, time limits, an end that does not hang.

One per connection, driven by it. Knows bytes and seconds, nothing of IMAP.
"""

from __future__ import annotations

import asyncio
import ssl

# A handshake over a bad mobile link takes seconds; a stranger who never ends one holds a slot no longer than this.
HANDSHAKE_SECONDS = 30.0
# A client that takes nothing of what was sent to it for so long is gone, or holds our memory on purpose.
STALL_SECONDS = 120.0
# How long the last octets may take to leave.
LINGER_SECONDS = 10.0
GOODBYE_SECONDS = 1.0
# Above this the transport asks us to wait. With the chunk that is being made it bounds what a slow reader costs.
HIGH_WATER = 131_072


class Wire:
    """Octets out. `lost` once the connection is gone, `closing` once we are about to end it."""

    __slots__ = ("_deadline", "_left", "_loop", "_paused", "_transport", "_waiter", "closing", "lost")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False  # reading
        self._left = 0  # unsent octets at the last look
        self._deadline = 0.0
        self.closing = False
        self.lost = False

    # --- out

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""
        if data and not self.lost:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client is slower than we are. Raises ConnectionResetError once it is gone."""
        while self._waiter is not None and not self.lost:
            await asyncio.shield(self._waiter)
        if self.lost:
            raise ConnectionResetError("the client is gone")

    @property
    def congested(self) -> bool:
        """Whether the client is slower than we are."""
        return self._waiter is not None

    def pause_writing(self) -> None:
        """The transport's word that its buffer is full."""
        if self._waiter is None:
            self._waiter = self._loop.create_future()
            self._left = self._transport.get_write_buffer_size()
            self._deadline = self._loop.time() + STALL_SECONDS

    def resume_writing(self) -> None:
        """The transport's word that there is room."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- in

    def pause_reading(self) -> None:
        """Leave further input in the kernel."""
        if not self._paused and not self.lost and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take input again."""
        if self._paused and not self.lost and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # --- TLS

    async def start_tls(self, protocol: asyncio.BaseProtocol, context: ssl.SSLContext) -> None:
        """The server's handshake. Raises OSError (ssl.SSLError and TimeoutError are) when it fails."""
        transport = await self._loop.start_tls(
            self._transport, protocol, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        self._paused = False
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def tls_names(self) -> tuple[str, str]:
        """TLS version and cipher, "" each without TLS."""
        found = self._transport.get_extra_info("ssl_object")
        if found is None:
            return "", ""
        cipher = found.cipher()
        return found.version() or "", cipher[0] if cipher else ""

    # --- the end

    def stalled(self, now: float) -> bool:
        """Whether the client has taken nothing for too long; asked by the sweep."""
        if self._waiter is None:
            return False
        left = self._transport.get_write_buffer_size()
        if left != self._left:
            self._left, self._deadline = left, now + STALL_SECONDS
        return now > self._deadline

    def close(self) -> None:
        """Send what is left, then close; cut after a while."""
        if self.closing or self.lost:
            return
        self.closing = True
        self._transport.close()
        self._loop.call_later(GOODBYE_SECONDS, self._let_go)

    def _let_go(self) -> None:
        """A phone that sleeps answers no close of TLS: once all is sent it is not waited for, nor a restart with it."""
        if not self.lost and not self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._loop.call_later(LINGER_SECONDS - GOODBYE_SECONDS, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        self.closing = True
        if not self.lost:
            self._transport.abort()

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        self.resume_writing()
