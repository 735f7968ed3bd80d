"""What the IMAP store remembers of an account: UIDs, flags, modseqs, names. The interface; `sqlite_state` keeps it.

Used by account, mailbox and their parts; written by the imap room alone, one thread at a time. It is an interface so
that another database can stand behind it when several machines share an account.

What is durable when (see `transaction`):

- UIDs, expunges, names of mailboxes: before the call returns. A UID that a client has seen is never given again.
- Flags and subscriptions: a crash of the process loses nothing, as the kernel has them. A power cut may lose the last
  second: an fsync for each click on "read" costs 10 ms or more on the SD cards and disks this runs on. `settle` makes
  them durable. Clients must not be left believing what was lost: while anything may be unsettled the file holds the
  machine's boot id, and if it is opened under another one, every message gets a new modseq, so that CONDSTORE and
  QRESYNC clients ask again for all flags once.

modseq never lies below the clock in µs: if this file is lost, the next one starts above everything a client remembers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.storage.junk_memory import JunkMemory


@dataclass(slots=True)
class MailboxRow:
    """A mailbox as state.db has it; see migrations/state/0001_mailboxes.sql for each field."""

    id: int
    mailboxid: str
    name: str
    folder: str
    special_use: str
    uidvalidity: int
    uidnext: int
    recent_from: int
    modseq: int
    forgotten: int
    created: int
    messages: int = 0
    unseen: int = 0
    deleted: int = 0
    octets: int = 0
    new_time: int = 0
    cur_time: int = 0


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message to add."""

    uid: int
    file: str
    flags: int
    date: int
    saved: int
    octets: int
    emailid: str | None = None
    threadid: str | None = None


class Details(NamedTuple):
    """What is rarely asked for of a message."""

    uid: int
    file: str
    saved: int
    emailid: str | None
    threadid: str | None


@dataclass(frozen=True, slots=True)
class Columns:
    """A mailbox's messages, parallel and ascending by UID."""

    uids: array[int]
    flags: array[int]
    modseqs: array[int]
    dates: array[int]
    octets: array[int]


class ScriptRow(NamedTuple):
    """A Sieve script; `changed` in seconds."""

    name: str
    active: bool
    octets: int
    changed: int


class MailboxState(Protocol):
    """What the IMAP store remembers of an account. Methods that change anything are called inside `transaction`."""

    state_id: str
    is_new: bool
    junk: JunkMemory

    def transaction(self, *, durable: bool) -> AbstractContextManager[None]:
        """All or nothing. `durable`: on the disk when it ends; else after `settle`. Raises OSError."""

    def settle(self) -> None:
        """Make everything committed so far durable."""

    def close(self) -> None:
        """Settle and let go."""

    def snapshot(self, path: str) -> None:
        """A consistent copy of the whole state at `path`, for the backup."""

    def next_modseq(self) -> int:
        """A new modseq, higher than all before, in any mailbox of the account."""

    def next_uidvalidity(self) -> int:
        """A new UIDVALIDITY, higher than all before."""

    def mailboxes(self) -> list[MailboxRow]:
        """All rows."""

    def insert_mailbox(self, row: MailboxRow) -> int:
        """Add a mailbox (its `id` is ignored); the new id, never used before."""

    def save_mailbox(self, row: MailboxRow) -> None:
        """Write all fields of the row."""

    def remove_mailbox(self, mailbox: int) -> None:
        """Remove the mailbox and everything of it."""

    def columns(self, mailbox: int) -> Columns:
        """All messages."""

    def files(self, mailbox: int, uids: Sequence[int] | None = None) -> dict[int, str]:
        """File names by UID, of all or of `uids`, ascending."""

    def add_messages(self, mailbox: int, modseq: int, rows: Iterable[MessageRow]) -> None:
        """Add messages."""

    def change_messages(self, mailbox: int, rows: Iterable[tuple[str, int, int, int]]) -> None:
        """Set (file, flags, modseq) of (UID)."""

    def remove_messages(self, mailbox: int, uids: Sequence[int], modseq: int, bases: Iterable[str]) -> None:
        """Turn messages into expunged UIDs; `bases`: files that must not come back (see `doomed`)."""

    def doomed(self, mailbox: int) -> frozenset[str]:
        """Base names of files that are to be removed when found."""

    def forget_doomed(self, mailbox: int) -> None:
        """Their removal is on the disk."""

    def expunged(self, mailbox: int, after: int) -> list[int]:
        """UIDs expunged after a modseq, ascending."""

    def forget_expunged(self, row: MailboxRow, keep: int) -> None:
        """Keep only the newest `keep` expunged UIDs; `row.forgotten` says up to which modseq they are gone."""

    def details(self, mailbox: int, uids: Sequence[int]) -> list[Details]:
        """What the columns leave out, in the order of the UIDs."""

    def keywords(self, mailbox: int) -> dict[int, str]:
        """Keyword names by number."""

    def set_keyword(self, mailbox: int, number: int, name: str) -> None:
        """Name a number."""

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names."""

    def subscribe(self, name: str, subscribed: bool) -> None:
        """Add or remove one."""

    def metadata(self, mailbox: int) -> dict[str, bytes]:
        """Annotations of a mailbox, 0 = server."""

    def annotate(self, mailbox: int, entry: str, value: bytes | None) -> None:
        """Set or remove one."""

    def scripts(self) -> list[ScriptRow]:
        """All Sieve scripts, by name."""

    def script(self, name: str) -> bytes | None:
        """A script's content."""

    def put_script(self, name: str, content: bytes, changed: int) -> None:
        """Add or replace one; whether it is active stays."""

    def remove_script(self, name: str) -> None:
        """Remove one."""

    def rename_script(self, old: str, new: str) -> None:
        """Rename one; `new` must be free."""

    def activate_script(self, name: str) -> None:
        """Make it the active one; "" = none."""

    def looked_for_scripts(self, *, now_done: bool = False) -> bool:
        """Whether scripts of the server before us were looked for; `now_done`: they were."""
