"""What is known of a connection and of the message in it: aiosmtpd's two classes, with values instead of strings.

Made and filled by `engine.py`, read by the rooms' handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiosmtpd import smtp as aiosmtpd

from services.protocol.proxy_header import ProxyHeader
from services.protocol.smtp_syntax import NULL, MailParameters, Path
from services.protocol.smtp_true_client import Client, Via
from services.protocol.smtp_xclient import Told
from services.runtime.events import new_trace_id
from services.smtp.handler import BodySink, Recipient
from services.smtp.trust import Forwarders


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
        self.named: Client | None = None  # by XCLIENT, or by a PROXY header that names nobody: for the session
        self.forwarded: Client | None = None  # by XFORWARD: for one message
        self.notes: Any = None  # what the handler keeps about this connection; the engine never looks

    @property
    def client(self) -> Client:
        """Whom policies judge."""
        if self.forwarded is not None:
            return self.forwarded
        named = self.named
        if named is None:
            return Client(self.peer[0], self.helo, "", self.via)
        # Where XCLIENT named no HELO, the relay's next EHLO is said in the client's name.
        return named if named.helo else replace(named, helo=self.helo)

    def carried(self, header: ProxyHeader) -> None:
        """From here on the peer is whom a proxy named; where it named nobody, it stays the proxy, and there is no
        client."""
        self.via = "proxy"
        if header.address:
            self.peer = (header.address, header.port)
        else:
            self.named = Client("", via="proxy")

    def is_of(self, forwarders: Forwarders | None, certificate: Callable[[], bytes | None]) -> bool:
        """Whether it shows now that the peer is one of `forwarders`; True once."""
        if forwarders is None or self.trusted:
            return False
        self.trusted = forwarders.trusts(self.peer[0], certificate())
        return self.trusted

    def begin_anew(self) -> None:
        """After STARTTLS (RFC 3207 §4.2) and XCLIENT: what was said before is forgotten."""
        self.helo, self.host_name, self.extended_smtp, self.forwarded = "", None, False, None
        if self.via != "proxy":
            self.named = None

    def xclient(self, told: Told) -> Client:
        """What XCLIENT said, over what it said before; the session begins anew."""
        before = self.named if self.named is not None and self.named.via == "xclient" else None
        self.begin_anew()
        self.named = told.over(before, via_xclient=True)
        return self.named

    def xforward(self, told: Told) -> Client:
        """What XFORWARD said of the next message, over what it said before."""
        self.forwarded = told.over(self.forwarded, via_xclient=False)
        return self.forwarded


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
