"""The engine's transport: collects writes, pauses reading, upgrades to TLS, keeps the time, closes without hanging.

One per connection, made and driven by the engine. Knows bytes and seconds, nothing of SMTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from services.smtp.handler import EngineConfig

# How long the last bytes may take to leave before the connection is cut: a peer that does not read holds no slot.
LINGER = 10.0
# Octets a second that a body must have on average once `data_timeout` has passed: a tenth of the slowest modem. Whoever
# sends an octet now and then would hold a place for as long as a session may last.
SLOWEST = 100.0
GOODBYE = 1.0


class Wire:
    """`late(session_over)` is called when nothing came in time, again every second while it does not close."""

    __slots__ = (
        "_config", "_deadline", "_end", "_flow_began", "_flowed", "_late", "_loop", "_out", "_paused", "_started",
        "_timer", "_transport", "closing", "lost", "stuck",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, config: EngineConfig, late: Callable[[bool], None]) -> None:
        """Not connected yet."""
        self._loop, self._config, self._late = loop, config, late
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._paused = False
        self._started = self._deadline = self._end = 0.0
        self._flow_began = -1.0  # of the body that is under way; below 0: none is
        self._flowed = 0
        self.stuck = False  # the peer does not read what we wrote
        self.closing = False
        self.lost = False

    def open(self, transport: asyncio.Transport) -> tuple[str, int]:
        """Take the transport, start the clock; the peer's address and port."""
        self._transport = transport
        self._started = self._loop.time()
        self._end = self._started + self._config.session_timeout
        self.wait(self._config.command_timeout)
        self._timer = self._loop.call_at(min(self._deadline, self._end), self._tick)
        peer = transport.get_extra_info("peername")
        return (peer[0], peer[1]) if isinstance(peer, tuple) else ("", 0)

    def age(self) -> float:
        """Seconds since the connection was made."""
        return self._loop.time() - self._started

    def wait(self, seconds: float) -> None:
        """Something must come within `seconds` from now. Costs a store: the timer is set anew only when it rings."""
        self._deadline = self._loop.time() + seconds
        if self._flow_began >= 0:
            slowest = self._flow_began + self._config.data_timeout + self._flowed / SLOWEST
            self._deadline = min(self._deadline, slowest)

    def flows(self, octets: int) -> None:
        """So many octets of a body came."""
        if self._flow_began < 0:
            self._flow_began, self._flowed = self._loop.time(), 0
        self._flowed += octets
        self.wait(self._config.data_timeout)

    def flowed(self) -> None:
        """The body is whole, or given up."""
        if self._flow_began >= 0:
            self._flow_began = -1.0
            self.wait(self._config.command_timeout)

    def write(self, data: bytes) -> None:
        """Collect; `flush` sends what a burst made (RFC 2920 §3.2)."""
        self._out.append(data)

    def flush(self) -> None:
        """Send what was collected."""
        if self._out:
            if self._transport is not None and not self.lost:
                self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    def pause_reading(self) -> None:
        """Leave further input in the kernel."""
        if not self._paused and not self._gone():
            self._paused = True
            self._transport.pause_reading()  # type: ignore[union-attr]

    def resume_reading(self) -> None:
        """Unless the peer must read first."""
        if self._paused and not self.stuck and not self._gone():
            self._paused = False
            self._transport.resume_reading()  # type: ignore[union-attr]

    def close(self) -> None:
        """Send what was collected and close; idempotent."""
        if self.closing or self.lost or self._transport is None:
            return
        self.flush()
        self.closing = True
        self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(GOODBYE, self._let_go)

    def _let_go(self) -> None:
        """Who answers no close of TLS is not waited for once all is sent: a restart would wait with it."""
        if self._transport is not None and not self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._timer = self._loop.call_later(LINGER - GOODBYE, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._out.clear()

    def stop_for_tls(self) -> None:
        """From here on bytes are TLS: none may be read as anything else before the handshake."""
        self.flush()
        if not self._gone():
            self._transport.pause_reading()  # type: ignore[union-attr]

    async def start_tls(self, protocol: asyncio.Protocol) -> None:
        """Do the handshake. Raises OSError (ssl.SSLError and TimeoutError are) when it fails."""
        assert self._transport is not None and self._config.tls is not None
        transport = await self._loop.start_tls(
            self._transport,
            protocol,
            self._config.tls(),
            server_side=True,
            ssl_handshake_timeout=self._config.handshake_timeout,
        )
        if transport is None:
            raise ConnectionResetError("the connection was lost")
        self._transport, self._paused = transport, False

    def tls_names(self) -> tuple[str, str]:
        """TLS version and cipher, "" each without TLS."""
        secured: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object") if self._transport else None
        cipher = secured.cipher() if secured is not None else None
        return (secured.version() or "" if secured is not None else "", cipher[0] if cipher else "")

    def certificate(self) -> bytes | None:
        """The client's certificate (DER); None without TLS or without one."""
        secured: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object") if self._transport else None
        return secured.getpeercert(binary_form=True) if secured is not None else None

    def _gone(self) -> bool:
        return self._transport is None or self.lost or self._transport.is_closing()

    def _tick(self) -> None:
        now = self._loop.time()
        if now >= min(self._deadline, self._end):
            self._late(now >= self._end)
            if self.closing or self.lost:
                return
            self._timer = self._loop.call_later(1.0, self._tick)
        else:
            self._timer = self._loop.call_at(min(self._deadline, self._end), self._tick)
