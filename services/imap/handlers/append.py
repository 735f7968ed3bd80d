"""APPEND (RFC 3501 §6.3.11, RFC 4315): what is asked before the literal is sent, and what is done with it."""

from __future__ import annotations

from dataclasses import dataclass

from services.imap import lessons
from services.imap.faults import Done, Refusal
from services.imap.handlers.mailboxes import missing_target
from services.imap.session import Session, Steps
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Append
from services.storage.account import NewMessage
from services.storage.delivery import Incoming
from services.storage.errors import MailboxMissing, OverQuota


@dataclass(frozen=True, slots=True)
class Arrived:
    """An APPEND whose message has arrived."""

    command: Append
    body: Incoming


def refuse_before(session: Session, command: Append, size: int, most: int) -> None:
    """What can be known before the message is sent. Raises Refusal; a client that waits then sends nothing."""
    if size > most:
        raise Refusal(f"a message may have {most} octets", b"TOOBIG")  # RFC 7889 §4
    if size == 0:
        raise Refusal("an empty message cannot be kept")
    try:
        session.store.status(command.mailbox)
    except MailboxMissing:
        raise missing_target(command.mailbox) from None


def append(session: Session, command: Arrived) -> Steps:
    """The message is durable before the tagged OK."""
    wanted = command.command
    message = NewMessage(command.body, wanted.flags, wanted.date)
    try:
        done = session.store.append(wanted.mailbox, [message], origin=session)
    except MailboxMissing:
        raise missing_target(wanted.mailbox) from None
    except OverQuota:
        raise Refusal("the mailbox is full", b"OVERQUOTA") from None
    lessons.appended(session, wanted.mailbox, done.uids)
    session.note("append", mailbox=wanted.mailbox, size=command.body.size, uid=done.uids[0])
    yield from ()
    return Done(b"APPEND completed", respond.append_uid(done.uidvalidity, done.uids))
