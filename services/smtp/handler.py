"""What a room gives the engine: its hooks (`Handler`), where bodies go (`BodySink`) and its limits (`EngineConfig`).

The hooks have aiosmtpd's names and argument order. Each answers with a `Reply`, at once (a plain function) or later
(a coroutine): most of a message's hooks need no waiting, and a plain function costs no task. While one is waited for,
no further command of that connection is read. An exception in a hook is our bug: the peer gets 451 and an id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_syntax import MailParameters, Path, RcptParameters
from services.runtime.events import Events, NoEvents
from services.runtime.tls import ContextNow
from services.smtp.trust import Forwarders

if TYPE_CHECKING:
    from services.smtp.engine import Engine
    from services.smtp.session import Envelope, Session


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT."""

    path: Path
    params: RcptParameters


class BodySink(Protocol):
    """Takes one message's body as it arrives: dots unstuffed, every line ended by CRLF, in chunks of any size.

    A sink that may lag behind the network also has `async drain() -> None`: the engine calls it after each 256 KiB
    and reads no further until it returns.
    """

    def write(self, chunk: bytes, /) -> None:
        """Take more of the body. An exception here refuses the message with 451."""

    def abort(self) -> None:
        """The message will not be taken (fault, size, lost connection before the final dot): forget it."""


HookReply = Reply | Awaitable[Reply]


class Handler(Protocol):
    """The decisions of a listener. `envelope` is the current one; before MAIL it is empty."""

    def handle_CONNECT(
        self, server: Engine, session: Session, envelope: Envelope
    ) -> Reply | Awaitable[Reply | None] | None:
        """Before the greeting. A Reply of 4xx or 5xx is sent instead of it and the connection closed."""

    def handle_EHLO(
        self, server: Engine, session: Session, envelope: Envelope, hostname: str
    ) -> Reply | Awaitable[Reply | None] | None:
        """EHLO or LHLO. None: the usual list of extensions; a Reply of 4xx or 5xx refuses."""

    def handle_HELO(
        self, server: Engine, session: Session, envelope: Envelope, hostname: str
    ) -> Reply | Awaitable[Reply | None] | None:
        """HELO. None: 250 and our name."""

    def handle_AUTH(
        self, server: Engine, session: Session, envelope: Envelope, mechanism: str, credentials: PasswordCredentials
    ) -> HookReply:
        """Check the credentials. 235 makes the session authenticated; the hook sets `session.account`."""

    def handle_MAIL(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: MailParameters
    ) -> HookReply:
        """MAIL. `envelope` is new, has its trace id, and holds sender and params once 2xx is answered."""

    def handle_RCPT(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: RcptParameters
    ) -> HookReply:
        """RCPT. After 2xx it stands in `envelope.recipients`."""

    def handle_DATA_BEGIN(
        self, server: Engine, session: Session, envelope: Envelope
    ) -> Reply | BodySink | Awaitable[Reply | BodySink]:
        """DATA before 354, or the first BDAT. A Reply refuses, a sink (kept as `envelope.sink`) takes the body."""

    def handle_DATA(
        self, server: Engine, session: Session, envelope: Envelope
    ) -> Reply | list[Reply] | Awaitable[Reply | list[Reply]]:
        """After the final dot, or the last BDAT. LMTP: one reply per recipient in order, or one Reply for all.

        Runs to its end even when the peer is gone by then; the sink is the hook's to close from here on.
        """

    def handle_DISCONNECT(self, server: Engine, session: Session, envelope: Envelope) -> Awaitable[None] | None:
        """The connection is gone and no other hook of it is running."""


class Connections:
    """The open connections of one listener: counted in all and by address, and closed when the room stops."""

    def __init__(self) -> None:
        """None yet."""
        self.open: set[Engine] = set()
        self._by_peer: dict[str, int] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        """How many are open."""
        return len(self.open)

    def from_peer(self, peer: str) -> int:
        """How many are open from `peer`, an IPv6 address counted with all of its /64."""
        return self._by_peer.get(peer_key(peer), 0)

    def add(self, engine: Engine, peer: str) -> None:
        """Count one in."""
        key = peer_key(peer)
        self.open.add(engine)
        self._by_peer[key] = self._by_peer.get(key, 0) + 1

    def remove(self, engine: Engine, peer: str) -> None:
        """Count one out."""
        key = peer_key(peer)
        self.open.discard(engine)
        left = self._by_peer.get(key, 0) - 1
        if left > 0:
            self._by_peer[key] = left
        else:
            self._by_peer.pop(key, None)
        if not self.open:
            self._empty.set()

    def dismiss(self, reply: Reply, spare: Callable[[str], bool]) -> None:
        """End those whose peer's address is not to `spare`: idle ones at once, those in a message after it."""
        for engine in list(self.open):
            if not spare(engine.session.peer[0]):
                engine.finish(reply)

    async def drain(self, grace_seconds: float) -> None:
        """End all: idle ones at once with 421, those in a message after it, what is left after `grace_seconds`."""
        self._empty.clear()
        for engine in list(self.open):
            engine.finish()
        if self.open:
            try:
                await asyncio.wait_for(self._empty.wait(), grace_seconds)
            except TimeoutError:
                for engine in list(self.open):
                    engine.abort()


