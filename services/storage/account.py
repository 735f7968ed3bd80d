"""One account's store: its mailboxes by name, and the door to each.

Called by the imap room (IMAP, POP3, quotas), from one thread per account at a time: plain blocking code. Owns the
account's state.db and cache.db, and the folders of its Maildir.

Names are Unicode with "." between levels and no namespace prefix: what clients of docker-mailserver's Dovecot see, so
that a moved-in client keeps its folder settings. "INBOX" is the Maildir itself. On disk `Archive.2026` is
`.Archive.2026`, in modified UTF-7 (RFC 3501 §5.1.3) as Dovecot writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.storage.cache import Parser
    from services.storage.delivery import Incoming
    from services.storage.mailbox import Mailbox
    from services.storage.notifier import Notifier

SEPARATOR = "."
INBOX = "INBOX"


@dataclass(frozen=True, slots=True)
class MailboxInfo:
    """What LIST says. `exists` is False for a name that only has children (\\NonExistent)."""

    name: str
    exists: bool
    special_use: str  # "\\Sent" or ""
    subscribed: bool
    has_children: bool
    mailboxid: str


@dataclass(frozen=True, slots=True)
class Status:
    """What STATUS says. `octets` is the size of the files."""

    name: str
    mailboxid: str
    messages: int
    recent: int
    unseen: int
    deleted: int
    uidnext: int
    uidvalidity: int
    highestmodseq: int
    octets: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the account holds, for QUOTA."""

    octets: int
    messages: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to APPEND. `internal_date` in seconds since the epoch; None = now."""

    body: Incoming | bytes
    flags: Sequence[str] = ()
    internal_date: float | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What APPENDUID says (RFC 4315): the new UIDs in the order of the messages."""

    uidvalidity: int
    uids: tuple[int, ...]


class AccountStore:
    """The open store of one account. Make it with `AccountStore.open`; close it when nobody needs it."""

    address: str

    @classmethod
    def open(
        cls,
        mail_dir: str,
        state_dir: str,
        address: str,
        *,
        parser: Parser,
        notifier: Notifier,
        clock: Callable[[], float] | None = None,
        quota_octets: Callable[[], int] | None = None,
        has_room: Callable[[], bool] | None = None,
    ) -> AccountStore:
        """Open or make state.db and cache.db, migrate them, repair what a crash left.

        Raises MailboxMissing (no Maildir: provision first), Busy, NewerSchema. `quota_octets` answers the account's
        limit (0 = none), `has_room` the disk's reserve: both asked at APPEND and COPY.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Make everything durable and let go. Open mailboxes of this store end with it."""
        raise NotImplementedError

    def settle(self) -> None:
        """Make durable what was acknowledged without waiting (flags, subscriptions); call it about once a second.

        Cheap when nothing is pending.
        """
        raise NotImplementedError

    def mailboxes(self) -> list[MailboxInfo]:
        """All mailboxes, INBOX first, then by name; also names that only have children, and subscribed ones gone."""
        raise NotImplementedError

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names, whether or not such a mailbox exists (RFC 3501 §6.3.6)."""
        raise NotImplementedError

    def subscribe(self, name: str, subscribed: bool = True) -> None:
        """SUBSCRIBE or UNSUBSCRIBE. Raises BadName."""
        raise NotImplementedError

    def create(self, name: str, special_use: str = "") -> MailboxInfo:
        """CREATE. Raises MailboxExists, BadName, LimitReached."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """DELETE with all messages; children stay. Raises MailboxMissing, MailboxInUse (INBOX)."""
        raise NotImplementedError

    def rename(self, old: str, new: str) -> None:
        """RENAME with children; UIDs and UIDVALIDITY stay. INBOX: its messages move to `new` (RFC 3501 §6.3.5)."""
        raise NotImplementedError

    def status(self, name: str) -> Status:
        """STATUS, after a look at the Maildir; cheap if nothing changed there. Raises MailboxMissing."""
        raise NotImplementedError

    def mailbox(self, name: str) -> Mailbox:
        """The mailbox, synchronised; the same object for all who ask while it is in use. Raises MailboxMissing."""
        raise NotImplementedError

    def by_id(self, mailboxid: str) -> Mailbox:
        """The same by OBJECTID's MAILBOXID; a selected mailbox survives its renaming. Raises MailboxMissing."""
        raise NotImplementedError

    def incoming(self, memory_limit: int = 262_144) -> Incoming:
        """A sink for an APPEND literal, beside the mailboxes so that no copy is needed."""
        raise NotImplementedError

    def append(self, name: str, messages: Sequence[NewMessage], origin: object = None) -> Appended:
        """APPEND, all or none (RFC 3502), durable. Raises MailboxMissing, OverQuota, LimitReached (keywords)."""
        raise NotImplementedError

    def usage(self) -> Usage:
        """Octets and messages of all mailboxes."""
        raise NotImplementedError

    def metadata(self, name: str = "") -> dict[str, bytes]:
        """Annotations (RFC 5464) of a mailbox, "" = of the server for this account."""
        raise NotImplementedError

    def annotate(self, name: str, entry: str, value: bytes | None) -> None:
        """Set or remove (None) an annotation."""
        raise NotImplementedError
