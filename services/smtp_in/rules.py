"""What an account's Sieve script wants done with a message, and the part of it that is done before the copies: what it
sends on, and whom it answers.

Called by `personal` for each account, for mail that is no junk. The script is published by imap
(`personal/<domain>/<local>/rules.sieve`); it is read and checked once and kept while the file stays the same. The
interpreter is `policy/sieve`; it runs in a thread, since a script may take a second.

    keep, fileinto   copies with their flags, for `deliver` to write; a mailbox that :create names is asked of imap
    discard          no copy, with a reason in the record
    redirect         handed to smtp-out, as forwards are: SRS, loops cut, a number a day
    reject           refused while the sender waits, where the account is the only recipient; else kept (RFC 5429 §2.1:
                     a letter to whoever the sender claims to be would be back-scatter)
    vacation         `answers`

**Whatever fails, the message is kept**: a script that cannot run, a redirect that smtp-out does not take, a mailbox
that cannot be made all end in INBOX with a reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from services.message.headers import header_length
from services.policy.sieve.actions import Discard, FileInto, Keep, Redirect, Reject, Vacation
from services.policy.sieve.check import Script, check
from services.policy.sieve.mail import MAX_BODY, Mail
from services.policy.sieve.run import Outcome, run
from services.policy.sieve.state import World
from services.policy.verdict import Reason
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.runtime.process import Context
from services.smtp_in.answers import Answers
from services.smtp_in.forward import Asked, Refusal
from services.smtp_in.personal import Copy, RulesMail, Wanted
from services.storage.delivery import INBOX, Deliveries, Incoming
from services.storage.errors import BadName
from services.storage.folder_names import canonical
from services.storage.personal import RULES, Buffer, Reader
from services.storage.scripts import MOST_OCTETS
from services.storage.vacation_store import Unavailable

MAX_HEADER = 1 << 20
# As docker-mailserver's people know it: a day's mail of a person, all of it sent on. More is an amplifier.
REDIRECTS_A_DAY = 500
# The attributes of the mailboxes that an account begins with; those that a client gave others are imap's to know.
SPECIAL_USE = {
    "\\drafts": "Drafts", "\\sent": "Sent", "\\junk": "Junk", "\\trash": "Trash", "\\archive": "Archive",
}  # fmt: skip
REDIRECTED = b"x-sieve-redirected-from"  # as Dovecot writes it


class Outlet(Protocol):
    """What hands mail to smtp-out (`forward.Forwarder`)."""

    def rewritten(self, sender: str, ours: str) -> str:
        """The envelope sender for mail sent on in the name of the domain `ours`."""

    async def hand_over(
        self,
        sender: str,
        addresses: tuple[str, ...],
        prefix: bytes,
        body: Incoming | None,
        *,
        trace: str,
        smtputf8: bool,
        asked: Asked = ...,
    ) -> dict[str, Refusal]:
        """Those that were not taken."""


class _Published:
    """A published script; checked when it is first run, in the thread that runs it: a long one takes a while."""

    def __init__(self, octets: Buffer) -> None:
        self._octets = bytes(octets)
        self._checked: Script | None = None

    @property
    def checked(self) -> Script:
        """Two threads may both check it, to the same end."""
        if self._checked is None:
            self._checked = check(self._octets)
        return self._checked


@dataclass(slots=True)
class _Doing:
    """What has been done for one account so far."""

    copies: dict[str, Copy]
    reasons: list[Reason]
    refusal: str = ""

    def keep(self, rule: str, text: str) -> None:
        """Something failed: the message lies in INBOX, and the record says why."""
        self.copies.setdefault(INBOX, Copy())
        self.reasons.append(Reason(rule, text))


class AccountRules:
    """The rules of the room's accounts. For one loop."""

    def __init__(
        self, context: Context, deliveries: Deliveries, outlet: Outlet, imap: Client, answers: Answers
    ) -> None:
        """`answers` sends vacation replies and counts what is sent on."""
        self._context, self._deliveries, self._outlet, self._imap = context, deliveries, outlet, imap
        self._answers = answers
        self._scripts: Reader[_Published] = Reader(
            context.settings.personal_dir, RULES, _Published, most=MOST_OCTETS, clock=context.clock
        )

    async def plan(self, account: str, mail: RulesMail) -> Wanted | None:
        """The copies that the account's rules want, what they did beside, and whether they refuse; None: no rules."""
        script = self._scripts.get(account)
        if script is None:
            return None
        seen = _seen(mail)
        world = World(
            datetime.fromtimestamp(self._context.clock(), UTC).astimezone(),
            lambda name: self._deliveries.mailbox_exists(account, name),
            lambda attribute: self._special_use(account, attribute),
        )
        outcome = await asyncio.to_thread(lambda: run(script.checked, seen, world))
        return await self._done(account, mail, seen, outcome)

    def _special_use(self, account: str, attribute: str) -> str:
        name = SPECIAL_USE.get(attribute.lower(), "")
        return name if name and self._deliveries.mailbox_exists(account, name) else ""

    async def _done(self, account: str, mail: RulesMail, seen: Mail, outcome: Outcome) -> Wanted:
        doing = _Doing({}, [])
        if outcome.problem:
            where = f"line {outcome.line} of the rules: " if outcome.line else "the rules: "
            doing.reasons.append(Reason("sieve-failed", f"{where}{outcome.problem}"))
        for action in outcome.actions:
            match action:
                case Keep(flags):
                    doing.copies[INBOX] = Copy(INBOX, flags)
                case FileInto():
                    await self._file(account, action, doing)
                case Redirect(address):
                    await self._redirect(account, mail, seen, address, doing)
                case Reject(text, _):
                    self._reject(mail, text, doing)
                case Vacation():
                    doing.reasons += await self._answers.answer(account, mail, seen, action)
                case Discard():
                    doing.reasons.append(Reason("sieve-discard", "the rules discard it"))
        return Wanted(tuple(doing.copies.values()), tuple(doing.reasons), doing.refusal)

    async def _file(self, account: str, action: FileInto, doing: _Doing) -> None:
        try:
            mailbox = canonical(action.mailbox)
        except BadName as error:
            doing.keep("sieve-no-folder", f"the rules file it into {action.mailbox}: {error}")
            return
        exists = await asyncio.to_thread(self._deliveries.mailbox_exists, account, mailbox)
        if not exists and action.create and mailbox != INBOX:
            try:
                await self._imap.post("/v1/mailbox", {"address": account, "mailbox": mailbox})
                exists = True
            except (PeerUnavailable, PeerRefused) as error:
                doing.keep("sieve-no-folder", f"the folder {mailbox} could not be made: {error}")
                return
        if mailbox == INBOX:
            doing.copies[INBOX] = Copy(INBOX, action.flags)
        elif exists:
            doing.copies[mailbox] = Copy(mailbox, action.flags)
            doing.reasons.append(Reason("sieve-fileinto", f"the rules file it into {mailbox}"))
        else:
            doing.keep("sieve-no-folder", f"the rules file it into {mailbox}, which is not there: it is in INBOX")

    async def _redirect(self, account: str, mail: RulesMail, seen: Mail, address: str, doing: _Doing) -> None:
        if any(value.strip(b"<> ").lower() == account.encode() for value in seen.values(REDIRECTED)):
            doing.keep("sieve-loop", f"it was sent on by these rules before: not to {address} again")
            return
        try:
            allowed = await self._answers.may_redirect(account, REDIRECTS_A_DAY)
        except Unavailable as error:
            doing.keep("sieve-failed", f"not sent on to {address}: {error}")
            return
        if not allowed:
            doing.keep("sieve-redirect-limit", f"not sent on to {address}: {REDIRECTS_A_DAY} messages were today")
            return
        sender = self._outlet.rewritten(mail.sender, account.rpartition("@")[2])
        # RFC 9228: if it comes back to this address, it went in a circle.
        prefix = f"Delivered-To: {account}\r\nX-Sieve-Redirected-From: {account}\r\n".encode() + mail.trace_line
        smtputf8 = mail.smtputf8 or not (sender + address).isascii()
        failed = await self._outlet.hand_over(
            sender,
            (address,),
            prefix,
            mail.body,
            trace=mail.trace,
            smtputf8=smtputf8,
            # RFC 8689 §3: the wish goes along. Of failures nobody is told (NOTIFY=NEVER): the sender may be anybody.
            asked=Asked(requiretls=mail.requiretls),
        )
        refusal = failed.get(address)
        self._context.events.emit(
            "forwarded", mail.trace, sender=sender, recipient=account, remote=address,
            outcome="accept" if refusal is None else "defer", reason=refusal.text if refusal else "by the rules",
        )  # fmt: skip
        if refusal is not None:
            doing.keep("sieve-failed", f"not sent on to {address}: {refusal.text}")
        else:
            doing.reasons.append(Reason("sieve-redirect", f"the rules send it on to {address}"))

    def _reject(self, mail: RulesMail, text: str, doing: _Doing) -> None:
        if mail.refusable:
            doing.refusal = text
            doing.reasons.append(Reason("sieve-reject", "the rules reject it"))
        else:
            # RFC 5429 §2.1.2: who has no reply of their own would be written to, and may not have sent it.
            doing.keep("sieve-not-rejected", "the rules reject it, but others get it too: it is kept")


def _seen(mail: RulesMail) -> Mail:
    """The message as a script sees it: what it will look like in the mailbox."""
    head = mail.body.head(MAX_HEADER)
    header = mail.before + head[: header_length(head)]

    def whole() -> bytes:
        return mail.before + mail.body.head(MAX_BODY)

    return Mail(header, len(mail.before) + mail.body.size, mail.sender, mail.recipient, whole)
