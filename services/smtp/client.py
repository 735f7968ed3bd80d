"""An SMTP or LMTP client on asyncio: drives `protocol/smtp_client.py` over one connection.

Called by smtp-out (remote servers, relays, LMTP to smtp-in) and by smtp-in (forwards to smtp-out). `connect` ends with
a session that is greeted, secured as the target asks, and logged in; `deliver` sends one message and may be called
again. Every wait has an end (RFC 5321 §4.5.3.2). Never retries, never chooses a server, never reads a file: the body
comes as chunks from the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar, cast

from services.protocol.smtp_body import BodyEncoder
from services.protocol.smtp_client import (
    Greeting,
    Message,
    Phase,
    Receive,
    Refused,
    Result,
    Send,
    SendBody,
    StartTls,
    Steps,
    deliver,
    greet,
    hello,
    log_in,
    quit_session,
    start_tls,
)
from services.protocol.smtp_remote import ProtocolFault, RemoteReply
from services.smtp.client_wire import ClientWire

__all__ = [
    "BodyUnreadable",
    "ConnectionLost",
    "Message",
    "ProtocolFault",
    "Refused",
    "SmtpClient",
    "Target",
    "Timeouts",
    "Tls",
    "TlsFailed",
    "connect",
    "file_chunks",
]

CHUNK_BYTES = 1 << 16  # of a body: large enough for a few thousand a second, small enough for 50 sessions at once
T = TypeVar("T")


class Tls(Enum):
    """How a session is secured."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"  # STARTTLS where it is offered, plain text where not (RFC 7435)
    STARTTLS = "starttls"  # STARTTLS or nothing
    IMPLICIT = "tls"  # from the first byte (RFC 8314)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, by RFC 5321 §4.5.3.2. `connect` is ours: a host that drops SYNs must not hold a slot for minutes."""

    connect: float = 30
    greeting: float = 300
    command: float = 300
    data: float = 120
    block: float = 180
    # §4.5.3.2.6: a timeout here while the server goes on to deliver makes a duplicate, hence the longest.
    final: float = 600
    quit: float = 5

    def of(self, phase: Phase) -> float:
        if phase is Phase.GREETING:
            return self.greeting
        if phase is Phase.DATA:
            return self.data
        if phase is Phase.FINAL:
            return self.final
        return self.quit if phase is Phase.QUIT else self.command


@dataclass(frozen=True, slots=True)
class Target:
    """One server. `host` is what is connected to; `name` what its certificate must say, where that is asked.

    `context` makes the TLS (verifying or not: the caller's policy). `private_network`: a password may go over plain
    text, because it is a secret between two of our rooms or the owner has said so.
    """

    host: str
    port: int
    name: str = ""
    tls: Tls = Tls.NONE
    context: ssl.SSLContext | None = None
    user: str = ""
    password: str = ""
    lmtp: bool = False
    private_network: bool = False


class ConnectionLost(Exception):
    """No connection, or no longer one: refused, reset, closed or too slow. `phase` says what was awaited.

    `in_doubt`: the whole message was sent and its reply did not come, so the server may have it (RFC 1047).
    """

    def __init__(self, phase: Phase | None, why: str, *, in_doubt: bool = False) -> None:
        super().__init__(why if phase is None else f"{why} (waiting for the reply to {phase.value})")
        self.phase = phase
        self.in_doubt = in_doubt


class BodyUnreadable(Exception):
    """Our own side failed in the middle of the body. The connection was cut before the final dot: nothing was sent."""


class TlsFailed(ConnectionLost):
    """TLS was asked for and did not come about: not offered, refused, or the handshake failed."""

    def __init__(self, why: str) -> None:
        super().__init__(None, why)


