"""One client's session after its log-in: the account's store, the selected mailbox, what is to be recorded.

Handlers are given it with each command (`perform.py`); it runs on the account's thread, piece by piece.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from services.imap.faults import Done, Gone, NotNow, Refusal
from services.imap.lesson import Lesson
from services.imap.selected import Selected
from services.runtime.events import Json
from services.storage.account import AccountStore
from services.storage.errors import MailboxMissing

Steps = Generator[bytes, None, Done]


class Session:
    """What the server knows of one logged-in client."""

    __slots__ = ("address", "lessons", "notes", "selected", "store")

    def __init__(self, address: str, store: AccountStore) -> None:
        """`store` is the account's, open."""
        self.address = address
        self.store = store
        self.selected: Selected | None = None
        # Events to record; the loop collects them after each step, since the record is not for threads.
        self.notes: list[tuple[str, dict[str, Json]]] = []
        # What its commands taught the junk filter; collected with the notes.
        self.lessons: list[Lesson] = []

    def note(self, kind: str, **fields: Json) -> None:
        """Record an event of this account."""
        self.notes.append((kind, fields))

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
