"""Mail that smtp-in hands on, on the internal 10025: forwards to addresses elsewhere, and bounces on their way back.

smtp-in logs in with the pair's secret and gives its own trace (XTRACE). What it hands over has been judged, has its
Received, and its sender has been rewritten (SRS) where that is needed: here it is made durable and queued as it is,
neither repaired nor signed, since it is not our people's mail. What smtp-in writes itself in the name of an account, a
vacation reply, has the null sender and no Delivered-To; that is signed, as what the account writes is. What MAIL and
RCPT ask of reports and TLS is kept with it. A hand-over that is repeated because its 250 got lost is taken once.
"""

from __future__ import annotations

import hmac

from services.message.body_hash import BodyHash
from services.message.dsn import field_value
from services.message.headers import find
from services.policy.routes import split_address
from services.policy.sender import author_addresses
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.protocol.smtp_syntax import MailParameters, Path, RcptParameters
from services.runtime.events import new_trace_id
from services.runtime.process import below_reserve
from services.smtp.engine import Engine, Envelope, Session
from services.smtp_out.outgoing import CLOCK_NOT_SET, Sending
from services.smtp_out.signing import NotSigned
from services.storage.queue import Kind, NewMessage
from services.storage.spool import Draft, Spool

PEER = "smtp-in"
# Enough of a header to find its Message-ID in, which only the record needs.
SEEN_BYTES = 16 * 1024
# The whole of what smtp-in writes itself: a vacation text is at most a script's length, in base64.
OWN_BYTES = 512 * 1024
SIGNATURES_ROOM = 8 * 1024


class Forwarded:
    """The sink of one forward: everything goes to the draft as it comes."""

    def __init__(self, spool: Spool, name: str, *, own: bool) -> None:
        """`own`: it has the null sender, so it may be our own letter, which is signed."""
        self.draft: Draft = spool.draft(name, room=SIGNATURES_ROOM) if own else spool.draft(name)
        self.seen = b""
        self._most = OWN_BYTES if own else SEEN_BYTES

    def write(self, chunk: bytes) -> None:
        """Take more of the message."""
        if len(self.seen) < self._most:
            self.seen += chunk[: self._most]
        self.draft.write(chunk)

    async def drain(self) -> None:
        """Let the disk keep up."""
        await self.draft.drain()

    def abort(self) -> None:
        """Forget it."""
        self.draft.abort()


class Forwards:
    """The handler of the internal listener."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    def handle_CONNECT(self, server: Engine, session: Session, envelope: Envelope) -> None:
        """Only smtp-in is on this network."""

    def handle_EHLO(self, server: Engine, session: Session, envelope: Envelope, hostname: str) -> None:
        """Any name."""

    def handle_HELO(self, server: Engine, session: Session, envelope: Envelope, hostname: str) -> None:
        """Any name."""

    def handle_AUTH(
        self, server: Engine, session: Session, envelope: Envelope, mechanism: str, credentials: PasswordCredentials
    ) -> Reply:
        """The room's name and the secret that both rooms have. Raises SecretMissing (451 to the peer)."""
        secret = self._sending.context.secrets.pair(PEER, self._sending.context.room)
        right = hmac.compare_digest(credentials.password.encode(), secret.encode())
        if credentials.login != PEER or not right:
            self._sending.context.events.emit(
                "login", session.trace, outcome="reject", peer=session.peer[0], login=credentials.login,
                reason="not the secret that smtp-in and smtp-out share",
            )  # fmt: skip
            return replies.LOGIN_FAILED
        session.account = PEER
        return replies.AUTHENTICATED

    def handle_MAIL(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: MailParameters
    ) -> Reply:
        """Any sender, also none."""
        if self._sending.clock_problem():
            return CLOCK_NOT_SET
        settings = self._sending.context.settings
        return replies.INSUFFICIENT_STORAGE if below_reserve(settings.spool_dir, settings) else replies.SENDER_OK

    def handle_RCPT(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: RcptParameters
    ) -> Reply:
        """Any address."""
        return replies.RECIPIENT_OK if path.domain else replies.bad_recipient("the address has no domain")

    def handle_DATA_BEGIN(self, server: Engine, session: Session, envelope: Envelope) -> Forwarded:
        """A draft under a name of its own: one incoming message may be handed over in several parts."""
        return Forwarded(self._sending.spool, new_trace_id(), own=not envelope.sender.address)

    async def handle_DATA(self, server: Engine, session: Session, envelope: Envelope) -> Reply:
        """Make it durable; 250 also where it was taken before."""
        sink = envelope.sink
        if not isinstance(sink, Forwarded):
            raise TypeError("DATA without the sink that DATA_BEGIN gave")
        sending, draft = self._sending, sink.draft
        now = sending.context.clock()
        addresses = dict.fromkeys(recipient.path.address for recipient in envelope.recipients)
        # Reports of smtp-in (delivered, expanded) come here too: to others they are mail of this house.
        ours = not envelope.sender.address and not field_value(sink.seen, b"delivered-to")
        kind: Kind = "report" if ours else "forward"
        recipients = tuple((address, sending.destination_of(address, kind)) for address in addresses)
        await draft.settle()
        eight_bit = draft.eight_bit
        spooled = await draft.commit(await self._signatures(sink, envelope.trace) if ours else b"")
        message = NewMessage(
            draft.name, envelope.trace, kind, envelope.sender.address, "", now, spooled, recipients,
            eight_bit=eight_bit, smtputf8=envelope.params.smtputf8, message_id=field_value(sink.seen, b"message-id"),
            once=True, ret=envelope.params.ret, envid=envelope.params.envid, requiretls=envelope.params.requiretls,
            dsn={recipient.path.address: recipient.params for recipient in envelope.recipients},
        )  # fmt: skip
        try:
            new = await sending.queue.add(message)
        except BaseException:
            sending.spool.remove(spooled.name)
            raise
        sending.context.events.emit(
            "queued", envelope.trace, outcome="accept", conn=session.trace, queue_id=draft.name,
            sender=envelope.sender.address, recipients=list(addresses), size=spooled.size,
            message_id=message.message_id, reason="" if new else "it was taken before: nothing is sent twice",
        )  # fmt: skip
        if new:
            sending.added([destination for _, destination in recipients], now)
        return replies.queued(draft.name)

    async def _signatures(self, sink: Forwarded, trace: str) -> bytes:
        """For the domain of our own letter's From; b"" where it has no key, or dkim does not answer: a reply that is
        late is worse than one that is not signed."""
        header, empty, body = sink.seen.partition(b"\r\n\r\n")
        author = find(header + b"\r\n", b"from")
        authors = author_addresses(author.value) if author else []
        if not empty or len(sink.seen) != sink.draft.size or not authors:
            return b""
        domain = split_address(authors[0])[1].lower()
        hashed = BodyHash()
        hashed.update(body)
        why = f"{domain} has no DKIM key: it goes unsigned"
        try:
            signatures = await self._sending.signer.sign(domain, header + b"\r\n\r\n", hashed.digest(), trace)
        except NotSigned as error:
            signatures, why = b"", str(error)
        if not signatures:
            self._sending.context.events.emit("signed", trace, domain=domain, reason=why)
        return signatures if len(signatures) < SIGNATURES_ROOM else b""

    def handle_DISCONNECT(self, server: Engine, session: Session, envelope: Envelope) -> None:
        """The engine has recorded it."""
