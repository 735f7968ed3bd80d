"""Vacation replies: whether one is due, made, and handed to smtp-out; whom was answered lately is remembered.

Called by `rules`. A reply has the null sender, so that nothing answers it, and smtp-out signs it in the account's
domain, as it signs what the account writes itself. Whom was answered stands in `<room_dir>/vacation.db`; where that
file cannot be used nobody is answered: once too often is worse than once too little.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Protocol

from services.message import vacation as message
from services.policy.sieve.actions import Vacation
from services.policy.sieve.answering import not_answered
from services.policy.sieve.constants import mail_address
from services.policy.sieve.mail import Mail
from services.policy.verdict import Reason
from services.runtime.events import new_trace_id
from services.runtime.process import Context
from services.smtp_in.forward import Asked
from services.storage.errors import StorageError
from services.storage.vacation_store import Unavailable, VacationStore

if TYPE_CHECKING:
    from services.smtp_in.personal import RulesMail
    from services.smtp_in.rules import Outlet

FILE = "vacation.db"


class Addresses(Protocol):
    """What tells an account's other names (`directory.lookup.Directory`)."""

    def sources_for(self, address: str, /) -> tuple[str, ...]:
        """Every alias that leads to it."""


class Answers:
    """One per process."""

    def __init__(self, context: Context, outlet: Outlet, directory: Addresses) -> None:
        """Nothing is opened yet."""
        self._context, self._outlet, self._directory = context, outlet, directory
        self._store: VacationStore | None = None
        self._opening = threading.Lock()

    async def answer(self, account: str, mail: RulesMail, seen: Mail, action: Vacation) -> list[Reason]:
        """Answer the sender if that is due; what was done, and why not."""
        # Whatever name it came by is one of the account's; RFC 5230 §4.5 wants it in To or Cc all the same.
        ours = {account, mail.recipient.lower(), *self._directory.sources_for(account)}
        sender = mail_address(action.sender.encode()) if action.sender else account
        if sender is None or (sender.lower() not in ours and sender.lower() != account):
            sender = account  # a reply in another's name would be a forgery, signed by us
        if why := not_answered(action, seen, ours, forged=mail.forged):
            return [Reason("sieve-not-answered", f"no vacation reply: {why}")]
        now = self._context.clock()
        try:
            due = await asyncio.to_thread(
                lambda: self._opened().claim(account, action.handle, mail.sender, now, action.seconds)
            )
            if not due:
                return [Reason("sieve-not-answered", f"no vacation reply: {mail.sender} was answered lately")]
            if problem := await self._send(mail, seen, sender, action, now):
                await asyncio.to_thread(lambda: self._opened().release(account, action.handle, mail.sender))
                return [Reason("sieve-failed", f"no vacation reply: {problem}")]
        except (StorageError, OSError) as error:
            return [Reason("sieve-failed", f"no vacation reply: {error}")]
        return [Reason("sieve-vacation", f"the rules answered {mail.sender}")]

    async def _send(self, mail: RulesMail, seen: Mail, sender: str, action: Vacation, now: float) -> str:
        """Hand the reply to smtp-out; what went wrong, "" for nothing."""
        trace = new_trace_id()
        answer = message.Answer(sender, mail.sender, action.subject, action.text, action.mime)
        identity = f"{trace}.vacation@{self._context.settings.hostname}"
        reply = message.reply(answer, seen.header, message_id=identity, now=now)
        # RFC 5230 §5.1: to the envelope's sender, from nobody. It tells the subject: protected as the message was.
        failed = await self._outlet.hand_over(
            "", (mail.sender,), reply, None, trace=trace, smtputf8=not (sender + mail.sender).isascii(),
            asked=Asked(requiretls=mail.requiretls),
        )  # fmt: skip
        refusal = failed.get(mail.sender)
        self._context.events.emit(
            "answered", mail.trace, outcome="accept" if refusal is None else "defer", account=mail.recipient,
            recipient=mail.sender, answer=trace, reason=refusal.text if refusal else "",
        )  # fmt: skip
        return refusal.text if refusal else ""

    async def may_redirect(self, account: str, most: int) -> bool:
        """Count a message that the account's rules send on; False beyond `most` a day. Raises Unavailable."""
        try:
            now = self._context.clock()
            return await asyncio.to_thread(lambda: self._opened().redirect(account, now, most))
        except (StorageError, OSError) as error:
            raise Unavailable(str(error)) from error

    def _opened(self) -> VacationStore:
        with self._opening:
            if self._store is None:
                self._store = VacationStore(os.path.join(self._context.settings.room_dir, FILE))
            return self._store

    def close(self) -> None:
        """Let go of the file."""
        if self._store is not None:
            self._store.close()
            self._store = None
