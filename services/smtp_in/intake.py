"""The story of one incoming message: connect, helo, mail, rcpt, data.

At each stage `policy/intake.py` decides, the verdict is recorded with its reasons, and answered. Used for port 25 and,
with the pair's secret as log-in, for LMTP from smtp-out, which nobody judges. Everything before the final dot is
answered at once, while `judging` asks DNS about the sender; only `handle_DATA` waits, for those answers, for smtp-out
and for the disk (and RCPT, where greylisting must know what SPF says).
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from services.directory.lookup import Directory, DirectoryUnavailable
from services.directory.models import GATE
from services.message.headers import Passage, header_length, is_whole, loops
from services.policy import intake as policy
from services.policy import srs
from services.policy.forwarding import proven
from services.policy.routes import NotLocal, Routing, Unknown, normalise, resolve, split_address
from services.policy.verdict import Verdict, facts
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
from services.smtp_in.judging import Case, Judgement, Judging
from services.smtp_in.quota import FULL, OWN_LETTER, Quotas
from services.storage.delivery import Deliveries, Incoming

# A header is looked at up to here, first its beginning; policy/intake.py says what becomes of a longer one.
HEADER_OCTETS = (1 << 16, policy.MAX_HEADER)
PEER = "smtp-out"  # the only room that speaks LMTP to us


@dataclass(slots=True)
class Notes:
    """What is known of a message before its body: where it goes, and the case about who sends it."""

    destinations: list[Destination] = field(default_factory=list)
    case: Case | None = None
    accounts: dict[str, Any] = field(default_factory=dict)  # those in `destinations`, by address


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
        quotas: Quotas,
        *,
        hold: Hold | None = None,
        judging: Judging | None = None,
        inside: bool = False,
    ) -> None:
        """`room_on_disk` says whether the disk has its reserve free; cheap, it is asked for each message.

        `hold` refuses the world while an update is under way, `judging` looks at what it brings; the listener inside
        has neither.
        """
        self._context, self._directory, self._deliveries = context, directory, deliveries
        self._courier, self._forwarder, self._gateway = courier, forwarder, gateway
        self._room_on_disk, self._hold, self._judging, self._inside = room_on_disk, hold, judging, inside
        self._quotas = quotas
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
        judging = self._judging
        limit = judging.limit(session) if judging is not None else None
        verdict = policy.sender(room_on_disk=self._room_on_disk(), limit=limit)
        self._record(verdict, envelope.trace, session, sender=path.address, size=params.size)
        envelope.notes = notes = Notes()
        if judging is not None and verdict.accepted:
            notes.case = judging.begin(session, path.address)
        return verdict.reply or replies.SENDER_OK

    def handle_RCPT(
        self, server: Engine, session: Session, envelope: Envelope, path: Path, params: RcptParameters
    ) -> Reply | Awaitable[Reply]:
        """Whom it is for, and where that leads."""
        asked = path.address
        address = normalise(asked)
        found = self._route(address)
        verdict = policy.recipient(asked, found)
        if not verdict.accepted or not isinstance(found, Routing):
            return self._recipient(verdict, session, envelope, address, None)
        takers = policy.takers(found)
        full = self._quotas.at_rcpt(
            address, envelope.mail_from or "", takers, envelope.params.size or 0, envelope, inside=self._inside
        )
        if full is not None:
            return self._recipient(full, session, envelope, address, None)
        accounts = tuple(account.address for account in takers)
        cast(Notes, envelope.notes).accounts.update(zip(accounts, takers, strict=True))
        destination = Destination(address, accounts, found.forwards, params, len(accounts) + len(found.forwards))
        # A null sender is asked to come back at DATA instead: see policy/greylist.py.
        if self._judging is not None and self._judging.greylists and envelope.mail_from:
            return self._greylisted(verdict, session, envelope, destination)
        return self._recipient(verdict, session, envelope, address, destination)

    async def _greylisted(
        self, verdict: Verdict, session: Session, envelope: Envelope, destination: Destination
    ) -> Reply:
        wait = await self._wait(envelope, destination)
        return self._recipient(wait or verdict, session, envelope, destination.recipient, None if wait else destination)

    async def _wait(self, envelope: Envelope, destination: Destination) -> Verdict | None:
        """The verdict that this sender comes back later."""
        case = cast(Notes, envelope.notes).case
        if case is None or self._judging is None or _at_gate((destination,)):
            return None
        reason = await self._judging.greylisted(case, destination.recipient, destination.accounts)
        return policy.greylisted("rcpt" if case.sender else "data", reason) if reason is not None else None

    def _recipient(
        self, verdict: Verdict, session: Session, envelope: Envelope, address: str, destination: Destination | None
    ) -> Reply:
        self._record(verdict, envelope.trace, session, sender=envelope.mail_from, recipient=address)
        if destination is not None:
            cast(Notes, envelope.notes).destinations.append(destination)
        return verdict.reply or replies.RECIPIENT_OK

    def handle_DATA_BEGIN(
        self, server: Engine, session: Session, envelope: Envelope
    ) -> Reply | BodySink | Awaitable[Reply | BodySink]:
        """Is there room for it."""
        verdict = policy.body_begins(room_on_disk=self._room_on_disk())
        if verdict.reply is not None:
            self._record(verdict, envelope.trace, session, sender=envelope.mail_from)
            return verdict.reply
        if self._judging is not None and self._judging.greylists and not envelope.mail_from:
            return self._null_sender(session, envelope)
        return self._deliveries.incoming()

    async def _null_sender(self, session: Session, envelope: Envelope) -> Reply | BodySink:
        for destination in cast(Notes, envelope.notes).destinations:
            wait = await self._wait(envelope, destination)
            if wait is not None and wait.reply is not None:
                self._record(wait, envelope.trace, session, sender="", recipient=destination.recipient)
                return wait.reply
        return self._deliveries.incoming()

    async def handle_DATA(self, server: Engine, session: Session, envelope: Envelope) -> Reply | list[Reply]:
        """The body is here: decide, deliver, answer."""
        body, notes = cast(Incoming, envelope.sink), cast(Notes, envelope.notes)
        try:
            header = _header(body)
            # The rest of it nobody here would look at, and a mail program would.
            unread = self._judging is not None and len(header) < body.size and len(header) == policy.MAX_HEADER
            been = loops(header)
            here = [_without_loops(each, been.delivered_to) for each in notes.destinations]
            been_there = sum(1 for each in here if each is None)
            judgement: Judgement | None = None
            if not unread and self._judging is not None and notes.case is not None and not _at_gate(notes.destinations):
                judgement = await self._judging.judge(notes.case, session, envelope, header, body)
            verdict = policy.message(
                been.hops, places=len(here), been_there=been_there, unread=unread,
                found=judgement.found if judgement else None, scale=self._judging.scale if self._judging else None,
            )  # fmt: skip
            self._record(
                verdict, envelope.trace, session, sender=envelope.mail_from, message_id=been.message_id,
                recipients=envelope.rcpt_tos, size=body.size, **(judgement.record() if judgement else {}),
            )  # fmt: skip
            if verdict.reply is not None:
                return verdict.reply
            full = self._no_room(here, notes, envelope, session, body.size)
            if full and not self._inside and len(full) == len([each for each in here if each is not None]):
                return FULL
            if self._inside:
                here_for = [None if each is not None and each.recipient in full else each for each in here]
            else:
                here_for, full = here, set()
            destinations = tuple(each for each in here_for if each is not None)
            mail = Mail(
                envelope.trace, session.trace, envelope.mail_from or "", been.message_id, envelope.params.smtputf8,
                self._passage(session, envelope), body, destinations, self._inside, header,
                judgement.proofs_field if judgement else b"", judgement, verdict.outcome == "junk",
                verdict.settled, envelope.params, self._proven(envelope, judgement), envelope,
            )  # fmt: skip
            answers = await self._courier.deliver(mail)
            taken = any(answer.positive for answer in answers)
            self.messages += taken
            if taken and judgement is not None and self._judging is not None:
                self._judging.delivered(judgement)
            if not self._inside:
                return _worst(answers)
            left = iter(answers)
            return [
                replies.delivered(envelope.trace) if each is None else FULL if each.recipient in full else next(left)
                for each in here
            ]
        finally:
            body.close()

    def _no_room(
        self, here: list[Destination | None], notes: Notes, envelope: Envelope, session: Session, size: int
    ) -> set[str]:
        """The recipients, of one mailbox each, in which it does not fit now that its size is known."""
        full = set[str]()
        for each in here:
            if each is None or each.forwards or len(each.accounts) != 1:
                continue
            if self._inside and (envelope.mail_from or "").lower() == each.accounts[0] and size <= OWN_LETTER:
                continue
            verdict = self._quotas.at_the_end([notes.accounts[each.accounts[0]]], size, envelope)
            if verdict is not None:
                full.add(each.recipient)
                self._record(verdict, envelope.trace, session, sender=envelope.mail_from, recipient=each.recipient)
        return full

    def _proven(self, envelope: Envelope, judgement: Judgement | None) -> bool:
        """Whether the envelope's sender may be told: our own people logged in, others by what was found."""
        if judgement is None:
            return self._inside
        return proven(envelope.mail_from or "", judgement.proofs.spf, judgement.proofs.dkim)

    def handle_DISCONNECT(self, server: Engine, session: Session, envelope: Envelope) -> None:
        """The engine recorded it."""
        if self._judging is not None:
            self._judging.end(session)

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
            if verdict.stage == "data":
                fields["score"], fields["reasons"] = verdict.score, facts(verdict.reasons)
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
    return dataclasses.replace(destination, accounts=accounts)


def _at_gate(destinations: Iterable[Destination]) -> bool:
    """Whether it is a letter of the mail gate, which tries whether mail flows and not how it looks."""
    accounts = [account for each in destinations for account in (*each.accounts, *each.forwards)]
    return bool(accounts) and all(account.startswith(f"{GATE}@") for account in accounts)


def _worst(answers: list[Reply]) -> Reply:
    """SMTP's one reply: 451 while anything is not durable; 5xx only where nothing was delivered."""
    temporary = [answer for answer in answers if answer.temporary]
    positive = [answer for answer in answers if answer.positive]
    return (temporary or positive or answers)[0]
