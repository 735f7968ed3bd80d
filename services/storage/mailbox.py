"""One mailbox as IMAP and POP3 see it: UIDs, flags and modseqs in memory, bodies from the Maildir by name.

Called by the imap room on the account's thread. All sessions of an account share one `Mailbox` object; each session
keeps its own list of UIDs as sequence numbers and learns of changes by the Notifier or by `changes_since`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from services.storage.body import Message
    from services.storage.cache import Parsed

StoreMode = Literal["+", "-", "="]


@dataclass(frozen=True, slots=True)
class Stored:
    """What STORE did. `refused`: changed since `unchanged_since` (RFC 7162 MODIFIED). `modseq` of the changed ones."""

    changed: tuple[int, ...]
    refused: tuple[int, ...]
    modseq: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What COPYUID says (RFC 4315): UIDs pairwise."""

    uidvalidity: int
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a modseq. `expunged_complete` is False if older expunges were forgotten."""

    modseq: int
    added: tuple[int, ...]
    flagged: tuple[int, ...]
    expunged: tuple[int, ...]
    expunged_complete: bool = True


class Mailbox:
    """Shared view of one mailbox. The arrays are ascending by UID, parallel, and replaced or changed only by methods.

    A session may read them between two calls on the account's thread, or take copies.
    """

    name: str
    mailboxid: str
    special_use: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    uids: array[int]  # 'I'
    flags: array[int]  # 'Q': bits of maildir.Flag, keywords from bit 8 on; `flag_text` makes them IMAP
    modseqs: array[int]  # 'Q'
    dates: array[int]  # 'q': INTERNALDATE, seconds since the epoch
    octets: array[int]  # 'Q': size of the file, which is RFC822.SIZE for what we wrote ourselves; else see `parsed`

    @property
    def keywords(self) -> tuple[str, ...]:
        """Keywords known here, for the FLAGS response; PERMANENTFLAGS adds \\* (there is room, or it is made)."""
        raise NotImplementedError

    def flag_text(self, bits: int) -> bytes:
        """`\\Seen \\Flagged $Junk`; remembered per bit pattern, so a FETCH of 10,000 is a dictionary lookup each."""
        raise NotImplementedError

    def flag_bits(self, names: Sequence[str]) -> int:
        """The bits of known flags; unknown keywords are left out (for SEARCH KEYWORD)."""
        raise NotImplementedError

    def index(self, uid: int) -> int:
        """Position of `uid` in the arrays, -1 if it is not there."""
        raise NotImplementedError

    def sync(self, force: bool = False) -> Changes:
        """Look at the Maildir: mail that arrived, what other programs did. Two `stat` calls if nothing changed.

        New UIDs are durable before this returns. Tells the Notifier.
        """
        raise NotImplementedError

    def claim_recent(self) -> int:
        """The least UID that is \\Recent for a session that selects now (EXAMINE does not claim; see `recent_from`)."""
        raise NotImplementedError

    @property
    def recent_from(self) -> int:
        """The least UID no session has claimed."""
        raise NotImplementedError

    def changes_since(self, modseq: int) -> Changes:
        """For CHANGEDSINCE and QRESYNC: what changed after `modseq`, expunged UIDs included."""
        raise NotImplementedError

    def expunged_since(self, modseq: int, uids: Iterable[int] | None = None) -> tuple[int, ...]:
        """UIDs expunged after `modseq`, among `uids` if given (QRESYNC's known UIDs)."""
        raise NotImplementedError

    def open(self, uid: int) -> Message:
        """The message's octets for FETCH, with CRLF line ends. Raises MessageGone."""
        raise NotImplementedError

    def bodies(self, uids: Sequence[int]) -> Iterator[tuple[int, Message]]:
        """`open` for many, with fewer look-ups; gone ones are left out. Each is closed on the next step."""
        raise NotImplementedError

    def parsed(self, uids: Sequence[int]) -> Iterator[tuple[int, Parsed]]:
        """Ready-made answers from cache.db in the order of `uids`, parsing what is missing; gone ones left out."""
        raise NotImplementedError

    def save_dates(self, uids: Sequence[int]) -> dict[int, int]:
        """When each came into this mailbox (RFC 8514), seconds since the epoch."""
        raise NotImplementedError

    def email_ids(self, uids: Sequence[int]) -> dict[int, str]:
        """EMAILID of each (RFC 8474)."""
        raise NotImplementedError

    def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Sequence[str],
        *,
        unchanged_since: int | None = None,
        origin: object = None,
    ) -> Stored:
        """STORE. `flags` as IMAP names (\\Seen, $Junk); \\Recent is ignored. Raises LimitReached (keywords).

        Survives a crash of the process; a power cut may undo the last second (see `AccountStore.settle`).
        """
        raise NotImplementedError

    def copy(self, uids: Sequence[int], target: str, *, origin: object = None) -> Copied:
        """COPY with flags and INTERNALDATE, all or none, durable. Raises MailboxMissing, OverQuota."""
        raise NotImplementedError

    def move(self, uids: Sequence[int], target: str, *, origin: object = None) -> Copied:
        """MOVE (RFC 6851): each message is in exactly one of the two at any moment; UIDs here are expunged."""
        raise NotImplementedError

    def expunge(self, uids: Sequence[int] | None = None, *, origin: object = None) -> tuple[int, ...]:
        """EXPUNGE of messages with \\Deleted, or UID EXPUNGE of those among `uids`; the UIDs stay known as expunged."""
        raise NotImplementedError

    def remove(self, uids: Sequence[int], *, origin: object = None) -> tuple[int, ...]:
        """Expunge whether or not flagged: POP3's DELE at QUIT."""
        raise NotImplementedError
