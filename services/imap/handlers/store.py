"""STORE, COPY, MOVE and their UID forms (RFC 3501 §6.4.6-8, RFC 6851, RFC 4315)."""

from __future__ import annotations

from services.imap import lessons
from services.imap.faults import Done, Refusal
from services.imap.handlers.mailboxes import missing_target
from services.imap.selected import Selected
from services.imap.session import Session, Steps
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Store, Transfer
from services.protocol.imap_sets import SequenceSet, indices
from services.protocol.imap_syntax import BadSyntax
from services.storage.errors import MailboxMissing

# One step of a large STORE: other sessions of the account get their turn between two.
BATCH = 1000


def chosen(selected: Selected, numbers: SequenceSet, *, uid: bool) -> list[range]:
    """The indices into the view that a command names. Raises Refusal (BAD) for numbers that no message has."""
    if uid:
        return numbers.among(selected.uids)
    try:
        return numbers.within(len(selected))
    except BadSyntax as error:
        raise Refusal(str(error), condition=b"BAD") from None


def store(session: Session, command: Store) -> Steps:
    """§6.4.6 STORE."""
    selected = session.writable()
    mailbox = selected.mailbox
    # What others changed so far is news, what this command changes is not.
    selected.collect()
    wanted = list(indices(chosen(selected, command.numbers, uid=command.uid)))
    gone = False
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        uids = [selected.uids[i] for i in batch]
        positions = selected.positions(batch)
        present = [uid for uid, position in zip(uids, positions, strict=True) if position >= 0]
        gone = gone or len(present) < len(uids)
        selected.collect()
        done = mailbox.store(present, command.mode, command.flags, origin=session)
        lessons.flagged(session, mailbox.name, command.mode, command.flags, done.changed)
        # A silent client is not answered; it is still told what others did to the same messages (RFC 2180 §4.2).
        selected.own_change(done.modseq, done.changed if command.silent else present)
        yield from selected.new_keywords()
        if not command.silent:
            yield _flags_of(selected, batch, with_uid=command.uid)
    if gone and not command.uid:
        raise Refusal("some of the messages no longer exist", b"EXPUNGEISSUED")
    return Done(b"STORE completed")


def _flags_of(selected: Selected, batch: list[int], *, with_uid: bool) -> bytes:
    rows = [(i + 1, selected.uids[i], at) for i, at in zip(batch, selected.positions(batch), strict=True) if at >= 0]
    uids = [uid for _, uid, _ in rows]
    texts = selected.flags_of(uids, [at for _, _, at in rows])
    if with_uid:
        lines = [(row[0], row[1], text) for row, text in zip(rows, texts, strict=True)]
        return b"".join([b"* %d FETCH (UID %d FLAGS (%s))\r\n" % line for line in lines])
    return b"".join([b"* %d FETCH (FLAGS (%s))\r\n" % (row[0], text) for row, text in zip(rows, texts, strict=True)])


def transfer(session: Session, command: Transfer) -> Steps:
    """§6.4.7 COPY, RFC 6851 MOVE."""
    selected = session.writable() if command.move else session.need_selected()
    mailbox = selected.mailbox
    name = b"MOVE" if command.move else b"COPY"
    uids = [selected.uids[i] for i in indices(chosen(selected, command.numbers, uid=command.uid))]
    if not uids:
        # RFC 3501 §6.4.8: a UID that nothing has is no error; the target's existence is not asked for then.
        return Done(name + b" completed, nothing to do")
    try:
        if command.move:
            copied = mailbox.move(uids, command.mailbox, origin=session)
        else:
            copied = mailbox.copy(uids, command.mailbox, origin=session)
    except MailboxMissing:
        raise missing_target(command.mailbox) from None
    lessons.transferred(session, mailbox.name, command.mailbox, copied.target)
    code = respond.copy_uid(copied.uidvalidity, copied.source, copied.target) if copied.source else b""
    if not command.move:
        yield from ()
        return Done(b"COPY completed", code)
    session.note("move", mailbox=mailbox.name, target=command.mailbox, messages=len(copied.source))
    if code:
        # RFC 6851 §4.3: before the EXPUNGE responses, hence untagged.
        yield respond.ok(b"*", b"Moved", code)
    return Done(b"MOVE completed")
