"""The door of an implicit TLS listener: who comes is counted before the handshake, which is what a flood wants of us.

Given to `runtime.listener.listen_tls` beside the engine's factory. Says nothing to those it turns away: what is not TLS
yet would be no words to them.
"""

from __future__ import annotations

from collections.abc import Collection

from services.runtime.events import new_trace_id
from services.smtp.handler import EngineConfig
from services.smtp.record import Record


class EngineDoor:
    """See `runtime.listener.Door`."""

    def __init__(self, config: EngineConfig) -> None:
        """`config` is the listener's."""
        self._config = config

    def admit(self, peer: str, handshaking: Collection[str]) -> bool:
        """See `runtime.listener.Door`."""
        refusal = self._config.refusal(peer, handshaking)
        if refusal is not None:
            self._record(peer).refusal("", refusal)
        return refusal is None

    def failed(self, peer: str, error: OSError) -> None:
        """See `runtime.listener.Door`."""
        self._record(peer).emit("tls", "error", reason=f"the TLS handshake failed: {error}")

    def _record(self, peer: str) -> Record:
        record = Record(self._config.events, new_trace_id())
        record.peer = peer
        return record
