"""One client's session after its log-in: which command may be used now, and what must be told with its answer.

The connection calls `perform` with each parsed command and sends what it yields; it runs on the account's thread, piece
by piece. Handlers find here the account's store, the selected mailbox and the means to record what they did. States are
RFC 3501 §3's; before the log-in the connection answers by itself (`handlers/login.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from services.imap.faults import CutShort, Done, Gone, NotNow, Refusal, refusal_for, unexpected
from services.imap.handlers import append, fetch, mailboxes, search, select, store
from services.imap.selected import Selected
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
from services.runtime.events import Json, new_trace_id
from services.storage.account import AccountStore
from services.storage.errors import MailboxMissing

Steps = Generator[bytes, None, Done]
Handler = Callable[..., Steps]

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


class Session:
    """What the server knows of one logged-in client."""

    __slots__ = ("address", "notes", "selected", "store")

    def __init__(self, address: str, store: AccountStore) -> None:
        """`store` is the account's, open."""
        self.address = address
        self.store = store
        self.selected: Selected | None = None
        # Events to record; the loop collects them after each step, since the record is not for threads.
        self.notes: list[tuple[str, dict[str, Json]]] = []

    def note(self, kind: str, **fields: Json) -> None:
        """Record an event of this account."""
        self.notes.append((kind, fields))

    def perform(self, tagged: Tagged, bug: Callable[[str, Exception, str], None]) -> Iterator[bytes]:
        """The responses to one command, the tagged one last. `bug` records a fault of ours under its id.

        Raises Gone where the session must end, CutShort where a literal could not be sent whole.
        """
        try:
            done = yield from self._checked(tagged)
            condition, text, code = b"OK", done.text, done.code
        except Exception as error:
            refusal = self._refusal(error, tagged, bug)
            condition, text, code = refusal.condition, refusal.text, refusal.code
        yield from self.updates(expunge=tagged.name not in _KEEPS_NUMBERS)
        yield respond.status(tagged.tag, condition, text, code)

    def _refusal(self, error: Exception, tagged: Tagged, bug: Callable[[str, Exception, str], None]) -> Refusal:
        if isinstance(error, CutShort | Gone):
            raise error
        known = refusal_for(error)
        if known is not None:
            return known
        identity = new_trace_id()
        bug(identity, error, tagged.name)
        return unexpected(error, identity)

    def _checked(self, tagged: Tagged) -> Steps:
        command = tagged.command
        if isinstance(command, Simple):
            handler = _SIMPLE.get(command.name)
            needs = command.name in _SIMPLE_NEEDS_SELECTED
        else:
            handler = _HANDLERS.get(type(command))
            needs = isinstance(command, _NEEDS_SELECTED)
        if handler is None:
            raise NotNow(f"{tagged.name} cannot be used now")
        if needs and self.selected is None:
            raise NotNow("no mailbox is selected")
        return (yield from handler(self, command))

    def updates(self, *, expunge: bool) -> Iterator[bytes]:
        """What happened to the selected mailbox and was not told yet."""
        if self.selected is None:
            return
        try:
            self.selected.mailbox.sync()
            yield from self.selected.updates(expunge=expunge)
        except MailboxMissing:
            raise Gone("the selected mailbox was deleted") from None

    def writable(self) -> Selected:
        """The selected mailbox for a command that changes it. Raises Refusal after EXAMINE."""
        selected = self.need_selected()
        if selected.read_only:
            raise Refusal("the mailbox is selected read-only", b"READ-ONLY")
        return selected

    def need_selected(self) -> Selected:
        """The selected mailbox; `perform` has made sure of it."""
        if self.selected is None:
            raise NotNow("no mailbox is selected")
        return self.selected
