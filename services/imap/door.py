"""The door of 993: who comes is counted before the handshake, which is what a flood wants of us."""

from __future__ import annotations

from collections.abc import Collection

from services.imap.desk import Desk
from services.runtime.events import new_trace_id


class Door:
    """See `runtime.listener.Door`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def admit(self, peer: str, handshaking: Collection[str]) -> bool:
        """See `runtime.listener.Door`."""
        refused = self._desk.peers.refusal(peer, handshaking)
        if refused:
            self._emit("connect", peer, refused)
        return not refused

    def failed(self, peer: str, error: OSError) -> None:
        """See `runtime.listener.Door`."""
        self._emit("tls", peer, str(error) or "the handshake was not finished in time")

    def _emit(self, kind: str, peer: str, reason: str) -> None:
        events = self._desk.context.events
        events.emit(kind, new_trace_id(), outcome="reject", peer=peer, service="imap", reason=reason)
