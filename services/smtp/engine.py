"""The SMTP server engine: one class on `aiosmtpd.smtp.SMTP`, driven by the sans-IO session.

Interface only for now; see `handler.py` for the hooks and the configuration.
"""

from __future__ import annotations

import asyncio

from aiosmtpd import smtp as aiosmtpd

from services.protocol.reply import Reply
from services.protocol.smtp_syntax import NULL, MailParameters, Path
from services.runtime.events import new_trace_id
from services.smtp.handler import BodySink, EngineConfig, Handler, Recipient

__all__ = ["BodySink", "Engine", "EngineConfig", "Envelope", "Handler", "Recipient", "Reply", "Session"]


class Session(aiosmtpd.Session):
    """aiosmtpd's facts about a connection, and ours."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """A connection that said nothing yet."""
        super().__init__(loop)
        self.trace = new_trace_id()  # the connection's
        self.peer: tuple[str, int] = ("", 0)  # type: ignore[assignment]
        self.helo = ""
        self.tls = False
        self.account: str | None = None  # set by handle_AUTH


class Envelope(aiosmtpd.Envelope):
    """aiosmtpd's envelope, and ours: values instead of strings."""

    def __init__(self) -> None:
        """Empty until MAIL."""
        super().__init__()
        self.trace = ""  # the message's; from XTRACE between rooms
        self.sender: Path = NULL
        self.params = MailParameters()
        self.recipients: list[Recipient] = []
        self.sink: BodySink | None = None
        self.size = 0  # octets of the body so far


class Engine(aiosmtpd.SMTP):
    """One connection: `loop.create_server(lambda: Engine(handler, config))`."""

    def __init__(self, handler: Handler, config: EngineConfig) -> None:
        """`config` is shared by all connections of the listener."""

    def finish(self) -> None:
        """Stop after what is in flight."""

    def abort(self) -> None:
        """Stop now."""