def peer_key(address: str) -> str:
    """What connections are counted by: the address, for IPv6 its /64 (one customer has all of it)."""
    if ":" not in address:
        return address
    import ipaddress  # only where IPv6 peers exist

    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


@dataclass(frozen=True, slots=True, eq=False)
class EngineConfig:
    """One listener's settings; times in seconds, sizes in octets. Shared by all its connections."""

    hostname: str
    size_limit: int
    tls: ContextNow | None = None  # offered as STARTTLS unless implicit_tls
    implicit_tls: bool = False
    lmtp: bool = False
    auth: tuple[str, ...] = ()  # SASL mechanisms to offer
    auth_requires_tls: bool = True
    require_auth: bool = False
    extensions: tuple[str, ...] = ()  # more EHLO lines; "XMAILSTEAD 1" also allows XTRACE on MAIL
    chunking: bool = False  # RFC 3030: BDAT; to the handler a message in chunks is as any other
    dsn: bool = False  # RFC 3461: RET, ENVID, NOTIFY and ORCPT are taken; the handler must hand them on
    requiretls: bool = False  # RFC 8689, under TLS or between rooms; the handler must hand it on
    limits: bool = False  # RFC 9422: say how many recipients a message may have
    command_timeout: float = 300
    data_timeout: float = 180  # between two pieces of a body
    session_timeout: float = 3600
    handshake_timeout: float = 30
    max_errors: int = 10  # replies of 5xx, unknown recipients too: who tries names is sent away
    max_recipients: int = 200
    # NOOP, RSET, HELP, VRFY and EXPN since the last message: a client that only passes the time is using a slot.
    max_idle_commands: int = 100
    max_connections: int = 500
    max_connections_per_peer: int = 50
    # Addresses that many peers may arrive from (`gateway.py`): nobody's, so no limit by peer counts there.
    shared_peers: frozenset[str] = frozenset()
    forwarders: Forwarders | None = None  # relays of the owner's: XCLIENT and XFORWARD are theirs alone
    events: Events = field(default_factory=NoEvents)
    # Where a fault of ours goes: the id the peer was told, the exception, what was being done. `Context.bug` fits.
    bug: Callable[[str, BaseException, str], None] = field(default=lambda identity, error, doing: None)
    connections: Connections = field(default_factory=Connections)
    offer: Offer = field(init=False)

    def __post_init__(self) -> None:
        """What the sans-IO session needs of this, made once for all connections."""
        offer = Offer(
            hostname=self.hostname,
            size_limit=self.size_limit,
            lmtp=self.lmtp,
            starttls=self.tls is not None and not self.implicit_tls,
            auth=self.auth,
            auth_requires_tls=self.auth_requires_tls,
            require_auth=self.require_auth,
            extensions=self.extensions,
            chunking=self.chunking,
            dsn=self.dsn,
            requiretls=self.requiretls,
            limits=self.limits,
            max_recipients=self.max_recipients,
            max_errors=self.max_errors,
            max_idle_commands=self.max_idle_commands,
        )
        object.__setattr__(self, "offer", offer)

    def refusal(self, peer: str, handshaking: Collection[str] = ()) -> Reply | None:
        """Why one more connection from `peer` is too many, beside those of `handshaking` that are about to come in."""
        if len(self.connections) + len(handshaking) >= self.max_connections:
            return replies.TOO_MANY_CONNECTIONS
        if peer in self.shared_peers:
            return None
        key = peer_key(peer)
        from_peer = self.connections.from_peer(peer) + sum(peer_key(other) == key for other in handshaking)
        return replies.TOO_MANY_FROM_PEER if from_peer >= self.max_connections_per_peer else None
