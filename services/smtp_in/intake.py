"""The story of one incoming message: connect, helo, mail, rcpt, data.

At each stage `policy/intake.py` decides, the verdict is recorded with its reasons, and answered. Used for port 25 and,
with the pair's secret as log-in, for LMTP from smtp-out. Everything before the final dot is answered at once; only
`handle_DATA` waits, for smtp-out and for the disk.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, cast

from services.directory.lookup import Directory, DirectoryUnavailable
from services.message.headers import Passage, header_length, is_whole, loops
from services.policy import intake as policy
from services.policy import srs
from services.policy.routes import NotLocal, Routing, Unknown, normalise, resolve, split_address
from services.policy.verdict import Verdict
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.protocol.smtp_syntax import MailParameters, Path, RcptParameters
from services.runtime.events import Json
from services.runtime.hold import Hold
from services.runtime.process import Context
from services.smtp.engine import Engine, Envelope, Session
from services.smtp.gateway import Watch
from services.smtp.handler import BodySink
from services.smtp_in.deliver import Courier, Destination, Mail
from services.smtp_in.forward import Forwarder
from services.storage.delivery import Deliveries, Incoming

# A header is looked at up to here; one that has not ended by then is mostly body.
HEADER_OCTETS = (1 << 16, 1 << 20)
PEER = "smtp-out"  # the only room that speaks LMTP to us


class Intake:
    """Answers the engine's hooks; one for port 25, one for LMTP (`inside`)."""

    def __init__(
        self,
        context: Context,
        directory: Directory,
        deliveries: Deliveries,
        courier: Courier,
        forwarder: Forwarder,
        gateway: Watch,
        room_on_disk: Callable[[], bool],
        *,
        hold: Hold | None = None,
        inside: bool = False,
    ) -> None:
        """`room_on_disk` says whether the disk has its reserve free; cheap, it is asked for each message.

        `hold` refuses the world while an update is under way; the listener inside has none.
        """
        self._context, self._directory, self._deliveries = context, directory, deliveries
        self._courier, self._forwarder, self._gateway = courier, forwarder, gateway
        self._room_on_disk, self._hold, self._inside = room_on_disk, hold, inside
        self.messages = 0  # taken since the start

    # --- before a message ---------------------------------------------------------------------------------------

    def handle_CONNECT(self, server: Engine, session: Session, envelope: Envelope) -> Reply | None:
        """A peer is there."""
        if self._inside:
            return None
        peer, port = session.peer
        verdict = policy.connection(held=self._hold.refusal(peer) if self._hold else "")
        self._record(verdict, session.trace, peer=peer, port=port)
        if self._gateway.saw(peer):
            reason = (
                f"peers come from the gateway {peer}, which hides their addresses (this machine's own, or IPv6 before "
                "Docker 27: docs/network.md): nobody is banned or limited by that address"
            )
            self._context.log("warning", reason)
            self._context.events.emit("connect", session.trace, peer=peer, stage="gateway", reason=reason)
        return verdict.reply

    def handle_EHLO(self, server: Engine, session: Session, envelope: Envelope, hostname: str) -> Reply | None:
        """It said its name."""
        if self._inside:
            return None
        verdict = policy.hello()
        self._record(verdict, session.trace, peer=session.peer[0], helo=hostname)
        return verdict.reply

    handle_HELO = handle_EHLO

    def handle_AUTH(
        self, server: Engine, session: Session, envelope: Envelope, mechanism: str, credentials: PasswordCredentials
    ) -> Reply:
        """Only smtp-out logs in, on the internal listener."""
        secret = self._context.secrets.pair(self._context.room, PEER)
        if credentials.login == PEER and hmac.compare_digest(credentials.password.encode(), secret.encode()):
            session.account = PEER
            return replies.AUTHENTICATED
        reason = "a log-in on the internal listener without the secret of smtp-out"
        self._context.events.emit("login", session.trace, outcome="reject", peer=session.peer[0], reason=reason)
        return replies.LOGIN_FAILED

    # --- the message --------------------------------------------------------------------------------------------

    def handle_MAIL(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: MailParameters
    ) -> Reply:
        """Who sends it."""
        verdict = policy.sender(room_on_disk=self._room_on_disk())
        self._record(verdict, envelope.trace, session, sender=path.address, size=params.size)
        envelope.notes = list[Destination]()
        return verdict.reply or replies.SENDER_OK

    def handle_RCPT(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: RcptParameters
    ) -> Reply:
        """Whom it is for, and where that leads."""
        asked = path.address
        address = normalise(asked)
        found = self._route(address)
        verdict = policy.recipient(asked, found)
        self._record(verdict, envelope.trace, session, sender=envelope.mail_from, recipient=address)
        if verdict.accepted and isinstance(found, Routing):
            accounts = tuple(account.address for account in policy.takers(found))
            envelope.notes.append(Destination(address, accounts, found.forwards))
        return verdict.reply or replies.RECIPIENT_OK

    def handle_DATA_BEGIN(self, server: Engine, session: Session, envelope: Envelope) -> Reply | BodySink:
        """Is there room for it."""
        verdict = policy.body_begins(room_on_disk=self._room_on_disk())
        if verdict.reply is not None:
            self._record(verdict, envelope.trace, session, sender=envelope.mail_from)
            return verdict.reply
        return self._deliveries.incoming()

    async def handle_DATA(self, server: Engine, session: Session, envelope: Envelope) -> Reply | list[Reply]:
        """The body is here: decide, deliver, answer."""
        body = cast(Incoming, envelope.sink)
        try:
            header = _header(body)
            been = loops(header)
            here = [_without_loops(each, been.delivered_to) for each in cast(list[Destination], envelope.notes)]
            been_there = sum(1 for each in here if each is None)
            verdict = policy.message(been.hops, places=len(here), been_there=been_there)
            self._record(
                verdict, envelope.trace, session, sender=envelope.mail_from, message_id=been.message_id,
                recipients=envelope.rcpt_tos, size=body.size,
            )  # fmt: skip
            if verdict.reply is not None:
                return verdict.reply
            destinations = tuple(each for each in here if each is not None)
            mail = Mail(
                envelope.trace, session.trace, envelope.mail_from or "", been.message_id, envelope.params.smtputf8,
                self._passage(session, envelope), body, destinations, self._inside, verdict.outcome == "junk",
            )  # fmt: skip
            answers = await self._courier.deliver(mail)
            self.messages += any(answer.positive for answer in answers)
            if not self._inside:
                return _worst(answers)
            left = iter(answers)
            return [replies.delivered(envelope.trace) if each is None else next(left) for each in here]
        finally:
            body.close()

    def handle_DISCONNECT(self, server: Engine, session: Session, envelope: Envelope) -> None:
        """The engine recorded it."""

    def _route(self, address: str) -> Routing[Any] | Unknown | NotLocal | None:
        try:
            if srs.is_srs(address) and self._directory.is_local(split_address(address)[1]):
                # A bounce of something we forwarded: it goes back to whoever sent that first.
                return Routing((), (self._forwarder.original(address),))
            return resolve(address, self._directory)
        except srs.NotOurs as error:
            return Unknown(address, reason=str(error))
        except DirectoryUnavailable:
            return None

    def _passage(self, session: Session, envelope: Envelope) -> Passage:
        recipients = envelope.rcpt_tos
        return Passage(
            session.helo,
            session.peer[0],
            self._context.settings.hostname,
            protocol_name(session, envelope, lmtp=self._inside),
            envelope.trace,
            f"{session.tls_version} {session.tls_cipher}" if session.tls else "",
            recipients[0] if len(recipients) == 1 else "",
        )

    def _record(self, verdict: Verdict, trace: str, session: Session | None = None, **fields: Json) -> None:
        if session is not None:
            fields["conn"], fields["peer"] = session.trace, session.peer[0]
        if verdict.reply is not None and verdict.reply.code >= 400:
            fields["reply"] = str(verdict.reply)
        if verdict.reasons:
            fields["reason"], fields["rules"] = verdict.reason, verdict.rules
        self._context.events.emit(verdict.stage, trace, outcome=verdict.outcome, **fields)