class SmtpClient:
    """One session. Made by `connect`; not to be used by two tasks at once."""

    def __init__(self, wire: ClientWire, target: Target, timeouts: Timeouts) -> None:
        self._wire = wire
        self._timeouts = timeouts
        self.target = target
        self.greeting = Greeting()
        self.tls_version = ""

    @property
    def encrypted(self) -> bool:
        return bool(self.tls_version)

    @property
    def closed(self) -> bool:
        return bool(self._wire.lost)

    async def deliver(self, message: Message, body: AsyncIterable[bytes]) -> Result:
        """Send one message; a result for each recipient.

        Raises Refused (the server ends the session: 421, or an error in the middle of the body), ProtocolFault,
        ConnectionLost or BodyUnreadable; the session is over then.
        """
        if self._wire.reader.pending:
            # It spoke while nothing was asked: what comes next could be taken for the answer to something else.
            self._wire.abort()
            raise ConnectionLost(None, "the server spoke out of turn")
        return await self._drive(deliver(message, self.greeting, lmtp=self.target.lmtp), body)

    async def quit(self) -> None:
        """Say QUIT and close; whatever goes wrong with that is of no interest."""
        with contextlib.suppress(ConnectionLost, ProtocolFault, Refused):
            await self._drive(quit_session())
        self._wire.abort()

    def abort(self) -> None:
        """Close at once."""
        self._wire.abort()

    async def _drive(self, steps: Steps[T], body: AsyncIterable[bytes] | None = None) -> T:
        """Run one generator of protocol/smtp_client.py to its end."""
        answer: RemoteReply | None = None
        phase: Phase | None = None
        body_sent = False
        try:
            while True:
                try:
                    action = steps.send(answer)
                except StopIteration as done:
                    return cast(T, done.value)
                answer = None
                match action:
                    case Send(data):
                        async with asyncio.timeout(self._timeouts.command):
                            await self._wire.write(data)
                    case Receive(phase):
                        async with asyncio.timeout(self._timeouts.of(phase)):
                            answer = await self._wire.reply()
                    case SendBody():
                        phase = Phase.DATA
                        await self._send_body(body)
                        body_sent = True
                    case StartTls():
                        await self._upgrade()
        except TimeoutError:
            self._wire.abort()
            raise ConnectionLost(phase, "no answer in time", in_doubt=body_sent) from None
        except OSError as error:
            self._wire.abort()
            raise ConnectionLost(phase, str(error) or type(error).__name__, in_doubt=body_sent) from None
        except (ProtocolFault, asyncio.CancelledError, ConnectionLost, BodyUnreadable):
            self._wire.abort()
            raise
        except Refused as refusal:
            if refusal.reply.code == 421:
                self._wire.abort()
            raise
        finally:
            steps.close()

    async def _send_body(self, body: AsyncIterable[bytes] | None) -> None:
        if body is None:
            raise RuntimeError("a transaction without a body")
        encoder = BodyEncoder()
        try:
            async for chunk in _ours(body):
                await self._block(encoder.encode(chunk))
            await self._block(b"")  # whoever answered before the end of data is heard before the dot goes out
        except OSError:
            # A server that refuses in the middle often says why and closes; its words are worth more than "broken".
            self._answered_early()
            raise
        async with asyncio.timeout(self._timeouts.block):
            await self._wire.write(encoder.end())

    async def _block(self, data: bytes) -> None:
        self._answered_early()
        if data:
            async with asyncio.timeout(self._timeouts.block):
                await self._wire.write(data)

    def _answered_early(self) -> None:
        early = self._wire.reader.next_reply()
        if early is None:
            return
        self._wire.abort()
        if early.positive:
            raise ProtocolFault(f"{early.text!r} came before the end of the message")
        raise Refused(Phase.DATA, early)

    async def _upgrade(self) -> None:
        """The handshake of STARTTLS."""
        if self._wire.reader.pending:
            # Bytes behind the 220 were sent in plain text by anybody, and would be read as if TLS had protected them
            # (CVE-2021-38371 and its family; RFC 3207 §6).
            raise ProtocolFault("the server sent more than its reply to STARTTLS before the handshake")
        target, transport = self.target, self._wire.transport
        if target.context is None or transport is None:
            raise RuntimeError("STARTTLS without a TLS context")
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self._wire,
                target.context,
                server_hostname=_server_name(target),
                ssl_handshake_timeout=self._timeouts.connect,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._wire.abort()
            raise TlsFailed(f"the TLS handshake failed: {_reason(error)}") from None
        if secured is None:
            raise TlsFailed("the connection closed during the TLS handshake")
        self._wire.transport = secured
        self.tls_version = _version(secured)


