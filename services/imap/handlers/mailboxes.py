"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB, STATUS (RFC 3501 §6.3.3-10; RFC 3348, RFC 6154)."""

from __future__ import annotations

import re

from services.imap.faults import Done, Refusal
from services.imap.session import Session, Steps
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import ListMailboxes, OnMailbox, Rename, StatusOf
from services.protocol.imap_names import encode_name, list_pattern
from services.storage.account import INBOX, SEPARATOR, MailboxInfo

DELIMITER = SEPARATOR.encode("ascii")


def on_mailbox(session: Session, command: OnMailbox) -> Steps:
    """§6.3.3 CREATE, §6.3.4 DELETE, §6.3.6 SUBSCRIBE, §6.3.7 UNSUBSCRIBE."""
    store, name = session.store, command.mailbox
    if command.name == "CREATE":
        # §6.3.3: a name that ends with the separator says that children will come; it is made without it.
        store.create(name.removesuffix(SEPARATOR) or name)
    elif command.name == "DELETE":
        selected = session.selected
        if selected is not None and selected.mailbox.name == name:
            # The client deletes what it has open: it knows; there is nothing left to be selected.
            session.selected = None
        store.delete(name)
        session.note("mailbox-deleted", mailbox=name)
    else:
        store.subscribe(name, command.name == "SUBSCRIBE")
    yield from ()
    return Done(command.name.encode("ascii") + b" completed")


def rename(session: Session, command: Rename) -> Steps:
    """§6.3.5 RENAME."""
    session.store.rename(command.old, command.new.removesuffix(SEPARATOR) or command.new)
    yield from ()
    return Done(b"RENAME completed")


def list_mailboxes(session: Session, command: ListMailboxes) -> Steps:
    """§6.3.8 LIST with RFC 3348's and RFC 6154's attributes, §6.3.9 LSUB."""
    done = Done(b"LSUB completed" if command.subscribed else b"LIST completed")
    if command.patterns == ("",):
        # §6.3.8: an empty name asks for the separator and the root of the reference.
        yield respond.mailbox_list((b"\\Noselect",), DELIMITER, b"", lsub=command.subscribed)
        return done
    patterns = [list_pattern(command.reference, pattern, SEPARATOR) for pattern in command.patterns]
    found = session.store.mailboxes()
    if command.subscribed:
        yield from _lsub(found, session.store.subscriptions(), command, patterns)
        return done
    for info in found:
        if not info.exists and not info.has_children:
            continue  # a subscription to what is no more
        if command.only_special and not info.special_use:
            continue
        if any(pattern.fullmatch(info.name) for pattern in patterns):
            yield respond.mailbox_list(_attributes(info), DELIMITER, encode_name(info.name))
    return done


def _attributes(info: MailboxInfo) -> list[bytes]:
    attributes = [b"\\HasChildren" if info.has_children else b"\\HasNoChildren"]
    if not info.exists:
        attributes.append(b"\\Noselect")
    if info.special_use:
        attributes.append(info.special_use.encode("ascii"))
    return attributes


def _lsub(
    found: list[MailboxInfo], subscribed: frozenset[str], command: ListMailboxes, patterns: list[re.Pattern[str]]
) -> Steps:
    existing = {info.name for info in found if info.exists}
    told: set[str] = set()
    for name in sorted(subscribed, key=lambda name: (name != INBOX, name)):
        if any(pattern.fullmatch(name) for pattern in patterns):
            told.add(name)
            attributes = () if name in existing else (b"\\Noselect",)
            yield respond.mailbox_list(attributes, DELIMITER, encode_name(name), lsub=True)
    # §6.3.9: where "%" hides a subscribed child, its parent is told as \Noselect though it is not subscribed.
    if any("%" in pattern for pattern in command.patterns):
        for name in sorted(subscribed):
            levels = name.split(SEPARATOR)
            for depth in range(1, len(levels)):
                parent = SEPARATOR.join(levels[:depth])
                if parent not in told and any(pattern.fullmatch(parent) for pattern in patterns):
                    told.add(parent)
                    yield respond.mailbox_list((b"\\Noselect",), DELIMITER, encode_name(parent), lsub=True)
    return Done(b"")


def status(session: Session, command: StatusOf) -> Steps:
    """§6.3.10 STATUS."""
    found = session.store.status(command.mailbox)
    values = {
        b"MESSAGES": found.messages,
        b"RECENT": found.recent,
        b"UIDNEXT": found.uidnext,
        b"UIDVALIDITY": found.uidvalidity,
        b"UNSEEN": found.unseen,
    }
    yield respond.mailbox_status(encode_name(command.mailbox), [(item, values[item]) for item in command.items])
    return Done(b"STATUS completed")


def missing_target(name: str) -> Refusal:
    """§6.3.11, §6.4.7: where the mailbox could be made first, the client is told so."""
    return Refusal("there is no such mailbox; CREATE it first", b"TRYCREATE")