def protocol_name(session: Session, envelope: Envelope, *, lmtp: bool) -> str:
    """What stands after `with` in Received (RFC 3848, RFC 6531 §4.3)."""
    suffix = ("S" if session.tls else "") + ("A" if session.authenticated else "")
    if envelope.params.smtputf8:
        return ("UTF8LMTP" if lmtp else "UTF8SMTP") + suffix
    if lmtp:
        return "LMTP" + suffix
    return "ESMTP" + suffix if session.extended_smtp else "SMTP"


def _header(body: Incoming) -> bytes:
    for octets in HEADER_OCTETS:
        head = body.head(octets)
        if is_whole(head) or body.size <= octets:
            break
    return head[: header_length(head)]


def _without_loops(destination: Destination, delivered_to: frozenset[str]) -> Destination | None:
    """What is left of a destination when the places where the message has been are taken out; None: nothing."""
    if not delivered_to:
        return destination
    if destination.recipient in delivered_to:
        return None
    accounts = tuple(account for account in destination.accounts if account not in delivered_to)
    if not accounts and not destination.forwards:
        return None
    return Destination(destination.recipient, accounts, destination.forwards)


def _worst(answers: list[Reply]) -> Reply:
    """SMTP's one reply: 451 while anything is not durable; 5xx only where nothing was delivered."""
    temporary = [answer for answer in answers if answer.temporary]
    positive = [answer for answer in answers if answer.positive]
    return (temporary or positive or answers)[0]
