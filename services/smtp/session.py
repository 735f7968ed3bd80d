"""What is known of a connection and of the message in it: aiosmtpd's two classes, with values instead of strings.

Made and filled by `engine.py`, read by the rooms' handlers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpd import smtp as aiosmtpd

from services.protocol.smtp_syntax import NULL, MailParameters, Path
from services.protocol.smtp_true_client import Client, Via
from services.runtime.events import new_trace_id
from services.smtp.handler import BodySink, Recipient


class Session(aiosmtpd.Session):
    """aiosmtpd's facts about a connection, and ours.

    `peer` opened the connection: limits, bans and trust go by it. `client` is whom the mail comes from, which policies
    judge: the peer itself, or whom the PROXY protocol named (then it is the peer too), or whom a relay of the owner's
    named. `trusted` says that the peer is such a relay. Where it is and `client.via` is "", it has named nobody, and
    the client must be read from its Received field (`message/received_from.py`).
    """

    peer: tuple[str, int]  # type: ignore[assignment]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """A connection that said nothing yet."""
        super().__init__(loop)
        self.trace = new_trace_id()  # the connection's
        self.peer = ("", 0)
        self.helo = ""
        self.tls = False
        self.tls_version = self.tls_cipher = ""
        self.account: str | None = None  # set by handle_AUTH
        self.trusted = False  # the peer is a forwarder that the owner named
        self.via: Via = ""  # "proxy" where the PROXY protocol said who the peer is
        self.told: Client | None = None  # by XCLIENT for the session, by XFORWARD for a message
        self.notes: Any = None  # what the handler keeps about this connection; the engine never looks

    @property
    def client(self) -> Client:
        """Whom policies judge."""
        told = self.told
        if told is None:
            return Client(self.peer[0], self.helo, "", self.via)
        if told.via == "xclient" and not told.helo:
            # The relay's next EHLO is said in the client's name.
            return Client(told.address, self.helo, told.name, told.via)
        return told


class Envelope(aiosmtpd.Envelope):
    """aiosmtpd's envelope, and ours: values instead of strings."""

    def __init__(self) -> None:
        """Empty until MAIL."""
        super().__init__()
        self.trace = ""  # the message's; between rooms the one that XTRACE brought
        self.sender: Path = NULL
        self.params = MailParameters()
        self.recipients: list[Recipient] = []
        self.sink: BodySink | None = None
        self.size = 0  # octets of the body so far
        self.notes: Any = None  # what the handler keeps about this message; the engine never looks