async def connect(target: Target, name: str, timeouts: Timeouts | None = None) -> SmtpClient:
    """Open a session with `target`; `name` is what we call ourselves.

    Raises TlsFailed, ConnectionLost, ProtocolFault, or Refused with the phase (GREETING, HELLO, AUTH).
    """
    limits = timeouts or Timeouts()
    client = SmtpClient(await _open(target, limits), target, limits)
    try:
        if target.tls is Tls.IMPLICIT:
            client.tls_version = _version(client._wire.transport)
        client.greeting = await client._drive(greet(name, lmtp=target.lmtp))
        if target.tls in (Tls.STARTTLS, Tls.OPPORTUNISTIC):
            await _secure(client, name)
        if target.user:
            if not client.encrypted and not target.private_network:
                raise TlsFailed("a password is not sent without TLS")
            await client._drive(log_in(client.greeting, target.user, target.password))
    except BaseException:
        client.abort()
        raise
    return client


async def _open(target: Target, limits: Timeouts) -> ClientWire:
    implicit = target.tls is Tls.IMPLICIT
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.connect):
            _, wire = await loop.create_connection(
                ClientWire,
                target.host,
                target.port,
                ssl=target.context if implicit else None,
                server_hostname=_server_name(target) if implicit else None,
            )
    except ssl.SSLError as error:
        raise TlsFailed(f"the TLS handshake failed: {_reason(error)}") from None
    except TimeoutError:
        raise ConnectionLost(None, f"{target.host} port {target.port} did not answer in time") from None
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ConnectionLost(None, f"cannot connect to {target.host} port {target.port}: {why}") from None
    return wire


async def _secure(client: SmtpClient, name: str) -> None:
    target = client.target
    required = target.tls is Tls.STARTTLS
    if "STARTTLS" not in client.greeting:
        if required:
            raise TlsFailed("the server does not offer STARTTLS")
        return
    try:
        client.greeting = await client._drive(start_tls(name, lmtp=target.lmtp))
    except Refused as refusal:
        if refusal.phase is not Phase.STARTTLS or client.closed:
            raise
        if required:
            raise TlsFailed(f"the server refuses STARTTLS: {refusal.reply.text}") from None
        # Offered and refused (454): the session is as it was before (RFC 3207 §4.1), but some servers forget the EHLO.
        client.greeting = await client._drive(hello(name, lmtp=target.lmtp))


def _server_name(target: Target) -> str:
    """For SNI and the certificate. asyncio wants one; an address is taken as such (no SNI: RFC 6066 §3)."""
    name = target.name or target.host
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name.strip("[]")))
    return name


def _version(transport: asyncio.BaseTransport | None) -> str:
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    return str(tls.version()) if tls is not None else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    return str(getattr(error, "reason", "") or error or type(error).__name__)


async def _ours(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """`body`, its errors told apart from the network's."""
    try:
        async for chunk in body:
            yield chunk
    except (OSError, EOFError) as error:
        raise BodyUnreadable(str(error)) from error


async def file_chunks(path: str, offset: int = 0, prefix: bytes = b"") -> AsyncIterator[bytes]:
    """`prefix` and then the file from `offset`, as a body for `deliver`. Reads leave the loop."""
    if prefix:
        yield prefix
    file = await asyncio.to_thread(open, path, "rb", 0)
    try:
        await asyncio.to_thread(file.seek, offset)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        file.close()
