"""Performs one command of a session: which may be used now, who handles it, and what must be told with its answer.

The connection calls `perform` with each parsed command and sends what it yields. States are RFC 3501 §3's; before the
log-in the connection answers by itself (`handlers/login.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.imap.faults import CutShort, Gone, NotNow, Refusal, refusal_for, unexpected
from services.imap.handlers import append, fetch, mailboxes, search, select, store
from services.imap.session import Session, Steps
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import (
    Expunge,
    Fetch,
    ListMailboxes,
    OnMailbox,
    Rename,
    Search,
    Select,
    Simple,
    StatusOf,
    Store,
    Tagged,
    Transfer,
)
from services.runtime.events import new_trace_id

Handler = Callable[..., Steps]
Bug = Callable[[str, Exception, str], None]

# Commands that work on the selected mailbox; all others work without one too (§6.3, §6.4).
_NEEDS_SELECTED = (Expunge, Search, Fetch, Store, Transfer)
_SIMPLE_NEEDS_SELECTED = frozenset(("CHECK", "CLOSE", "UNSELECT"))
# §7.4.1: EXPUNGE must not be sent while these are answered; message numbers would shift under the client.
_KEEPS_NUMBERS = frozenset(("FETCH", "STORE", "SEARCH"))

_HANDLERS: dict[type, Handler] = {
    Select: select.select,
    OnMailbox: mailboxes.on_mailbox,
    Rename: mailboxes.rename,
    ListMailboxes: mailboxes.list_mailboxes,
    StatusOf: mailboxes.status,
    append.Arrived: append.append,
    Expunge: select.expunge,
    Search: search.search,
    Fetch: fetch.fetch,
    Store: store.store,
    Transfer: store.transfer,
}
_SIMPLE: dict[str, Handler] = {
    "NOOP": select.noop,
    "IDLE": select.idle,
    "CHECK": select.check,
    "CLOSE": select.close,
    "UNSELECT": select.unselect,
}


def perform(session: Session, tagged: Tagged, bug: Bug) -> Iterator[bytes]:
    """The responses to one command, the tagged one last. `bug` records a fault of ours under its id.

    Raises Gone where the session must end, CutShort where a literal could not be sent whole.
    """
    try:
        done = yield from _checked(session, tagged)
        condition, text, code = b"OK", done.text, done.code
    except Exception as error:
        refusal = _refusal(error, tagged, bug)
        condition, text, code = refusal.condition, refusal.text, refusal.code
    yield from session.updates(expunge=tagged.name not in _KEEPS_NUMBERS)
    yield respond.status(tagged.tag, condition, text, code)


def _refusal(error: Exception, tagged: Tagged, bug: Bug) -> Refusal:
    if isinstance(error, CutShort | Gone):
        raise error
    known = refusal_for(error)
    if known is not None:
        return known
    identity = new_trace_id()
    bug(identity, error, tagged.name)
    return unexpected(error, identity)


def _checked(session: Session, tagged: Tagged) -> Steps:
    command = tagged.command
    if isinstance(command, Simple):
        handler = _SIMPLE.get(command.name)
        needs = command.name in _SIMPLE_NEEDS_SELECTED
    else:
        handler = _HANDLERS.get(type(command))
        needs = isinstance(command, _NEEDS_SELECTED)
    if handler is None:
        raise NotNow(f"{tagged.name} cannot be used now")
    if needs and session.selected is None:
        raise NotNow("no mailbox is selected")
    return (yield from handler(session, command))
