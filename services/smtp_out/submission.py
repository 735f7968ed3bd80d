"""Mail from people, on 465 and 587: the story of one outgoing message, in the order of its commands.

    connect    is an update under way? is this address banned?
    AUTH       who is it? (`login`)
    MAIL       may this account send as this address? is there room on the disk?
    RCPT       is it an address? of our own: does it exist?
    DATA       `outgoing`: the header's names, repairs, signature, spool, 250

Hooks of smtp/engine.py; the grammar, TLS, limits and the order of commands are the engine's. EHLO is believed nothing
and refused for nothing: mail clients say their bare host name or a literal of their LAN. Every refusal is recorded with
its reply and the reason.
"""

from __future__ import annotations

from services.directory.addresses import InvalidName, ascii_domain
from services.directory.lookup import DirectoryUnavailable
from services.policy.routes import Unknown, resolve
from services.policy.sender import check_envelope
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.protocol.smtp_syntax import MailParameters, Path, RcptParameters, quote_local
from services.runtime.hold import Hold
from services.runtime.process import below_reserve
from services.smtp.engine import Engine, Session
from services.smtp.engine import Envelope as SmtpEnvelope
from services.smtp_out.login import Logins, banned
from services.smtp_out.outgoing import Envelope, Outgoing, Sending

NO_DIRECTORY = Reply(451, "4.3.0", "the directory is not available, try again in a minute")


