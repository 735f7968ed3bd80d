"""One outgoing message from its first octet to its 250: the middle of submission's story.

    header read → body to the draft and into the body's hash → whose name is in From? → header repaired → signed by dkim
    → file and state durable → 250

`submission` makes an `Outgoing` at DATA (it is the engine's BodySink) and calls `finish` after the final dot; admin's
test message comes the same way. Nothing is held in memory but the header and what the next write takes. Each step that
ends the story says so in the record, with the reply.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.message.body_hash import BodyHash
from services.policy.routes import split_address
from services.policy.sender import author_addresses, check_header
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.smtp_parameters import NO_MAIL_PARAMETERS, MailParameters, RcptParameters
from services.runtime.process import Context
from services.smtp_out.repair import MAX_HEADER, MAX_RECEIVED, Field, HeaderReader, received, repaired, values
from services.smtp_out.signing import NotSigned, Signer
from services.storage.queue import Kind, NewMessage, Queue
from services.storage.spool import Draft, HeaderTooLong, Spool

# Kept in the file for Received, what is repaired, and two signatures: 3 KiB in all, with a few fields signed often.
ROOM = 16 * 1024
CLOCK_NOT_SET = Reply(451, "4.3.0", "the clock is not set yet, try again in a few minutes")


@dataclass(frozen=True, slots=True)
class Sending:
    """What is needed to take mail for sending: one per process."""

    context: Context
    spool: Spool
    queue: Queue
    signer: Signer
    directory: AuthDirectory
    destination_of: Callable[[str, Kind], str]
    added: Callable[[Sequence[str], float], None]  # tells the queue runner
    clock_problem: Callable[[], str] = lambda: ""  # why the time is not known (`runtime.clock`), "" when it is


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends what to whom. `connection` is the trace of the connection, `trace` the message's. `asked` and `dsn` are
    MAIL's and the recipients' parameters, of which what concerns reports and TLS is kept."""

    account: str
    sender: str
    recipients: tuple[str, ...]
    trace: str
    smtputf8: bool = False
    tls: bool = True
    peer: str = ""
    connection: str = ""
    asked: MailParameters = NO_MAIL_PARAMETERS
    dsn: Mapping[str, RcptParameters] = field(default_factory=dict)


