"""Brings one accepted message to its places: forwards to smtp-out, copies into Maildirs; durable before it returns.

Called by `intake` after the final dot. SMTP has one reply for all recipients, so a message is either durable in every
place or 451, and the sender tries again with all of them. What was done by then is done again: a stranger's server
gives each attempt a new transaction, nothing tells ours that it is the same message. That cannot be removed, only made
rare, and the order is chosen for it: **forwards first, then local copies**. smtp-out is another process that may be
restarting; our own disk was just found to have room. When the likelier step fails first, nothing has been done twice.
After it, only a disk that breaks between two fsyncs makes a second forward.

By LMTP each recipient has its own reply, and a second attempt of the same trace id writes no second copy
(`once`, see storage/delivery).

Before a message goes anywhere, header fields that only we may write are taken out of it (`message/claims`), and ours
are put before: what the sender's proofs were (Authentication-Results), where it came through (Received), and for each
account how the junk filter saw it and where from and to (RFC 5321 §4.4). All else stays as it came, octet by octet.
Which mailbox of an account it lies in is `personal`'s to say; where that one is missing, INBOX has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.message import claims
from services.message.headers import Passage, field_line, received
from services.policy.forwarding import Leaving, asked_of_forward, leaving
from services.policy.routes import split_address
from services.policy.srs import is_srs
from services.policy.verdict import facts, telling
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.smtp_parameters import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    MailParameters,
    RcptParameters,
)
from services.runtime.events import Events, Json
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.smtp_in.dsn import Arrived, Told
from services.smtp_in.forward import Asked, Forwarder, Refusal
from services.smtp_in.hints import Hints
from services.smtp_in.judging import Judgement
from services.smtp_in.personal import Copy, Personal, Plan, RulesMail
from services.smtp_in.quota import Quotas
from services.storage.delivery import INBOX, Deliveries, Failed, Incoming
from services.storage.errors import MailboxMissing, StorageError


@dataclass(frozen=True, slots=True)
class Destination:
    """One recipient and the places its mail goes to: `accounts` here, `forwards` elsewhere.

    `asked` is what its sender wants to be told (RFC 3461), `places` how many places the address leads to.
    """

    recipient: str
    accounts: tuple[str, ...]
    forwards: tuple[str, ...] = ()
    asked: RcptParameters = NO_RCPT_PARAMETERS
    places: int = 1


@dataclass(frozen=True, slots=True)
class Mail:
    """An accepted message. `sender` and recipients are addresses, `passage` tells this hop.

    `header` is its own, as long as it was looked at; `proofs` our field about who sent it. `judgement` None: nobody
    judged it. `junk`: its own verdict; `settled`: whatever an account thinks. `params` are MAIL's, `proven`: somebody
    vouches for `sender`. `holder` is who holds room in mailboxes for it (`quota`).
    """

    trace: str
    conn: str
    sender: str
    message_id: str
    smtputf8: bool
    passage: Passage
    body: Incoming
    destinations: tuple[Destination, ...]
    once: bool
    header: bytes = b""
    proofs: bytes = b""
    judgement: Judgement | None = None
    junk: bool = False
    settled: bool = False
    params: MailParameters = NO_MAIL_PARAMETERS
    proven: bool = False
    holder: object = None


@dataclass(slots=True)
class _Course:
    """What became of it on the way. `said` by destination, where nothing is left of it; `junk`: accounts where it lies
    in Junk, of which `kept` have it for want of another place; `rejected`: those whose rules refuse it, and how."""

    said: list[Reply | None]
    kept: frozenset[str]
    junk: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def replies(self) -> list[Reply]:
        return [reply for reply in self.said if reply is not None]


# By account and mailbox: the key of exactly-once, the copy, why it goes there, and our lines before it.
_Copies = dict[tuple[str, str], tuple[str, Copy, Plan, bytes]]


class Courier:
    """Delivers for one process."""

    def __init__(
        self,
        deliveries: Deliveries,
        forwarder: Forwarder,
        imap: Client,
        hints: Hints,
        events: Events,
        clock: Callable[[], float],
        home: str,
        hostname: str,
        personal: Personal,
        told: Told,
        quotas: Quotas,
        administrator: Callable[[], str],
        keep_junk: bool = True,
    ) -> None:
        """`home` is the domain in whose name forwards go out where the recipient had none (`postmaster`), `hostname`
        the name that our own fields carry. `administrator` has the junk that nobody else here would have: with
        `keep_junk` (FORWARD_JUNK)."""
        self._told, self._quotas = told, quotas
        self._administrator, self._keep_junk = administrator, keep_junk
        self._deliveries, self._forwarder = deliveries, forwarder
        self._imap, self._hints, self._events, self._clock, self._home = imap, hints, events, clock, home
        self._hostname, self._personal = hostname, personal

    async def deliver(self, mail: Mail) -> list[Reply]:
        """One reply per destination, in order; 2xx means durable in all its places."""
        # RFC 8601 §5: a claim in our name is a lie or an old one; gone before anybody reads it.
        header = _changed(mail, mail.header, claims.without_claims(mail.header, self._hostname))
        # RFC 8601 §4: above the Received of the hop that it is about.
        trace_line = mail.proofs + received(mail.passage, self._clock())
        if mail.body.head(1) in (b" ", b"\t"):
            # It has no header, and its first line would be read as more of ours: an empty line parts them.
            trace_line += b"\r\n"
        course = _Course([None] * len(mail.destinations), frozenset())
        if any(each.forwards for each in mail.destinations):
            mail, course = self._left_here(mail)
            if len(course.replies) == len(mail.destinations):
                return course.replies
        refused: dict[str, Refusal] = {}
        if any(each.forwards for each in mail.destinations):
            refused = await self._forward(mail, trace_line)
            if not mail.once and any(not refusal.permanent for refusal in refused.values()):
                # All or nothing: the local copies are left for the next attempt.
                return [replies.not_delivered(mail.trace)] * len(mail.destinations)
        # RFC 5321 §4.4: at the final delivery there is one Return-Path, ours. A forward keeps what it came with.
        _changed(mail, header, claims.without_return_path(header))
        failed = await self._commit(mail, trace_line, refused, course)
        answers = [
            reply or self._reply(mail, each, refused, failed, course.rejected)
            for each, reply in zip(mail.destinations, course.said, strict=True)
        ]
        await self._tell(mail, header, answers, course)
        return answers

    def _left_here(self, mail: Mail) -> tuple[Mail, _Course]:
        """`mail` with the places that are left of it, and what is said where none is (`policy/forwarding`)."""
        plans = self._plans(mail, keep=self._keep_junk)
        refusing = [plan.reply is not None for plan in plans]
        if not mail.once and any(refusing) and not all(refusing):
            # SMTP has one reply: a refusal is said where it is all there is to say.
            plans = self._plans(mail, keep=True)
        for each, plan in zip(mail.destinations, plans, strict=True):
            if plan.reasons:
                self._events.emit(
                    "forwarded", mail.trace, outcome="junk" if plan.accounts else "reject", conn=mail.conn,
                    sender=mail.sender, recipient=each.recipient, remote=", ".join(each.forwards),
                    reason="; ".join(reason.text for reason in plan.reasons),
                    rules=" ".join(reason.rule for reason in plan.reasons),
                )  # fmt: skip
        left = tuple(
            dataclasses.replace(each, accounts=plan.accounts, forwards=plan.forwards)
            for each, plan in zip(mail.destinations, plans, strict=True)
        )
        kept = frozenset(account for plan in plans for account in plan.junk)
        return dataclasses.replace(mail, destinations=left), _Course([plan.reply for plan in plans], kept)

    def _plans(self, mail: Mail, *, keep: bool) -> list[Leaving]:
        plans, administrator = [], self._administrator()
        for each in mail.destinations:
            junk = mail.junk
            if each.forwards and not junk:
                # Whoever has a copy here and calls it junk does not want it sent on either.
                junk = any(self._personal.is_junk(account, mail.judgement) for account in each.accounts)
            been = self._forwarder.been(mail.header, each.forwards)
            plans.append(
                leaving(each.accounts, each.forwards, been=been, junk=junk, keep=keep, administrator=administrator)
            )
        return plans

    async def _tell(self, mail: Mail, header: bytes, answers: Sequence[Reply], course: _Course) -> None:
        """Report to a proven sender who asked what was delivered; not where it lies in Junk."""
        if not mail.sender or not mail.proven or mail.junk:
            return
        arrived = [
            Arrived(each.recipient, each.asked, each.places, len(each.forwards))
            for each, answer in zip(mail.destinations, answers, strict=True)
            if answer.positive and "SUCCESS" in each.asked.notify and course.junk.isdisjoint(each.accounts)
        ]
        if arrived:
            await self._told.tell(
                mail.sender, arrived, params=mail.params, header=header, trace=mail.trace, conn=mail.conn
            )

    async def _forward(self, mail: Mail, trace_line: bytes) -> dict[str, Refusal]:
        """Hand over all forwards; those that smtp-out did not take."""
        refused: dict[str, Refusal] = {}
        given: set[str] = set()
        for destination in mail.destinations:
            addresses = tuple(address for address in destination.forwards if address not in given)
            if not addresses:
                continue
            given.update(addresses)
            sender = self._forwarder.rewritten(mail.sender, split_address(destination.recipient)[1] or self._home)
            # RFC 9228: if it comes back to this address, it went in a circle.
            delivered_to = f"Delivered-To: {destination.recipient}\r\n".encode()
            prefix = delivered_to + self._forwarder.marked(addresses) + trace_line
            # One that was too long to be rewritten leads to our postmaster: the owner of the alias hears instead.
            leads_back = sender == mail.sender or is_srs(sender)
            asked = asked_of_forward(
                destination.recipient, destination.asked, proven=mail.proven and leads_back, places=destination.places
            )
            failed = await self._forwarder.hand_over(
                sender, addresses, prefix, mail.body, trace=mail.trace, smtputf8=mail.smtputf8,
                asked=Asked(
                    mail.params.ret, mail.params.envid, mail.params.requiretls, dict.fromkeys(addresses, asked)
                ),
            )  # fmt: skip
            refused.update(failed)
            self._forwarded(mail, destination, addresses, failed, sender)
        return refused

    def _forwarded(
        self, mail: Mail, destination: Destination, addresses: Iterable[str], failed: dict[str, Refusal], sender: str
    ) -> None:
        for address in addresses:
            refusal = failed.get(address)
            outcome = "accept" if refusal is None else "reject" if refusal.permanent else "defer"
            reason = refusal.text if refusal else ""
            self._events.emit(
                "forwarded", mail.trace, outcome=outcome, conn=mail.conn, sender=sender,
                recipient=destination.recipient, remote=address, reason=reason,
            )  # fmt: skip

    async def _commit(self, mail: Mail, trace_line: bytes, refused: dict[str, Refusal], course: _Course) -> set[str]:
        """Write the local copies of every destination whose forwards are not to be tried again; accounts that failed.

        Two names that lead to one account make one copy. `course.rejected` is filled.
        """
        wanted: dict[str, str] = {}
        for destination in mail.destinations:
            if not any(address in refused and not refused[address].permanent for address in destination.forwards):
                for account in destination.accounts:
                    wanted.setdefault(account, destination.recipient)
        failed = await self._write(mail, trace_line, wanted, course)
        missing = {account: wanted[account] for account, error in failed.items() if isinstance(error, MailboxMissing)}
        if missing and await self._provisioned(mail, missing):
            for account in missing:
                del failed[account]
            failed.update(await self._write(mail, trace_line, missing, course))
        for account, error in failed.items():
            self._events.emit(
                "delivered", mail.trace, outcome="defer", conn=mail.conn, account=account, recipient=wanted[account],
                reason=f"the mailbox could not be written: {error}",
            )  # fmt: skip
        return set(failed)

    async def _write(
        self, mail: Mail, trace_line: bytes, wanted: dict[str, str], course: _Course
    ) -> dict[str, Exception]:
        """Commit copies for `wanted` (account → recipient); account → error where it failed."""
        copies: _Copies = {}
        for account, recipient in wanted.items():
            envelope = _envelope_lines(mail, account, recipient)
            rules_mail = RulesMail(
                mail.trace, mail.sender, recipient, mail.body, envelope + trace_line, trace_line, mail.smtputf8,
                refusable=_answers_alone(mail),
                # Nobody judged what our own people sent; with MAIL_CHECKS=off nobody vouches for a stranger either.
                forged=mail.judgement.proofs.doubtful(mail.sender) if mail.judgement is not None else not mail.proven,
                requiretls=mail.params.requiretls,
            )  # fmt: skip
            # Where nobody judged, there are no points that an account could add its own to.
            settled = mail.settled or (mail.junk and mail.judgement is None) or account in course.kept
            plan = await self._personal.plan(account, rules_mail, mail.judgement, settled=settled)
            if plan.refusal:
                course.rejected[account] = plan.refusal
            if plan.junk:
                course.junk.add(account)
            before = envelope + _junk_line(plan, mail.judgement) + trace_line
            for number, copy in enumerate(plan.copies):
                # The key of exactly-once: a second attempt that finds another mailbox right is the same delivery, a
                # second copy that an account's rules want is another.
                key = f"{account}\0{copy.mailbox}" if number else account
                copies[account, copy.mailbox] = (key, copy, plan, before)
            if not plan.copies:
                self._record(mail, account, wanted[account], plan, "")
        failed = await self._place(mail, copies, wanted)
        # A mailbox that is not there costs nobody a message.
        astray = {
            (account, INBOX): (key, Copy(), plan, before)
            for (account, mailbox), (key, _, plan, before) in copies.items()
            if mailbox != INBOX and isinstance(failed.get((account, mailbox)), MailboxMissing)
        }
        if astray:
            failed = {key: error for key, error in failed.items() if key[1] == INBOX or (key[0], INBOX) not in astray}
            # Whose rules wanted a copy in INBOX too has that one.
            astray = {key: copy for key, copy in astray.items() if key not in copies}
            failed |= await self._place(mail, astray, wanted)
        return {account: error for (account, _), error in failed.items()}

    async def _place(self, mail: Mail, copies: _Copies, wanted: dict[str, str]) -> dict[tuple[str, str], Exception]:
        """Commit these copies, by account and mailbox; the errors of those that failed."""
        delivery = self._deliveries.begin(mail.trace, once=mail.once)
        failed: dict[tuple[str, str], Exception] = {}
        for (account, mailbox), (once, copy, _, before) in copies.items():
            try:
                await delivery.add_recipient(once, account, before, mailbox, copy.flags)
            except StorageError as error:
                failed[account, mailbox] = error
        await delivery.body(mail.body)
        for result in await delivery.commit():
            key = (result.account, result.mailbox)
            if isinstance(result, Failed):
                failed[key] = result.error
                continue
            if result.name:
                self._hints.add(result.account, result.mailbox, result.name)
            self._quotas.delivered(result.account, mail.body.size, mail.holder)
            plan = copies[key][2]
            self._record(mail, result.account, wanted[result.account], plan, result.mailbox, again=result.duplicate)
        return failed

    def _record(
        self, mail: Mail, account: str, recipient: str, plan: Plan, mailbox: str, *, again: bool = False
    ) -> None:
        reason = "it was there already" if again else telling(plan.reasons)
        outcome = "junk" if plan.junk else "reject" if plan.refusal else "accept"
        more: dict[str, Json] = {}
        if plan.reasons:
            more = {"score": plan.score, "reasons": facts(plan.reasons)}
        self._events.emit(
            "delivered", mail.trace, outcome=outcome, conn=mail.conn, sender=mail.sender, account=account,
            recipient=recipient, mailbox=mailbox, size=mail.body.size, message_id=mail.message_id,
            reason=reason, **more,
        )  # fmt: skip

    async def _provisioned(self, mail: Mail, accounts: Iterable[str]) -> bool:
        """Ask imap to make the Maildirs of new accounts; False when it could not."""
        try:
            for account in accounts:
                await self._imap.post("/v1/provision", {"address": account})
        except (PeerUnavailable, PeerRefused) as error:
            self._events.emit(
                "delivered", mail.trace, outcome="defer", conn=mail.conn, reason=f"imap made no mailbox: {error}"
            )
            return False
        return True

    def _reply(
        self,
        mail: Mail,
        destination: Destination,
        refused: dict[str, Refusal],
        failed: set[str],
        rejected: dict[str, str],
    ) -> Reply:
        refusals = [refused[address] for address in destination.forwards if address in refused]
        if any(not refusal.permanent for refusal in refusals) or failed.intersection(destination.accounts):
            return replies.not_delivered(mail.trace)
        if refusals and len(refusals) == len(destination.forwards) and not destination.accounts:
            return replies.not_forwarded(mail.trace)
        if any(account in rejected for account in destination.accounts):
            return replies.rejected_by_rules(next(rejected[one] for one in destination.accounts if one in rejected))
        return replies.delivered(mail.trace)


def _answers_alone(mail: Mail) -> bool:
    """Whether each account's word can be its recipient's reply: by LMTP each has its own (RFC 2033 §4.2), by SMTP there
    is one for all. Not where the message has gone elsewhere too."""
    alone = all(len(each.accounts) == 1 and not each.forwards for each in mail.destinations)
    different = len({each.accounts for each in mail.destinations}) == len(mail.destinations)
    return alone and different and (mail.once or len(mail.destinations) == 1)


def _envelope_lines(mail: Mail, account: str, recipient: str) -> bytes:
    # Which of several names a message was sent to matters to whoever has a catch-all.
    original = "" if recipient == account else f"X-Original-To: {recipient}\r\n"
    return f"Return-Path: <{mail.sender}>\r\nDelivered-To: {account}\r\n{original}".encode()


def _junk_line(plan: Plan, judgement: Judgement | None) -> bytes:
    """How it was judged, for who reads headers: a mail client's own filter, or the owner."""
    if judgement is None:
        return b""
    reasons = (*judgement.found.worth.reasons, *judgement.found.reasons, *plan.reasons)
    rules = " ".join(dict.fromkeys(each.rule for each in reasons if each.weight))
    text = f"{'yes' if plan.junk else 'no'}, score {plan.score:g}"
    return field_line(claims.JUNK, f"{text}, {rules}" if rules else text)


def _changed(mail: Mail, header: bytes, kept: bytes) -> bytes:
    """Let the message begin with the header `kept`, where it began with `header`."""
    if kept is not header:
        mail.body.replace_front(len(header), kept)
    return kept
