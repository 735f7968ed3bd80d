"""Tells a sender who asked (NOTIFY=SUCCESS, RFC 3461) that mail for our mailboxes was delivered.

Called by `deliver` after the copies are durable. By RFC 3461 §5.2.7: an address that leads to one mailbox is
"delivered", one that leads to several places is "expanded", and of one that leads outside the next servers tell. The
report goes to smtp-out with the null sender.

Only to a sender that is proven, and not about junk: a report to whoever a letter claims to be from is back-scatter, and
one about junk tells that the address is read. Best effort: the letter itself is delivered whatever becomes of the
report, and the record says where it could not be given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.message.dsn import Action, Quoted, Reported, report
from services.protocol.smtp_parameters import MailParameters, RcptParameters, decode_xtext, original_recipient
from services.runtime.events import new_trace_id
from services.runtime.process import Context
from services.smtp_in.forward import Forwarder

# The letter's own 250 waits for it: no longer than a relay next door takes.
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One recipient that was delivered: `places` mailboxes and forwards of which `forwards` are elsewhere."""

    recipient: str
    asked: RcptParameters
    places: int
    forwards: int = 0


class Told:
    """Sends the reports of one process."""

    def __init__(self, context: Context, forwarder: Forwarder) -> None:
        """Nothing is sent before it is asked for."""
        self._context, self._forwarder = context, forwarder

    async def tell(
        self, sender: str, arrived: Sequence[Arrived], *, params: MailParameters, header: bytes, trace: str, conn: str
    ) -> None:
        """Send what is due about `arrived` to `sender`, who is proven. Never raises: the letter is delivered, and a 451
        for want of a report would bring it again, as often as its sender tries."""
        try:
            for action in ("delivered", "expanded"):
                due = [each for each in arrived if action_of(each) == action]
                if sender and due:
                    await self._send(sender, action, due, params, header, trace, conn)
        except Exception as error:
            self._context.bug(new_trace_id(), error, "reporting a delivery")

    async def _send(
        self,
        sender: str,
        action: Action,
        due: Sequence[Arrived],
        params: MailParameters,
        header: bytes,
        trace: str,
        conn: str,
    ) -> None:
        settings, now = self._context.settings, self._context.clock()
        identity = new_trace_id(now)
        # RFC 8689 §5: what was to be protected is not told of in the open.
        quoted: Quoted = "nothing" if params.requiretls else "header"
        content = report(
            action,
            server=settings.hostname,
            sender=f"mailer-daemon@{settings.mail_domain}",
            recipient=sender,
            recipients=[_reported(each) for each in due],
            arrived=now,
            now=now,
            until=now,
            header=header,
            trace=trace,
            identity=identity,
            envid=decode_xtext(params.envid),
            quoted=quoted,
        )
        problem = ""
        try:
            async with asyncio.timeout(SECONDS):
                refused = await self._forwarder.hand_over(
                    "", (sender,), content, None, trace=identity, smtputf8=not content.isascii() or not sender.isascii()
                )
            problem = "; ".join(refusal.text for refusal in refused.values())
        except TimeoutError:
            problem = "smtp-out did not take it in time"
        reason = f"its sender asked to be told that it was {action}"
        self._context.events.emit(
            "bounced", trace, outcome="error" if problem else "info", conn=conn, sender=sender,
            recipients=[each.recipient for each in due], report=identity,
            reason=f"{reason}, which could not be: {problem}" if problem else reason,
        )  # fmt: skip


def action_of(arrived: Arrived) -> Action | None:
    """What is told of it; None for nothing."""
    if "SUCCESS" not in arrived.asked.notify.split(","):
        return None
    if arrived.places > 1:
        return "expanded"
    return None if arrived.forwards else "delivered"


def _reported(arrived: Arrived) -> Reported:
    orcpt = arrived.asked.orcpt
    return Reported(arrived.recipient, "2.0.0", original=original_recipient(orcpt) if orcpt else ("", ""))
