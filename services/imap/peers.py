"""The open connections of the room: counted in all and by address, swept for those that are late, ended at the stop.

One timer for all of them: a thousand idle clients cost no timer each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from services.policy.throttle import address_key

SWEEP_SECONDS = 5.0
TOO_MANY = "too many connections"
TOO_MANY_FROM_PEER = "too many connections from your address"


class Connection(Protocol):
    """What the sweep asks of a connection."""

    peer: str

    @property
    def address(self) -> str:
        """The account that is logged in, or ""."""

    def sweep(self, now: float) -> None:
        """End what is late; `now` is the loop's time."""

    def finish(self, text: str) -> None:
        """Say BYE, after the command in progress."""

    def abort(self) -> None:
        """Cut it."""


class Peers:
    """The connections."""

    def __init__(self, most: int, most_per_peer: int, shared: Collection[str] = ()) -> None:
        """`shared`: addresses that many peers may arrive from (`runtime.gateways`), which are nobody's."""
        self._most, self._most_per_peer = most, most_per_peer
        self._shared = frozenset(address_key(peer) for peer in shared)
        self._open: set[Connection] = set()
        self._by_peer: dict[str, int] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def refusal(self, peer: str, handshaking: Collection[str]) -> str:
        """Why one more from `peer` could not stay, with `handshaking` about to come in; "" where it could."""
        key = address_key(peer)
        if len(self._open) + len(handshaking) >= self._most:
            return TOO_MANY
        if key in self._shared:
            return ""
        if self._by_peer.get(key, 0) + sum(address_key(other) == key for other in handshaking) >= self._most_per_peer:
            return TOO_MANY_FROM_PEER
        return ""

    def add(self, connection: Connection) -> str:
        """Count one in; why it cannot stay, "" where it can. It is counted in either case."""
        key = address_key(connection.peer)
        self._open.add(connection)
        self._by_peer[key] = self._by_peer.get(key, 0) + 1
        if len(self._open) > self._most:
            return TOO_MANY
        if self._by_peer[key] > self._most_per_peer and key not in self._shared:
            return TOO_MANY_FROM_PEER
        return ""

    def remove(self, connection: Connection) -> None:
        """Count one out."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        key = address_key(connection.peer)
        left = self._by_peer.get(key, 0) - 1
        if left > 0:
            self._by_peer[key] = left
        else:
            self._by_peer.pop(key, None)
        if not self._open:
            self._empty.set()

    async def sweep(self) -> None:
        """Ask each now and then whether it is late; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in list(self._open):
                connection.sweep(now)

    def accounts(self) -> set[str]:
        """The accounts that are logged in."""
        return {connection.address for connection in self._open if connection.address}

    def dismiss(self, address: str, text: str) -> None:
        """End the sessions of an account that may not have any."""
        for connection in list(self._open):
            if connection.address == address:
                connection.finish(text)

    async def drain(self, grace_seconds: float) -> None:
        """End all of them: idle ones at once, busy ones after their command, what is left after `grace_seconds`."""
        self._empty.clear()
        for connection in list(self._open):
            connection.finish("the server is going down")
        if self._open:
            try:
                await asyncio.wait_for(self._empty.wait(), grace_seconds)
            except TimeoutError:
                for connection in list(self._open):
                    connection.abort()
                await asyncio.sleep(0)
