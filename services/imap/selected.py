"""A session's view of its selected mailbox: sequence numbers, what it was told, and what it must be told next.

RFC 3501 §7.4.1: a message keeps its number until the client was told of an EXPUNGE, and that must not happen during
FETCH, STORE and SEARCH. So a session counts by its own list of UIDs, which is the mailbox's as long as nothing was
expunged; sessions in step share one list (`array` of 10,000 UIDs: 40 KB once, not per connection).

Runs on the account's thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from services.protocol import imap_responses as respond
from services.storage.mailbox import Mailbox

_SYSTEM_FLAGS = (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")

# The last list of UIDs made of each mailbox, for the next session that asks.
_shared: WeakKeyDictionary[Mailbox, array[int]] = WeakKeyDictionary()


def _uids_now(mailbox: Mailbox) -> array[int]:
    """The mailbox's UIDs as they are, in an array that will not change."""
    known = _shared.get(mailbox)
    if known is None or known != mailbox.uids:
        known = _shared[mailbox] = array("I", mailbox.uids)
    return known


class Selected:
    """The view. `origin` marks this session's own changes in the store's notices."""

    __slots__ = ("_keywords", "_modseq", "_pending", "_recent", "mailbox", "read_only", "uids")

    def __init__(self, mailbox: Mailbox, *, read_only: bool) -> None:
        """`mailbox` is synchronised. A session that may write claims what is \\Recent (§2.3.2)."""
        self.mailbox = mailbox
        self.read_only = read_only
        self.uids = _uids_now(mailbox)
        self._modseq = mailbox.highestmodseq
        self._pending: set[int] = set()  # UIDs whose flags changed and were not told
        self._recent: list[tuple[int, int]] = []  # ranges of UIDs, both ends included
        self._keywords = len(mailbox.keywords)
        self._claim()

    # --- numbers

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def in_step(self) -> bool:
        """Whether the mailbox has exactly the messages of this view: then positions are the same in both."""
        return len(self.uids) == len(self.mailbox.uids) and self.uids == self.mailbox.uids

    def positions(self, indices: Sequence[int]) -> Sequence[int]:
        """Where the messages at `indices` of this view are in the mailbox's arrays; -1 for one that is gone."""
        if self.in_step:
            return indices
        index = self.mailbox.index
        return [index(self.uids[i]) for i in indices]

    def number(self, uid: int) -> int:
        """The sequence number of a UID, 0 where the view does not have it."""
        at = bisect_left(self.uids, uid)
        return at + 1 if at < len(self.uids) and self.uids[at] == uid else 0

    # --- \Recent

    def is_recent(self, uid: int) -> bool:
        """Whether the message is \\Recent in this session."""
        return any(first <= uid <= last for first, last in self._recent)

    @property
    def recent(self) -> int:
        """How many messages of the view are \\Recent."""
        return sum(
            max(0, bisect_right(self.uids, last) - bisect_left(self.uids, first)) for first, last in self._recent
        )

    def _claim(self) -> None:
        mailbox = self.mailbox
        last = self.uids[-1] if self.uids else 0
        first = mailbox.recent_from if self.read_only else mailbox.claim_recent()
        if first > last:
            return
        if self._recent and (self.read_only or self._recent[-1][1] + 1 >= first):
            self._recent[-1] = (min(self._recent[-1][0], first), last)
        else:
            self._recent.append((first, last))

    # --- flags

    def flags_of(self, uids: Sequence[int], positions: Sequence[int]) -> list[bytes]:
        """What stands in FLAGS (...) of each; `uids` ascend, `positions` are theirs in the mailbox's arrays."""
        column = self.mailbox.flags
        if isinstance(positions, range):
            bits: Sequence[int] = column[positions.start : positions.stop]
        else:
            bits = [column[position] for position in positions]
        # Ten thousand messages have some dozens of different sets of flags.
        texts = {value: self.mailbox.flag_text(value) for value in set(bits)}
        out = [texts[value] for value in bits]
        for first, last in self._recent:
            for at in range(bisect_left(uids, first), bisect_right(uids, last)):
                out[at] = out[at] + b" \\Recent" if out[at] else b"\\Recent"
        return out

    def flags_response(self) -> bytes:
        """§7.2.6 FLAGS: what may be seen here."""
        return respond.flags((*_SYSTEM_FLAGS, *self._keyword_names()))

    def permanent_flags(self) -> bytes:
        """§7.1 PERMANENTFLAGS: what this session may change for good."""
        if self.read_only:
            return b"PERMANENTFLAGS ()"
        return b"PERMANENTFLAGS (%s)" % b" ".join((*_SYSTEM_FLAGS, *self._keyword_names(), b"\\*"))

    def _keyword_names(self) -> list[bytes]:
        return [name.encode("ascii") for name in self.mailbox.keywords]

    # --- what changed

    def collect(self) -> None:
        """Note whose flags changed since the last look, without telling yet."""
        mailbox = self.mailbox
        if mailbox.highestmodseq > self._modseq:
            changes = mailbox.changes_since(self._modseq)
            self._pending.update(changes.flagged)
            self._modseq = mailbox.highestmodseq

    def told(self, uids: Iterable[int]) -> None:
        """The client knows the present flags of these: it set them, or was answered."""
        self._pending.difference_update(uids)

    def own_change(self, modseq: int, uids: Iterable[int]) -> None:
        """This session changed flags, right after `collect`: not news for its own client."""
        self._modseq = max(self._modseq, modseq)
        self._pending.difference_update(uids)

    def new_keywords(self) -> Iterator[bytes]:
        """FLAGS once more where a keyword appeared: a client must know it before it sees it used."""
        count = len(self.mailbox.keywords)
        if count != self._keywords:
            self._keywords = count
            yield self.flags_response()
            if not self.read_only:
                yield respond.ok(b"*", b"Flags permitted", self.permanent_flags())

    def updates(self, *, expunge: bool) -> Iterator[bytes]:
        """What the client has not been told: EXPUNGE where it may be said, EXISTS and RECENT, changed flags."""
        self.collect()
        mailbox = self.mailbox
        if not self.in_step:
            yield from self._size_updates(expunge)
        if self._pending:
            yield from self.new_keywords()
            uids = sorted(self._pending)
            self._pending.clear()
            shown = [uid for uid in uids if self.number(uid) and mailbox.index(uid) >= 0]
            texts = self.flags_of(shown, [mailbox.index(uid) for uid in shown])
            for uid, text in zip(shown, texts, strict=True):
                # RFC 3501 §7.4.2; the UID goes with it, as RFC 7162 wants it and every client takes it.
                yield b"* %d FETCH (UID %d FLAGS (%s))\r\n" % (self.number(uid), uid, text)

    def _size_updates(self, expunge: bool) -> Iterator[bytes]:
        old, now = self.uids, _uids_now(self.mailbox)
        recent = self.recent
        last = old[-1] if old else 0
        kept = bisect_right(now, last)
        gone = len(old) - kept
        if gone and expunge:
            still = set(now[:kept])
            # From the end: each number then stands for itself, and clients shift least.
            yield b"".join([respond.expunge(i + 1) for i in range(len(old) - 1, -1, -1) if old[i] not in still])
        if expunge or not gone:
            self.uids = now
        elif kept < len(now):
            self.uids = old + now[kept:]
        if kept < len(now):
            self._claim()
            self._pending.difference_update(now[kept:])
            yield respond.exists(len(self.uids))
        if kept < len(now) or recent != self.recent:
            yield respond.recent(self.recent)
