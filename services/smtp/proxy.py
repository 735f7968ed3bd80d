"""The entrance of a listener for proxies: the PROXY header first, then the engine, as if the client had come itself.

Only peers whom the owner named are heard; anybody else is cut off at once and recorded. What a named one says is the
session's peer from then on, for limits, bans and policies. Given to `runtime.listener.listen` in place of the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from services.protocol.proxy_header import ProxyFault, ProxyHeader, ProxyReader
from services.runtime.events import new_trace_id
from services.smtp.handler import EngineConfig
from services.smtp.record import Record
from services.smtp.trust import Peers

# The header is one packet, sent at once: a proxy that has none after this has no more than a connection.
HEADER_SECONDS = 10.0


class ProxyEntrance(asyncio.Protocol):
    """One connection until its header is whole. `engine` makes the protocol that goes on with it."""

    def __init__(
        self,
        engine: Callable[[ProxyHeader], asyncio.Protocol],
        peers: Peers,
        config: EngineConfig,
        waiting: set[ProxyEntrance],
    ) -> None:
        """`peers` may speak; `waiting` is shared by the listener's connections, and bounded as they are."""
        self._engine, self._peers, self._config, self._waiting = engine, peers, config, waiting
        self._reader = ProxyReader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) else ""
        if self._peer not in self._peers:
            self._refuse(f"{self._peer} is not in PROXY_PEERS, and may not say whom it carries")
        elif len(self._waiting) >= self._config.max_connections:
            self._refuse("too many connections that have not said whom they carry")
        else:
            self._waiting.add(self)
            self._timer = asyncio.get_running_loop().call_later(
                HEADER_SECONDS, self._refuse, f"no PROXY header within {HEADER_SECONDS:.0f} seconds"
            )

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        transport = self._transport
        if transport is None:
            return
        try:
            header = self._reader.feed(data)
        except ProxyFault as fault:
            self._refuse(str(fault))
            return
        if header is not None:
            self._done()
            engine = self._engine(header)
            transport.set_protocol(engine)
            engine.connection_made(transport)
            if self._reader.rest:
                engine.data_received(self._reader.rest)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._done()

    def abort(self) -> None:
        """The room stops."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, reason: str) -> None:
        record = Record(self._config.events, new_trace_id())
        record.peer = self._peer
        record.emit("connect", "reject", stage="proxy", reason=reason)
        self.abort()
        self._done()

    def _done(self) -> None:
        self._waiting.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