class Submission:
    """The handler of one submission listener; `listener` is its name in the record."""

    def __init__(self, sending: Sending, logins: Logins, listener: str, hold: Hold) -> None:
        self._sending, self._logins, self._listener, self._hold = sending, logins, listener, hold
        self._events = sending.context.events

    # --- the hooks, in the order of a session

    def handle_CONNECT(self, server: Engine, session: Session, envelope: SmtpEnvelope) -> Reply | None:
        """A banned address is told so instead of being greeted, everybody while an update is under way."""
        peer = session.peer[0]
        if held := self._hold.refusal(peer):
            self._events.emit(
                "connect", session.trace, outcome="defer", peer=peer, listener=self._listener,
                reply=str(replies.UPDATING), reason=held,
            )  # fmt: skip
            return replies.UPDATING
        ban = self._logins.refuse_connection(peer)
        if ban is None:
            self._events.emit("connect", session.trace, peer=peer, listener=self._listener)
            return None
        wait = banned(ban, self._sending.context.clock())
        refusal = Reply(421, wait.enhanced, wait.text)  # RFC 5321 §3.8: instead of a greeting, 421 or 554
        self._events.emit(
            "connect", session.trace, outcome="reject", peer=peer, listener=self._listener, reply=str(refusal),
            reason=f"banned: {ban.reason}",
        )  # fmt: skip
        return refusal

    def handle_EHLO(self, server: Engine, session: Session, envelope: SmtpEnvelope, hostname: str) -> None:
        """Whatever a client calls itself."""

    def handle_HELO(self, server: Engine, session: Session, envelope: SmtpEnvelope, hostname: str) -> None:
        """See `handle_EHLO`."""

    async def handle_AUTH(
        self,
        server: Engine,
        session: Session,
        envelope: SmtpEnvelope,
        mechanism: str,
        credentials: PasswordCredentials,
    ) -> Reply:
        """Log in; `session.account` is the account's address from then on."""
        result = await self._logins.log_in(session.peer[0], credentials, mechanism, session.trace)
        if isinstance(result, Reply):
            return result
        session.account = result
        return replies.AUTHENTICATED

    def handle_MAIL(
        self, server: Engine, session: Session, envelope: SmtpEnvelope, path: Path, params: MailParameters
    ) -> Reply:
        """May this account send as this address?"""
        account = session.account
        if account is None:
            return self._refuse("mail", session, envelope, replies.LOGIN_FIRST, "not logged in", sender=path.address)
        try:
            known = self._sending.directory.account(account)
            if known is None or not known.enabled:
                # The session outlived the account.
                return self._refuse(
                    "mail", session, envelope, Reply(550, "5.7.1", "this account may not send any more"),
                    "the account was disabled or deleted after the log-in", sender=path.address,
                )  # fmt: skip
            wrong = check_envelope(account, path.address, self._sending.directory)
        except DirectoryUnavailable as error:
            return self._refuse("mail", session, envelope, NO_DIRECTORY, str(error), sender=path.address)
        if wrong is not None:
            reply = Reply(550, "5.7.1", wrong.reason)
            return self._refuse("mail", session, envelope, reply, wrong.reason, sender=path.address)
        settings = self._sending.context.settings
        if below_reserve(settings.spool_dir, settings):
            reason = "the disk has less free than the reserve"
            return self._refuse("mail", session, envelope, replies.INSUFFICIENT_STORAGE, reason, sender=path.address)
        return replies.SENDER_OK

    def handle_RCPT(
        self, server: Engine, session: Session, envelope: SmtpEnvelope, path: Path, params: RcptParameters
    ) -> Reply:
        """An address somewhere, or one of ours that exists: who mistypes is told at once, not by a report."""
        try:
            address = self._address(path)
        except InvalidName as error:
            return self._refuse("rcpt", session, envelope, replies.bad_recipient(str(error)), str(error),
                                recipient=path.address)  # fmt: skip
        domain = address.rpartition("@")[2]
        if "." not in domain and not domain.startswith("["):
            reply = Reply(550, "5.1.2", f"<{address}>: the domain is incomplete")
            return self._refuse("rcpt", session, envelope, reply, "a domain without a dot", recipient=address)
        if domain.rpartition(".")[2].isdigit():
            # RFC 5321 §4.1.3: an address literal has brackets; a name that ends in a number is in no DNS.
            reply = Reply(550, "5.1.2", f"<{address}>: an IP address stands in brackets, such as user@[192.0.2.1]")
            return self._refuse("rcpt", session, envelope, reply, "an IP address without brackets", recipient=address)
        try:
            found = resolve(address, self._sending.directory)
        except DirectoryUnavailable as error:
            return self._refuse("rcpt", session, envelope, NO_DIRECTORY, str(error), recipient=address)
        if isinstance(found, Unknown):
            reply = replies.mailbox_unavailable(address)
            return self._refuse("rcpt", session, envelope, reply, found.reason, recipient=address)
        return replies.RECIPIENT_OK

    def handle_DATA_BEGIN(self, server: Engine, session: Session, envelope: SmtpEnvelope) -> Reply | Outgoing:
        """The sink that takes the message."""
        recipients = tuple(dict.fromkeys(self._address(recipient.path) for recipient in envelope.recipients))
        return Outgoing(
            self._sending,
            Envelope(
                account=session.account or "",
                sender=self._address(envelope.sender),
                recipients=recipients,
                trace=envelope.trace,
                smtputf8=envelope.params.smtputf8,
                tls=session.tls,
                peer=session.peer[0],
                connection=session.trace,
                asked=envelope.params,
                dsn={self._address(recipient.path): recipient.params for recipient in envelope.recipients},
            ),
        )

    async def handle_DATA(self, server: Engine, session: Session, envelope: SmtpEnvelope) -> Reply:
        """After the final dot."""
        sink = envelope.sink
        if not isinstance(sink, Outgoing):
            raise TypeError("DATA without the sink that DATA_BEGIN gave")
        return await sink.finish()

    def handle_DISCONNECT(self, server: Engine, session: Session, envelope: SmtpEnvelope) -> None:
        """The engine has recorded it."""

    # --- within

    def _address(self, path: Path) -> str:
        """As it is queued: the local part as typed, the domain in lower case and A-labels. Raises InvalidName."""
        if not path.domain:
            return f"{path.local}@{self._sending.context.settings.mail_domain}"  # <postmaster>: RFC 5321 §4.1.1.3
        return f"{quote_local(path.local)}@{ascii_domain(path.domain)}"

    def _refuse(
        self,
        kind: str,
        session: Session,
        envelope: SmtpEnvelope,
        reply: Reply,
        reason: str,
        *,
        sender: str = "",
        recipient: str = "",
    ) -> Reply:
        self._events.emit(
            kind,
            envelope.trace or session.trace,
            outcome="reject" if reply.permanent else "defer",
            conn=session.trace,
            peer=session.peer[0],
            account=session.account,
            sender=sender or envelope.sender.address,
            recipient=recipient,
            reply=str(reply),
            reason=reason,
        )
        return reply