class Outgoing:
    """The sink of one submitted message."""

    def __init__(self, sending: Sending, envelope: Envelope) -> None:
        self._sending, self._envelope = sending, envelope
        self._reader = HeaderReader()
        self._hash = BodyHash()
        self._draft: Draft | None = None
        self._size = 0

    # --- BodySink

    def write(self, chunk: bytes) -> None:
        """Take more of the message."""
        self._size += len(chunk)
        body = self._reader.feed(chunk)
        if self._reader.fields is not None:
            self._body().write(body)

    async def drain(self) -> None:
        """Let the disk keep up."""
        if self._draft is not None:
            await self._draft.drain()

    def abort(self) -> None:
        """Forget it."""
        if self._draft is not None:
            self._draft.abort()

    def _body(self) -> Draft:
        if self._draft is None:
            room = sum(len(field.raw) for field in self._reader.fields or ()) + ROOM
            self._draft = self._sending.spool.draft(self._envelope.trace, room=room, watch=self._hash.update)
        return self._draft

    # --- the story

    async def finish(self) -> Reply:
        """The message is complete: check, repair, sign, queue. 250 only once it is durable."""
        try:
            return await self._finish()
        except BaseException:
            self.abort()
            raise

    async def _finish(self) -> Reply:
        if self._reader.too_long:
            return self._refuse(Reply(552, "5.3.4", f"the header is larger than {MAX_HEADER // 1024} KiB"), "")
        rest = self._reader.finish()
        fields = self._reader.fields or []
        self._body().write(rest)
        if (refusal := self._check(fields)) is not None:
            return refusal
        if problem := self._sending.clock_problem():
            # Its date, its signature, and how long it may wait would all be wrong.
            return self._refuse(CLOCK_NOT_SET, problem, fields)
        now, trace = self._sending.context.clock(), self._envelope.trace
        domain = split_address(self._envelope.sender)[1]
        fields, repairs = repaired(fields, sender=self._envelope.sender, trace=trace, now=now, domain=domain)
        draft = self._body()
        await draft.settle()
        header = b"".join(field.raw for field in fields) + b"\r\n"
        try:
            signatures = await self._sign(fields, header)
        except NotSigned as error:
            if error.permanent:
                return self._refuse(Reply(554, "5.6.0", f"the message cannot be signed: {error}"), str(error), fields)
            return self._refuse(Reply(451, "4.3.0", "signing is not possible now, try again"), str(error), fields)
        utf8 = self._envelope.smtputf8 and not (header.isascii() and self._addresses_are_ascii())
        top = received(
            hostname=self._sending.context.settings.hostname, trace=trace, now=now,
            recipients=self._envelope.recipients, tls=self._envelope.tls, utf8=utf8,
        )  # fmt: skip
        eight_bit = draft.eight_bit or not header.isascii()
        return await self._queue(top + signatures + header, fields, repairs, now, utf8, eight_bit)

    def _check(self, fields: list[Field]) -> Reply | None:
        """Whose names are in the header, and how often has it been round?"""
        senders = values(fields, b"sender")
        try:
            wrong = check_header(self._envelope.account, values(fields, b"from"), senders, self._sending.directory)
        except DirectoryUnavailable as error:
            return self._refuse(Reply(451, "4.3.0", "the directory is not available, try again"), str(error), fields)
        if wrong is not None:
            return self._refuse(Reply(550, "5.7.1", wrong.reason), wrong.reason, fields)
        if len(values(fields, b"received")) >= MAX_RECEIVED:
            reply = Reply(554, "5.4.6", f"the message has been through {MAX_RECEIVED} servers: it goes in a circle")
            return self._refuse(reply, reply.text, fields)
        return None

    async def _sign(self, fields: list[Field], header: bytes) -> bytes:
        """For the author's domain: what From says is what DMARC compares (RFC 7489 §3.1.1)."""
        authors = author_addresses(values(fields, b"from")[0]) or [self._envelope.sender]
        domain = split_address(authors[0])[1].lower()
        trace, events = self._envelope.trace, self._sending.context.events
        try:
            signatures = await self._sending.signer.sign(domain, header, self._hash.digest(), trace)
        except NotSigned as error:
            events.emit("signed", trace, outcome="reject" if error.permanent else "defer", domain=domain,
                        reason=str(error))  # fmt: skip
            raise
        if not signatures:
            events.emit("signed", trace, domain=domain, reason=f"{domain} has no DKIM key: it goes unsigned")
        return signatures

    async def _queue(
        self, header: bytes, fields: list[Field], repairs: list[str], now: float, utf8: bool, eight_bit: bool
    ) -> Reply:
        sending, envelope = self._sending, self._envelope
        draft = self._body()
        try:
            spooled = await draft.commit(header)
        except HeaderTooLong as error:
            return self._refuse(Reply(554, "5.6.0", "the header is too unusual to be signed"), str(error), fields)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return self._refuse(replies.INSUFFICIENT_STORAGE, str(error), fields)
        recipients = tuple((address, sending.destination_of(address, "submission")) for address in envelope.recipients)
        message = NewMessage(
            envelope.trace, envelope.trace, "submission", envelope.sender, envelope.account, now, spooled, recipients,
            eight_bit=eight_bit, smtputf8=utf8, message_id=_text(fields, b"message-id"), ret=envelope.asked.ret,
            envid=envelope.asked.envid, requiretls=envelope.asked.requiretls, dsn=envelope.dsn,
        )  # fmt: skip
        try:
            await sending.queue.add(message)
        except BaseException:
            sending.spool.remove(spooled.name)
            raise
        reply = replies.queued(envelope.trace)
        self._record("accept", reply, "; ".join(repairs), fields)
        sending.context.events.emit(
            "queued", envelope.trace, outcome="accept", queue_id=envelope.trace, size=spooled.size,
            destinations=sorted({destination for _, destination in recipients}),
        )  # fmt: skip
        sending.added([destination for _, destination in recipients], now)
        return reply

    def _refuse(self, reply: Reply, reason: str, fields: Sequence[Field] = ()) -> Reply:
        self.abort()
        self._record("reject" if reply.permanent else "defer", reply, reason or reply.text, fields)
        return reply

    def _record(self, outcome: str, reply: Reply, reason: str, fields: Sequence[Field]) -> None:
        envelope = self._envelope
        self._sending.context.events.emit(
            "submitted", envelope.trace, outcome=outcome, conn=envelope.connection, peer=envelope.peer,
            account=envelope.account, sender=envelope.sender, recipients=list(envelope.recipients), size=self._size,
            message_id=_text(fields, b"message-id"), subject=_text(fields, b"subject"), reply=str(reply), reason=reason,
        )  # fmt: skip

    def _addresses_are_ascii(self) -> bool:
        return all(address.isascii() for address in (self._envelope.sender, *self._envelope.recipients))


def _text(fields: Sequence[Field], name: bytes) -> str:
    """The first field `name` on one line."""
    found = values(fields, name)[:1]
    return " ".join(found[0].decode("utf-8", "replace").split()) if found else ""
