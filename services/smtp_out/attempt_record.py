"""What the owner can look up of an attempt: an event for each recipient that was tried, and who is told of what."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Literal, TypeAlias

from services.message.dsn import Action
from services.runtime.process import Context
from services.smtp_out.attempt import Attempted, Said
from services.smtp_out.reports import MOST_LETTERS, Reports
from services.storage.queue import NewMessage, Outcome, Work

# A report to the sender, by what it says, or one to the owner of an alias.
Told: TypeAlias = Action | Literal["owner"]
_OUTCOMES = {"delivered": "accept", "deferred": "defer", "failed": "reject"}
_RELAYED = "its sender asked to be told, and the next server makes no reports: they are told that it was handed on"


def record(
    context: Context,
    work: Work,
    attempted: Attempted,
    outcomes: Sequence[Outcome],
    tried: Container[str],
    reports: Mapping[Told, NewMessage],
) -> None:
    """Record `attempted`, of whose recipients those in `tried` were tried."""
    events = context.events
    attempts = {each.address: each.attempts for each in work.recipients}
    for said, outcome in zip(attempted.said, outcomes, strict=True):
        given_up = outcome.outcome == "failed" and said.outcome == "deferred"
        if said.address in tried or given_up:
            events.emit(
                "attempt", work.trace, outcome=_OUTCOMES[said.outcome], queue_id=work.id, sender=work.sender,
                recipient=said.address, remote=said.remote, reply=said.reply, reason=said.reason, stage=said.phase,
                attempts=attempts[said.address], next=round(outcome.next) or None, tls=attempted.encrypted,
            )  # fmt: skip
        if outcome.outcome == "failed":
            _failure(context, work, said, given_up, reports)
        if said.silent and (report := reports.get("relayed")) and _asked(work, said, "relayed"):
            events.emit(
                "bounced", work.trace, queue_id=work.id, recipient=said.address, report=report.id, reason=_RELAYED
            )
        if outcome.warned and (report := reports.get("delayed")):
            events.emit(
                "bounced", work.trace, outcome="defer", queue_id=work.id, recipient=said.address,
                report=report.id, reason="it is late: its sender is told that it is still tried",
            )  # fmt: skip


def _asked(work: Work, said: Said, action: Action) -> bool:
    return any(each.address == said.address and Reports.wanted(work, each, action) for each in work.recipients)


def _failure(context: Context, work: Work, said: Said, given_up: bool, reports: Mapping[Told, NewMessage]) -> None:
    why = f"given up after {context.settings.give_up_after // 3600} hours" if given_up else "it was refused"
    report = reports.get("failed") if _asked(work, said, "failed") else None
    kind = "dropped"
    if report is not None:
        kind, reason = "bounced", f"{why}: its sender is told"
    elif report := reports.get("owner"):
        owner = report.recipients[0][0]
        reason = f"{why}: nothing proves who sent it, so {owner} is told, whose alias it is"
    elif any(each.address == said.address and Reports.owner_is_told(work, each) for each in work.recipients):
        reason = f"{why}: nothing proves who sent it, and the alias's owner was told of {MOST_LETTERS} others today"
    elif work.kind == "report":
        reason = f"{why}: it is a report itself, and nobody is told of those"
    elif work.sender:
        reason = f"{why}: nobody is told, as its sender asked"
    else:
        reason = f"{why}: it has no sender to tell"
    context.events.emit(
        kind, work.trace, outcome="reject", queue_id=work.id, sender=work.sender, recipient=said.address,
        reply=said.text, report=report.id if report else None, reason=reason,
    )  # fmt: skip
