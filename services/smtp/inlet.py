"""Where the engine puts a body while it arrives: the handler's sink, until the message is whole or refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.protocol.reply import Reply
from services.smtp.handler import BodySink

# A sink with `drain` is waited for after each of these: fifty messages of 25 MB at once hold 57 MB, with a MiB 87.
DRAIN_EVERY = 1 << 18


class Inlet:
    """One connection's; for one message after the other."""

    __slots__ = ("_undrained", "fault", "sink")

    def __init__(self) -> None:
        """No message yet."""
        self.sink: BodySink | None = None  # ours until handle_DATA has it
        self.fault: Reply | None = None  # why the message will be refused
        self._undrained = 0

    def open(self, sink: BodySink) -> None:
        """A message begins."""
        self.sink, self.fault, self._undrained = sink, None, 0

    def write(self, data: bytes) -> Awaitable[Any] | None:
        """Take more of it; what must be waited for before more is read. Raises what the sink raises."""
        if self.sink is None:
            return None
        self.sink.write(data)
        self._undrained += len(data)
        if self._undrained < DRAIN_EVERY:
            return None
        self._undrained = 0
        drain: Callable[[], Awaitable[Any]] | None = getattr(self.sink, "drain", None)
        return None if drain is None else drain()

    def take(self) -> BodySink | None:
        """The sink with the whole message, for handle_DATA; None where it was given up."""
        sink, self.sink = self.sink, None
        return sink

    def spoil(self, fault: Reply) -> None:
        """The message will be refused: what was stored of it is given back now. Raises what the sink raises."""
        sink, self.sink = self.sink, None
        self.fault = self.fault or fault
        if sink is not None:
            sink.abort()
