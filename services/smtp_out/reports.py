"""Reports to senders, queued as messages of their own.

The queue runner calls `compose` when recipients have failed or are late; what it gives is added to the queue in the
transaction that records the failure. A report has the null sender and is never reported about (RFC 5321 §4.5.5,
RFC 3464 §2): `wanted` keeps that rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.message.dsn import Action, Reported, report
from services.runtime.events import new_trace_id
from services.runtime.values import Settings
from services.smtp_out.attempt import Said
from services.storage.queue import NewMessage, Work
from services.storage.spool import Spool


class Reports:
    """Makes reports; `destination_of` tells where each will go."""

    def __init__(self, settings: Settings, spool: Spool, destination_of: Callable[[str], str]) -> None:
        self._settings, self._spool, self._destination_of = settings, spool, destination_of

    @staticmethod
    def wanted(work: Work, action: Action) -> bool:
        """Whether anybody is to be told. Delays are told to the people of the house only: whoever wrote to a forwarded
        address has his own server, and wrote to somebody else."""
        return bool(work.sender) and work.kind != "report" and (action == "failed" or work.kind == "submission")

    async def compose(self, work: Work, action: Action, said: Sequence[Said], now: float) -> NewMessage:
        """A durable report about `said`, ready to be added. Raises OSError."""
        identity = new_trace_id(now)
        header = await asyncio.to_thread(self._spool.header, work.spooled)
        content = report(
            action,
            server=self._settings.hostname,
            sender=f"mailer-daemon@{self._settings.mail_domain}",
            recipient=work.sender,
            recipients=[_reported(each, action, now) for each in said],
            arrived=work.created,
            now=now,
            until=work.created + self._settings.give_up_after,
            header=header,
            trace=work.trace,
            identity=identity,
        )
        draft = self._spool.draft(identity)
        draft.write(content)
        await draft.settle()
        eight_bit = draft.eight_bit
        spooled = await draft.commit(b"")
        recipients = ((work.sender, self._destination_of(work.sender)),)
        # The trace is the report's own: LMTP delivers a trace to a recipient once, and a late message that fails in the
        # end is reported twice. Events tie the two together.
        return NewMessage(
            identity, identity, "report", "", "", now, spooled, recipients, eight_bit=eight_bit, smtputf8=work.smtputf8
        )


def _reported(said: Said, action: Action, now: float) -> Reported:
    """A deferred recipient that is given up has failed: its status says so (RFC 3463 §3.5: 5.4.7, expired), its words
    are the last that were heard."""
    status = said.status
    if action == "failed" and not status.startswith("5"):
        status = "5.4.7"
    return Reported(said.address, status, said.reply, said.reason, said.remote, now if said.remote else 0.0)
