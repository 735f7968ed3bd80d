"""SELECT, EXAMINE, NOOP, CHECK, CLOSE, UNSELECT, EXPUNGE (RFC 3501 §6.1.2, §6.3.1 f., §6.4.1-3; RFC 3691, RFC 4315)."""

from __future__ import annotations

from services.imap.faults import Done
from services.imap.selected import Selected
from services.imap.session import Session, Steps
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Expunge, Select, Simple
from services.protocol.imap_sets import indices
from services.storage.maildir import SEEN


def select(session: Session, command: Select) -> Steps:
    """§6.3.1 SELECT, §6.3.2 EXAMINE."""
    # §6.3.1: the mailbox that was selected is deselected first, even where this one cannot be selected.
    session.selected = None
    mailbox = session.store.mailbox(command.mailbox)
    mailbox.sync()
    session.selected = selected = Selected(mailbox, read_only=command.read_only)
    yield selected.flags_response()
    yield respond.ok(b"*", b"Flags permitted", selected.permanent_flags())
    yield respond.exists(len(selected))
    yield respond.recent(selected.recent)
    unseen = next((number for number, bits in enumerate(mailbox.flags, 1) if not bits & SEEN), 0)
    if unseen:
        yield respond.ok(b"*", b"First unseen", b"UNSEEN %d" % unseen)
    yield respond.ok(b"*", b"UIDs valid", b"UIDVALIDITY %d" % mailbox.uidvalidity)
    yield respond.ok(b"*", b"Next UID", b"UIDNEXT %d" % mailbox.uidnext)
    if command.read_only:
        return Done(b"EXAMINE completed", b"READ-ONLY")
    return Done(b"SELECT completed", b"READ-WRITE")


def noop(session: Session, command: Simple) -> Steps:
    """§6.1.2 NOOP: what there is to tell comes with every tagged answer."""
    yield from ()
    return Done(b"NOOP completed")


def idle(session: Session, command: Simple) -> Steps:
    """RFC 2177: the end of IDLE, which is NOOP's."""
    yield from ()
    return Done(b"IDLE completed")


def check(session: Session, command: Simple) -> Steps:
    """§6.4.1 CHECK: what was acknowledged becomes durable now."""
    session.need_selected().mailbox.sync(force=True)
    session.store.settle()
    yield from ()
    return Done(b"CHECK completed")


def close(session: Session, command: Simple) -> Steps:
    """§6.4.2 CLOSE: expunge without telling, then deselect."""
    selected = session.need_selected()
    if not selected.read_only:
        gone = selected.mailbox.expunge(origin=session)
        if gone:
            session.note("expunge", mailbox=selected.mailbox.name, messages=len(gone))
    session.selected = None
    yield from ()
    return Done(b"CLOSE completed")


def unselect(session: Session, command: Simple) -> Steps:
    """RFC 3691 UNSELECT: deselect, expunge nothing."""
    session.selected = None
    yield from ()
    return Done(b"UNSELECT completed")


def expunge(session: Session, command: Expunge) -> Steps:
    """§6.4.3 EXPUNGE, RFC 4315 §2.1 UID EXPUNGE. The EXPUNGE responses come with the updates of the answer."""
    selected = session.writable()
    uids = None
    if command.uids is not None:
        uids = [selected.uids[i] for i in indices(command.uids.among(selected.uids))]
    gone = selected.mailbox.expunge(uids, origin=session)
    if gone:
        session.note("expunge", mailbox=selected.mailbox.name, messages=len(gone))
    yield from ()
    return Done(b"EXPUNGE completed")
